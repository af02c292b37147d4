"""The greatest or least elements along an axis, sorted, and where they are.

An element stands for an integer in the order of the elements, its *rank*, so that NaN and -0 need
no care of their own. Rank and place together are an *entry*: one integer where both fit into 64
bits, else two. All entries of a row are different, and their order is that of the results. Values
are read again in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, bounds, floordiv, product
from aisc.ir.dtypes import DType
from aisc.ir.graph.opdef import (
    Array,
    Arrays,
    Attr,
    OpCall,
    OpDef,
    Operand,
    Variant,
    present,
    register,
)
from aisc.ir.graph.ops.movement import sizes
from aisc.ir.graph.shapes import infer
from aisc.ir.graph.shapes.checks import require
from aisc.ir.tensor import expr as e
from aisc.ir.tensor.builder import ComputeBuilder, row_numbers
from aisc.ir.tensor.expr import Expr, Load, Var
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.stmt import Alloc, For, If, Let, Stmt, Store, seq
from aisc.ir.types import TensorType

Values = tuple[Expr, ...]
Shape = tuple[Dim, ...]


def _axis(call: OpCall) -> int:
    return infer.normal_axis(call, call.attrs["axis"], call.type(0).rank)


def _top_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_rank(call, 0, 1)
    infer.check_dtype(call, 0, infer.is_number)
    x, axis = call.type(0), _axis(call)
    if len(call.attrs["k"]) != 1:
        raise call.fail("k must be one dimension", code="E203")
    (k,), size = call.attrs["k"], x.shape[axis]
    require(call, "<=", 0, k, "the number of elements")
    require(call, "<=", k, size, "k and the size of the axis")
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    return TensorType(shape, x.dtype), TensorType(shape, dtypes.i64)


def _top_reference(call: OpCall, xs: Arrays) -> list[Array]:
    (x,) = present(xs)
    axis, (k,) = _axis(call), sizes(call.attrs["k"])
    key = np.flip(x, axis) if call.attrs["largest"] else x
    order = np.argsort(key, axis=axis, kind="stable")
    if call.attrs["largest"]:
        order = x.shape[axis] - 1 - np.flip(order, axis)
    order = np.take(order, np.arange(k), axis=axis)
    return [np.take_along_axis(x, order, axis=axis), order]


# Results from which on an element is compared with the last of them before it is inserted.
FEW = 4
# Rows from which on they are taken to be lanes, which all insert where one of them does.
ROWS = 4
# Results from which on so few rows are sorted in parts, of every PARTS-th element each.
MANY, PARTS = 48, 16
# An exchange of a sorting network takes as long as so many steps of an insertion.
EXCHANGE = 2.5
# Elements for each result from which on a row is looked through in chunks, where it lies together.
LONG = 64
CHUNKS = (16, 32, 64, 128)


def _top_compute(
    cb: ComputeBuilder, call: OpCall, ins: Sequence[Buffer | None], outs: Sequence[Buffer]
) -> None:
    """Each row for itself. For few results an element is inserted into the sorted ones before it:
    the first k fill the results, each of the others that comes before the last result pushes it
    out. For many, all elements are sorted."""
    (x,), (values, places), axis = ins, outs, _axis(call)
    assert x is not None, "a selection without operand"
    (k,), size, largest = call.attrs["k"], x.shape[axis], bool(call.attrs["largest"])
    if k == 0:
        return
    others = (*x.shape[:axis], *x.shape[axis + 1 :])
    if _merges(size, k, product(others)):
        return _merged(cb, x, axis, k, largest, values, places)
    sorts = _sorts(size, k, product(others))
    kept = _Kept.of(cb, x, axis, size if sorts else k, not sorts)
    peaks = None if sorts else _peaks(cb, x, axis, k, largest)

    def row(at: Sequence[Var]) -> Stmt:
        one = _Row(cb, x, axis, kept, tuple(at), largest)
        if sorts:
            found = one.sort(size)
        elif peaks is None:
            found = seq(one.fill(k), one.push_all(e.of_dim(k), e.of_dim(size - k), k))
        else:
            found = seq(one.fill(k), one.push_some(peaks, k, size))
        return seq(found, one.results(values, places, k))

    cb.each(others, row, "top", "spatial")


def _merges(size: Dim, k: Dim, rows: Dim) -> bool:
    """Whether there are many results of few rows: then parts of a row are what rows are else."""
    many = isinstance(size, int) and isinstance(k, int) and k > MANY and size > 2 * PARTS
    return many and isinstance(rows, int) and rows < ROWS


def _sorts(size: Dim, k: Dim, rows: Dim) -> bool:
    """Whether sorting takes less than inserting; where that is not known, many results do."""
    if not isinstance(size, int) or not isinstance(k, int):
        return bounds(k)[1] > LONG
    turns = max(size - 1, 0).bit_length()
    network = size * turns * (turns + 1) / 4
    alone = isinstance(rows, int) and rows < ROWS
    inserted = k * log(size / k) if alone else size - k
    return k * (k / 2 + inserted) > EXCHANGE * network


# --- entries ----------------------------------------------------------------------------------
def _rank_type(t: DType) -> DType:
    if t.bits < 32:
        return dtypes.i32
    return {32: dtypes.i32, 64: dtypes.i64}[t.bits] if t.is_float else t


def _rank(value: Expr, largest: bool) -> Expr:
    """An integer that is the greater, the earlier an element comes."""
    if value.dtype.bits < 32:
        value = e.cast(value, dtypes.f32 if value.dtype.is_float else dtypes.i32)
    rank = e.math("ordinal", value) if value.dtype.is_float else value
    return rank if largest else e.Unary("not", rank)


def _high(rank: Expr) -> Expr:
    """A rank of 32 bits as the least entry that has it."""
    wide = e.cast(rank, dtypes.i64)
    if rank.dtype is dtypes.u32:
        wide = wide + dtypes.i32.min_value
    return e.Binary("shl", wide, e.Const(32))


_LOW = e.Const(dtypes.u32.max_value)


@dataclass(frozen=True, slots=True)
class _Kept:
    """Entries of all rows, in order, indexed by what is before the axis, by what is behind it and
    by place in the order; and of each row one on its way."""

    entries: tuple[Buffer, ...]
    moved: tuple[Buffer, ...]

    @staticmethod
    def of(cb: ComputeBuilder, x: Buffer, axis: int, count: Dim, moves: bool) -> _Kept:
        """Scratch for `count` entries of each row, and for the one on its way if it `moves`."""
        rank, rows = _rank_type(x.dtype), (product(x.shape[:axis]), product(x.shape[axis + 1 :]))
        short = rank.bits == 32 and bounds(x.shape[axis])[1] <= dtypes.u32.max_value
        parts = {"entry": dtypes.i64} if short else {"rank": rank, "number": dtypes.i64}
        return _Kept(
            tuple(cb.alloc(f"kept_{name}", t, (*rows, count)) for name, t in parts.items()),
            tuple(cb.alloc(name, t, rows) for name, t in parts.items() if moves),
        )

    def entry(self, rank: Expr, place: Expr) -> Values:
        """The entry of an element."""
        if len(self.entries) == 1:
            return (e.Binary("or", _high(rank), _LOW - place),)
        return rank, place

    def place(self, entry: Values) -> Expr:
        """Where an entry's element is."""
        if len(self.entries) == 1:
            return _LOW - e.Binary("and", entry[0], _LOW)
        return entry[1]

    def before(self, a: Values, b: Values) -> Expr:
        """Whether entry `a` comes before `b`."""
        if len(self.entries) == 1:
            return e.Binary("gt", a[0], b[0])
        equal = e.logical_and(e.equal(a[0], b[0]), e.Binary("lt", a[1], b[1]))
        return e.Binary("or", e.Binary("gt", a[0], b[0]), equal)

    def ordered(self, a: Values, b: Values) -> tuple[Values, Values]:
        """Two entries in order."""
        if len(self.entries) == 1:
            return (e.maximum(a[0], b[0]),), (e.minimum(a[0], b[0]),)
        first = self.before(a, b)
        return (
            tuple(e.select(first, x, y) for x, y in zip(a, b, strict=True)),
            tuple(e.select(first, y, x) for x, y in zip(a, b, strict=True)),
        )


