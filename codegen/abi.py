"""The calling convention of compiled programs: one frame in, a status out.

``int32 entry(CallFrame*)`` returns the frame's error slot (0: no error). The layout below is the
only definition: the printed LLVM IR and the ctypes structure derive from :data:`FIELDS`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

# name -> meaning; every field is 8 bytes wide.
FIELDS: dict[str, str] = {
    "inputs": "array of pointers to the inputs, in order of the entry's parameters",
    "outputs": "array of pointers to the outputs",
    "weights": "array of pointers to the weights",
    "dims": "array of int64 values of the entry's symbolic dimensions",
    "state": "base of the state segment",
    "arena": "base of the arena, aligned to 64 bytes",
    "arena_size": "bytes in the arena",
    "pool": "the thread pool, or null for one thread",
    "threads": "number of threads that run the entry",
    "alloc": "callback for memory whose size is known only at run time, or null",
    "error": "set to a non-zero ErrorCode by the code",
}

BAD_INDEX, DIVISION_BY_ZERO = 2, 3
ERRORS: dict[int, str] = {
    BAD_INDEX: "an index is out of range",
    DIVISION_BY_ZERO: "an integer was divided by zero",
}


class CallFrame(ctypes.Structure):
    """The frame as ctypes sees it."""

    _fields_ = [(name, ctypes.c_int64) for name in FIELDS]


def offset(name: str) -> int:
    """Byte offset of a field."""
    return list(FIELDS).index(name) * 8


def function(address: int) -> Callable[[int], int]:
    """An entry as a Python function of a frame's address. It runs without the interpreter's
    lock."""
    return ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_size_t)(address)
