"""Whether two buffers over the same storage have elements in common.

Views of a concat's result are columns of it: rows of all of them begin a multiple of the row's
length apart, and each takes its own part of the row. Whatever is not seen to be so may overlap.
"""

from __future__ import annotations

from aisc.ir.arith.poly import mod
from aisc.ir.tensor.func import Buffer


def storage(b: Buffer) -> str:
    """The name of the storage that a buffer lies in."""
    return b.base or b.name


def may_overlap(a: Buffer, b: Buffer) -> bool:
    """Whether buffers may have elements in common."""
    if storage(a) != storage(b):
        return False
    if a == b or a.dtype is not b.dtype:
        return True
    rows = {s for s in (*a.strides, *b.strides) if isinstance(s, int) and s > 1}
    return not any(_are_apart(_columns(a, row), _columns(b, row)) for row in sorted(rows))


def _are_apart(a: tuple[int, int] | None, b: tuple[int, int] | None) -> bool:
    return a is not None and b is not None and (a[1] <= b[0] or b[1] <= a[0])


def _columns(b: Buffer, row: int) -> tuple[int, int] | None:
    """The part of each row that a buffer lies in, where it is the same of all rows."""
    size = b.dtype.bytes
    start = mod(b.offset, row * size)
    if not isinstance(start, int) or start % size:
        return None
    start = end = start // size
    for d, s in zip(b.shape, b.strides, strict=True):
        if d == 1 or mod(s, row) == 0:
            continue
        if not isinstance(d, int) or not isinstance(s, int):
            return None
        end += (d - 1) * s
    return (start, end + 1) if end < row else None
