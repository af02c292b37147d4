"""A contraction by tiles of whole warps whose panels are filled by copies, some chunks ahead.

``for chunks ahead: { copy };  for chunks: { copy a chunk ahead; multiply }``. What is copied goes
from memory to panels directly, as many elements side by side as a copy has; those beyond the last
become 0. A panel has its rows as memory has them: one for each row or column of the product, or one
for each step of the depth. Instructions that load matrices bring them into the registers of lanes
either way. Threads fetch so that those which do at the same time write to different banks. Products
are those of :mod:`aisc.passes.schedule.variants.warp_panels`, two of them for a load of weights.
"""

from __future__ import annotations

from aisc.ir.diagnostics import error
from aisc.ir.dtypes import DType
from aisc.ir.tensor.expr import (
    ZERO,
    Expr,
    Load,
    Select,
    Var,
    binary,
    cast,
    const,
    logical_and,
    select,
)
from aisc.ir.tensor.func import Buffer, Func, buffer
from aisc.ir.tensor.stmt import Alloc, For, Iter, Stmt, Store, seq
from aisc.ir.tensor.visitor import substitute
from aisc.passes.schedule.variants.panel_form import panel_form
from aisc.passes.schedule.variants.panel_nests import Point, Side, divides, replaced
from aisc.passes.schedule.variants.warp_panels import WARP, WarpBuilder, WarpPanels

# Bytes of a row that a load takes; so many rows of a panel it takes at a time.
PIECE, ROWS = 16, 8
# Products for each load of weights.
PAIR = 2


def staged_panels(
    func: Func,
    name: str,
    wm: int,
    wn: int,
    hm: int,
    hn: int,
    g: int,
    t: int,
    rh: int,
    jj: int,
    kh: int,
    kk: int,
    depth: int,
    stages: int,
    data: int,
    weights: int,
) -> Func:
    """`func` with the product `name` and the map behind it by tiles
    (:class:`~aisc.passes.schedule.variants.warp_panels.WarpPanels`)."""
    form = panel_form(func, name)
    sizes = WarpPanels(wm, wn, hm, hn, g, t, rh, jj, kh, kk, depth, stages, data, weights)
    return replaced(func, form, StagedBuilder(func, form, sizes).build())


