"""Executables: compiled programs that are called with arrays.

Inputs are taken without a copy when they are C-contiguous and of the right type: numpy arrays,
anything with ``__array_interface__`` or the buffer protocol, DLPack tensors. Outputs are new numpy
arrays (which are DLPack producers), or the caller's own through ``out=``.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aisc.codegen.abi import ERRORS, CallFrame
from aisc.codegen.cpu.backend import runtime_object
from aisc.codegen.cpu.entry import result_dims
from aisc.codegen.cpu.memory import memory_of
from aisc.codegen.cpu.pool import borrowed
from aisc.codegen.host import HostCalls, host_calls
from aisc.codegen.llvm.engine import Linked
from aisc.ir.arith.poly import bounds, evaluate, sole_symbol
from aisc.ir.diagnostics import ExecutionError, execution_error
from aisc.ir.target import Target
from aisc.ir.tensor.func import Buffer, Program
from aisc.ir.tensor.verify_func import deferred_outputs

Array = NDArray[Any]


class Executable:
    """A compiled model: ``exe(*arrays)``, ``exe.run(None, {name: array})``.

    Calls from several threads at once are safe: each has a frame and an arena of its own.
    """

    def __init__(
        self,
        program: Program,
        objects: Sequence[bytes],
        target: Target,
        threads: int = 1,
        names: tuple[Sequence[str], Sequence[str]] = ((), ()),
    ) -> None:
        self.program = program
        self.threads = threads
        self.target = target
        entry = program.entry
        self.inputs = [b for b in entry.params if b.role == "input"]
        self.outputs = [b for b in entry.params if b.role == "output"]
        self.input_names = list(names[0]) or [b.name for b in self.inputs]
        self.output_names = list(names[1]) or [b.name for b in self.outputs]
        self._dims = [v.name for v in entry.dims]
        self._result_dims = result_dims(entry)
        self._later = {b.name for b in deferred_outputs(entry)}
        self._words = memory_of(entry).words
        self._segments = [w.base for w in memory_of(entry).segments.values()]
        self._host_calls = host_calls(entry)
        symbols = ["aisc_entry", "aisc_release"] + (
            ["aisc_prepare"] if program.prepare is not None else []
        )
        self._linked = Linked(target, [runtime_object(target), *objects], symbols)
        self._call = _function(self._linked.addresses["aisc_entry"])
        self._release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(
            self._linked.addresses["aisc_release"]
        )
        self._weights = self._prepare(program)
        pointers = [self._weights[b.name] for b in entry.params if b.role == "weight"]
        self._weight_table = _pointers(pointers)
        self._memories: list[Array] = []
        self._lock = threading.Lock()

    def _prepare(self, program: Program) -> dict[str, Array]:
        """Weights by name, the packed ones computed now."""
        weights: dict[str, Array] = {
            name: np.ascontiguousarray(blob.array) for name, blob in program.weights.items()
        }
        prepare = program.prepare
        if prepare is None:
            return weights
        sources = [weights[b.name] for b in prepare.params if b.role == "weight"]
        results = [
            aligned(b.type.static_shape, b.dtype.numpy)
            for b in prepare.params
            if b.role == "output"
        ]
        frame = CallFrame()
        tables = _pointers(sources), _pointers(results)
        frame.weights, frame.outputs = map(ctypes.addressof, tables)
        frame.threads = 1
        _function(self._linked.addresses["aisc_prepare"])(ctypes.byref(frame))
        names = (b.name for b in prepare.params if b.role == "output")
        used = {b.name for b in program.entry.params if b.role == "weight"}
        weights.update(zip(names, results, strict=True))
        return {n: w for n, w in weights.items() if n in used}

    # -- calling -----------------------------------------------------------------------------

    def __call__(self, *arrays: Any, out: Sequence[Array] | None = None) -> Any:
        """Run on positional inputs; one result alone, several as a tuple."""
        results = self._run(list(arrays), out)
        return results[0] if len(results) == 1 else tuple(results)

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Array]:
        """Run on named inputs (onnxruntime's call); ``None`` asks for every output."""
        missing = [n for n in self.input_names if n not in feeds]
        unknown = [n for n in feeds if n not in self.input_names]
        if missing or unknown:
            notes = (f"expected {', '.join(self.input_names)}", f"got {', '.join(feeds)}")
            raise execution_error("E501", "the named inputs do not fit", *notes)
        results = self._run([feeds[n] for n in self.input_names], None)
        if output_names is None:
            return results
        table = dict(zip(self.output_names, results, strict=True))
        unknown = [n for n in output_names if n not in table]
        if unknown:
            raise execution_error("E501", f"there is no output {', '.join(unknown)}")
        return [table[n] for n in output_names]

    def _run(self, arrays: list[Any], out: Sequence[Array] | None) -> list[Array]:
        if len(arrays) != len(self.inputs):
            raise execution_error(
                "E501", f"{len(self.inputs)} inputs are needed", f"got {len(arrays)}"
            )
        inputs = [
            as_input(a, b, n) for a, b, n in zip(arrays, self.inputs, self.input_names, strict=True)
        ]
        dims = self._bind_dims(inputs)
        outputs = self._allocate(dims, out, inputs)
        memory = self._borrow_memory()
        try:
            return self._invoke(inputs, outputs, dims, memory)
        finally:
            with self._lock:
                self._memories.append(memory)

    def _invoke(
        self,
        inputs: list[Array],
        outputs: list[Array | None],
        dims: Mapping[str, int],
        memory: Array,
    ) -> list[Array]:
        frame = CallFrame()
        tables = _pointers(inputs), _pointers(outputs)
        frame.inputs, frame.outputs = map(ctypes.addressof, tables)
        frame.weights = ctypes.addressof(self._weight_table)
        given = [dims[n] for n in self._dims] + [0] * len(self._result_dims)
        values = (ctypes.c_int64 * max(1, len(given)))(*given)
        frame.dims = ctypes.addressof(values)
        frame.memory = _address(memory)
        host = HostCalls(self._host_calls)
        frame.host = host.address
        with borrowed(self.target, self.threads) as pool:
            frame.pool, frame.threads = pool, self.threads if pool else 1
            status = self._call(ctypes.byref(frame))
        if status:
            host.reraise()
            raise execution_error("E502", ERRORS.get(status, f"status {status}"))
        found = dict(zip(self._result_dims, values[len(self._dims) :], strict=False))
        return [
            _copied(b, address, {**dims, **found}) if array is None else array
            for b, array, address in zip(self.outputs, outputs, tables[1], strict=False)
        ]

    def _bind_dims(self, inputs: list[Array]) -> dict[str, int]:
        """Values of symbolic dimensions from the shapes, which must be consistent."""
        values: dict[str, int] = {}
        if not self._dims:
            for array, b, name in zip(inputs, self.inputs, self.input_names, strict=True):
                if array.shape != b.shape:
                    raise _shape_error(name, b, array)
            return values
        for array, b in zip(inputs, self.inputs, strict=True):
            for size, d in zip(array.shape, b.shape, strict=True):
                symbol = sole_symbol(d)
                if symbol is not None:
                    values.setdefault(symbol.name, size)
        for array, b, name in zip(inputs, self.inputs, self.input_names, strict=True):
            expected = tuple(evaluate(d, values) for d in b.shape)
            if array.shape != expected:
                raise _shape_error(name, b, array)
            for size, d in zip(array.shape, b.shape, strict=True):
                low, high = bounds(d)
                if not low <= size <= high:
                    raise _shape_error(name, b, array)
        return values

    def _allocate(
        self, dims: Mapping[str, int], out: Sequence[Array] | None, inputs: list[Array]
    ) -> list[Array | None]:
        """Arrays for the outputs; ``None`` for those whose sizes only the run gives."""
        if self._later and out is not None:
            raise execution_error("E501", "out= is not possible: the run decides the sizes")
        shapes = [
            b.type.static_shape if b.type.is_static else tuple(evaluate(d, dims) for d in b.shape)
            for b in self.outputs
            if b.name not in self._later
        ]
        if out is None:
            sized = iter(shapes)
            return [
                None if b.name in self._later else aligned(next(sized), b.dtype.numpy)
                for b in self.outputs
            ]
        if len(out) != len(shapes):
            raise execution_error("E501", f"{len(shapes)} outputs are needed, got {len(out)}")
        for array, s, b in zip(out, shapes, self.outputs, strict=True):
            fits = array.shape == s and array.dtype == b.dtype.numpy and array.flags.c_contiguous
            if not (fits and array.flags.writeable):
                raise execution_error(
                    "E501",
                    f"out= for '{b.name}' does not fit",
                    f"expected a writable C-contiguous {b.dtype}{list(s)}",
                    f"got {array.dtype}{list(array.shape)}",
                )
            if any(np.may_share_memory(array, i) for i in inputs if i.size):
                raise execution_error("E501", f"out= for '{b.name}' overlaps an input")
        return list(out)

    def _borrow_memory(self) -> Array:
        with self._lock:
            if self._memories:
                return self._memories.pop()
        return np.zeros(max(1, self._words), np.int64)

    def __del__(self) -> None:
        release = getattr(self, "_release", None)
        if release is not None:
            for memory in self._memories:
                for k in self._segments:
                    release(_address(memory) + 8 * k)


def _copied(b: Buffer, address: int, dims: Mapping[str, int]) -> Array:
    """A new array with the contents of a result that lies in the program's memory."""
    array = aligned(tuple(evaluate(d, dims) for d in b.shape), b.dtype.numpy)
    ctypes.memmove(_address(array), address, array.nbytes)
    return array


def _function(address: int) -> Any:
    return ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)(address)


