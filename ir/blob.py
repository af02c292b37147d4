"""Constant tensors: an array with a content hash, printed as ``@blob<sha256>`` beside the text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from math import prod

import numpy as np
from numpy.typing import NDArray

from aisc.ir.dtypes import DType, from_numpy
from aisc.ir.mapped import give_back
from aisc.ir.types import TensorType

Make = Callable[[], NDArray[np.generic]]
SKETCHED = 64  # elements that are looked at before contents are hashed


class Blob:
    """An immutable array (often mapped from a file). Equal when type and bytes are equal.

    make: computes the array whenever it is asked for, so that it need not be kept; `array` is what
    it gives now.
    grown: bytes by which an array that the compiler has computed is larger than what it was
    computed from.
    """

    __slots__ = ("_array", "_digest", "_make", "_sketch", "grown", "type")

    def __init__(
        self, array: NDArray[np.generic], grown: int = 0, make: Make | None = None
    ) -> None:
        self.type = TensorType(tuple(map(int, array.shape)), from_numpy(array.dtype))
        self.grown = grown
        self._digest: str | None = None
        self._make = make
        self._array: NDArray[np.generic] | None = _read_only(array)
        self._sketch: int | None = None
        if make is not None:
            self._sketch = self.sketch
            self._array = None

    @property
    def array(self) -> NDArray[np.generic]:
        """The contents; of large constants that were computed, computed once more each time."""
        if self._array is not None:
            return self._array
        assert self._make is not None, "the array is kept unless it can be made"
        return _read_only(self._make())

    @property
    def is_kept(self) -> bool:
        """Whether the array lies somewhere, and is not computed when it is asked for."""
        return self._array is not None

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.type.dtype

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.type.static_shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the contents."""
        return self.size * self.dtype.bytes

    @property
    def digest(self) -> str:
        """SHA-256 over type and contents (C order), as hex; computed once, on demand."""
        if self._digest is None:
            sha = hashlib.sha256(str(self.type).encode())
            array = self.array
            data = np.ascontiguousarray(array)
            if data.size:
                sha.update(data.reshape(-1).view(np.uint8).data)
            self._digest = sha.hexdigest()
            give_back(array)
        return self._digest

    @property
    def sketch(self) -> int:
        """A hash of the type and a few elements, the same in every process: what differs in it is
        not worth a digest."""
        if self._sketch is None:
            a = self.array
            count = min(a.size, SKETCHED)
            places = np.arange(count) * (a.size // count) if count else np.arange(0)
            sample = a[np.unravel_index(places, a.shape)] if a.ndim else a
            text = f"{a.dtype.str} {a.dtype.name} {a.shape} ".encode() + sample.tobytes()
            self._sketch = int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "little")
            give_back(a)
        return self._sketch

    def _is_same_memory(self, other: Blob) -> bool:
        a, b = self._array, other._array
        if a is None or b is None:
            return False
        return a.strides == b.strides and address(a) == address(b)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Blob) or self.sketch != other.sketch:
            return False
        same = self.type == other.type
        return same and (self._is_same_memory(other) or self.digest == other.digest)

    def __hash__(self) -> int:
        return self.sketch

    def __repr__(self) -> str:
        return f"Blob({self.type}, {self.digest[:12]})"

    def __reduce__(self) -> tuple[object, ...]:
        return (Blob, (np.asarray(self.array), self.grown))


def _read_only(array: NDArray[np.generic]) -> NDArray[np.generic]:
    view = array.view()
    view.flags.writeable = False
    return view


def address(array: NDArray[np.generic]) -> int:
    """Where the first element of an array lies."""
    place: int = array.__array_interface__["data"][0]
    return place
