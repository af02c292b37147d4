"""Memory of the interpreter: flat typed storage over bytes, segments, numpy views.

Storage is a ``memoryview`` cast to the element type (reads give Python numbers, writes round to
f32), or a numpy array for f16 and bf16. Fresh memory is filled with the byte 0xA5 (0xFF for
floats, a NaN), so that reading what nobody wrote is seen in the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

import numpy as np

from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import execution_error
from aisc.ir.dtypes import DType, from_numpy
from aisc.ir.tensor.func import Buffer

Storage = Any  # memoryview or one-dimensional numpy array
Layout = tuple[tuple[int, ...], tuple[int, ...]]
Array = np.ndarray[Any, Any]

_FORMATS = {
    "f32": "f", "f64": "d", "i8": "b", "i16": "h", "i32": "i", "i64": "q",
    "u8": "B", "u16": "H", "u32": "I", "u64": "Q", "bool": "?",
}  # fmt: skip


def typed(raw: bytearray | memoryview, dtype: DType) -> Storage:
    """`raw` bytes as elements of `dtype`."""
    code = _FORMATS.get(dtype.name)
    if code is None:
        return np.frombuffer(raw, dtype.numpy) if len(raw) else np.empty(0, dtype.numpy)
    return memoryview(raw).cast(code)  # type: ignore[call-overload]


def allocate(dtype: DType, count: int) -> Storage:
    """Fresh poisoned storage of `count` elements."""
    poison = b"\xff" if dtype.is_float else b"\xa5"
    return typed(bytearray(poison * (count * dtype.bytes)), dtype)


def extent_of(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Number of elements from the first to the last element of a strided buffer."""
    if any(d <= 0 for d in shape):
        return 0
    if any(s < 0 for s in strides):
        raise execution_error("E502", "negative strides cannot be interpreted")
    return 1 + sum((d - 1) * s for d, s in zip(shape, strides, strict=True))


def as_array(data: Storage, dtype: DType, layout: Layout) -> Array:
    """A writable numpy view of storage."""
    if data is None:
        raise execution_error("E502", "a view of storage that has become smaller is used")
    shape, strides = layout
    flat: Array = np.asarray(data) if isinstance(data, np.ndarray) else _from_view(data, dtype)
    steps = tuple(s * dtype.bytes for s in strides)
    return np.lib.stride_tricks.as_strided(flat, shape, steps)


def _from_view(data: memoryview, dtype: DType) -> Array:
    return np.frombuffer(data, dtype.numpy) if len(data) else np.empty(0, dtype.numpy)


def of_array(array: Array) -> Storage:
    """Storage over the memory of a C-contiguous writable array."""
    if not array.size:
        return typed(bytearray(0), _dtype_of(array))
    return typed(array.reshape(-1).view(np.uint8).data, _dtype_of(array))


def _dtype_of(array: Array) -> DType:
    return from_numpy(array.dtype)


def copy_into(dst: Array, src: Array, name: str) -> None:
    """Copy an array of the same shape; E502 when the shapes differ."""
    if dst.shape != src.shape:
        raise execution_error("E502", f"{name} has shape {dst.shape}, got {src.shape}")
    dst[...] = src.copy()


@dataclass(slots=True)
class Segments:
    """Byte segments by base name; contents of weights and of state by buffer name.

    `states` collects the storage of state buffers, to be read back after the run.
    """

    weights: Mapping[str, Blob]
    state: Mapping[str, Array] = field(default_factory=dict)
    memory: dict[str, bytearray] = field(default_factory=dict)
    states: dict[str, Array] = field(default_factory=dict)

    def reserve(self, segment: str, size: int, keep: bool) -> None:
        """Fresh poisoned memory of a segment, with its old contents if `keep`."""
        old = self.memory.get(segment, bytearray()) if keep else bytearray()
        self.memory[segment] = old[:size] + bytearray(b"\xff" * max(0, size - len(old)))

    def place(self, b: Buffer, layout: Layout, offset: int) -> Storage:
        """The storage of a buffer: its part of a segment, or memory of its own; weights and
        state are filled with their contents. A buffer that is its own base makes the segment."""
        count = extent_of(*layout)
        if b.base == b.name:
            self.reserve(b.base, offset + count * b.dtype.bytes, keep=False)
        own = not b.base or b.role == "state"
        data = allocate(b.dtype, count) if own else self._part(b, count, offset)
        if b.role == "weight" and (b.name in self.weights or not b.base):  # else a view of one
            copy_into(as_array(data, b.dtype, layout), self._weight(b), b.name)
        elif b.role == "state":
            self._restore(b, as_array(data, b.dtype, layout))
        return data

    def moved(self, b: Buffer, layout: Layout, offset: int) -> Storage | None:
        """The storage of a buffer whose segment has changed: ``None`` for a view that does not fit
        any more, which nothing may use until it is declared again."""
        end = offset + extent_of(*layout) * b.dtype.bytes
        view = b.base not in ("", b.name)
        outside = view and not 0 <= offset <= end <= len(self.memory.get(b.base, b""))
        return None if outside else self.place(b, layout, offset)

    def _restore(self, b: Buffer, view: Array) -> None:
        """State starts at zero unless the caller keeps it."""
        self.states[b.name] = view
        if b.name in self.state:
            copy_into(view, self.state[b.name], b.name)
        else:
            view[...] = 0

    def _weight(self, b: Buffer) -> Array:
        if b.name not in self.weights:
            raise execution_error("E502", f"the program holds no contents of weight {b.name}")
        contents = np.asarray(self.weights[b.name].array)
        if contents.dtype != b.dtype.numpy:
            raise execution_error("E502", f"weight {b.name} has dtype {contents.dtype}")
        return contents

    def _part(self, b: Buffer, count: int, start: int) -> Storage:
        memory = self.memory.get(b.base, bytearray())
        end = start + count * b.dtype.bytes
        if start < 0 or end > len(memory):
            text = f"{b.name} at bytes {start}..{end} is outside of segment '{b.base}'"
            raise execution_error("E502", text)
        if start % b.dtype.bytes:
            raise execution_error("E502", f"{b.name} at byte {start} is not aligned")
        return typed(memoryview(memory)[start:end], b.dtype)
