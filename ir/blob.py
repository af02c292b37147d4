"""Constant tensors: an array with a content hash, printed as ``@blob<sha256>`` beside the text."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from aisc.ir.dtypes import DType, from_numpy
from aisc.ir.types import TensorType


class Blob:
    """An immutable array (often mapped from a file). Equal when type and bytes are equal."""

    __slots__ = ("_digest", "array")

    def __init__(self, array: NDArray[np.generic]) -> None:
        view = array.view()
        view.flags.writeable = False
        self.array: NDArray[np.generic] = view
        self._digest: str | None = None

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

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Blob) and self.type == other.type and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Blob({self.type}, {self.digest[:12]})"

    def __reduce__(self) -> tuple[object, ...]:
        return (Blob, (np.asarray(self.array),))
