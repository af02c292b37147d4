"""Places of buffers in a memory segment: the one algorithm of the static planner, the interpreter
and compiled code."""

from __future__ import annotations

from collections.abc import Sequence

ALIGNMENT = 64


def aligned(size: int) -> int:
    """`size` rounded up to whole cache lines."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def first_fit(items: Sequence[tuple[int, int, int]]) -> tuple[list[int], int]:
    """Offsets of items (bytes, first, last) and the size of the segment.

    The largest item comes first, of equal ones the one listed first; each gets the lowest place
    that is free over its whole span (first and last included). Sizes are rounded up to
    :data:`ALIGNMENT`. Greedy by size, after Pisarchyk & Lee, *Efficient Memory Management for Deep
    Neural Net Inference*, 2020.
    """
    sizes = [aligned(size) for size, _, _ in items]
    offsets = [0] * len(items)
    placed: list[int] = []  # by offset
    total = 0
    for k in sorted(range(len(items)), key=lambda k: -sizes[k]):
        start = 0
        for other in placed:
            apart = items[other][1] > items[k][2] or items[k][1] > items[other][2]
            if apart or offsets[other] + sizes[other] <= start:
                continue
            if offsets[other] >= start + sizes[k]:
                break
            start = offsets[other] + sizes[other]
        offsets[k] = start
        total = max(total, start + sizes[k])
        at = next((n for n, o in enumerate(placed) if offsets[o] > start), len(placed))
        placed.insert(at, k)
    return offsets, total
