"""Streaming attention for a few queries, as in decoding: keys and values as lanes.

The same running softmax as in :mod:`aisc.passes.schedule.variants.streaming`, with the same bound.
One query does not fill a vector of queries, so vectors run along keys and values as they lie in
memory, `l` numbering lanes::

    part[i, j, l] += query[i, o * L + l] * key[k0 + j, o * L + l]
    s[i, j]       += part[i, j, l]                    by squares that are transposed in registers
    e[i, j]        = g(s[i, j]), -inf beyond the last key;  maxima and sums per lane, then of lanes
    acc[i, v]      = acc[i, v] * factor[i] + sum over j of e[i, j] * value[k0 + j, v]
"""

from __future__ import annotations

from collections.abc import Sequence

from aisc.ir.tensor.combiner import COMBINERS
from aisc.ir.tensor.expr import Const, Expr, Load, Var, binary, cast, const, select
from aisc.ir.tensor.expr import math as math_call
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import Alloc, Stmt
from aisc.ir.tensor.tree import find_place
from aisc.ir.tensor.visitor import substitute
from aisc.passes.schedule.variants.attention import Attention, attention_of, refuse
from aisc.passes.schedule.variants.nests import (
    Around,
    Nests,
    divides,
    exchanged,
    replaced,
    size_of,
)


def streaming_rows(func: Func, block: str, queries: int, keys: int, lanes: int) -> Func:
    """`func` with the attention that ends in `block` in blocks of `queries`, which divide their
    number, and `keys`; vectors have `lanes` elements, which divide `keys` and the vectors'
    sizes."""
    found = attention_of(func, find_place(func, block))
    if min(queries, keys, lanes) < 1 or keys % lanes:
        raise refuse(block, f"blocks of {queries} queries and {keys} keys by {lanes}")
    if not divides(lanes, found.depth.extent) or not isinstance(found.width.extent, Const):
        raise refuse(block, f"the sizes of its vectors are not known, or not multiples of {lanes}")
    if not divides(queries, found.lane.extent):
        raise refuse(block, f"there are not whole blocks of {queries} queries")
    new = _Rows(func, block, found, queries, keys, lanes).build()
    return replaced(func, found, block, new)


