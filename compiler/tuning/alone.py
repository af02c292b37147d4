"""One kernel as a program of its own, to be run by itself on contents from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aisc.codegen.arrays import aligned
from aisc.codegen.backend import Host
from aisc.codegen.run.executable import Executable
from aisc.driver.instruments import Instruments
from aisc.driver.kernel import BuiltKernel
from aisc.driver.options import Options
from aisc.driver.pipeline import Context, finish_with
from aisc.ir.arith.poly import evaluate
from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.tensor.func import Buffer, Func, Program, buffer
from aisc.ir.tensor.stmt import CallKernel
from aisc.ir.tensor.storage import extent_of

Sizes = Mapping[str, int]
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Alone:
    """A program that calls one kernel: `inputs` and `outputs` are its parameters by name."""

    program: Program
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]


def program_of(func: Func, rng: np.random.Generator) -> Alone:
    """`func` in a program, its weights filled. Parameters that are parts of something get memory of
    their own, as large as they reach."""
    rooms = tuple(_room(b) for b in func.params)
    call = CallKernel(func.name, tuple(map(_inside, func.params, rooms)), func.dims)
    inputs = tuple(r for r in rooms if r.role == "input")
    outputs = tuple(r for r in rooms if r.role == "output")
    weights = {
        r.name: Blob(_filled(_shape(r, {}), r.dtype.numpy, rng))
        for r in rooms if r.role == "weight"
    }  # fmt: skip
    entry = Func("entry", rooms, func.dims, call, target=func.target, requires=func.requires)
    return Alone(Program("alone", (func,), entry, weights), inputs, outputs)


def _room(b: Buffer) -> Buffer:
    role = b.role if b.role in ("weight", "output") else "input"
    if b.is_dense:
        return replace(b, role=role)
    strides = tuple(s for s in b.strides if isinstance(s, int))
    if len(strides) < b.rank or not b.type.is_static:
        raise error("E402", f"'{b.name}' is a part of something whose size only the run knows")
    return buffer(f"{b.name}_room", b.dtype, (extent_of(b.type.static_shape, strides),), role)


def _inside(b: Buffer, room: Buffer) -> Buffer:
    if b.is_dense:
        return room
    return replace(b, base=room.name, alias_set=room.alias_set, role=room.role)


def arrays_of(buffers: tuple[Buffer, ...], sizes: Sizes, rng: np.random.Generator) -> list[Array]:
    """Contents for parameters: numbers between -1 and 1; indices are 0."""
    return [_filled(_shape(b, sizes), b.dtype.numpy, rng) for b in buffers]


def _shape(b: Buffer, sizes: Sizes) -> tuple[int, ...]:
    return tuple(evaluate(d, sizes) for d in b.shape)


def _filled(shape: tuple[int, ...], dtype: np.dtype[Any], rng: np.random.Generator) -> Array:
    array = aligned(shape, dtype)
    array[...] = rng.uniform(-1, 1, shape).astype(dtype)
    return array


def executable_of(alone: Alone, built: BuiltKernel, host: Host, threads: int) -> Executable:
    """The program with the kernel as it was made."""
    options = Options(threads=threads, use_cache=False)
    context = Context(host, options, Instruments(()))
    names = ([b.name for b in alone.inputs], [b.name for b in alone.outputs])
    (func,) = alone.program.kernels
    made = finish_with(alone.program, {func.name: built}, context, names).executable
    assert made is not None, "nothing stopped the pipeline"
    return made
