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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aisc.ir.arith.linear import Indexer, mentions
from aisc.ir.dtypes import DType
from aisc.ir.tensor.combiner import COMBINERS
from aisc.ir.tensor.expr import (
    ZERO,
    Const,
    Expr,
    Load,
    Var,
    binary,
    cast,
    const,
    equal,
    minimum,
    of_dim,
    select,
)
from aisc.ir.tensor.expr import math as math_call
from aisc.ir.tensor.func import Buffer, Func, buffer
from aisc.ir.tensor.stmt import Alloc, Block, For, If, Iter, IterKind, Stmt, Store, seq
from aisc.ir.tensor.visitor import substitute, transform
from aisc.passes.schedule.copies import Names
from aisc.passes.schedule.tree import find_place, replace_stmt, with_regions, without_alloc
from aisc.passes.schedule.variants.attention import Attention, attention_of, loads_of, refuse

# Masks are copied by squares of so many queries and keys.
TILE = 16
# An axis of a nest: the stem of its names, its extent.
Axis = tuple[str, Expr]
# Iterators of the loops around a nest, by what they stand for.
Around = Mapping[Var, Var]
# What is read for a query and a column of a block.
Element = Callable[[Around, Expr, Expr], Expr]


def streaming_attention(func: Func, block: str, queries: int, keys: int, rows: int) -> Func:
    """`func` with the attention that ends in `block` in blocks of `queries` and `keys`; `rows`,
    which divides `keys`, of the scores are computed at a time."""
    place = find_place(func, block)
    found = attention_of(func, place)
    if min(queries, keys, rows) < 1 or keys % rows:
        raise refuse(block, f"blocks of {queries} queries and {keys} keys by {rows}")
    if not all(isinstance(it.extent, Const) for it in (found.depth, found.width)):
        raise refuse(block, "the sizes of its vectors are not known")
    new = _Builder(func, block, found, queries, keys, rows).build()
    last = place.loops[0]
    for name in (b.name for b in found.blocks):
        top = find_place(func, name).loops[0]
        func = replace_stmt(func, top, new if top is last else None)
    for gone in (w.buffer for b in found.blocks for w in b.writes):
        func = without_alloc(func, gone) if gone.role == "scratch" else func
    return func


@dataclass(frozen=True, slots=True)
class _Loop:
    """A loop around several nests: what it stands for, its variable, its range, and the kind of
    the iterators that it gives a value."""

    axis: Var
    var: Var
    extent: Expr
    kind: IterKind


