"""What a call needs for itself, between calls of one executable."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from aisc.codegen import abi
from aisc.codegen.arrays import Array, address
from aisc.codegen.signature import Signature

if TYPE_CHECKING:
    from aisc.codegen.callbacks import Callbacks

_free = ctypes.CDLL(None).free  # compiled code takes memory by the same library
_free.argtypes, _free.restype = [ctypes.c_void_p], None


class Workspace:
    """What one call needs for itself: a block of memory that compiled code manages, a frame and the
    tables that the frame names. Kept between calls, used by one call at a time."""

    __slots__ = ("at", "dims", "frame", "host", "inputs", "memory", "outputs", "profile")

    def __init__(
        self, signature: Signature, weights: int, profile: int,
        host: Callable[[Array], Callbacks | None],
    ) -> None:  # fmt: skip
        counts = (
            len(signature.inputs),
            len(signature.outputs),
            len(signature.dims) + len(signature.results),
        )
        tables = [(ctypes.c_int64 * max(1, n))() for n in counts]
        self.inputs, self.outputs, self.dims = tables
        self.memory = np.zeros(max(1, signature.words), np.int64)
        self.profile = np.zeros(profile, np.int64)
        self.host = host(self.memory)
        frame = self.frame = abi.CallFrame()
        frame.inputs, frame.outputs, frame.dims = map(ctypes.addressof, tables)
        frame.weights, frame.memory = weights, address(self.memory)
        frame.host = 0 if self.host is None else self.host.address
        frame.profile = address(self.profile) if profile else 0
        self.at = ctypes.addressof(frame)

    def free(self, segments: Iterable[int]) -> None:
        """Free what compiled code has allocated for this. That code is not called for it:
        finalizers of a cycle run in any order, and the code may be gone before."""
        if self.host is not None:
            self.host.close()
        for k in segments:
            base = int(self.memory[k])
            self.memory[k : k + 2] = 0
            _free(base)
