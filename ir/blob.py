"""Constant tensors: an array with a content hash, printed as ``@blob<sha256>`` beside the text."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from aisc.ir.dtypes import DType, from_numpy
from aisc.ir.types import TensorType

SKETCHED = 64  # elements that are looked at before contents are hashed


class Blob:
    """An immutable array (often mapped from a file). Equal when type and bytes are equal.

    grown: bytes by which an array that the compiler has computed is larger than what it was
    computed from.
    """

    __slots__ = ("_digest", "_sketch", "array", "grown")

    def __init__(self, array: NDArray[np.generic], grown: int = 0) -> None:
        view = array.view()
        view.flags.writeable = False
        self.array: NDArray[np.generic] = view
        self.grown = grown
        self._digest: str | None = None
        self._sketch: int | None = None

    @property
    def dtype(self) -> DType:
        """Element type."""
        return from_numpy(self.array.dtype)

    @property
    def type(self) -> TensorType:
        """Type of the constant: always static."""
        return TensorType(tuple(map(int, self.array.shape)), self.dtype)

    @property
    def digest(self) -> str:
        """SHA-256 over type and contents (C order), as hex; computed once, on demand."""
        if self._digest is None:
            sha = hashlib.sha256(str(self.type).encode())
            data = np.ascontiguousarray(self.array)
            if data.size:
                sha.update(data.reshape(-1).view(np.uint8).data)
            self._digest = sha.hexdigest()
        return self._digest

    def _hash(self) -> int:
        """A hash of the type and a few elements: what differs in it is not worth a digest."""
        if self._sketch is None:
            a = self.array
            count = min(a.size, SKETCHED)
            places = np.arange(count) * (a.size // count) if count else np.arange(0)
            sample = a[np.unravel_index(places, a.shape)] if a.ndim else a
            self._sketch = hash((a.dtype.str, a.dtype.name, a.shape, sample.tobytes()))
        return self._sketch

    def _is_same_memory(self, other: Blob) -> bool:
        a, b = self.array, other.array
        return a.strides == b.strides and address(a) == address(b)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Blob) or self._hash() != other._hash():
            return False
        same = self.type == other.type
        return same and (self._is_same_memory(other) or self.digest == other.digest)

    def __hash__(self) -> int:
        return self._hash()

    def __repr__(self) -> str:
        return f"Blob({self.type}, {self.digest[:12]})"

    def __reduce__(self) -> tuple[object, ...]:
        return (Blob, (np.asarray(self.array), self.grown))


def address(array: NDArray[np.generic]) -> int:
    """Where the first element of an array lies."""
    place: int = array.__array_interface__["data"][0]
    return place
