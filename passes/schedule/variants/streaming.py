"""Attention with the on-line softmax: blocks of keys are walked over for a block of queries.

Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018); Dao et al.,
"FlashAttention" (2022). For each block of queries, `i` numbering them and `j` the keys of a block::

    before: s[q, k] += query[q, d] * key[k, d];  p = softmax(g(s));  out[q, v] += p[q, k] * value
    after:  top[i] = -inf;  total[i] = 0;  acc[v, i] = 0
            for each block of keys, in order:
                s[j, i]   += key[k0 + j, d] * turned[d, i];  e[j, i] = g(s[j, i])
                raised[i]  = max(top[i], max over j of e[j, i])
                factor[i]  = exp(top[i] - raised[i]);  top[i] = raised[i]
                e[j, i]    = exp(e[j, i] - top[i])
                total[i]   = total[i] * factor[i] + sum over j of e[j, i]
                acc[v, i]  = acc[v, i] * factor[i] + sum over j of value[k0 + j, v] * e[j, i]
            out[q, v] = acc[v, i] / total[i]

Nothing of the size of queries times keys is stored, and queries, which are to become lanes, lie
next to one another. While all keys are masked by -inf, 0 stands for the maximum, so that their
weights are 0 and not NaN; a row that is masked wholly ends as 0 / 0, which is NaN, as without this.

The error bound: against the softmax over all keys, each product has two more roundings per block
of keys (the factor and the product with it) and the weighted sum is divided, not the weights. So
relative to ``max |value|`` the error grows by at most ``4 * (blocks + 1) * eps``. Sums before the
division are up to `keys` times the largest value, which must not overflow.
"""

from __future__ import annotations

from collections.abc import Sequence

from aisc.ir.tensor.expr import Const, Expr, Load, Var, binary, cast, const, of_dim
from aisc.ir.tensor.expr import math as math_call
from aisc.ir.tensor.func import Buffer, Func, buffer
from aisc.ir.tensor.linear import mentions
from aisc.ir.tensor.stmt import Alloc, Stmt
from aisc.ir.tensor.tree import find_place
from aisc.ir.tensor.visitor import substitute
from aisc.passes.schedule.variants.attention import Attention, attention_of, loads_of, refuse
from aisc.passes.schedule.variants.nests import (
    Around,
    Element,
    Nests,
    divides,
    exchanged,
    replaced,
    size_of,
)

# Masks are copied by squares of so many queries and keys.
TILE = 16


def streaming_attention(func: Func, block: str, queries: int, keys: int, rows: int) -> Func:
    """`func` with the attention that ends in `block` in blocks of `queries` and `keys`; `rows`,
    which divides `keys`, of the scores are computed at a time."""
    place = find_place(func, block)
    found = attention_of(func, place)
    if min(queries, keys, rows) < 1 or keys % rows:
        raise refuse(block, f"blocks of {queries} queries and {keys} keys by {rows}")
    if not all(isinstance(it.extent, Const) for it in (found.depth, found.width)):
        raise refuse(block, "the sizes of its vectors are not known")
    new = _Columns(func, block, found, queries, keys, rows).build()
    return replaced(func, found, block, new)