# --- chunks -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Peaks:
    """The best ranks of chunks, of `each` elements."""

    ranks: Buffer
    each: int


def _peaks(cb: ComputeBuilder, x: Buffer, axis: int, k: Dim, largest: bool) -> _Peaks | None:
    """The best ranks of chunks of each row behind its first `k` elements, for rows whose elements
    lie together and are many for each result: most chunks have none that matters."""
    size = x.shape[axis]
    if product(x.shape[axis + 1 :]) != 1:
        return None
    ratio = size / k if isinstance(size, int) and isinstance(k, int) else CHUNKS[-1] ** 2
    if ratio < LONG:
        return None
    each = max(c for c in CHUNKS if c == CHUNKS[0] or c * c <= 2 * ratio)
    rows = (*x.shape[:axis], *x.shape[axis + 1 :])
    peaks = cb.alloc("peaks", _rank_type(x.dtype), (*rows, floordiv(size - k, each)))

    def rank(at: Sequence[Var], r: Sequence[Var]) -> Expr:
        place = e.of_dim(k) + at[-1] * each + r[0]
        return _rank(Load(x, (*at[:axis], place, *at[axis:-1])), largest)

    cb.reduce(peaks, (each,), "max", rank, "peaks")
    return _Peaks(peaks, each)


# --- parts ------------------------------------------------------------------------------------
def _merged(
    cb: ComputeBuilder, x: Buffer, axis: int, k: int, largest: bool, values: Buffer, places: Buffer
) -> None:
    """Sort the parts of each row, and merge them pairwise until there is one."""
    size = x.shape[axis]
    assert isinstance(size, int), "few results and rows are known"
    others, each = (*x.shape[:axis], *x.shape[axis + 1 :]), -(-size // PARTS)
    kept = _Kept.of(cb, x, axis, 0, False)  # for the form of its entries
    parts = [cb.alloc("part", b.dtype, (*others, each, PARTS)) for b in kept.entries]
    cb.stmts = [s for s in cb.stmts if not (isinstance(s, Alloc) and s.buffer in kept.entries)]

    def sort(at: Sequence[Var]) -> Stmt:
        *row, part = at
        one = _Part(cb, x, axis, _Kept(tuple(parts), ()), tuple(row), largest, part)
        return one.sort(each)

    cb.each((*others, PARTS), sort, "parts", "spatial")
    lists, count = _Lists(tuple(parts), each, True), PARTS
    while count > 1:
        count //= 2
        lists = _merge(cb, kept, lists, others, count, min(k, 2 * lists.length))
    for b, found in ((values, True), (places, False)):
        _store_results(cb, kept, lists, x, axis, b, found)


@dataclass(frozen=True, slots=True)
class _Lists:
    """Sorted lists of entries, `length` each, indexed by row, number and place; `across`: by row,
    place and number."""

    entries: tuple[Buffer, ...]
    length: int
    across: bool = False

    def at(self, row: Sequence[Expr], number: Expr, place: Expr) -> tuple[Load, ...]:
        """An entry of a list."""
        last = (place, number) if self.across else (number, place)
        return tuple(Load(b, (*row, *last)) for b in self.entries)


def _merge(
    cb: ComputeBuilder, kept: _Kept, old: _Lists, rows: Shape, count: int, length: int
) -> _Lists:
    """The best `length` of each of `count` pairs of lists, in order."""
    new = _Lists(
        tuple(cb.alloc("merged", b.dtype, (*rows, count, length)) for b in old.entries), length
    )
    taken = cb.alloc("taken", dtypes.i64, (product(rows), count))

    def merge(at: Sequence[Var]) -> Stmt:
        *row, pair = at
        flat: Expr = e.ZERO
        for i, d in zip(row, rows, strict=True):
            flat = flat * e.of_dim(d) + i
        turn, first = Var(cb.fresh("turn")), Load(taken, (flat, pair))
        places = [Var(cb.fresh("place")) for _ in range(2)]
        numbers = [_inside(n, e.Const(old.length)) for n in (first, turn - first)]
        heads = []
        for n, (place, whole) in enumerate(zip(places, (first, turn - first), strict=True)):
            there = old.at(row, pair * 2 + n, place)
            inside = e.Binary("lt", whole, e.Const(old.length))
            heads.append([e.select(inside, v, _lowest(v.dtype)) for v in there])
        names = [tuple(Var(cb.fresh("head"), v.dtype) for v in head) for head in heads]
        better = kept.ordered(names[0], names[1])[0]
        stores: list[Stmt] = [
            Store(b, (*row, pair, turn), v) for b, v in zip(new.entries, better, strict=True)
        ]
        step = e.cast(kept.before(names[0], names[1]), dtypes.i64)
        stmt = seq(*stores, Store(taken, (flat, pair), first + step))
        for name, value in zip((*names[0], *names[1]), (*heads[0], *heads[1]), strict=True):
            stmt = Let(name, value, stmt)
        for place, value in zip(places, numbers, strict=True):
            stmt = Let(place, value, stmt)
        start = Store(taken, (flat, pair), e.ZERO)
        return seq(start, For(turn, e.ZERO, e.Const(length), "serial", stmt))

    cb.each((*rows, count), merge, "merge", "spatial")
    return new


def _lowest(t: DType) -> Expr:
    return e.const(t.min_value, t)


def _store_results(
    cb: ComputeBuilder, kept: _Kept, lists: _Lists, x: Buffer, axis: int, out: Buffer, found: bool
) -> None:
    """The places of the entries of the only list that is left, or what is there."""

    def result(at: Sequence[Var]) -> Stmt:
        row = (*at[:axis], *at[axis + 1 :])
        place = Var(cb.fresh("place"))
        where = _inside(kept.place(lists.at(row, e.ZERO, at[axis])), e.of_dim(x.shape[axis]))
        value = Load(x, (*at[:axis], place, *at[axis + 1 :])) if found else place
        return Let(place, where, Store(out, tuple(at), value))

    cb.each(out.shape, result, "result", "spatial")


# --- rows -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Row:
    """Statements for one row of `x`, the one at `at`."""

    cb: ComputeBuilder
    x: Buffer
    axis: int
    kept: _Kept
    at: tuple[Var, ...]
    largest: bool

    def fill(self, k: Dim) -> Stmt:
        """The first `k` elements in order: each among those before it."""
        turn = self._var("turn")
        end = [Store(b, self._kept_at(turn), self._moved(m)) for b, m in self._pairs()]
        body = self._new(turn, lambda new: seq(self._insert(new, turn), *end))
        return For(turn, e.ZERO, e.of_dim(k), "serial", body)

    def push_all(self, first: Expr, count: Expr, k: Dim) -> Stmt:
        """`count` elements from `first` on, each among the best `k` before it."""
        turn = self._var("turn")
        last = tuple(Load(b, self._kept_at(e.of_dim(k) - 1)) for b in self.kept.entries)

        def push(new: tuple[Var, ...]) -> Stmt:
            body = self._insert(new, e.of_dim(k))
            if isinstance(k, int) and k < FEW:
                return body
            return If(e.Binary("gt", new[0], last[0]), body)

        body = self._new(first + turn, push)
        return For(turn, e.ZERO, count, "serial", body)

    def push_some(self, peaks: _Peaks, k: Dim, size: Dim) -> Stmt:
        """The elements behind the first `k`, those of a chunk if the best of them is better than
        the last one so far."""
        chunk, each, chunks = self._var("chunk"), peaks.each, peaks.ranks.shape[-1]
        peak = Load(peaks.ranks, (*self.at, chunk))
        packed = len(self.kept.entries) == 1
        last = Load(self.kept.entries[0], self._kept_at(e.of_dim(k) - 1))
        better = e.Binary("gt", _high(peak) if packed else peak, last)
        first, rest = e.of_dim(k) + chunk * each, size - k - chunks * each
        inside = If(better, self.push_all(first, e.Const(each), k))
        whole = For(chunk, e.ZERO, e.of_dim(chunks), "serial", inside)
        return seq(whole, self.push_all(e.of_dim(size - rest), e.of_dim(rest), k))

    def _insert(self, new: tuple[Var, ...], count: Expr) -> Stmt:
        """An entry among the first `count`: it, and then each that it or another has displaced,
        takes the place of the next one that comes after it. What is displaced last is left."""
        j = self._var("j")
        start = [Store(m, self._row(), v) for m, v in zip(self.kept.moved, new, strict=True)]
        here = tuple(Load(b, self._kept_at(j)) for b in self.kept.entries)
        way = tuple(self._moved(m) for m in self.kept.moved)
        places = [(b, self._kept_at(j)) for b in self.kept.entries]
        places += [(m, self._row()) for m in self.kept.moved]
        return seq(*start, For(j, e.ZERO, count, "serial", self._exchange(here, way, places)))

    def sort(self, size: Dim) -> Stmt:
        """All elements in order, by merge exchange (Knuth, The Art of Computer Programming,
        5.2.2, algorithm M): in each turn elements that are `apart` are put in order, in runs of
        `p`, of which every other one begins `skip` behind a multiple of ``2 * p``."""
        count, place = e.of_dim(size), self._var("place")
        places = self._kept_at(place)
        load = self._new(place, lambda new: seq(*(
            Store(b, places, v) for b, v in zip(self.kept.entries, new, strict=True)
        )))  # fmt: skip
        turns, s, u = self._var("turns"), self._var("s"), self._var("u")
        p, apart, skip = self._var("p"), self._var("apart"), self._var("skip")
        one, first = e.ONE, e.equal(u, 0)
        body: Stmt = Let(
            apart,
            e.select(first, p, e.Binary("shl", one, turns - u) - p),
            Let(skip, e.select(first, e.ZERO, p), self._turn(count, p, apart, skip)),
        )
        body = For(u, e.ZERO, s + 1, "serial", body)
        body = Let(p, e.Binary("shl", one, turns - 1 - s), body)
        return seq(
            For(place, e.ZERO, count, "serial", load),
            Let(turns, _bit_length(size), For(s, e.ZERO, turns, "serial", body)),
        )

    def _turn(self, count: Expr, p: Var, apart: Var, skip: Var) -> Stmt:
        """Put in order all pairs of one turn."""
        run, step = self._var("run"), self._var("step")
        low, high = self._var("low"), self._var("high")
        both = [self._kept_at(low), self._kept_at(high)]
        a, b = (tuple(Load(x, at) for x in self.kept.entries) for at in both)
        places = [(x, at) for at in both for x in self.kept.entries]
        start = run * 2 * p + skip
        left = count - apart - start
        pair: Stmt = Let(high, _inside(low + apart, count), self._exchange(a, b, places))
        pair = Let(low, _inside(start + step, count), pair)
        runs = e.binary("floordiv", count - apart - skip + (p * 2 - 1), p * 2)
        inner = For(step, e.ZERO, e.minimum(p, left), "serial", pair)
        return For(run, e.ZERO, runs, "serial", inner)

    def _exchange(
        self, a: Values, b: Values, places: list[tuple[Buffer, tuple[Expr, ...]]]
    ) -> Stmt:
        """Store the entries that `a` and `b` load in order: the parts of the first, then those of
        the second, at `places`."""
        names = [tuple(self._var("e", x.dtype) for x in entry) for entry in (a, b)]
        ordered = [x for entry in self.kept.ordered(*names) for x in entry]
        stmt: Stmt = seq(*(Store(t, at, v) for (t, at), v in zip(places, ordered, strict=True)))
        for name, value in zip((*names[0], *names[1]), (*a, *b), strict=True):
            stmt = Let(name, value, stmt)
        return stmt

    def results(self, values: Buffer, places: Buffer, k: Dim) -> Stmt:
        """Store the best elements, as they are in `x`, and their places."""
        j, place = self._var("j"), self._var("place")
        found = self.kept.place(tuple(Load(b, self._kept_at(j)) for b in self.kept.entries))
        at = self._along(j)
        stores = seq(Store(values, at, Load(self.x, self._along(place))), Store(places, at, place))
        inside = _inside(found, e.of_dim(self.x.shape[self.axis]))
        return For(j, e.ZERO, e.of_dim(k), "serial", Let(place, inside, stores))

    # -- parts -------------------------------------------------------------------------------

    def _var(self, name: str, dtype: DType = dtypes.i64) -> Var:
        return Var(self.cb.fresh(name), dtype)

    def _new(self, place: Expr, use: Callable[[tuple[Var, ...]], Stmt]) -> Stmt:
        """What is done with the entry of the element at `place`."""
        rank = _rank(Load(self.x, self._along(place)), self.largest)
        entry = self.kept.entry(rank, place)
        names = tuple(self._var("new", v.dtype) for v in entry)
        stmt = use(names)
        for name, value in zip(names, entry, strict=True):
            stmt = Let(name, value, stmt)
        return stmt

    def _pairs(self) -> list[tuple[Buffer, Buffer]]:
        return list(zip(self.kept.entries, self.kept.moved, strict=True))

    def _row(self) -> tuple[Expr, Expr]:
        """How many rows are before this one along the axes before the axis, and behind it."""
        return row_numbers(self.x.shape, self.axis, self.at)

    def _along(self, where: Expr) -> tuple[Expr, ...]:
        return (*self.at[: self.axis], where, *self.at[self.axis :])

    def _kept_at(self, j: Expr) -> tuple[Expr, ...]:
        return (*self._row(), j)

    def _moved(self, m: Buffer) -> Load:
        return Load(m, self._row())


@dataclass(frozen=True, slots=True)
class _Part(_Row):
    """Statements for one part of a row: every PARTS-th element, from element `part` on."""

    part: Var

    def _new(self, place: Expr, use: Callable[[tuple[Var, ...]], Stmt]) -> Stmt:
        """Behind the end of the row stand entries that come last."""
        size, where = e.of_dim(self.x.shape[self.axis]), place * PARTS + self.part
        inside = e.Binary("lt", where, size)
        rank = _rank(Load(self.x, self._along(where)), self.largest)
        entry = self.kept.entry(rank, where)
        lowest = [_lowest(v.dtype) for v in entry]
        if len(entry) > 1:  # after all that are equal
            lowest[1] = e.const(dtypes.i64.max_value, dtypes.i64)
        names = tuple(self._var("new", v.dtype) for v in entry)
        stmt = use(names)
        for name, value, low in zip(names, entry, lowest, strict=True):
            stmt = Let(name, e.select(inside, value, low), stmt)
        return stmt

    def _kept_at(self, j: Expr) -> tuple[Expr, ...]:
        return (*self.at, j, self.part)


def _inside(place: Expr, count: Expr) -> Expr:
    """A place that is inside, as what is known of the sizes says."""
    return e.minimum(e.maximum(place, e.ZERO), count - 1)


def _bit_length(size: Dim) -> Expr:
    """The least number of bits that ``size - 1`` fits into."""
    if isinstance(size, int):
        return e.Const(max(size - 1, 0).bit_length())
    last = e.of_dim(size) - 1
    total: Expr = e.ZERO
    for bit in range(40):
        total = total + e.cast(e.Binary("ge", last, e.Const(1 << bit)), dtypes.i64)
    return total


register(
    OpDef(
        "top_k", "The `k` greatest (or least) elements along `axis`, sorted, and their indices; of "
        "equal ones the lower index comes first. NaN counts as greater than every number.",
        (Operand("x"),), _top_rule, _top_reference, "opaque",
        (Attr("k", "dims"), Attr("axis", "int", -1), Attr("largest", "bool", True)), outputs=2,
        variants={"direct": Variant(_top_compute)},
    )
)  # fmt: skip
