"""Places of buffers in a memory segment: the one algorithm of the static planner, the interpreter
and compiled code."""

from __future__ import annotations

from collections.abc import Sequence

ALIGNMENT = 64
PIECE = 32  # steps of time that are looked up together


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
    placed: dict[int, list[int]] = {}  # by pieces of time, so that long programs stay cheap
    total = 0
    for k in sorted(range(len(items)), key=lambda k: -sizes[k]):
        _, first, last = items[k]
        pieces = range(first // PIECE, last // PIECE + 1)
        near = {other for p in pieces for other in placed.get(p, ())}
        beside = (o for o in near if items[o][1] <= last and first <= items[o][2])
        start = 0
        for other in sorted(beside, key=offsets.__getitem__):
            if offsets[other] + sizes[other] <= start:
                continue
            if offsets[other] >= start + sizes[k]:
                break
            start = offsets[other] + sizes[other]
        offsets[k] = start
        total = max(total, start + sizes[k])
        for p in pieces:
            placed.setdefault(p, []).append(k)
    return offsets, total
