"""Tensor types: a physical shape and an element type."""

from __future__ import annotations

from aisc.ir.arith.poly import Dim, SymDim, product, symbols
from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType

# No dimension that only run time gives is larger: loops over an axis beside one of size 0 end soon,
# and products of two sizes do not overflow.
MAX_SIZE = 1 << 31


@dataclass(frozen=True, slots=True)
class TensorType:
    """`shape` is the order in memory, outermost first; there is no second layout system."""

    shape: tuple[Dim, ...]
    dtype: DType

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """Number of elements."""
        return product(self.shape)

    @property
    def is_static(self) -> bool:
        """True when every dimension is an integer."""
        return all(isinstance(d, int) for d in self.shape)

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as integers; only for static types."""
        shape = tuple(d for d in self.shape if isinstance(d, int))
        assert len(shape) == len(self.shape), f"{self} is not static"
        return shape

    @property
    def symbols(self) -> frozenset[SymDim]:
        """Symbolic dimensions that occur in the shape."""
        found: frozenset[SymDim] = frozenset()
        for d in self.shape:
            if not isinstance(d, int):
                found |= symbols(d)
        return found

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"
