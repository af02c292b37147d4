"""A planned Program and its objects become an image: weights are packed here, once."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from aisc.codegen.abi import ERRORS, CallFrame, function
from aisc.codegen.arrays import Array, aligned, pointers
from aisc.codegen.callbacks import calls_of
from aisc.codegen.cpu.entry import result_dims
from aisc.codegen.cpu.faults import faults_of
from aisc.codegen.cpu.memory import memory_of
from aisc.codegen.cpu.profile import profile_words, sites_of
from aisc.codegen.cpu.runtime_object import runtime_object
from aisc.codegen.image import DeviceCode, Image, Machine
from aisc.codegen.llvm.link import Linked, host_machine
from aisc.codegen.signature import Port, Signature
from aisc.ir.blob import Blob
from aisc.ir.diagnostics import execution_error
from aisc.ir.target import Target
from aisc.ir.tensor.func import Buffer, Program

# Objects, the run time among them, that pack the weights of a Program for another machine.
Packers = Callable[[Program], Sequence[bytes]]


def image_of(
    program: Program,
    objects: Sequence[bytes],
    devices: Sequence[DeviceCode],
    target: Target,
    names: tuple[Sequence[str], Sequence[str]],
    packers: Packers,
    profile: bool = False,
) -> Image:
    """The image of a planned Program. `names`: what the model calls inputs and outputs;
    `profile`: whether the entry was made for profiling."""
    entry = program.entry
    inputs, outputs, weights = (
        [b for b in entry.params if b.role == role] for role in ("input", "output", "weight")
    )
    memory = memory_of(entry)
    signature = Signature(
        program.name,
        _ports(inputs, names[0]),
        _ports(outputs, names[1]),
        tuple(v.name for v in entry.dims),
        tuple(result_dims(entry)),
        memory.words,
        tuple(words.base for words in memory.segments.values()),
        _ports(weights, [b.name for b in weights]),
    )
    runtime = runtime_object(target)
    machine = Machine(target.kind, target.triple, target.arch, target.features)
    fits = machine.unfit(host_machine()) is None
    own = fits or program.prepare is None
    table = _weights(program, [runtime, *objects] if own else packers(program))
    arrays = tuple(table[b.name] for b in weights)
    kernels = {k.name: k for k in program.kernels}
    words = profile_words(sites_of(entry, kernels)) if profile else 0
    faults = tuple(faults_of(entry, kernels))
    return Image(
        signature, machine, runtime, tuple(objects), arrays, calls_of(entry, kernels), words,
        faults, tuple(devices),
    )  # fmt: skip


def _ports(buffers: Sequence[Buffer], names: Sequence[str]) -> tuple[Port, ...]:
    return tuple(Port(n, b.type) for n, b in zip(names, buffers, strict=True))


def _weights(program: Program, objects: Sequence[bytes]) -> dict[str, Array]:
    """Weights by name: as the model has them, and what ``aisc_prepare`` makes of them."""
    weights: dict[str, Array] = {
        name: np.require(blob.array, requirements=["C", "A"])
        for name, blob in program.weights.items()
    }
    prepare = program.prepare
    if prepare is not None:
        sources = [weights[b.name] for b in prepare.params if b.role == "weight"]
        made = [b for b in prepare.params if b.role == "output"]
        results = [aligned(b.type.static_shape, b.dtype.numpy) for b in made]
        _prepare(objects, sources, results)
        weights.update(zip((b.name for b in made), results, strict=True))
    for array in weights.values():
        array.flags.writeable = False
    return _shared(weights)


def _shared(weights: Mapping[str, Array]) -> dict[str, Array]:
    """The weights, equal ones as one array: kernels that differ may pack alike."""
    first: dict[Blob, Array] = {}
    return {name: first.setdefault(Blob(array), array) for name, array in weights.items()}


def _prepare(objects: Sequence[bytes], sources: list[Array], results: list[Array]) -> None:
    linked = Linked(objects, ["aisc_prepare"])
    frame = CallFrame()
    tables = pointers(sources), pointers(results)
    frame.weights, frame.outputs = map(ctypes.addressof, tables)
    frame.threads = 1
    status = function(linked.addresses["aisc_prepare"])(ctypes.addressof(frame))
    if status:
        raise execution_error("E502", f"packing weights: {ERRORS.get(status, status)}")
