"""Attention in a function that was lowered from operators: which blocks, and how they read.

Found from accesses alone, whatever operators gave the blocks::

    scores[r..., k]  += query[r..., d] * key[r..., k, d]         a contraction
    masked[r..., k]   = g(scores[r..., k], r..., k)              a map, or nothing
    top[r...]         = max over k of masked[r..., k]
    e[r..., k]        = exp(masked[r..., k] - top[r...])
    total[r...]      += e[r..., k]
    p[r..., k]        = e[r..., k] * (1 / total[r...])           or e / total
    result[r..., v]  += p[r..., k] * value[r..., k, v]           a contraction
    out[...]          = f(result[r..., v])                       a map, or nothing

Each factor may be indexed by any of the axes `r`, in any order, and so may the result. One of them,
the *query*, is an axis that neither keys nor values have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.dtypes import DType
from aisc.ir.node import walk
from aisc.ir.tensor.expr import ZERO, Binary, Call, Cast, Const, Expr, Load, Var
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.linear import Indexer, mentions
from aisc.ir.tensor.stmt import Block, Iter, Store
from aisc.ir.tensor.tree import Place, is_fresh, places
from aisc.ir.tensor.visitor import substitute
from aisc.passes.schedule.products import factors


@dataclass(frozen=True, slots=True)
class Attention:
    """What the blocks compute, over common iterators: `rows` (all axes of the scores but the keys),
    `keys`, `depth` (summed by the scores) and `width` (of the values).

    query, key, value: the factors. masked: the operand of the softmax, in which `scores` is read.
    result: what is stored into `target` at `at`, in which `total` is the weighted sum of values.
    blocks: all blocks that compute it.
    """

    rows: tuple[Iter, ...]
    lane: Iter
    keys: Iter
    depth: Iter
    width: Iter
    query: Load
    key: Load
    value: Load
    scores: Load
    masked: Expr
    total: Load
    result: Expr
    target: Buffer
    at: tuple[Expr, ...]
    blocks: tuple[Block, ...]

    @property
    def dtype(self) -> DType:
        """In which it is computed."""
        return self.scores.dtype


def refuse(block: str, why: str) -> CompileError:
    """The refusal of the variant for a block."""
    return error(
        "E302",
        f"variant({block}, 'streaming_attention'): {why}",
        "it applies to sums of products with a softmax over products, before other steps",
    )


def attention_of(func: Func, place: Place) -> Attention:
    """The attention whose last contraction is at `place`; E302 where there is none."""
    matcher = _Matcher(func, place)
    first, second = matcher.pair(place.block)
    try:
        return matcher.match(first, second)
    except CompileError:
        return _Matcher(func, place).match(second, first)


class _Matcher:
    """Goes back from the last contraction, block by block."""

    def __init__(self, func: Func, place: Place) -> None:
        self.name, self.last = place.block.name, place.block
        self.places = list(places(func.body))
        self.used: list[Block] = []

    def need(self, holds: bool, why: str) -> None:
        """Refuse unless the condition holds."""
        if not holds:
            raise refuse(self.name, why)

    def match(self, weights: Load, value: Load) -> Attention:
        """The attention in which `weights` are the results of the softmax."""
        (k,) = self._reduced(self._take(self.last))
        axis = [n for n, i in enumerate(weights.indices) if i == k.var]
        self.need(len(axis) == 1, "its weights are not read along the keys")
        norm = self._writer(weights)
        at = tuple(it.var for it in norm.iters)
        keys = norm.iters[axis[0]]
        rows = tuple(it for it in norm.iters if it is not keys)
        onto = self._onto(weights, at)
        masked, scores = self._scores(self._softmax(Load(weights.buffer, at), at, keys))
        a, b, depth = self._product(scores)
        query, key = (b, a) if _mentions(a, keys.var) else (a, b)
        self.need(not _mentions(query, keys.var), "both factors of its scores depend on the keys")
        width = self._width(onto, value)
        ranges = _ranges((*rows, keys, depth, width))
        value = _load(substitute(value, onto))
        query, key, value = (_simplified(x, ranges) for x in (query, key, value))
        own = [it for it in rows if not any(_mentions(x, it.var) for x in (key, value))]
        own = [it for it in own if _mentions(query, it.var)]
        self.need(bool(own), "it has no axis of queries")
        total = Load(self.last.writes[0].buffer, self._store(self.last).indices)
        result, target, place = self._result(total, onto, width)
        self._require_private()
        total = _load(substitute(total, onto))
        return Attention(
            rows, own[-1], keys, depth, width, query, key, value, scores, masked, total,
            result, target, place, tuple(self.used),
        )  # fmt: skip

    def pair(self, block: Block) -> tuple[Load, Load]:
        """The factors of a sum of products."""
        found = factors(self._store(block).value) if block.combiner == "sum" else None
        if found is None or len(self._reduced(block)) != 1:
            raise refuse(self.name, f"{block.name} is no sum of products over one axis")
        return found

    # -- blocks ------------------------------------------------------------------------------

    def _store(self, block: Block) -> Store:
        if not isinstance(block.body, Store):
            raise refuse(self.name, f"{block.name} stores more than one value")
        return block.body

    def _reduced(self, block: Block) -> list[Iter]:
        return [it for it in block.iters if it.kind == "reduce"]

    def _take(self, block: Block) -> Block:
        """`block` as one of those that are replaced: it has not been scheduled, and stores each
        element at its own iterators."""
        place = next(p for p in self.places if p.block is block)
        own = tuple(it.var for it in block.iters if it.kind == "spatial")
        whole = is_fresh(place) and len(own) + len(self._reduced(block)) == len(block.iters)
        self.need(whole, f"{block.name} has been scheduled already")
        self.need(self._store(block).indices == own, f"{block.name} stores elsewhere")
        self.used.append(block)
        return block

    def _writer(self, load: Load) -> Block:
        found = [p.block for p in self.places if load.buffer in {w.buffer for w in p.block.writes}]
        self.need(
            len(found) == 1 and load.buffer.role == "scratch",
            f"{load.buffer.name} is not computed by one block",
        )
        return found[0] if found[0] in self.used else self._take(found[0])

    def _value(self, load: Load) -> Expr:
        """What a map has stored where `load` reads it."""
        block = self._writer(load)
        self.need(not block.combiner, f"{block.name} is no map")
        at: dict[Var, Expr] = dict(zip([it.var for it in block.iters], load.indices, strict=True))
        return substitute(self._store(block).value, at)

    def _folded(self, load: Load, combiner: str, over: Iter) -> Load:
        """What a reduction over `over` combines to the element that `load` reads."""
        block = self._writer(load)
        reduced, value = self._reduced(block), self._store(block).value
        self.need(block.combiner == combiner and len(reduced) == 1, f"no {combiner}: {block.name}")
        assert isinstance(value, Binary), "a combiner with one result"
        spatial = [it.var for it in block.iters if it.kind == "spatial"]
        at: dict[Var, Expr] = dict(zip(spatial, load.indices, strict=True))
        return self._plain(substitute(value.b, {**at, reduced[0].var: over.var}))

    def _plain(self, e: Expr) -> Load:
        """A load, through casts."""
        while isinstance(e, Cast):
            e = e.a
        if not isinstance(e, Load):
            raise refuse(self.name, "an operand of the softmax is no element")
        return e

    # -- the chain ---------------------------------------------------------------------------

    def _onto(self, weights: Load, at: tuple[Var, ...]) -> dict[Var, Expr]:
        """Iterators of the last contraction as those of the softmax."""
        onto: dict[Var, Expr] = {}
        self.need(len(weights.indices) == len(at), "its weights have another rank than it")
        for index, var in zip(weights.indices, at, strict=True):
            if isinstance(index, Var):
                self.need(index not in onto, "its weights are read along a diagonal")
                onto[index] = var
            else:
                self.need(index == ZERO, "its weights are not read at iterators")
        return onto

    def _softmax(self, p: Load, at: tuple[Var, ...], keys: Iter) -> Load:
        """The operand of the softmax whose results `p` reads."""
        value = self._value(p)
        while isinstance(value, Cast):
            value = value.a
        if not isinstance(value, Binary) or value.op not in ("mul", "div"):
            raise refuse(self.name, "its weights are not normalized")
        e, total = self._plain(value.a), self._plain(value.b)
        if value.op == "mul":
            inverse = self._value(total)
            one = isinstance(inverse, Binary) and inverse.op == "div" and inverse.a
            self.need(isinstance(one, Const) and one.value == 1, "no division by the sum")
            assert isinstance(inverse, Binary), "checked"
            total = self._plain(inverse.b)
        exponential = self._value(e)
        self.need(self._folded(total, "sum", keys) == e, "the sum is of other elements")
        if not isinstance(exponential, Call) or exponential.name != "exp":
            raise refuse(self.name, "no exponential")
        (power,) = exponential.args
        if not isinstance(power, Binary) or power.op != "sub":
            raise refuse(self.name, "the exponent is no difference")
        operand, top = self._plain(power.a), self._plain(power.b)
        self.need(self._folded(top, "max", keys) == operand, "the maximum is of other elements")
        self.need(operand.indices == at, "the softmax reads elsewhere")
        return operand

    def _scores(self, operand: Load) -> tuple[Expr, Load]:
        """The value of a softmax's operand, and the sum of products inside of it."""
        if self._writer(operand).combiner:
            return operand, operand
        value = self._value(operand)
        found = {n for n in loads_of(value) if self._is_sum(n)}
        self.need(len(found) == 1, "the softmax is of no products, or of several")
        return value, found.pop()

    def _is_sum(self, n: Load) -> bool:
        made = [p.block for p in self.places if n.buffer in {w.buffer for w in p.block.writes}]
        return [b.combiner for b in made] == ["sum"]

    def _product(self, scores: Load) -> tuple[Load, Load, Iter]:
        block = self._writer(scores)
        a, b = self.pair(block)
        spatial = [it.var for it in block.iters if it.kind == "spatial"]
        at: dict[Var, Expr] = dict(zip(spatial, scores.indices, strict=True))
        return _load(substitute(a, at)), _load(substitute(b, at)), self._reduced(block)[0]

    def _width(self, onto: dict[Var, Expr], value: Load) -> Iter:
        """The axis that only values have; other axes are of size 1."""
        others = [it for it in self.last.iters if it.kind == "spatial" and it.var not in onto]
        own = [it for it in others if _mentions(value, it.var)]
        self.need(len(own) == 1, "its values have no axis of their own, or several")
        for it in others:
            if it is not own[0]:
                self.need(it.extent == Const(1), "its results are repeated")
                onto[it.var] = ZERO
        return own[0]

    def _result(
        self, total: Load, onto: dict[Var, Expr], width: Iter
    ) -> tuple[Expr, Buffer, tuple[Expr, ...]]:
        """What is stored at last, into which buffer and where."""
        if total.buffer.role != "scratch":
            return (
                _load(substitute(total, onto)),
                total.buffer,
                tuple(substitute(i, onto) for i in total.indices),
            )
        readers = [
            p.block for p in self.places if total.buffer in {r.buffer for r in p.block.reads}
        ]
        self.need(len(readers) == 1 and not readers[0].combiner, "its result is read by several")
        block = self._take(readers[0])
        store = self._store(block)
        loads = {n for n in loads_of(store.value) if n.buffer == total.buffer}
        self.need(len(loads) == 1, "its result is read at several places")
        back: dict[Var, Expr] = {}
        for mine, theirs in zip(loads.pop().indices, total.indices, strict=True):
            if isinstance(mine, Var):
                back[mine] = substitute(theirs, onto)
        rest = [it for it in block.iters if it.var not in back]
        self.need(all(it.extent == Const(1) for it in rest), "its results are repeated")
        back |= {it.var: ZERO for it in rest}
        self.need(store.buffer.role == "output", "its result is kept")
        at = tuple(substitute(i, back) for i in store.indices)
        return substitute(store.value, back), store.buffer, at

    def _require_private(self) -> None:
        """Nothing else reads what the blocks keep to themselves."""
        for block in self.used:
            for b in (w.buffer for w in block.writes if w.buffer.role == "scratch"):
                alone = all(r in self.used for r in self._readers(b))
                self.need(alone, f"{b.name} is read by others")

    def _readers(self, b: Buffer) -> list[Block]:
        return [p.block for p in self.places if b in {r.buffer for r in p.block.reads}]


def _mentions(load: Load, var: Var) -> bool:
    return any(mentions(i, var) for i in load.indices)


def _ranges(iters: Sequence[Iter]) -> Indexer:
    index = Indexer()
    for it in iters:
        size = int(it.extent.value) if isinstance(it.extent, Const) else math.inf
        index = index.bind(it.var, 0, size - 1)
    return index


def _simplified(load: Load, ranges: Indexer) -> Load:
    """A load whose indices are in normal form."""
    return Load(load.buffer, tuple(map(ranges.simplify, load.indices)))


def _load(e: Expr) -> Load:
    assert isinstance(e, Load), "a substituted load is a load"
    return e


def loads_of(e: Expr) -> Sequence[Load]:
    """The loads of an expression, each once."""
    return list(dict.fromkeys(n for n in walk(e) if isinstance(n, Load)))