class _Builder:
    """Builds the nests; those of one block of queries share private buffers."""

    def __init__(
        self, func: Func, name: str, found: Attention, queries: int, keys: int, rows: int
    ) -> None:
        self.name, self.a, self.names = name, found, Names(func)
        self.queries, self.keys, self.rows = queries, keys, rows
        self.loc = find_place(func, name).block.loc
        self.block_of_queries, self.block_of_keys = Var("queries"), Var("keys")
        count = _blocks(found.lane.extent, queries)
        self.around = [
            *(self._loop(f"r{k}", it.var, it.extent) for k, it in enumerate(found.rows)
              if it is not found.lane),
            self._loop("q", self.block_of_queries, count),
        ]  # fmt: skip
        self.whole = _divides(queries, found.lane.extent)
        t = found.dtype
        lanes, depth, width = queries, _size(found.depth), _size(found.width)
        self.turned = self._buffer("turned", t, depth, lanes)
        self.top, self.total = self._buffer("top", t, lanes), self._buffer("total", t, lanes)
        self.acc = self._buffer("acc", t, width, lanes)
        self.e = self._buffer("e", t, keys // rows, rows, lanes)

    def build(self) -> Stmt:
        """The loop over rows and blocks of queries."""
        before = [*self._start()]
        self.around.append(
            self._loop("k", self.block_of_keys, _blocks(self.a.keys.extent, self.keys))
        )
        inner = self.around[-1]
        step = seq(*self._step())
        walk_ = For(inner.var, ZERO, inner.extent, "serial", step)
        self.around.pop()
        private = (self.turned, self.top, self.total, self.acc)
        body = seq(*map(Alloc, private), *before, walk_, *self._finish())
        for loop in reversed(self.around):
            body = For(loop.var, ZERO, loop.extent, "serial", body)
        return body

    # -- names -------------------------------------------------------------------------------

    def _fresh(self, stem: str) -> str:
        return self.names.fresh(f"{self.name}_{stem}")

    def _loop(self, stem: str, axis: Var, extent: Expr, kind: IterKind = "spatial") -> _Loop:
        return _Loop(axis, Var(self._fresh(f"{stem}b")), extent, kind)

    def _buffer(self, stem: str, dtype: DType, *shape: int) -> Buffer:
        return buffer(self._fresh(stem), dtype, shape, space="stack")

    # -- nests -------------------------------------------------------------------------------

    def _nest(
        self,
        stem: str,
        axes: Sequence[Axis],
        out: Buffer,
        at: Callable[[Around, Sequence[Var]], tuple[Expr, ...]],
        value: Callable[[Around, Sequence[Var]], Expr],
        over: Axis | None = None,
        combiner: str = "",
        ordered: bool = False,
        when: Callable[[Around, Sequence[Var]], Expr] | None = None,
    ) -> Stmt:
        """``out[at] = value`` over `axes`; combined over one more axis with a combiner. `ordered`:
        the last loop around gives the values their order. `when` is asked of the loops."""
        name = self.name if stem == "" else self._fresh(stem)
        outer, inner, loops = [], [], []
        for k, f in enumerate(self.around):
            last = f is self.around[-1]
            kind: IterKind = "ordered" if last and ordered else f.kind
            outer.append(Iter(Var(self.names.fresh(f"{name}_b{k}")), f.extent, kind))
        for hint, extent in (*axes, *((over,) if over else ())):
            kind = "reduce" if over and hint == over[0] else "spatial"
            inner.append(Iter(Var(self.names.fresh(f"{name}_v{hint}")), extent, kind))
            loops.append(Var(self.names.fresh(f"{name}_{hint}")))
        around = {f.axis: it.var for f, it in zip(self.around, outer, strict=True)}
        place = at(around, [it.var for it in inner])
        new, init = value(around, [it.var for it in inner]), None
        if combiner:
            rule = COMBINERS[combiner]
            (identity,) = rule.identity([out.dtype])
            init = Store(out, place, identity)
            (new,) = rule.combine([Load(out, place)], [new])
        bindings = (*(f.var for f in self.around), *loops)
        made = Block(
            name, (*outer, *inner), bindings, (), (), init, Store(out, place, new), combiner,
            self.loc,
        )  # fmt: skip
        body: Stmt = with_regions(made)
        if when is not None:
            body = If(when({f.axis: f.var for f in self.around}, loops), body)
        for var, it in zip(reversed(loops), reversed(inner), strict=True):
            body = For(var, ZERO, it.extent, "serial", body)
        return body

    def _per_lane(
        self, stem: str, out: Buffer, value: Callable[[Expr], Expr], ordered: bool = False
    ) -> Stmt:
        """A map over the queries of a block."""
        axes = [("i", const(self.queries))]
        return self._nest(
            stem, axes, out, lambda _, v: (v[0],), lambda _, v: value(v[0]), ordered=ordered
        )

    # -- places ------------------------------------------------------------------------------

    def _at(self, b: Around, i: Expr, j: Expr | None = None) -> dict[Var, Expr]:
        """The axes of the attention at query `i` and key `j` of their blocks. Beyond the last one
        the last is read again."""
        at: dict[Var, Expr] = {it.var: b[it.var] for it in self.a.rows if it.var in b}
        q = b[self.block_of_queries] * self.queries + i
        lane = self.a.lane
        at[lane.var] = q if self.whole else minimum(q, lane.extent - 1)
        if j is not None:
            k = b[self.block_of_keys] * self.keys + j
            whole = _divides(self.rows, self.a.keys.extent)
            at[self.a.keys.var] = k if whole else minimum(k, self.a.keys.extent - 1)
        return at

    def _count(self) -> Expr:
        """Keys in a block: those there are."""
        if _divides(self.keys, self.a.keys.extent):
            return const(self.keys)
        return minimum(const(self.keys), self.a.keys.extent - self.around[-1].var * self.keys)

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
                self._nest(
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
            self._nest(
                f"{stem}_rows", axes[::-1], rows, lambda _, v: tuple(v),
                lambda b, v: element(b, v[0], v[1]), when=inside if count is not None else None,
            ),
            self._nest(
                f"{stem}_turn", axes, out, lambda _, v: tuple(v),
                lambda _, v: Load(rows, (v[1], v[0])),
            ),
        ]  # fmt: skip

    # -- the three parts ---------------------------------------------------------------------

    def _start(self) -> list[Stmt]:
        a, lanes = self.a, ("i", const(self.queries))
        t = a.dtype

        def query(b: Around, i: Expr, d: Expr) -> Expr:
            return cast(substitute(a.query, {**self._at(b, i), a.depth.var: d}), t)

        (lowest,) = COMBINERS["max"].identity([t])
        zero = const(0, t)
        clear = self._nest(
            "clear", [("w", a.width.extent), lanes], self.acc, lambda _, v: tuple(v),
            lambda _, v: zero,
        )  # fmt: skip
        lows = self._per_lane("low", self.top, lambda i: lowest)
        nothing = self._per_lane("none", self.total, lambda i: zero)
        return [*self._turned("query", self.turned, query), lows, nothing, clear]

    def _step(self) -> list[Stmt]:
        """What is done for a block of keys."""
        t = self.a.dtype
        peak, raised, shift, factor, part = (
            self._buffer(n, t, self.queries) for n in ("peak", "raised", "shift", "factor", "part")
        )
        top, total = self.top, self.total
        s, scores = self._scores()
        key, lanes = ("j", self._count()), [("i", const(self.queries))]
        (lowest,) = COMBINERS["max"].identity([t])

        def safe(i: Expr) -> Expr:
            value = Load(raised, (i,))
            return select(equal(value, lowest), const(0, t), value)

        def weight(_: Around, v: Sequence[Var]) -> Expr:
            return math_call("exp", self._weight(v[1], v[0]) - Load(shift, (v[1],)))

        def added(i: Expr) -> Expr:
            return Load(total, (i,)) * Load(factor, (i,)) + Load(part, (i,))

        def along(_: Around, v: Sequence[Var]) -> Expr:
            return self._weight(v[0], v[1])

        def place(_: Around, v: Sequence[Var]) -> tuple[Expr, ...]:
            return self._weight(v[1], v[0]).indices

        return [
            *map(Alloc, (self.e, s, peak, raised, shift, factor, part)),
            *scores,
            self._nest("max", lanes, peak, lambda _, v: (v[0],), along, key, "max"),
            self._per_lane(
                "raise", raised, lambda i: binary("max", Load(top, (i,)), Load(peak, (i,)))
            ),
            self._per_lane("safe", shift, safe),
            self._per_lane(
                "fall", factor, lambda i: math_call("exp", Load(top, (i,)) - Load(shift, (i,)))
            ),
            self._per_lane("move", top, lambda i: Load(raised, (i,)), ordered=True),
            self._nest("exp", [key, *lanes], self.e, place, weight),
            self._nest("sum", lanes, part, lambda _, v: (v[0],), along, key, "sum"),
            self._per_lane("add", total, added, ordered=True),
            *self._values(factor, key),
        ]

    def _scores(self) -> tuple[Buffer, list[Stmt]]:
        """The operand of the softmax for a block of keys: a private buffer, nests."""
        a, t = self.a, self.a.dtype
        groups = binary("floordiv", self._count() + (self.rows - 1), const(self.rows))
        axes = [("g", groups), ("r", const(self.rows)), ("i", const(self.queries))]
        s = self._buffer("s", t, *self.e.type.static_shape)
        masks, staged = self._masks()

        def product(b: Around, v: Sequence[Var]) -> Expr:
            g, r, i, d = v
            key = substitute(a.key, {**self._at(b, i, g * self.rows + r), a.depth.var: d})
            return cast(key, t) * Load(self.turned, (d, i))

        def masked(b: Around, v: Sequence[Var]) -> Expr:
            g, r, i = v
            j = g * self.rows + r
            value = _exchanged(a.masked, a.scores, Load(s, (g, r, i)))
            for load, mask in masks.items():
                value = _exchanged(value, load, Load(mask, (j, i)))
            return cast(substitute(value, self._at(b, i, j)), t)

        nests = [
            *staged,
            self._nest(
                "scores", axes, s, lambda _, v: tuple(v[:3]), product,
                ("d", a.depth.extent), "sum",
            ),
            self._nest("mask", axes, self.e, lambda _, v: tuple(v), masked),
        ]  # fmt: skip
        return s, nests

    def _masks(self) -> tuple[dict[Load, Buffer], list[Stmt]]:
        """Copies of a block of what the softmax's operand reads at both queries and keys."""
        masks: dict[Load, Buffer] = {}
        nests: list[Stmt] = []
        whole = _divides(self.keys, self.a.keys.extent) and self.keys % TILE == 0
        count = None if whole else self._count()
        size = -(-self.keys // TILE) * TILE
        for load in loads_of(self.a.masked):
            over = [
                any(mentions(i, it.var) for i in load.indices) for it in (self.a.lane, self.a.keys)
            ]
            if load == self.a.scores or not all(over):
                continue

            def element(b: Around, i: Expr, j: Expr, load: Load = load) -> Expr:
                k = b[self.block_of_keys] * self.keys + j
                return substitute(load, {**self._at(b, i), self.a.keys.var: k})

            stem = f"mask{len(masks)}"
            masks[load] = self._buffer(stem, load.dtype, size, self.queries)
            nests += [Alloc(masks[load]), *self._turned(stem, masks[load], element, count)]
        return masks, nests

    def _values(self, factor: Buffer, key: Axis) -> list[Stmt]:
        """The weighted sum of a block's values, and the one of all blocks so far."""
        a, t = self.a, self.a.dtype
        axes = [("w", a.width.extent), ("i", const(self.queries))]
        sums = self._buffer("sums", t, _size(a.width), self.queries)

        def product(b: Around, v: Sequence[Var]) -> Expr:
            w, i, j = v
            k = b[self.block_of_keys] * self.keys + j
            at = {**self._at(b, i), a.keys.var: k, a.width.var: w}
            return cast(substitute(a.value, at), t) * self._weight(i, j)

        def added(_: Around, v: Sequence[Var]) -> Expr:
            old = Load(self.acc, tuple(v)) * Load(factor, (v[1],))
            return old + Load(sums, tuple(v))

        return [
            Alloc(sums),
            self._nest("", axes, sums, lambda _, v: (v[0], v[1]), product, key, "sum"),
            self._nest("rescale", axes, self.acc, lambda _, v: tuple(v), added, ordered=True),
        ]

    def _finish(self) -> list[Stmt]:
        """The division, and what follows it."""
        a, t = self.a, self.a.dtype
        inverse = self._buffer("inverse", t, self.queries)
        size = a.keys.extent

        def divided(i: Expr) -> Expr:
            value = const(1, t) / Load(self.total, (i,))
            if isinstance(size, Const) and int(size.value) > 0:
                return value
            return select(equal(size, ZERO), const(0, t), value)

        def at(b: Around, v: Sequence[Var]) -> tuple[Expr, ...]:
            q = b[self.block_of_queries] * self.queries + v[0]
            own = {**self._at(b, v[0]), a.lane.var: q, a.width.var: v[1]}
            return tuple(substitute(i, own) for i in a.at)

        def average(i: Expr, w: Expr) -> Expr:
            return Load(self.acc, (w, i)) * Load(inverse, (i,))

        def result(value: Expr, b: Around, v: Sequence[Var]) -> Expr:
            own = {**self._at(b, v[0]), a.width.var: v[1]}
            value = _exchanged(a.result, a.total, cast(value, a.total.dtype))
            return cast(substitute(value, own), a.target.dtype)

        def exists(b: Around, v: Sequence[Var]) -> Expr:
            return binary("lt", b[self.block_of_queries] * self.queries + v[0], a.lane.extent)

        axes = [("i", const(self.queries)), ("w", a.width.extent)]
        start = [Alloc(inverse), self._per_lane("invert", inverse, divided)]
        if self.whole:
            out = self._nest("back", axes, a.target, at, lambda b, v: result(average(*v), b, v))
            return [*start, out]
        rows = self._buffer("kept", t, self.queries, _size(a.width))
        return [
            *start,
            Alloc(rows),
            self._nest("back", axes, rows, lambda _, v: tuple(v), lambda _, v: average(*v)),
            self._nest(
                "out", axes, a.target, at,
                lambda b, v: result(Load(rows, tuple(v)), b, v), when=exists,
            ),
        ]  # fmt: skip


def _exchanged(e: Expr, old: Load, new: Expr) -> Expr:
    """`e` with a load exchanged for a value."""
    return transform(e, lambda n: new if n == old else n)


def _size(it: Iter) -> int:
    assert isinstance(it.extent, Const), "it has been checked"
    return int(it.extent.value)


def _divides(n: int, extent: Expr) -> bool:
    return isinstance(extent, Const) and int(extent.value) % n == 0


def _blocks(extent: Expr, size: int) -> Expr:
    return Indexer().simplify(binary("floordiv", extent + (size - 1), const(size)))