def row_bytes(elements: int, dtype: DType) -> int:
    """How far rows of a panel lie apart: an odd number of pieces, so that some rows of the same
    piece lie in different banks."""
    pieces = -(-elements * dtype.bytes // PIECE)
    return (pieces + 1 - pieces % 2) * PIECE


class StagedBuilder(WarpBuilder):
    """Builds the nests."""

    def _layout(self, tile: int, dtype: DType, across: bool) -> tuple[tuple[int, int], int]:
        rows, columns = (tile, self.t.depth) if across else (self.t.depth, tile)
        return (rows, columns), row_bytes(columns, dtype) // dtype.bytes - columns

    def _buffers(self) -> list[Buffer]:
        t = self.t
        for side in self.sides:
            whole = side.turns * t.ty * t.tx * side.lanes == t.depth * side.tile
            if not whole or side.lanes * side.panel.dtype.bytes != PIECE or t.hn % PAIR:
                raise error("E302", f"{side.stem} is not fetched in whole pieces by all threads")
        return [side.panel for side in self.sides]

    def _chunks(self) -> list[Stmt]:
        """Walk over the depth, some chunks ahead."""
        ahead = self.t.stages - 1
        start = self._loop("ab", const(ahead))
        first = [self._copy(side, start.var) for side in self.sides]
        copies = [self._copy(side, self.kb.var + ahead) for side in self.sides]
        turn = seq(*copies, self._multiply())
        loop = For(self.kb.var, ZERO, self.kb.extent, "serial", turn)
        if not ahead:
            return [loop]
        return [For(start.var, ZERO, start.extent, "serial", seq(*first)), loop]

    # -- copies --------------------------------------------------------------------------------

    def _copy(self, side: Side, chunk: Expr) -> Stmt:
        """Elements of an operand into its panel."""
        most = self.kb.extent + (self.t.stages - 1)
        number = Iter(Var(self._fresh(f"{side.stem}_copy_chunk")), most, "ordered")

        def make(v: Point) -> Store:
            k, p = self._piece(side, v)
            value, count = self._elements(side, number.var, (k, p), v[3])
            stored = select(binary("lt", v[3], count), value, const(0, value.dtype))
            along = k if side.across else p
            row, column = (p if side.across else k), along * side.lanes + v[3]
            return Store(side.panel, (*self._stage(number.var), row, column), stored)

        axes = self._threads(side)
        return self._nest(f"{side.stem}_copy", axes, make, extra=[(number, chunk)])

    def _stage(self, chunk: Expr) -> tuple[Expr, ...]:
        stages = self.t.stages
        return () if stages == 1 else (binary("mod", chunk, const(stages)),)

    def _piece(self, side: Side, v: Point) -> tuple[Expr, Expr]:
        """Depth and row of what a thread copies, counted in pieces along one of them. Threads that
        write at the same time have the same piece of some rows, where a row is no longer than
        these pieces together."""
        number = self._number(v)
        length = (self.t.depth if side.across else side.tile) // side.lanes
        if length >= ROWS:
            size = const(length)
            piece, row = binary("mod", number, size), binary("floordiv", number, size)
        else:
            low, high = binary("mod", number, const(ROWS)), binary("floordiv", number, const(ROWS))
            piece = binary("mod", high, const(length))
            row = binary("floordiv", high, const(length)) * ROWS + low
        return (piece, row) if side.across else (row, piece)

    def _elements(
        self, side: Side, chunk: Expr, at: tuple[Expr, Expr], lane: Expr
    ) -> tuple[Expr, Expr]:
        """Elements of an operand, and how many of them there are: all or none."""
        t, depth, (k, p) = self.t, self.form.depth, at
        values = self._where(side, chunk, (k, p), lane)
        value, conds = substitute(side.factor.value, values), []
        while isinstance(value, Select):
            if value.other != const(0, value.dtype):
                raise error("E302", f"{side.stem} has borders that are not 0")
            conds.append(value.cond)
            value = value.then
        if not isinstance(value, Load):
            raise error("E302", f"{side.stem} is computed before it is multiplied")
        if t.stages > 1 or not divides(t.depth, depth.extent):
            wide = side.lanes if side.across else 1
            inside = chunk * (t.depth // wide) + k
            conds.append(binary("lt", inside, self._whole(depth.extent, wide)))
        if not conds:
            return value, const(side.lanes)
        return value, select(logical_and(*conds), const(side.lanes), const(0))

    # -- products ------------------------------------------------------------------------------

    def _multiply(self) -> Stmt:
        """For each step of the depth that an instruction has: warps load their parts of all
        operands, and the instructions multiply them."""
        t, inner = self.t, self._loop("k", const(self.t.depth // self.t.step), "reduce")
        pairs = t.hn // PAIR
        shapes = (
            (t.ty, t.hm, t.g, t.t, t.kh, t.rh, t.kk), (t.ty, pairs, t.g, t.t, PAIR, t.kh, t.kk)
        )  # fmt: skip
        parts = [
            buffer(self._fresh(f"{s.stem}_part"), s.panel.dtype, n, space=WARP)
            for s, n in zip(self.sides, shapes, strict=True)
        ]
        reads = [self._read_rows(parts[0], inner.var), self._load_weights(parts[1], inner.var)]
        self.around += [self.kb, inner]
        axes = (("ty", t.ty), ("hm", t.hm), ("hp", pairs), ("hj", PAIR), ("rh", t.rh), ("g", t.g),
                ("t", t.t), ("jj", t.jj))  # fmt: skip

        def make(v: Point) -> Store:
            ty, hm, hp, hj, rh, g, tc, jj, kh, tk, kk = v
            at = (ty, hm, hp * PAIR + hj, g, tc, rh, jj)
            a = Load(parts[0], (ty, hm, g, tk, kh, rh, kk))
            b = Load(parts[1], (ty, hp, tc * t.jj + jj, tk, hj, kh, kk))
            dtype = self.sums.dtype
            return Store(self.sums, at, Load(self.sums, at) + cast(a, dtype) * cast(b, dtype))

        over = (("kh", t.kh), ("tk", t.t), ("kk", t.kk))
        made = self._nest("multiply", axes, make, over=over)
        del self.around[-2:]
        body = seq(*map(Alloc, parts), *reads, made)
        return For(inner.var, ZERO, inner.extent, "serial", body)

    def _load_weights(self, part: Buffer, k: Var) -> Stmt:
        t = self.t
        axes = (("ty", t.ty), ("hp", t.hn // PAIR), ("g", t.g), ("t", t.t), ("hj", PAIR),
                ("kh", t.kh), ("kk", t.kk))  # fmt: skip

        def place(v: Point) -> tuple[Expr, Expr]:
            ty, hp, g, lane, hj, kh, kk = v
            warp = binary("mod", ty, const(t.wn))
            return (kh * t.t + lane) * t.kk + kk, (warp * t.hn + hp * PAIR + hj) * t.g + g

        return self._read(1, part, k, axes, place)

    def _in_panel_of(self, side: Side, k: Expr, p: Expr) -> tuple[Expr, Expr]:
        return (p, k) if side.across else (k, p)