class _Columns(Nests):
    """Queries lie next to one another in all private buffers."""

    def __init__(
        self, func: Func, name: str, found: Attention, queries: int, keys: int, rows: int
    ) -> None:
        super().__init__(func, name, found, queries, keys, rows)
        depth, width = size_of(found.depth), size_of(found.width)
        self.turned = self.private("turned", self.t, depth, queries)
        self.acc = self.private("acc", self.t, width, queries)
        self.e = self.private("e", self.t, keys // rows, rows, queries)
        self.lanes = ("i", const(queries))

    def _weight(self, i: Expr, j: Expr) -> Load:
        """The weight of a key for a query; rows of keys are grouped as they are computed."""
        group, row = (binary(op, j, const(self.rows)) for op in ("floordiv", "mod"))
        return Load(self.e, (group, row, i))

    def _turned(
        self, stem: str, out: Buffer, element: Element, count: Expr | None = None
    ) -> list[Stmt]:
        """``out[c, i] = element(i, c)``, where elements of one query lie together: where blocks
        may be cut off, by way of a copy of the rows; `count` says how many elements there are."""
        columns, lanes = out.shape
        whole = self.whole and count is None
        axes = [("c", of_dim(columns)), ("i", of_dim(lanes))]
        if whole:
            return [
                self.nest(
                    f"{stem}_turn", axes, out, lambda _, v: tuple(v),
                    lambda b, v: element(b, v[1], v[0]),
                )
            ]  # fmt: skip
        rows = buffer(self._fresh(f"{stem}_kept"), out.dtype, (lanes, columns), space="stack")

        def inside(b: Around, v: Sequence[Var]) -> Expr:
            assert count is not None, "asked only where there is a number"
            return binary("lt", v[1], count)

        return [
            Alloc(rows),
            self.nest(
                f"{stem}_rows", axes[::-1], rows, lambda _, v: tuple(v),
                lambda b, v: element(b, v[0], v[1]), when=inside if count is not None else None,
            ),
            self.nest(
                f"{stem}_turn", axes, out, lambda _, v: tuple(v),
                lambda _, v: Load(rows, (v[1], v[0])),
            ),
        ]  # fmt: skip

    # -- the three parts ---------------------------------------------------------------------

    def start(self) -> list[Stmt]:
        a = self.a

        def query(b: Around, i: Expr, d: Expr) -> Expr:
            return cast(substitute(a.query, {**self.at(b, i), a.depth.var: d}), self.t)

        axes = [("w", a.width.extent), self.lanes]
        zero = const(0, self.t)
        clear = self.nest("clear", axes, self.acc, lambda _, v: tuple(v), lambda _, v: zero)
        private = map(Alloc, (self.turned, self.acc))
        return [*private, *self._turned("query", self.turned, query), clear]

    def weights(self) -> list[Stmt]:
        key = ("j", self.count())

        def weight(_: Around, v: Sequence[Var]) -> Expr:
            return math_call("exp", self._weight(v[1], v[0]) - Load(self.shift, (v[1],)))

        def place(_: Around, v: Sequence[Var]) -> tuple[Expr, ...]:
            return self._weight(v[1], v[0]).indices

        return [
            self.nest("exp", [key, self.lanes], self.e, place, weight),
            self._folded("sum", self.part),
        ]

    def _folded(self, combiner: str, out: Buffer) -> Stmt:
        """A reduction over the keys of a block."""
        key = ("j", self.count())
        return self.nest(
            combiner, [self.lanes], out, lambda _, v: (v[0],),
            lambda _, v: self._weight(v[0], v[1]), key, combiner,
        )  # fmt: skip

    def scores(self) -> list[Stmt]:
        a, t = self.a, self.t
        axes = [("g", self.groups()), ("r", const(self.rows)), self.lanes]
        s = self.private("s", t, *self.e.type.static_shape)
        masks, staged = self._masks()

        def product(b: Around, v: Sequence[Var]) -> Expr:
            g, r, i, d = v
            at = {**self.at(b, i), a.keys.var: self.some_key(b, g * self.rows + r), a.depth.var: d}
            return cast(substitute(a.key, at), t) * Load(self.turned, (d, i))

        def masked(b: Around, v: Sequence[Var]) -> Expr:
            g, r, i = v
            j = g * self.rows + r
            value = exchanged(a.masked, a.scores, Load(s, (g, r, i)))
            for load, mask in masks.items():
                value = exchanged(value, load, Load(mask, (j, i)))
            at = {**self.at(b, i), a.keys.var: self.some_key(b, j)}
            return cast(substitute(value, at), t)

        over = ("d", a.depth.extent)
        return [
            *map(Alloc, (self.e, s)),
            *staged,
            self.nest("scores", axes, s, lambda _, v: tuple(v[:3]), product, over, "sum"),
            self.nest("mask", axes, self.e, lambda _, v: tuple(v), masked),
            self._folded("max", self.peak),
        ]

    def _masks(self) -> tuple[dict[Load, Buffer], list[Stmt]]:
        """Copies of a block of what the softmax's operand reads at both queries and keys."""
        masks: dict[Load, Buffer] = {}
        nests: list[Stmt] = []
        whole = divides(self.keys, self.a.keys.extent) and self.keys % TILE == 0
        size = -(-self.keys // TILE) * TILE
        axes = (self.a.lane.var, self.a.keys.var)
        for load in loads_of(self.a.masked):
            over = all(any(mentions(i, v) for i in load.indices) for v in axes)
            if load == self.a.scores or not over:
                continue

            def element(b: Around, i: Expr, j: Expr, load: Load = load) -> Expr:
                return substitute(load, {**self.at(b, i), self.a.keys.var: self.key(b, j)})

            stem = f"mask{len(masks)}"
            masks[load] = self.private(stem, load.dtype, size, self.queries)
            count = None if whole else self.count()
            nests += [Alloc(masks[load]), *self._turned(stem, masks[load], element, count)]
        return masks, nests

    def values(self) -> list[Stmt]:
        a = self.a
        axes = [("w", a.width.extent), self.lanes]
        sums = self.private("sums", self.t, size_of(a.width), self.queries)

        def product(b: Around, v: Sequence[Var]) -> Expr:
            w, i, j = v
            at = {**self.at(b, i), a.keys.var: self.key(b, j), a.width.var: w}
            return cast(substitute(a.value, at), self.t) * self._weight(i, j)

        def added(_: Around, v: Sequence[Var]) -> Expr:
            old = Load(self.acc, tuple(v)) * Load(self.factor, (v[1],))
            return old + Load(sums, tuple(v))

        over = ("j", self.count())
        return [
            Alloc(sums),
            self.nest("", axes, sums, lambda _, v: (v[0], v[1]), product, over, "sum"),
            self.nest("rescale", axes, self.acc, lambda _, v: tuple(v), added, ordered=True),
        ]

    def finish(self) -> list[Stmt]:
        a, t = self.a, self.t
        inverse = self.private("inverse", t, self.queries)

        def at(b: Around, v: Sequence[Var]) -> tuple[Expr, ...]:
            q = b[self.block_of_queries] * self.queries + v[0]
            own = {**self.at(b, v[0]), a.lane.var: q, a.width.var: v[1]}
            return tuple(substitute(i, own) for i in a.at)

        def average(i: Expr, w: Expr) -> Expr:
            return Load(self.acc, (w, i)) * Load(inverse, (i,))

        def result(value: Expr, b: Around, v: Sequence[Var]) -> Expr:
            own = {**self.at(b, v[0]), a.width.var: v[1]}
            value = exchanged(a.result, a.total, cast(value, a.total.dtype))
            return cast(substitute(value, own), a.target.dtype)

        def exists(b: Around, v: Sequence[Var]) -> Expr:
            return binary("lt", b[self.block_of_queries] * self.queries + v[0], a.lane.extent)

        axes = [self.lanes, ("w", a.width.extent)]
        start = [Alloc(inverse), self.inverse(inverse)]
        if self.whole:
            out = self.nest("back", axes, a.target, at, lambda b, v: result(average(*v), b, v))
            return [*start, out]
        rows = self.private("kept", t, self.queries, size_of(a.width))
        return [
            *start,
            Alloc(rows),
            self.nest("back", axes, rows, lambda _, v: tuple(v), lambda _, v: average(*v)),
            self.nest(
                "out", axes, a.target, at,
                lambda b, v: result(Load(rows, tuple(v)), b, v), when=exists,
            ),
        ]  # fmt: skip
