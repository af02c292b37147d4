"""Executables: compiled programs that are called with arrays.

Inputs are taken without a copy when they are C-contiguous, aligned and of the right type: numpy
arrays, anything with ``__array_interface__`` or the buffer protocol, DLPack tensors. Outputs are
new numpy arrays (which are DLPack producers), or the caller's own through ``out=``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from aisc.codegen import abi
from aisc.codegen.arrays import Array, address, aligned, as_input, as_outputs, pointers
from aisc.codegen.cpu import pool as pools
from aisc.codegen.image import Image
from aisc.codegen.llvm.link import Linked
from aisc.codegen.signature import Binding, Values, dim_rule
from aisc.ir.diagnostics import execution_error

MAX_ARENA = 1 << 40
_BYTES = np.dtype(np.uint8)


class _Workspace:
    """What one call needs for itself: an arena, a frame and the tables that the frame names. Kept
    between calls, used by one call at a time."""

    __slots__ = ("arena", "at", "dims", "frame", "inputs", "outputs")

    def __init__(self, counts: tuple[int, int, int], weights: int) -> None:
        tables = [(ctypes.c_int64 * max(1, n))() for n in counts]
        self.inputs, self.outputs, self.dims = tables
        frame = self.frame = abi.CallFrame()
        frame.inputs, frame.outputs, frame.dims = map(ctypes.addressof, tables)
        frame.weights = weights
        self.at = ctypes.addressof(frame)
        self.resize(0)

    def resize(self, size: int) -> None:
        """Replace the arena by one of `size` bytes; the old one is gone before."""
        self.frame.arena = self.frame.arena_size = 0
        self.arena: Array = aligned((0,), _BYTES)
        self.arena = aligned((max(size, 1),), _BYTES)
        self.frame.arena, self.frame.arena_size = address(self.arena), self.arena.size


class Executable:
    """A compiled model: ``exe(*arrays)``, ``exe.run(None, {name: array})``.

    Calls from several threads at once are safe: each has a frame and an arena of its own.
    """

    def __init__(self, image: Image, threads: int = 1) -> None:
        if not 1 <= threads <= pools.MAX_THREADS:
            raise execution_error("E501", f"1 to {pools.MAX_THREADS} threads, got {threads}")
        signature = image.signature
        self.image = image
        self.machine = image.machine
        self.threads = threads
        self.inputs, self.outputs = signature.inputs, signature.outputs
        self.input_names = [p.name for p in self.inputs]
        self.output_names = [p.name for p in self.outputs]
        self._dtypes = [p.dtype.numpy for p in self.inputs]
        self._result_dtypes = [p.dtype.numpy for p in self.outputs]
        self._binding = Binding(signature)
        self._arena_size = dim_rule(signature.arena, signature.dims)
        self._linked = Linked([image.runtime, *image.objects], ["aisc_entry"])
        self._entry = abi.function(self._linked.addresses["aisc_entry"])
        self._weights = pointers(image.weights)
        self._counts = len(self.inputs), len(self.outputs), len(signature.dims)
        # Taking from and adding to a list are atomic, so this needs no lock that a fork could
        # leave closed.
        self._idle: list[_Workspace] = []

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an executable cannot be pickled: save it with aisc.save, and open it with aisc.load "
            "in the other process"
        )

    # -- calling -----------------------------------------------------------------------------

    def __call__(self, *arrays: Any, out: Sequence[Array] | Array | None = None) -> Any:
        """Run on positional inputs; one result alone, several as a tuple."""
        results = self._run(arrays, out)
        return results[0] if len(results) == 1 else tuple(results)

    def run(self, output_names: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Array]:
        """Run on named inputs (onnxruntime's call); ``None`` asks for every output."""
        missing = [n for n in self.input_names if n not in feeds]
        unknown = [n for n in feeds if n not in self.input_names]
        if missing or unknown:
            notes = (f"expected {', '.join(self.input_names)}", f"got {', '.join(feeds)}")
            raise execution_error("E501", "the named inputs do not fit", *notes)
        wanted = self.output_names if output_names is None else output_names
        unknown = [n for n in wanted if n not in self.output_names]
        if unknown:
            raise execution_error("E501", f"there is no output {', '.join(unknown)}")
        results = self._run([feeds[n] for n in self.input_names], None)
        if output_names is None:
            return results
        table = dict(zip(self.output_names, results, strict=True))
        return [table[n] for n in output_names]

    def _run(self, arrays: Sequence[Any], out: Any) -> list[Array]:
        if len(arrays) != len(self.inputs):
            raise execution_error(
                "E501", f"{len(self.inputs)} inputs are needed", f"got {len(arrays)}"
            )
        inputs = [
            as_input(a, p, t) for a, p, t in zip(arrays, self.inputs, self._dtypes, strict=True)
        ]
        dims = self._binding.values(inputs)
        outputs = self._allocate(dims, out, inputs)
        space = self._borrow_arena(dims)
        try:
            self._invoke(space, inputs, outputs, dims)
        finally:
            self._idle.append(space)
        return outputs

    def _invoke(
        self, space: _Workspace, inputs: list[Array], outputs: list[Array], dims: Values
    ) -> None:
        """Fill the frame and call the entry."""
        for k, array in enumerate(inputs):
            space.inputs[k] = address(array)
        for k, array in enumerate(outputs):
            space.outputs[k] = address(array)
        for k, value in enumerate(dims):
            space.dims[k] = value
        frame = space.frame
        frame.error = 0
        pool = pools.acquire(self.image.runtime, self.threads)
        try:
            if pool is None:
                frame.pool, frame.threads = 0, 1
            else:
                frame.pool, frame.threads = pool.address, self.threads
            status = self._entry(space.at)
        finally:
            if pool is not None:
                pool.lock.release()
        if status:
            raise execution_error("E502", abi.ERRORS.get(status, f"status {status}"))

    def _allocate(self, dims: Values, out: Any, inputs: list[Array]) -> list[Array]:
        """Arrays for the outputs: new ones, or the caller's after a check."""
        shapes = self._binding.output_shapes(dims)
        if out is not None:
            return as_outputs(out, self.outputs, shapes, inputs)
        return [aligned(s, t) for s, t in zip(shapes, self._result_dtypes, strict=True)]

    def _borrow_arena(self, dims: Values) -> _Workspace:
        """A workspace that no other call uses, with an arena of sufficient size."""
        size = self._arena_size(dims)
        if size > MAX_ARENA:
            raise execution_error("E502", f"{size} bytes of scratch memory would be needed")
        try:
            space = self._idle.pop()
        except IndexError:
            space = _Workspace(self._counts, ctypes.addressof(self._weights))
        if space.arena.size < size:
            space.resize(size)
        return space
