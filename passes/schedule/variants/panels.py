"""A contraction by tiles whose operands lie in panels that the threads of a block share.

A thread has sums of ``hm * vm`` rows and ``hn * vn`` columns: pieces of `vm` and `vn` neighbours,
so far apart that neighbouring threads read neighbouring elements of the panels. What all forms of
this have in common is in :mod:`aisc.passes.schedule.variants.panel_nests`.
"""

from __future__ import annotations

from collections.abc import Sequence

from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType
from aisc.ir.tensor.expr import (
    ZERO,
    Expr,
    Load,
    Var,
    binary,
    cast,
    const,
)
from aisc.ir.tensor.func import Buffer, Func, buffer
from aisc.ir.tensor.stmt import Alloc, For, Iter, Stmt, Store, seq
from aisc.passes.schedule.variants.panel_form import panel_form
from aisc.passes.schedule.variants.panel_nests import PanelNests, Point, Sizes, replaced

# Elements that a row of a panel is longer where it is filled across: neighbours in a column then
# lie in different banks.
PAD = 4


@dataclass(frozen=True, slots=True)
class Panels:
    """Sizes: threads along rows and columns, pieces of a thread along both and their lengths, the
    depth of a chunk, stages, and how many elements of data and of weights are fetched at a time."""

    ty: int
    tx: int
    hm: int
    vm: int
    hn: int
    vn: int
    depth: int
    stages: int
    data: int
    weights: int

    @property
    def rows(self) -> int:
        """Rows of a tile."""
        return self.hm * self.ty * self.vm

    @property
    def columns(self) -> int:
        """Columns of a tile."""
        return self.hn * self.tx * self.vn


def shared_panels(
    func: Func,
    name: str,
    ty: int,
    tx: int,
    hm: int,
    vm: int,
    hn: int,
    vn: int,
    depth: int,
    stages: int,
    data: int,
    weights: int,
) -> Func:
    """`func` with the product `name` and the map behind it by tiles (:class:`Panels`)."""
    form = panel_form(func, name)
    sizes = Panels(ty, tx, hm, vm, hn, vn, depth, stages, data, weights)
    return replaced(func, form, PanelBuilder(func, form, sizes).build())


class PanelBuilder(PanelNests[Panels]):
    """Builds the nests; a panel has a row for each step of the depth."""

    def _tile(self) -> Sizes:
        t = self.t
        return (("hm", t.hm), ("ty", t.ty), ("vm", t.vm), ("hn", t.hn), ("tx", t.tx), ("vn", t.vn))

    def _layout(self, tile: int, dtype: DType, across: bool) -> tuple[tuple[int, int], int]:
        """The shape of a panel, and how much longer its rows are; `across`: it is filled so."""
        return (self.t.depth, tile), PAD if across else 0

    def _in_panel(self, k: Expr, p: Expr) -> tuple[Expr, Expr]:
        """The place in a panel of a step of the depth, of a row or column."""
        return k, p

    def _multiply(self) -> Stmt:
        """Add the products of a chunk: for each step of its depth a thread reads its rows and
        columns from the panels, and multiplies them."""
        t, inner = self.t, self._loop("k", const(self.t.depth), "reduce")
        sizes = ((t.hm, t.vm), (t.hn, t.vn))
        parts = [
            buffer(self._fresh(f"{s.stem}_part"), s.panel.dtype, (t.ty, t.tx, *n), space="register")
            for s, n in zip(self.sides, sizes, strict=True)
        ]
        reads = [self._read(k, parts[k], inner.var) for k in range(2)]
        self.around += [self.kb, inner]

        def make(v: Point) -> Store:
            hm, ty, vm, hn, tx, vn = v
            factors = (Load(parts[0], (ty, tx, hm, vm)), Load(parts[1], (ty, tx, hn, vn)))
            a, b = (cast(e, self.sums.dtype) for e in factors)
            return Store(self.sums, tuple(v), Load(self.sums, tuple(v)) + a * b)

        made = self._nest("multiply", self._tile(), make)
        del self.around[-2:]
        body = seq(*map(Alloc, parts), *reads, made)
        return For(inner.var, ZERO, inner.extent, "serial", body)

    def _read(self, which: int, part: Buffer, k: Var) -> Stmt:
        """What a thread multiplies, from a panel."""
        t, side = self.t, self.sides[which]
        count, lanes = ((t.hm, t.vm), (t.hn, t.vn))[which]
        chunk = self._chunk(f"{side.stem}_read", self.kb.var)
        step = (Iter(Var(self._fresh(f"{side.stem}_step")), const(t.depth), "ordered"), k)

        def make(v: Point) -> Store:
            ty, tx, h, w = v
            place = (h * (t.tx if which else t.ty) + (tx if which else ty)) * lanes + w
            half = () if t.stages == 1 else (binary("mod", chunk[0].var, const(t.stages)),)
            at = (*half, *self._in_panel(step[0].var, place))
            return Store(part, tuple(v), Load(side.panel, at))

        axes = (("ty", t.ty), ("tx", t.tx), ("o", count), ("v", lanes))
        return self._nest(f"{side.stem}_read", axes, make, extra=[chunk, step])

    def _numbers(self, v: Sequence[Expr]) -> tuple[Expr, Expr, Expr, int]:
        """Row, column in pieces of lanes, and lane of a sum; and the lanes, if columns are whole
        pieces."""
        t, f = self.t, self.form
        hm, ty, vm, hn, tx, vn = v
        row = self.at[self.mb.var] * t.rows + (hm * t.ty + ty) * t.vm + vm
        piece = self.at[self.nb.var] * (t.hn * t.tx) + hn * t.tx + tx
        if f.columns.step % t.vn == 0:
            return row, piece, vn, t.vn
        return row, piece * t.vn + vn, ZERO, 1
