"""How many bytes a part of a kernel touches, and how many come from beyond a cache.

What a loop touches follows from the steps of its accesses: turns whose bytes overlap make one
piece, others pieces of their own, of whole lines (Ferrante, Sarkar & Thrash, *On estimating and
enhancing cache effectiveness*, 1991). What lies in a cache from one turn to the next is not
fetched again, and that is so where the whole turn fits; otherwise each turn fetches what it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from aisc.ir.dataclass import dataclass
from aisc.ir.tensor.func import Buffer
from aisc.passes.analysis.turns import Access, Digit

LINE = 64
# Of a cache, what a kernel can count on: the rest holds what passes through.
SHARE = 0.75

Bytes = Mapping[Buffer, float]


@dataclass(frozen=True)
class Nest:
    """Parts of a kernel that follow each other, all turned by a digit; `own` are the accesses of
    the part itself."""

    digit: Digit | None
    parts: tuple[Nest, ...] = ()
    own: tuple[Access, ...] = ()

    @cached_property
    def accesses(self) -> tuple[tuple[Access, tuple[Digit, ...]], ...]:
        """Every access below, with the digits between here and there, the innermost last."""
        found: list[tuple[Access, tuple[Digit, ...]]] = [(a, ()) for a in self.own]
        found += [pair for part in self.parts for pair in part.accesses]
        if self.digit is None:
            return tuple(found)
        return tuple((a, (self.digit, *inner)) for a, inner in found)

    @cached_property
    def touched(self) -> Bytes:
        """Bytes of each buffer that all turns touch."""
        return _touched(self.accesses)

    @cached_property
    def touched_in_turn(self) -> Bytes:
        """Bytes of each buffer that one turn touches."""
        return _touched((a, inner[1:] if self.digit else inner) for a, inner in self.accesses)

    @cached_property
    def size(self) -> float:
        """Bytes that all turns touch."""
        return sum(self.touched.values())

    @cached_property
    def size_of_turn(self) -> float:
        """Bytes that one turn touches."""
        return sum(self.touched_in_turn.values())


def _touched(accesses: Iterable[tuple[Access, Sequence[Digit]]]) -> Bytes:
    """Bytes per buffer: several accesses of one buffer mostly touch the same."""
    found: dict[Buffer, float] = {}
    for a, inner in accesses:
        if a.buffer.space != "register":
            found[a.buffer] = max(found.get(a.buffer, 0.0), span(a, inner))
    return found


def span(a: Access, digits: Sequence[Digit]) -> float:
    """Bytes that an access touches while digits turn, in whole lines."""
    item = a.buffer.dtype.bytes
    steps = sorted((a.steps[d], d.count) for d in digits if d in a.steps)
    if a.at_random:
        turns = 1.0
        for _, count in steps:
            turns *= count
        return turns * LINE
    piece, pieces = float(item), 1.0
    for step, count in steps:
        if step <= max(piece, LINE if pieces == 1 else 0):
            piece = max(piece, item) + step * (count - 1)
        else:
            pieces *= count
    return pieces * max(piece, LINE) if pieces > 1 else max(piece, min(LINE, piece))


def fetched(nest: Nest, room: float) -> float:
    """Bytes that come from beyond a cache of `room` bytes, of which :data:`SHARE` counts, while a
    nest runs once."""
    return sum(_fetched(nest, room * SHARE).values())


def _fetched(nest: Nest, room: float) -> Bytes:
    if nest.size <= room:
        return nest.touched
    once = _in_turn(nest, room)
    if nest.digit is None:
        return once
    if nest.size_of_turn <= room:
        return nest.touched
    count = nest.digit.count
    return {b: n * count for b, n in once.items()}


def _in_turn(nest: Nest, room: float) -> Bytes:
    """Bytes that one turn fetches."""
    if nest.size_of_turn <= room:
        return nest.touched_in_turn
    found: dict[Buffer, float] = {}
    for part in nest.parts:
        for b, n in _fetched(part, room).items():
            found[b] = found.get(b, 0.0) + n
    if nest.own:
        for b, n in _touched((a, ()) for a in nest.own).items():
            found[b] = found.get(b, 0.0) + n
    return found
