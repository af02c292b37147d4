"""What a register tile costs: cycles for each useful element and step of the reduction."""

from __future__ import annotations

from math import inf

from aisc.ir.dataclass import dataclass
from aisc.ir.tensor.stmt import Iter
from aisc.passes.schedule.rules.structure import known_factor

UNKNOWN_EXTENT = 1 << 20
# Cycles from one tile to the next: addresses, masks, the epilogue's beginning.
AROUND = 30
# Multiply-adds that must be on their way at a time, for none to wait for the one before.
LATENCY = 8
# Multiply-adds for a load. A core begins as many loads as multiply-adds at best, and not when lines
# come in or its other thread loads as well: a tile with more loads is as slow as these.
PER_LOAD = 1.55
# Cycles that a vector of a function takes less if two are computed together.
PAIRED = 10
# A last panel of its own makes the code of a tile twice as long: at least so much is won by it.
# Where lanes beyond the end are masked, all other panels do without masks and the registers that
# hold them, for which it is always worth that.
WORTH = 0.95


@dataclass(frozen=True, slots=True)
class Tile:
    """`rows` × `vectors` accumulators of `lanes` elements."""

    rows: int
    vectors: int
    lanes: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and vectors."""
        return self.rows, self.vectors

    @property
    def width(self) -> int:
        """Elements per row."""
        return self.vectors * self.lanes


@dataclass(frozen=True, slots=True)
class Taps:
    """Steps of a reduction that are taken together because rows share what they read in them: row r
    reads the place ``r*stride + k*apart`` in step k."""

    count: int = 1
    stride: int = 1
    apart: int = 1

    def places(self, rows: int) -> int:
        """Places that so many rows read."""
        taps = range(0, self.count * self.apart, self.apart)
        return len({r * self.stride + k for r in range(rows) for k in taps})


ONE_TAP = Taps()


@dataclass(frozen=True, slots=True)
class Extents:
    """What tiles cover: columns, rows (``UNKNOWN_EXTENT`` where only the run knows) and steps of
    the reduction; whether it is a contraction, whose weights all rows share; how many of its steps
    are taken together; whether lanes beyond the end are masked where several rows read them, as
    what is not packed ends there."""

    width: int
    height: int
    steps: int
    contraction: bool
    taps: Taps = ONE_TAP
    masked: bool = False

    @property
    def worth(self) -> float:
        """The part of the cycles that a last panel of its own may take."""
        return 1.0 if self.masked else WORTH


def extent_of(it: Iter | None) -> int:
    """An extent, or that of one element of a batch whose size only the run knows."""
    return 1 if it is None else known_factor(it.extent) or UNKNOWN_EXTENT


def cost(t: Tile, e: Extents) -> tuple[float, float, int, int]:
    """Estimated cycles for a useful element and step, one multiply-add or load for a cycle and
    vector, and what a tile costs at all; then what tells equal ones apart."""
    cycles = min(_whole(t, e), _narrowed(t, e) / e.worth)
    return round(cycles, 3), waste(t, e), -(t.rows * t.vectors), t.vectors


def paired(options: list[Tile], e: Extents) -> list[Tile]:
    """The tiles with the first of pairs of vectors before others, if its sums take no longer than
    functions of pairs save."""
    pairs = [t for t in options if t.vectors % 2 == 0][:1]
    more = sum(cost(t, e)[0] - cost(options[0], e)[0] for t in pairs) * e.steps
    return [*pairs, *(t for t in options if t not in pairs)] if more < PAIRED else options


def waste(t: Tile, e: Extents) -> float:
    """How much more whole tiles compute than is asked for."""
    return rounding(e.width, t.width) * rounding(e.height, t.rows)


def last_vectors(t: Tile, e: Extents) -> int:
    """The vectors that the last panel of columns needs, after whole ones; 0 where it is like these:
    where it needs all and none of their lanes is masked."""
    rest = e.width % t.width if e.width != UNKNOWN_EXTENT and e.width > t.width else 0
    needed = -(-rest // t.lanes)
    return needed if needed < t.vectors or e.masked else 0


def narrows(t: Tile, e: Extents) -> bool:
    """Whether a last panel of fewer vectors, or with masks, is worth code of its own."""
    return e.masked or _narrowed(t, e) <= WORTH * _whole(t, e)


def _whole(t: Tile, e: Extents) -> float:
    """The cost with all panels alike."""
    return waste(t, e) * _cycles(t, t.vectors, e) / (t.rows * t.vectors)


def _narrowed(t: Tile, e: Extents) -> float:
    """The cost with a last panel of fewer vectors; infinite where there is none."""
    last = last_vectors(t, e)
    if not last or not e.contraction:
        return inf
    cycles = e.width // t.width * _cycles(t, t.vectors, e) + _cycles(t, last, e)
    return rounding(e.height, t.rows) * cycles / (t.rows * e.width / t.lanes)


def _cycles(t: Tile, vectors: int, e: Extents) -> float:
    """Cycles of a tile for one step of the reduction, with so many vectors."""
    loads: float = vectors * t.rows
    if e.contraction:
        loads = vectors + e.taps.places(t.rows) / e.taps.count
    return max(t.rows * vectors, loads * PER_LOAD, LATENCY) + AROUND / max(e.steps, 1)


def rounding(extent: int, step: int) -> float:
    """How much longer an extent becomes in whole steps; not at all where it is unknown."""
    return 1.0 if extent == UNKNOWN_EXTENT else -(-extent // step) * step / extent
