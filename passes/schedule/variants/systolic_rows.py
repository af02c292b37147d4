"""Rows of a systolic tile along one side: blocks of them, what of the data a block reads, and where
that lies outside of an image."""

from __future__ import annotations

from aisc.ir.tensor.expr import ZERO, Const, Expr, Var, binary, const, maximum, minimum
from aisc.ir.tensor.visitor import substitute
from aisc.passes.schedule.variants.systolic_form import Side, size_of


class Rows:
    """Rows along one side, and the tile of data that a block of them reads."""

    def __init__(self, side: Side | None, size: int) -> None:
        self.side, self.size = side, size
        self.total = 1 if side is None else size_of(side.axis)
        self.blocks = -(-self.total // size)
        self.at: Expr = ZERO
        taps = {} if side is None else side.window
        self.window = 1 + sum(c * (size_of(r) - 1) for r, c in taps.items())

    @property
    def walks(self) -> bool:
        """Whether a tile has every row that lies between, as windows overlap."""
        return self.side is not None and self.side.is_window

    @property
    def step(self) -> int:
        """Rows of the image from one of the tile to the next."""
        return 1 if self.side is None or self.walks else self.side.stride

    @property
    def tile(self) -> int:
        """Rows of a tile."""
        return self._needed(self.size)

    def _needed(self, rows: int) -> int:
        if self.side is None or not self.walks:
            return rows
        return self.side.stride * (rows - 1) + self.window

    @property
    def extent(self) -> Expr:
        """Rows of this block."""
        return part_of(self.total, self.size, self.at)

    @property
    def needed(self) -> Expr:
        """Rows of its tile."""
        if self.side is None or not self.walks:
            return self.extent
        return (self.extent - 1) * self.side.stride + self.window

    def first(self, values: dict[Var, Expr]) -> Expr:
        """The index of the tile's first row in the data."""
        assert self.side is not None
        at = {**values, **{r.var: ZERO for r in self.side.window}}
        at[self.side.axis.var] = self.at * self.size
        return substitute(self.side.index, at)

    def beyond(self, values: dict[Var, Expr]) -> list[Expr]:
        """Conditions under which some of the tile lies outside of the image."""
        if self.side is None or self.side.inside is None:
            return []
        (low, high), first = self.side.inside, self.first(values)
        end = first + (self.needed - 1) * self.step + 1
        return [binary("lt", first, const(low)), binary("gt", end, const(high))]

    def clipped(self, values: dict[Var, Expr]) -> tuple[Expr, Expr]:
        """The first row of the tile inside of the image, and how many there are."""
        if self.side is None or self.side.inside is None:
            return ZERO, self.extent if self.side is None else self.needed
        (low, high), first = self.side.inside, self.first(values)
        step = self.step
        before, upto = (const(bound) - first + (step - 1) for bound in (low, high))
        start = maximum(const(0), before if step == 1 else before // step)
        end = minimum(self.needed, upto if step == 1 else upto // step)
        return start, maximum(const(0), end - start)

    def coordinate(self, row: Expr, values: dict[Var, Expr]) -> Expr:
        """Where in the tile a row of the block begins, at this place of the window."""
        if self.side is None or not self.walks:
            return row
        place = row * self.side.stride
        for r, c in self.side.window.items():
            place = place + values[r.var] * c
        return place


def part_of(total: int, size: int, number: Expr) -> Expr:
    """How much part `number` of a total in parts of `size` has."""
    if total % size == 0:
        return const(size)
    if isinstance(number, Const):
        return const(min(size, total - int(number.value) * size))
    return minimum(const(size), const(total) - number * size)
