"""How large a tensor of a model may be."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from aisc.ir.arith.poly import Dim

MAX_BYTES = 1 << 40


def reach(shape: Sequence[Dim]) -> int:
    """The number of elements of a shape as far as it is known, sizes of 0 left out: numpy refuses a
    shape for what it would have without them."""
    return prod(d for d in shape if isinstance(d, int) and d != 0)
