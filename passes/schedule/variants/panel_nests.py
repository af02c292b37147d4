"""What products by panels have in common: loops over tiles, panels, and how they are filled.

``for tiles: { clear sums; for chunks of the depth: { fetch; put; multiply }; finish }``. All nests
of a tile are divided among the same threads, `ty` by `tx` of them. Elements are fetched into
registers, as many at a time as lie side by side, and put into panels from there: with two stages
the next chunk is fetched before the last one is multiplied, and put after that into the other half
of the panels. Rows and columns beyond the last are read from the last; depth beyond the last is 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.dtypes import DType
from aisc.ir.tensor.expr import (
    ZERO,
    Const,
    Expr,
    Load,
    Var,
    binary,
    const,
    logical_and,
    minimum,
    select,
)
from aisc.ir.tensor.func import Buffer, Func, buffer, row_major
from aisc.ir.tensor.linear import Indexer
from aisc.ir.tensor.stmt import Alloc, Block, For, Iter, IterKind, Stmt, Store, seq
from aisc.ir.tensor.tree import (
    find_place,
    guarded,
    push_guard,
    replace_stmt,
    with_regions,
    without_alloc,
)
from aisc.ir.tensor.visitor import substitute, transform
from aisc.passes.schedule.copies import Names
from aisc.passes.schedule.variants.panel_form import Axis, Factor, PanelForm


class Tiling(Protocol):
    """What all tilings have."""

    @property
    def ty(self) -> int:
        """Threads along one axis."""

    @property
    def tx(self) -> int:
        """Threads along the other."""

    @property
    def rows(self) -> int:
        """Rows of a tile."""

    @property
    def columns(self) -> int:
        """Columns of a tile."""

    @property
    def depth(self) -> int:
        """The depth of a chunk."""

    @property
    def stages(self) -> int:
        """Chunks that have panels at a time."""

    @property
    def data(self) -> int:
        """Elements of data fetched at a time."""

    @property
    def weights(self) -> int:
        """Elements of weights fetched at a time."""


T = TypeVar("T", bound=Tiling)


def replaced(func: Func, form: PanelForm, new: Stmt) -> Func:
    """`func` with a nest in place of a product and the map behind it."""
    name = form.block.name
    top = find_place(func, name).loops[0]
    if form.consumer is not None:
        last = find_place(func, form.consumer.name).loops[0]
        func = replace_stmt(func, top, None)
        func = without_alloc(func, form.out)
        return replace_stmt(func, last, new)
    return replace_stmt(func, top, new)


# An axis of a nest: the stem of its names, and its extent.
Sizes = Sequence[tuple[str, int]]
Point = Sequence[Var]


@dataclass(frozen=True, slots=True)
class _Loop:
    """A loop around nests."""

    var: Var
    extent: Expr
    kind: IterKind


@dataclass(frozen=True, slots=True)
class Side:
    """One operand: its panel and the registers on the way there. `across`: it is fetched along the
    depth, and so put across the rows of the panel."""

    stem: str
    axis: Axis
    factor: Factor
    tile: int
    lanes: int
    across: bool
    panel: Buffer
    staged: Buffer
    turns: int


class PanelNests(ABC, Generic[T]):
    """Builds the nests; how sums lie in registers, and how they are computed, is left open."""

    SPACE = "register"

    def __init__(self, func: Func, form: PanelForm, sizes: T) -> None:
        self.form, self.t, self.names = form, sizes, Names(func)
        self.index = Indexer({d.name: (0, float("inf")) for d in func.dims})
        self.around: list[_Loop] = []
        shape = tuple(n for _, n in self._tile())
        self.sums = buffer(self._fresh("sums"), form.out.dtype, shape, space=self.SPACE)
        f, t = form, sizes
        self.sides = (
            self._side("data", f.rows, f.data, t.rows, t.data),
            self._side("weights", f.columns, f.weights, t.columns, t.weights),
        )

    @abstractmethod
    def _tile(self) -> Sizes:
        """The axes of the sums of a tile, threads among them."""

    @abstractmethod
    def _layout(self, tile: int, dtype: DType, across: bool) -> tuple[tuple[int, int], int]:
        """The shape of a panel, and how much longer its rows are; `across`: it is filled so where
        its rows are those of the operand."""

    @abstractmethod
    def _in_panel(self, k: Expr, p: Expr) -> tuple[Expr, Expr]:
        """The place in a panel of a step of the depth, of a row or column."""

    @abstractmethod
    def _multiply(self) -> Stmt:
        """Add the products of a chunk."""

    @abstractmethod
    def _numbers(self, v: Sequence[Expr]) -> tuple[Expr, Expr, Expr, int]:
        """Row, column in pieces of lanes, and lane of a sum; and the lanes, if columns are whole
        pieces."""

    def _fresh(self, stem: str) -> str:
        return self.names.fresh(f"{self.form.block.name}_{stem}")

    def _side(self, stem: str, axis: Axis, factor: Factor, tile: int, lanes: int) -> Side:
        t, depth = self.t, self.form.depth.iters[-1]
        across = factor.along is depth
        if lanes > 1 and (
            self.form.lanes(factor, lanes) != lanes or (t.depth if across else tile) % lanes
        ):
            raise error("E302", f"{stem} cannot be fetched {lanes} elements at a time")
        turns = -(-t.depth * tile // (lanes * t.ty * t.tx))
        halves = () if t.stages == 1 else (t.stages,)
        dtype = factor.value.dtype
        shape, pad = self._layout(tile, dtype, across)
        panel = replace(
            buffer(self._fresh(f"{stem}_panel"), dtype, (*halves, *shape), space="shared"),
            strides=row_major((*halves, shape[0], shape[1] + pad)),
        )
        staged = buffer(
            self._fresh(f"{stem}_staged"), dtype, (turns, t.ty, t.tx, lanes), space="register"
        )
        return Side(stem, axis, factor, tile, lanes, across, panel, staged, turns)

    # -- the whole ---------------------------------------------------------------------------

    def build(self) -> Stmt:
        """All loops."""
        f, t = self.form, self.t
        self.outer = [self._loop(f"g{k}", it.extent) for k, it in enumerate(f.outer)]
        self.mb = self._loop("mb", self._blocks(f.rows.extent, t.rows))
        self.nb = self._loop("nb", self._blocks(f.columns.extent, t.columns))
        self.kb = self._loop("kb", self._blocks(f.depth.extent, t.depth), "reduce")
        loops = [*self.outer, self.mb, self.nb]
        self.around = list(loops)
        clear = self._nest("clear", self._tile(), self._clear)
        body = seq(
            *map(Alloc, (self.sums, *self._buffers())), clear, *self._chunks(),
            self._nest("finish", self._tile(), self._finish, self._inside),
        )  # fmt: skip
        for loop in reversed(loops):
            body = For(loop.var, ZERO, loop.extent, "serial", body)
        return body

    def _buffers(self) -> list[Buffer]:
        """What a block shares, and what threads hold on the way there."""
        return [b for s in self.sides for b in (s.panel, s.staged)]

    def _loop(self, stem: str, extent: Expr, kind: IterKind = "spatial") -> _Loop:
        return _Loop(Var(self._fresh(stem)), extent, kind)

    def _blocks(self, extent: Expr, size: int) -> Expr:
        return self.index.simplify(binary("floordiv", extent + (size - 1), const(size)))

    def _chunks(self) -> list[Stmt]:
        """Walk over the depth."""
        if self.t.stages == 1:
            turn = [*self._fill(self.kb.var), self._multiply()]
            return [For(self.kb.var, ZERO, self.kb.extent, "serial", seq(*turn))]
        some = binary("lt", ZERO, self.kb.extent)
        start = [push_guard(s, some) for s in self._fill(ZERO)]
        more = binary("lt", self.kb.var + 1, self.kb.extent)
        ahead = [push_guard(s, more) for s in self._fill(self.kb.var + 1)]
        fetches, puts = ahead[: len(self.sides)], ahead[len(self.sides) :]
        turn = [*fetches, self._multiply(), *puts]
        return [*start, For(self.kb.var, ZERO, self.kb.extent, "serial", seq(*turn))]

    def _fill(self, chunk: Expr) -> list[Stmt]:
        """Fetch a chunk of both operands, then put both into the panels."""
        made = []
        for what in (self._fetch, self._put):
            for side in self.sides:
                made.append(what(side, chunk))
        return made

    # -- nests -------------------------------------------------------------------------------

    def _nest(
        self,
        stem: str,
        axes: Sizes,
        make: Callable[[Point], Store],
        when: Callable[[Sequence[Expr]], Expr] | None = None,
        extra: Sequence[tuple[Iter, Expr]] = (),
        over: Sizes = (),
    ) -> Stmt:
        """A block over the loops around, `axes` and, summed up, those of `over`. `make` is given
        the iterators of the axes, `when` their loops."""
        name = self.form.block.name if stem == "multiply" else self._fresh(stem)
        outer = [
            (Iter(Var(self.names.fresh(f"{name}_b")), f.extent, f.kind), f.var) for f in self.around
        ]
        inner = [
            Iter(Var(self.names.fresh(f"{name}_v{s}")), const(n), kind)
            for group, kind in _kinds(axes, over)
            for s, n in group
        ]
        loops = [Var(self.names.fresh(f"{name}_{s}")) for s, _ in (*axes, *over)]
        self.at = {v: it.var for it, v in outer}
        store = make([it.var for it in inner])
        pairs = [*outer, *extra, *zip(inner, loops, strict=True)]
        block = Block(
            name, tuple(it for it, _ in pairs), tuple(v for _, v in pairs), (), (), None, store,
            "sum" if stem == "multiply" else "", self.form.block.loc,
        )  # fmt: skip
        body: Stmt = with_regions(block)
        if when is not None:
            self.at = {v: v for _, v in outer if isinstance(v, Var)}
            body = guarded(with_regions(block), when(loops))
        for var, it in zip(reversed(loops), reversed(inner), strict=True):
            body = For(var, ZERO, it.extent, "serial", body)
        return body

    def _clear(self, v: Point) -> Store:
        return Store(self.sums, tuple(v), const(0, self.sums.dtype))

    def _chunk(self, stem: str, chunk: Expr) -> tuple[Iter, Expr]:
        """The number of a chunk as an iterator: each turn puts its own values there."""
        return Iter(Var(self._fresh(f"{stem}_chunk")), self.kb.extent, "ordered"), chunk

    def _fetch(self, side: Side, chunk: Expr) -> Stmt:
        """Elements of an operand into the registers of threads."""
        number = self._chunk(f"{side.stem}_fetch", chunk)

        def make(v: Point) -> Store:
            along, lane = self._place(side, v), v[3]
            return Store(side.staged, tuple(v), self._element(side, number[0].var, along, lane))

        axes = self._threads(side)
        return self._nest(f"{side.stem}_fetch", axes, make, self._full(side), extra=[number])

    def _put(self, side: Side, chunk: Expr) -> Stmt:
        """Elements of an operand from registers into its panel."""
        number = self._chunk(f"{side.stem}_put", chunk)
        stages = self.t.stages

        def make(v: Point) -> Store:
            k, p = self._place(side, v)
            if side.across:
                k = k * side.lanes + v[3]
            else:
                p = p * side.lanes + v[3]
            half = () if stages == 1 else (binary("mod", number[0].var, const(stages)),)
            return Store(side.panel, (*half, *self._in_panel(k, p)), Load(side.staged, tuple(v)))

        axes = self._threads(side)
        return self._nest(f"{side.stem}_put", axes, make, self._full(side), extra=[number])

    def _threads(self, side: Side) -> Sizes:
        t = self.t
        return (("o", side.turns), ("ty", t.ty), ("tx", t.tx), ("v", side.lanes))

    def _full(self, side: Side) -> Callable[[Sequence[Expr]], Expr] | None:
        """The condition that there is something left to fetch, where threads have not equally
        much."""
        t = self.t
        count = t.depth * side.tile // side.lanes
        if side.turns * t.ty * t.tx == count:
            return None
        return lambda v: binary("lt", self._number(v), const(count))

    def _number(self, v: Sequence[Expr]) -> Expr:
        return (v[0] * self.t.ty + v[1]) * self.t.tx + v[2]

    def _place(self, side: Side, v: Sequence[Expr]) -> tuple[Expr, Expr]:
        """Depth and row of what a thread fetches, counted in pieces along one of them."""
        number = self._number(v)
        if side.across:
            pieces = const(self.t.depth // side.lanes)
            return binary("mod", number, pieces), binary("floordiv", number, pieces)
        pieces = const(side.tile // side.lanes)
        return binary("floordiv", number, pieces), binary("mod", number, pieces)

    def _element(self, side: Side, chunk: Expr, at: tuple[Expr, Expr], lane: Expr) -> Expr:
        """An element of an operand; 0 beyond its depth."""
        t, depth, wide = self.t, self.form.depth, side.lanes if side.across else 1
        value = substitute(side.factor.value, self._where(side, chunk, at, lane))
        if divides(t.depth, depth.extent):
            return value
        k, steps = chunk * (t.depth // wide) + at[0], self._whole(depth.extent, wide)
        return select(binary("lt", k, steps), value, const(0, value.dtype))

    def _where(self, side: Side, chunk: Expr, at: tuple[Expr, Expr], lane: Expr) -> dict[Var, Expr]:
        """The iterators of the product at an element of an operand."""
        t, lanes, depth = self.t, side.lanes, self.form.depth
        k, p = at
        tile = self.at[(self.mb if side is self.sides[0] else self.nb).var]
        values: dict[Var, Expr] = {
            it.var: self.at[f.var] for it, f in zip(self.form.outer, self.outer, strict=True)
        }
        wide, high = (lanes, 1) if side.across else (1, lanes)
        k = chunk * (t.depth // wide) + k
        p = tile * (side.tile // high) + p
        if not divides(side.tile, side.axis.extent):
            p = minimum(p, self._whole(side.axis.extent, high) - 1)
        values |= side.axis.at(p, lane if high > 1 else ZERO, high)
        values |= depth.at(k, lane if wide > 1 else ZERO, wide)
        return values

    def _whole(self, extent: Expr, lanes: int) -> Expr:
        """An extent in pieces of so many lanes, which divide it."""
        return (
            self.index.simplify(binary("floordiv", extent, const(lanes))) if lanes > 1 else extent
        )

    # -- the end -----------------------------------------------------------------------------

    def _inside(self, v: Sequence[Expr]) -> Expr:
        """Whether there is such a row and column."""
        row, piece, _, lanes = self._numbers(v)
        f, t = self.form, self.t
        conds = []
        if not divides(t.rows, f.rows.extent):
            conds.append(binary("lt", row, f.rows.extent))
        if not divides(t.columns, f.columns.extent):
            conds.append(binary("lt", piece, self._whole(f.columns.extent, lanes)))
        return logical_and(*conds)

    def _finish(self, v: Point) -> Store:
        """A sum, and what reads it, to where it belongs."""
        f = self.form
        row, piece, lane, lanes = self._numbers(v)
        values: dict[Var, Expr] = {
            it.var: self.at[o.var] for it, o in zip(f.outer, self.outer, strict=True)
        }
        values |= f.rows.at(row) | f.columns.at(piece, lane, lanes)
        own_store = f.block.body
        assert isinstance(own_store, Store), "a product stores its sums"
        places = [values.get(v, ZERO) for v in own_store.indices if isinstance(v, Var)]
        total = Load(self.sums, tuple(v))
        if f.consumer is None:
            return Store(f.out, tuple(places), total)
        body = f.consumer.body
        assert isinstance(body, Store), "a map stores its value"
        read = Load(f.out, tuple(it.var for it in f.consumer.iters))
        own = {it.var: e for it, e in zip(f.consumer.iters, places, strict=True)}
        value = substitute(transform(body.value, lambda n: _MARK if n == read else n), own)
        value = transform(value, lambda n: total if n == _MARK else n)
        return replace(body, indices=tuple(substitute(i, own) for i in body.indices), value=value)


_MARK = Var("the sum")


def _kinds(axes: Sizes, over: Sizes) -> tuple[tuple[Sizes, IterKind], ...]:
    return (axes, "spatial"), (over, "reduce")


def divides(n: int, extent: Expr) -> bool:
    """Whether a size is known and a multiple of `n`."""
    return isinstance(extent, Const) and int(extent.value) % n == 0
