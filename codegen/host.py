"""Operators without native code: their references, called back from a running program.

A call passes one array of words: for each operand (and result, when they are to be stored) its
address and sizes, then the dimensions of its attributes. A call that asks for the sizes of
results gets them in a second array.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aisc.codegen.abi import HOST_FAILED
from aisc.ir.arith.poly import sole_symbol
from aisc.ir.diagnostics import ExecutionError, execution_error
from aisc.ir.graph.core import attribute_symbols
from aisc.ir.node import walk
from aisc.ir.tensor.func import Buffer, Func, buffer
from aisc.ir.tensor.stmt import Alloc, HostCall, Stmt, seq
from aisc.ir.text.printer_tensor import print_func

Array = NDArray[Any]
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)


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


class HostCalls:
    """The callback of one run at a time; `fault` is what an operator raised."""

    def __init__(self, calls: Sequence[HostCall]) -> None:
        self.calls = calls
        self.fault: Exception | None = None
        self._callback = _CALLBACK(self._run) if calls else None

    @property
    def address(self) -> int:
        """Address of the callback; 0 when no operator needs it."""
        if self._callback is None:
            return 0
        return ctypes.cast(self._callback, ctypes.c_void_p).value or 0

    def raised(self) -> ExecutionError | None:
        """What an operator raised, if anything, as an ``ExecutionError``."""
        fault, self.fault = self.fault, None
        if fault is None or isinstance(fault, ExecutionError):
            return fault
        return execution_error("E502", "an operator on the host failed", str(fault))

    def _run(self, index: int, words: int, sizes: int) -> int:
        try:
            self._apply(self.calls[index], words, sizes)
        except Exception as fault:  # must not pass through native code
            self.fault = fault
            return HOST_FAILED
        return 0

    def _apply(self, call: HostCall, words: int, sizes: int) -> None:
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
        shape = tuple(self.next() for _ in b.shape)
        count = int(np.prod(shape, dtype=np.int64)) * b.dtype.bytes
        if count == 0:
            return np.empty(shape, b.dtype.numpy)
        raw = (ctypes.c_uint8 * count).from_address(start)
        flat: Array = np.frombuffer(memoryview(raw), np.uint8).view(b.dtype.numpy)
        return flat.reshape(shape)
