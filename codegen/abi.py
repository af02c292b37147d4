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
    "dims": "array of int64: values of the entry's symbolic dimensions, then of those of results "
    "that only the run gives",
    "state": "base of the state segment",
    "memory": "block of words of one call (aisc.codegen.cpu.memory), zero before the first",
    "pool": "the thread pool, or null for one thread",
    "threads": "number of threads that run the entry",
    "host": "callback ``int64 (int64 call, int64* words, int64* sizes)`` that runs an operator "
    "without native code, or null",
    "error": "set by the code where something fails first: an ErrorCode, and the number of the "
    "place times 256 (0: none)",
    "value0": "what the error speaks of, such as the index and the size that it exceeds",
    "value1": "see value0",
    "value2": "see value0",
    "profile": "block of words with times and counts (aisc.codegen.cpu.profile), or null; only "
    "entries made for profiling look at it",
}

BAD_INDEX, DIVISION_BY_ZERO, BAD_SIZE, NO_MEMORY, HOST_FAILED = 2, 3, 4, 5, 6
ERRORS: dict[int, str] = {
    BAD_INDEX: "an index is out of range",
    DIVISION_BY_ZERO: "an integer was divided by zero",
    BAD_SIZE: "a size computed at run time does not fit",
    NO_MEMORY: "there is not enough memory for this call",
    HOST_FAILED: "an operator that runs on the host failed",
}


class CallFrame(ctypes.Structure):
    """The frame as ctypes sees it."""

    _fields_ = [(name, ctypes.c_int64) for name in FIELDS]


VALUES = sum(name.startswith("value") for name in FIELDS)
PLACE_BITS = 8  # of an error are its code; the rest is the number of the place


def error_at(code: int, place: int) -> int:
    """What the error slot holds for a code at a numbered place."""
    return code | place << PLACE_BITS


def parts_of(error: int) -> tuple[int, int]:
    """Code and place of what the error slot holds."""
    return error & ((1 << PLACE_BITS) - 1), error >> PLACE_BITS


def offset(name: str) -> int:
    """Byte offset of a field."""
    return list(FIELDS).index(name) * 8


def function(address: int) -> Callable[[int], int]:
    """An entry as a Python function of a frame's address. It runs without the interpreter's
    lock."""
    return ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_size_t)(address)
