"""A contraction by tiles whose products are instructions of whole warps.

The operands of an instruction lie in registers of all lanes (the memory *warp*): the first axes of
such a buffer number the warp and what it has several of, then come the two axes of its lanes, `g`
and `t`, then the registers of a lane. A block has `wm` by `wn` warps, each computes `hm` by `hn`
results of the instruction. What it multiplies lies in panels with a row for each row or column of
the product, so that what a lane reads lies side by side. What all forms of this have in common is
in :mod:`aisc.passes.schedule.variants.panel_nests`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType
from aisc.ir.tensor.expr import ZERO, Expr, Load, Var, binary, cast, const
from aisc.ir.tensor.func import Buffer, Func, buffer
from aisc.ir.tensor.stmt import Alloc, For, Iter, Stmt, Store, seq
from aisc.passes.schedule.variants.panel_form import panel_form
from aisc.passes.schedule.variants.panel_nests import PanelNests, Point, Side, Sizes, replaced

WARP = "warp"
# Bytes that a row of a panel is longer: rows of neighbouring lanes lie in different banks.
PAD_BYTES = 16


@dataclass(frozen=True, slots=True)
class WarpPanels:
    """Sizes: warps along rows and columns, results of the instruction that each has along both; the
    instruction's lanes `g` and `t`, registers of a lane along rows (`rh`), columns (`jj`) and the
    depth (`kh` times `kk`); the depth of a chunk, stages, and how many elements of data and of
    weights are fetched at a time."""

    wm: int
    wn: int
    hm: int
    hn: int
    g: int
    t: int
    rh: int
    jj: int
    kh: int
    kk: int
    depth: int
    stages: int
    data: int
    weights: int

    @property
    def ty(self) -> int:
        """Warps."""
        return self.wm * self.wn

    @property
    def tx(self) -> int:
        """Lanes of a warp."""
        return self.g * self.t

    @property
    def rows(self) -> int:
        """Rows of a tile."""
        return self.wm * self.hm * self.rh * self.g

    @property
    def columns(self) -> int:
        """Columns of a tile."""
        return self.wn * self.hn * self.g

    @property
    def step(self) -> int:
        """The depth of an instruction."""
        return self.kh * self.t * self.kk


def warp_panels(
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
    """`func` with the product `name` and the map behind it by tiles (:class:`WarpPanels`)."""
    form = panel_form(func, name)
    sizes = WarpPanels(wm, wn, hm, hn, g, t, rh, jj, kh, kk, depth, stages, data, weights)
    return replaced(func, form, WarpBuilder(func, form, sizes).build())


class WarpBuilder(PanelNests[WarpPanels]):
    """Builds the nests."""

    SPACE = WARP

    def _tile(self) -> Sizes:
        t = self.t
        return (("ty", t.ty), ("hm", t.hm), ("hn", t.hn), ("g", t.g), ("t", t.t), ("rh", t.rh),
                ("jj", t.jj))  # fmt: skip

    def _layout(self, tile: int, dtype: DType, across: bool) -> tuple[tuple[int, int], int]:
        return (tile, self.t.depth), max(1, PAD_BYTES // dtype.bytes)

    def _in_panel(self, k: Expr, p: Expr) -> tuple[Expr, Expr]:
        return p, k

    def _in_panel_of(self, side: Side, k: Expr, p: Expr) -> tuple[Expr, Expr]:
        """The place in the panel of an operand."""
        return self._in_panel(k, p)

    def _multiply(self) -> Stmt:
        """For each step of the depth that an instruction has: lanes read their parts of all
        operands, and the instructions multiply them."""
        t, inner = self.t, self._loop("k", const(self.t.depth // self.t.step), "reduce")
        shapes = ((t.ty, t.hm, t.g, t.t, t.kh, t.rh, t.kk), (t.ty, t.hn, t.g, t.t, t.kh, t.kk))
        parts = [
            buffer(self._fresh(f"{s.stem}_part"), s.panel.dtype, n, space=WARP)
            for s, n in zip(self.sides, shapes, strict=True)
        ]
        reads = [self._read_rows(parts[0], inner.var), self._read_columns(parts[1], inner.var)]
        self.around += [self.kb, inner]
        axes = (("ty", t.ty), ("hm", t.hm), ("hn", t.hn), ("rh", t.rh), ("g", t.g), ("t", t.t),
                ("jj", t.jj))  # fmt: skip

        def make(v: Point) -> Store:
            ty, hm, hn, rh, g, tc, jj, kh, tk, kk = v
            at = (ty, hm, hn, g, tc, rh, jj)
            a = Load(parts[0], (ty, hm, g, tk, kh, rh, kk))
            b = Load(parts[1], (ty, hn, tc * t.jj + jj, tk, kh, kk))
            dtype = self.sums.dtype
            return Store(self.sums, at, Load(self.sums, at) + cast(a, dtype) * cast(b, dtype))

        over = (("kh", t.kh), ("tk", t.t), ("kk", t.kk))
        made = self._nest("multiply", axes, make, over=over)
        del self.around[-2:]
        body = seq(*map(Alloc, parts), *reads, made)
        return For(inner.var, ZERO, inner.extent, "serial", body)

    def _read_rows(self, part: Buffer, k: Var) -> Stmt:
        """The part of the data that a lane has."""
        t = self.t
        axes = (("ty", t.ty), ("hm", t.hm), ("g", t.g), ("t", t.t), ("kh", t.kh), ("rh", t.rh),
                ("kk", t.kk))  # fmt: skip

        def place(v: Point) -> tuple[Expr, Expr]:
            ty, hm, g, lane, kh, rh, kk = v
            warp = binary("floordiv", ty, const(t.wn))
            row = (warp * t.hm + hm) * (t.rh * t.g) + rh * t.g + g
            return (kh * t.t + lane) * t.kk + kk, row

        return self._read(0, part, k, axes, place)

    def _read_columns(self, part: Buffer, k: Var) -> Stmt:
        """The part of the weights that a lane has."""
        t = self.t
        axes = (("ty", t.ty), ("hn", t.hn), ("g", t.g), ("t", t.t), ("kh", t.kh), ("kk", t.kk))

        def place(v: Point) -> tuple[Expr, Expr]:
            ty, hn, g, lane, kh, kk = v
            warp = binary("mod", ty, const(t.wn))
            return (kh * t.t + lane) * t.kk + kk, (warp * t.hn + hn) * t.g + g

        return self._read(1, part, k, axes, place)

    def _read(
        self, which: int, part: Buffer, k: Var, axes: Sizes,
        place: Callable[[Point], tuple[Expr, Expr]],
    ) -> Stmt:  # fmt: skip
        t, side = self.t, self.sides[which]
        chunk = self._chunk(f"{side.stem}_read", self.kb.var)
        step = (Iter(Var(self._fresh(f"{side.stem}_step")), const(t.depth), "ordered"), k)

        def make(v: Point) -> Store:
            deep, row = place(v)
            half = () if t.stages == 1 else (binary("mod", chunk[0].var, const(t.stages)),)
            at = self._in_panel_of(side, step[0].var * t.step + deep, row)
            return Store(part, tuple(v), Load(side.panel, (*half, *at)))

        return self._nest(f"{side.stem}_read", axes, make, extra=[chunk, step])

    def _numbers(self, v: Sequence[Expr]) -> tuple[Expr, Expr, Expr, int]:
        t = self.t
        ty, hm, hn, g, lane, rh, jj = v
        down, right = binary("floordiv", ty, const(t.wn)), binary("mod", ty, const(t.wn))
        row = self.at[self.mb.var] * t.rows + (down * t.hm + hm) * (t.rh * t.g) + rh * t.g + g
        piece = self.at[self.nb.var] * (t.columns // t.jj) + (right * t.hn + hn) * t.t + lane
        if self.form.columns.step % t.jj == 0:
            return row, piece, jj, t.jj
        return row, piece * t.jj + jj, ZERO, 1