class _Rows(Nests):
    """The keys, or the elements of a value, of one query lie next to one another."""

    def __init__(
        self, func: Func, name: str, found: Attention, queries: int, keys: int, lanes: int
    ) -> None:
        super().__init__(func, name, found, queries, keys, lanes)
        self.acc = self.private("acc", self.t, queries, size_of(found.width))
        self.e = self.private("e", self.t, queries, keys // lanes, lanes)
        self.row = ("i", const(queries))
        self.lane = ("l", const(lanes))

    def start(self) -> list[Stmt]:
        axes = [self.row, ("w", self.a.width.extent)]
        zero = const(0, self.t)
        clear = self.nest("clear", axes, self.acc, lambda _, v: tuple(v), lambda _, v: zero)
        return [Alloc(self.acc), clear]

    def scores(self) -> list[Stmt]:
        a, t, lanes = self.a, self.t, self.rows
        axes = [self.row, ("g", self.groups()), ("r", const(lanes))]
        part = self.private("parts", t, *self.e.type.static_shape, lanes)
        s = self.private("s", t, *self.e.type.static_shape)
        (lowest,) = COMBINERS["max"].identity([t])

        def product(b: Around, v: Sequence[Var]) -> Expr:
            i, g, r, lane, o = v
            at = {**self.at(b, i), a.keys.var: self.some_key(b, g * lanes + r)}
            at[a.depth.var] = o * lanes + lane
            return cast(substitute(a.query, at), t) * cast(substitute(a.key, at), t)

        def masked(b: Around, v: Sequence[Var]) -> Expr:
            i, g, r = v
            j = g * lanes + r
            value = exchanged(a.masked, a.scores, Load(s, (i, g, r)))
            at = {**self.at(b, i), a.keys.var: self.key(b, j)}
            value = cast(substitute(value, at), t)
            if divides(lanes, a.keys.extent):
                return value
            return select(binary("lt", self.key(b, j), a.keys.extent), value, lowest)

        over = ("o", const(size_of(a.depth) // lanes))
        return [
            *map(Alloc, (self.e, part, s)),
            self.nest(
                "lanes", [*axes, self.lane], part, lambda _, v: tuple(v[:4]), product, over, "sum"
            ),
            self.nest(
                "scores", axes, s, lambda _, v: tuple(v[:3]),
                lambda _, v: Load(part, tuple(v)), self.lane, "sum",
            ),
            self.nest("mask", axes, self.e, lambda _, v: tuple(v), masked),
            *self._folded("max", self.peak),
        ]  # fmt: skip

    def _folded(self, combiner: str, out: Buffer) -> list[Stmt]:
        """A reduction over the keys of a block: of each lane, then of the lanes."""
        lanes = self.private(f"{combiner}s", self.t, self.queries, self.rows)
        row, lane, group = self.row, self.lane, ("g", self.groups())
        return [
            Alloc(lanes),
            self.nest(
                f"{combiner}_lanes", [row, lane], lanes, lambda _, v: tuple(v[:2]),
                lambda _, v: Load(self.e, (v[0], v[2], v[1])), group, combiner,
            ),
            self.nest(
                combiner, [row], out, lambda _, v: (v[0],),
                lambda _, v: Load(lanes, tuple(v)), lane, combiner,
            ),
        ]  # fmt: skip

    def weights(self) -> list[Stmt]:
        axes = [self.row, ("g", self.groups()), ("r", const(self.rows))]

        def weight(_: Around, v: Sequence[Var]) -> Expr:
            return math_call("exp", Load(self.e, tuple(v)) - Load(self.shift, (v[0],)))

        exp = self.nest("exp", axes, self.e, lambda _, v: tuple(v), weight)
        return [exp, *self._folded("sum", self.part)]

    def values(self) -> list[Stmt]:
        a = self.a
        axes = [self.row, ("w", a.width.extent)]
        sums = self.private("sums", self.t, *self.acc.type.static_shape)

        def product(b: Around, v: Sequence[Var]) -> Expr:
            i, w, j = v
            at = {**self.at(b, i), a.keys.var: self.key(b, j), a.width.var: w}
            group, row = (binary(op, j, const(self.rows)) for op in ("floordiv", "mod"))
            return Load(self.e, (i, group, row)) * cast(substitute(a.value, at), self.t)

        def added(_: Around, v: Sequence[Var]) -> Expr:
            old = Load(self.acc, tuple(v)) * Load(self.factor, (v[0],))
            return old + Load(sums, tuple(v))

        over = ("j", self.count())
        return [
            Alloc(sums),
            self.nest("", axes, sums, lambda _, v: tuple(v[:2]), product, over, "sum"),
            self.nest("rescale", axes, self.acc, lambda _, v: tuple(v), added, ordered=True),
        ]

    def finish(self) -> list[Stmt]:
        a = self.a
        inverse = self.private("inverse", self.t, self.queries)

        def at(b: Around, v: Sequence[Var]) -> tuple[Expr, ...]:
            own = {**self.at(b, v[0]), a.width.var: v[1]}
            return tuple(substitute(i, own) for i in a.at)

        def result(b: Around, v: Sequence[Var]) -> Expr:
            value = Load(self.acc, tuple(v)) * Load(inverse, (v[0],))
            value = exchanged(a.result, a.total, cast(value, a.total.dtype))
            own = {**self.at(b, v[0]), a.width.var: v[1]}
            return cast(substitute(value, own), a.target.dtype)

        axes = [self.row, ("w", a.width.extent)]
        return [
            Alloc(inverse),
            self.inverse(inverse),
            self.nest("out", axes, a.target, at, result),
        ]
