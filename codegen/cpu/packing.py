"""The weights of a planned Program: as the model has them, and as its packers make them."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from aisc.codegen.abi import ERRORS, parts_of
from aisc.codegen.arrays import Array, address
from aisc.codegen.cpu.faults import can_report
from aisc.codegen.llvm.link import Linked
from aisc.codegen.weights import Allocate
from aisc.ir.diagnostics import InternalError, execution_error
from aisc.ir.mapped import give_back, is_mapped
from aisc.ir.node import walk
from aisc.ir.tensor.func import Buffer, Program
from aisc.ir.tensor.stmt import CallKernel

# Bytes of a file's contents that are read before they are given back.
STRETCH = 1 << 26


class Packing:
    """Makes the weights of a Program, by objects with its packers."""

    def __init__(self, program: Program, objects: Sequence[bytes]) -> None:
        self._contents = program.weights
        self._weights = [b for b in program.entry.params if b.role == "weight"]
        self._kernels = {k.name: k for k in program.kernels}
        self._objects = objects
        self._makers: Mapping[str, CallKernel] = {
            call.args[1].name: call for call in packer_calls(program)
        }

    def array(self, k: int, allocate: Allocate) -> Array:
        """A weight of the entry; see :class:`aisc.codegen.weights.WeightSource`."""
        b = self._weights[k]
        return self._packed(b, allocate) if b.name in self._makers else self._own(b, allocate)

    def _own(self, b: Buffer, allocate: Allocate) -> Array:
        """A weight as the model has it. What lies in a file of the user's is copied: the file may
        change while compiled code lives."""
        source = self._contents[b.name].array
        return _copied(source, allocate) if is_mapped(source) else _plain(source)

    def _packed(self, b: Buffer, allocate: Allocate) -> Array:
        """What a packer makes of a weight, or of what another packer has made of it."""
        call = self._makers[b.name]
        source = self._source(call.args[0])
        made = allocate(b.type.static_shape, b.dtype.numpy)
        self._call(call.kernel, source, made)
        give_back(source)
        return made

    def _source(self, b: Buffer) -> Array:
        """What a packer reads, in a form that code can read."""
        return (
            self._packed(b, _new)
            if b.name in self._makers
            else _plain(self._contents[b.name].array)
        )

    @cached_property
    def _linked(self) -> Linked:
        names = dict.fromkeys(call.kernel for call in self._makers.values())
        return Linked(self._objects, list(names))

    def _call(self, name: str, source: Array, made: Array) -> None:
        error, words = ctypes.c_int64(0), [address(source), address(made), 0, 1, 0]
        if can_report(self._kernels[name]):
            words += [ctypes.addressof(error), 0]
        kinds = [ctypes.c_int64] * len(words)
        ctypes.CFUNCTYPE(None, *kinds)(self._linked.addresses[name])(*words)
        if error.value:
            reason = ERRORS.get(parts_of(error.value)[0], error.value)
            raise execution_error("E502", f"packing weights: {reason}")


def packer_calls(program: Program) -> list[CallKernel]:
    """The calls that make packed weights, each of a packer with what it reads and makes."""
    prepare = program.prepare
    calls = [] if prepare is None else [s for s in walk(prepare.body) if isinstance(s, CallKernel)]
    for call in calls:
        if len(call.args) != 2 or call.dims:
            raise InternalError(f"{call.kernel} is no packer of one weight")
    return calls


def _plain(source: Array) -> Array:
    """An array as code can read it: itself, or a copy in order."""
    flags = source.flags
    return source if flags.c_contiguous and flags.aligned else _copied(source, _new)


def _copied(source: Array, allocate: Allocate) -> Array:
    """A copy, made stretch by stretch in the order of the source's memory."""
    made = allocate(source.shape, source.dtype)
    for place in _stretches(source):
        np.copyto(made[place], source[place])
        give_back(source[place])
    return made


def _stretches(source: Array) -> Iterator[tuple[slice, ...]]:
    """Parts of an array along the axis of its longest steps."""
    if source.nbytes <= STRETCH:
        yield ()
        return
    steps = [abs(s) if n > 1 else 0 for s, n in zip(source.strides, source.shape, strict=True)]
    axis = steps.index(max(steps))
    rows = max(1, STRETCH * source.shape[axis] // source.nbytes)
    for start in range(0, source.shape[axis], rows):
        yield (*(slice(None),) * axis, slice(start, start + rows))


def _new(shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    return np.empty(shape, dtype)
