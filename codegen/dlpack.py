"""Arrays of devices through DLPack: read from the capsules of other libraries, and given to them.

The layout is that of ``DLManagedTensor`` (DLPack 0.8, *C API*). A capsule that is only read stays
its owner's.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from aisc.ir.dataclass import dataclass

CUDA = 2  # the kind of device
LEGACY_STREAM = 1  # CUDA's default queue, as producers are asked to be done for
_NAME = b"dltensor"
_KINDS = {(0, n): f"i{n // 8}" for n in (8, 16, 32, 64)}
_KINDS |= {(1, n): f"u{n // 8}" for n in (8, 16, 32, 64)}
_KINDS |= {(2, n): f"f{n // 8}" for n in (16, 32, 64)} | {(6, 8): "?"}
_CODES = {np.dtype(name): code for code, name in _KINDS.items()}


class _Managed(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("device", ctypes.c_int32), ("number", ctypes.c_int32),
        ("rank", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)), ("offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lying:
    """Where an array lies: address, sizes, element type, and strides in bytes, nothing where
    elements are in order."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    strides: tuple[int, ...] | None


_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_pointer_at = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)


def read(capsule: Any) -> Lying:
    """What a capsule describes; ``TypeError`` for element types that numpy has not."""
    managed = _Managed.from_address(_pointer(capsule, _NAME) or 0)
    kind = _KINDS.get((managed.code, managed.bits)) if managed.lanes == 1 else None
    if kind is None:
        raise TypeError(f"elements of DLPack's type {managed.code} with {managed.bits} bits")
    dtype, rank = np.dtype(kind), managed.rank
    shape = tuple(managed.shape[k] for k in range(rank))
    strides = None
    if managed.strides:
        strides = tuple(managed.strides[k] * dtype.itemsize for k in range(rank))
    return Lying((managed.data or 0) + managed.offset, shape, dtype, strides)


# What capsules describe, by the address of the description, until somebody is done with it.
_given: dict[int, tuple[Any, ...]] = {}


def _forget(managed: int) -> None:
    _given.pop(managed, None)


def _forget_untaken(capsule: int) -> None:
    if _is_valid(capsule, _NAME):  # nobody has taken what it describes
        _given.pop(_pointer_at(capsule, _NAME) or 0, None)


# These take the interpreter's lock, which whoever is done with an array may not have.
_done = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_forget)
_destroyed = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_forget_untaken)


def give(owner: Any, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """A capsule of a C-contiguous array on the first device; it keeps `owner` alive."""
    sizes = (ctypes.c_int64 * max(1, len(shape)))(*shape)
    code, bits = _CODES[dtype]
    managed = _Managed(
        address, CUDA, 0, len(shape), code, bits, 1,
        ctypes.cast(sizes, ctypes.POINTER(ctypes.c_int64)), None, 0, None,
        ctypes.cast(_done, ctypes.c_void_p).value,
    )  # fmt: skip
    at = ctypes.addressof(managed)
    _given[at] = managed, sizes, owner
    return _new(at, _NAME, ctypes.cast(_destroyed, ctypes.c_void_p).value)
