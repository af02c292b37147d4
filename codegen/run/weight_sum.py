"""The checksum of the weights of a bundle."""

from __future__ import annotations

import hashlib

import numpy as np

from aisc.ir.mapped import Bytes

_ROW = 4096  # words that are worked on at once: they fit the first-level cache
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


class WeightSum:
    """A checksum near the speed of memory: rows of words as coefficients of a polynomial modulo
    2^64, one for each column, and SHA-256 of the values. A change within one row is always found,
    any other but for a chance of 2^-64. Not meant to withstand an attacker."""

    def __init__(self) -> None:
        self._state = np.zeros(_ROW, np.uint64)
        self._rest = np.zeros(0, np.uint8)
        self._size = 0

    def add(self, data: Bytes) -> None:
        """Continue with `data`."""
        self._size += data.size
        row = _ROW * 8
        if self._rest.size:
            missing = row - self._rest.size
            self._rest = np.concatenate([self._rest, data[:missing]])
            data = data[missing:]
            if self._rest.size < row:
                return
            self._rows(self._rest)
        whole = data.size // row * row
        self._rows(data[:whole])
        self._rest = data[whole:].copy()

    def _rows(self, data: Bytes) -> None:
        state = self._state
        if data.ctypes.data % 8:
            data = data.copy()
        for row in data.view(np.uint64).reshape(-1, _ROW):
            np.multiply(state, _FACTOR, out=state)
            np.add(state, row, out=state)

    def digest(self) -> str:
        """The checksum as hex."""
        return hashlib.sha256(
            self._state.tobytes() + self._rest.tobytes() + self._size.to_bytes(8, "little")
        ).hexdigest()
