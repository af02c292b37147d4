"""Operators without native code: their references, called back from a running program
(:mod:`aisc.codegen.callbacks`).

A call passes one array of words: for each operand (and result, when they are to be stored) its
address and sizes, then the dimensions of its attributes. A call that asks for the sizes of
results gets them in a second array.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from aisc.codegen.arrays import array_at
from aisc.ir.arith.poly import sole_symbol
from aisc.ir.graph.core import attribute_symbols
from aisc.ir.node import walk
from aisc.ir.tensor.func import Buffer, Func, buffer
from aisc.ir.tensor.stmt import Alloc, HostCall, Stmt, seq
from aisc.ir.text.printer_tensor import print_func

Array = NDArray[Any]


def host_calls(entry: Func) -> list[HostCall]:
    """The host calls of an entry, in the order of their numbers."""
    return [n for n in walk(entry.body) if isinstance(n, HostCall)]


def host_dims(s: HostCall) -> list[str]:
    """Dimensions in the attributes of a host operator that it does not define itself."""
    own = {v.name for v in s.binds}
    names = {x.name for k, v in s.attrs if k != "binds" for x in attribute_symbols(v)}
    return sorted(names - own)


def to_text(calls: Sequence[HostCall]) -> str:
    """Host calls as the text of a function: how they are kept in a bundle."""
    body: list[Stmt] = []
    count = 0
    for call in calls:
        names: dict[Buffer, Buffer] = {}
        for b in (*call.inputs, *call.outputs):
            if b is not None and b not in names:
                names[b] = buffer(f"b{count}", b.dtype, b.shape)
                count += 1
                if not call.binds or b in call.inputs:  # what is only measured has no storage
                    body.append(Alloc(names[b]))
        inputs = tuple(None if b is None else names[b] for b in call.inputs)
        outputs = tuple(names[b] for b in call.outputs)
        body.append(replace(call, inputs=inputs, outputs=outputs))
    return print_func(Func("host", (), (), seq(*body)))


def from_text(text: str) -> tuple[HostCall, ...]:
    """The calls of :func:`to_text`; ``CompileError`` E107 when the text is malformed."""
    from aisc.ir.text.parser_tensor import parse_func  # the parser is loaded by few models

    return tuple(host_calls(parse_func(text)))


def run_host_call(call: HostCall, words: int, sizes: int) -> None:
    """Compute an operator by its reference; `words` and `sizes` are addresses."""
    from aisc.ir.tensor.interpret import host_results

    at = _Reader(words)
    inputs = [None if b is None else at.array(b) for b in call.inputs]
    outputs = [] if call.binds else [at.array(b) for b in call.outputs]
    dims = {name: at.next() for name in host_dims(call)}
    results = host_results(call, inputs, dims)
    for target, array in zip(outputs, results, strict=False):
        target[...] = array
    if call.binds:
        found = _sizes(call, results)
        into = (ctypes.c_int64 * len(call.binds)).from_address(sizes)
        into[:] = [found[v.name] for v in call.binds]


def _sizes(call: HostCall, results: Sequence[Array]) -> dict[str, int]:
    found: dict[str, int] = {}
    for b, array in zip(call.outputs, results, strict=True):
        for d, size in zip(b.shape, array.shape, strict=True):
            symbol = sole_symbol(d)
            if symbol is not None:
                found[symbol.name] = size
    return found


class _Reader:
    """Reads the words of a call in order."""

    def __init__(self, address: int) -> None:
        self.address = address

    def next(self) -> int:
        """The next word."""
        value = ctypes.c_int64.from_address(self.address).value
        self.address += 8
        return value

    def array(self, b: Buffer) -> Array:
        """A view of an operand."""
        start = self.next()
        return array_at(start, tuple(self.next() for _ in b.shape), b.dtype.numpy)
