"""What both forms of streaming attention have in common: loops, nests, the running softmax."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType
from aisc.ir.tensor.combiner import COMBINERS
from aisc.ir.tensor.expr import (
    ZERO,
    Const,
    Expr,
    Load,
    Var,
    binary,
    const,
    equal,
    minimum,
    select,
)
from aisc.ir.tensor.expr import math as math_call
from aisc.ir.tensor.func import Buffer, Func, buffer
from aisc.ir.tensor.linear import Indexer
from aisc.ir.tensor.stmt import Alloc, Block, For, If, Iter, IterKind, Stmt, Store, seq
from aisc.ir.tensor.tree import find_place, replace_stmt, with_regions, without_alloc
from aisc.ir.tensor.visitor import transform
from aisc.passes.schedule.copies import Names
from aisc.passes.schedule.variants.attention import Attention

# An axis of a nest: the stem of its names, its extent.
Axis = tuple[str, Expr]
# Iterators of the loops around a nest, by what they stand for.
Around = Mapping[Var, Var]
# What is read for a query and a column of a block.
Element = Callable[[Around, Expr, Expr], Expr]


def replaced(func: Func, found: Attention, name: str, new: Stmt) -> Func:
    """`func` with `new` in place of the blocks of an attention that ends in block `name`."""
    last = find_place(func, name).loops[0]
    for block in (b.name for b in found.blocks):
        top = find_place(func, block).loops[0]
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


class Nests(ABC):
    """Builds the nests; those of one block of queries share private buffers. A block has `queries`
    and `keys`, which are numbered by `i` and `j`; keys are in groups of `rows`."""

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
        self.whole = divides(queries, found.lane.extent)
        self.t = found.dtype
        self.top, self.total = (self.private(n, self.t, queries) for n in ("top", "total"))
        self.peak, self.raised, self.shift, self.factor, self.part = (
            self.private(n, self.t, queries) for n in ("peak", "raised", "shift", "factor", "part")
        )

    def build(self) -> Stmt:
        """The loop over rows and blocks of queries."""
        (lowest,) = COMBINERS["max"].identity([self.t])
        before = [
            *self.start(),
            self.per_query("low", self.top, lambda i: lowest),
            self.per_query("none", self.total, lambda i: const(0, self.t)),
        ]
        inner = self._loop("k", self.block_of_keys, _blocks(self.a.keys.extent, self.keys))
        self.around.append(inner)
        walk = For(inner.var, ZERO, inner.extent, "serial", seq(*self._step()))
        self.around.pop()
        body = seq(Alloc(self.top), Alloc(self.total), *before, walk, *self.finish())
        for loop in reversed(self.around):
            body = For(loop.var, ZERO, loop.extent, "serial", body)
        return body

    @abstractmethod
    def start(self) -> list[Stmt]:
        """What comes before the keys; the accumulators are 0."""

    @abstractmethod
    def scores(self) -> list[Stmt]:
        """The operands of the softmax for a block of keys, and their maxima in `peak`."""

    @abstractmethod
    def weights(self) -> list[Stmt]:
        """Exponentials of what lies `shift` above 0, and their sums in `part`."""

    @abstractmethod
    def values(self) -> list[Stmt]:
        """The accumulators times `factor`, with the block's values by their weights added."""

    @abstractmethod
    def finish(self) -> list[Stmt]:
        """The division by `total`, and what follows it."""

    def _step(self) -> list[Stmt]:
        """What is done for a block of keys."""
        top, total, raised, shift = self.top, self.total, self.raised, self.shift
        (lowest,) = COMBINERS["max"].identity([self.t])

        def safe(i: Expr) -> Expr:
            value = Load(raised, (i,))
            return select(equal(value, lowest), const(0, self.t), value)

        def added(i: Expr) -> Expr:
            return Load(total, (i,)) * Load(self.factor, (i,)) + Load(self.part, (i,))

        def higher(i: Expr) -> Expr:
            return binary("max", Load(top, (i,)), Load(self.peak, (i,)))

        def fall(i: Expr) -> Expr:
            return math_call("exp", Load(top, (i,)) - Load(shift, (i,)))

        return [
            *map(Alloc, (self.peak, raised, shift, self.factor, self.part)),
            *self.scores(),
            self.per_query("raise", raised, higher),
            self.per_query("safe", shift, safe),
            self.per_query("fall", self.factor, fall),
            self.per_query("move", top, lambda i: Load(raised, (i,)), ordered=True),
            *self.weights(),
            self.per_query("add", total, added, ordered=True),
            *self.values(),
        ]

    def inverse(self, out: Buffer) -> Stmt:
        """What the sums are multiplied by at the end; nothing to attend to gives 0."""
        size = self.a.keys.extent

        def divided(i: Expr) -> Expr:
            value = const(1, self.t) / Load(self.total, (i,))
            if isinstance(size, Const) and int(size.value) > 0:
                return value
            return select(equal(size, ZERO), const(0, self.t), value)

        return self.per_query("invert", out, divided)

    # -- names -------------------------------------------------------------------------------

    def _fresh(self, stem: str) -> str:
        return self.names.fresh(f"{self.name}_{stem}")

    def _loop(self, stem: str, axis: Var, extent: Expr, kind: IterKind = "spatial") -> _Loop:
        return _Loop(axis, Var(self._fresh(f"{stem}b")), extent, kind)

    def private(self, stem: str, dtype: DType, *shape: int) -> Buffer:
        """A buffer of its own for each block of queries, or of keys."""
        return buffer(self._fresh(stem), dtype, shape, space="stack")

    def nest(
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

    def per_query(
        self, stem: str, out: Buffer, value: Callable[[Expr], Expr], ordered: bool = False
    ) -> Stmt:
        """A map over the queries of a block."""
        axes = [("i", const(self.queries))]
        return self.nest(
            stem, axes, out, lambda _, v: (v[0],), lambda _, v: value(v[0]), ordered=ordered
        )

    # -- places ------------------------------------------------------------------------------

    def at(self, b: Around, i: Expr) -> dict[Var, Expr]:
        """The axes of the attention, but for the keys, at query `i` of a block. Beyond the last
        one the last is read again."""
        at: dict[Var, Expr] = {it.var: b[it.var] for it in self.a.rows if it.var in b}
        q = b[self.block_of_queries] * self.queries + i
        lane = self.a.lane
        at[lane.var] = q if self.whole else minimum(q, lane.extent - 1)
        return at

    def key(self, b: Around, j: Expr) -> Expr:
        """The number of key `j` of a block."""
        return b[self.block_of_keys] * self.keys + j

    def some_key(self, b: Around, j: Expr) -> Expr:
        """The same; the last one for keys that are added to fill a group."""
        whole = divides(self.rows, self.a.keys.extent)
        return self.key(b, j) if whole else minimum(self.key(b, j), self.a.keys.extent - 1)

    def count(self) -> Expr:
        """Keys in a block: those there are."""
        if divides(self.keys, self.a.keys.extent):
            return const(self.keys)
        return minimum(const(self.keys), self.a.keys.extent - self.around[-1].var * self.keys)

    def groups(self) -> Expr:
        """Groups of keys in a block."""
        return binary("floordiv", self.count() + (self.rows - 1), const(self.rows))


def exchanged(e: Expr, old: Load, new: Expr) -> Expr:
    """`e` with a load exchanged for a value."""
    return transform(e, lambda n: new if n == old else n)


def size_of(it: Iter) -> int:
    """The extent of an axis of known size."""
    assert isinstance(it.extent, Const), "it has been checked"
    return int(it.extent.value)


def divides(n: int, extent: Expr) -> bool:
    """Whether a size is known and a multiple of `n`."""
    return isinstance(extent, Const) and int(extent.value) % n == 0


def _blocks(extent: Expr, size: int) -> Expr:
    return Indexer().simplify(binary("floordiv", extent + (size - 1), const(size)))