def _address(array: Array) -> int:
    """Address of the first element."""
    address: int = array.__array_interface__["data"][0]
    return address


def _pointers(arrays: Sequence[Array | None]) -> Any:
    values = [0 if a is None else _address(a) for a in arrays]
    return (ctypes.c_int64 * max(1, len(values)))(*values)


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An uninitialised C-contiguous array that starts on a 64-byte boundary."""
    count = math.prod(shape) * dtype.itemsize
    try:
        raw = np.empty(count + 64, np.uint8)
    except (MemoryError, ValueError):
        raise execution_error("E502", f"{count} bytes cannot be allocated") from None
    start = -_address(raw) % 64
    return raw[start : start + count].view(dtype).reshape(shape)


def as_input(value: Any, b: Buffer, name: str) -> Array:
    """`value` as a C-contiguous array of the buffer's dtype and rank; E501 when it does not fit.

    Copied only when it is not contiguous or not aligned to its elements.
    """
    if not isinstance(value, np.ndarray):
        value = np.from_dlpack(value) if hasattr(value, "__dlpack__") else np.asarray(value)
    if value.dtype != b.dtype.numpy or value.ndim != b.rank:
        raise _shape_error(name, b, value)
    contiguous: Array = np.ascontiguousarray(value).reshape(value.shape)
    if _address(contiguous) % b.dtype.bytes:
        contiguous = contiguous.copy()
    return contiguous


def _shape_error(name: str, b: Buffer, got: Array) -> ExecutionError:
    return execution_error(
        "E501",
        f"input '{name}' does not fit",
        f"expected {b.type}",
        f"got {got.dtype}[{', '.join(map(str, got.shape))}]",
    )
