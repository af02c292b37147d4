"""The greatest or least elements along an axis, sorted, and where they are: which of the ways to
find them (:mod:`aisc.ir.graph.ops.best_of_rows`) suits how many are wanted of how many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log

import numpy as np

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, bounds, floordiv, product
from aisc.ir.dataclass import dataclass
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
from aisc.ir.graph.ops.best_of_rows import Kept, Peaks, Row, clamped, lowest_of, rank_of, rank_type
from aisc.ir.graph.ops.movement import sizes
from aisc.ir.graph.shapes import infer
from aisc.ir.graph.shapes.checks import require
from aisc.ir.tensor import expr as e
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Expr, Load, Var
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.stmt import Alloc, For, Let, Stmt, Store, seq
from aisc.ir.types import TensorType

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
    kept = Kept.of(cb, x, axis, size if sorts else k, not sorts)
    peaks = None if sorts else _peaks(cb, x, axis, k, largest)

    def row(at: Sequence[Var]) -> Stmt:
        one = Row(cb, x, axis, kept, tuple(at), largest)
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


# --- chunks -----------------------------------------------------------------------------------
def _peaks(cb: ComputeBuilder, x: Buffer, axis: int, k: Dim, largest: bool) -> Peaks | None:
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
    peaks = cb.alloc("peaks", rank_type(x.dtype), (*rows, floordiv(size - k, each)))

    def rank(at: Sequence[Var], r: Sequence[Var]) -> Expr:
        place = e.of_dim(k) + at[-1] * each + r[0]
        return rank_of(Load(x, (*at[:axis], place, *at[axis:-1])), largest)

    cb.reduce(peaks, (each,), "max", rank, "peaks")
    return Peaks(peaks, each)


# --- parts ------------------------------------------------------------------------------------
def _merged(
    cb: ComputeBuilder, x: Buffer, axis: int, k: int, largest: bool, values: Buffer, places: Buffer
) -> None:
    """Sort the parts of each row, and merge them pairwise until there is one."""
    size = x.shape[axis]
    assert isinstance(size, int), "few results and rows are known"
    others, each = (*x.shape[:axis], *x.shape[axis + 1 :]), -(-size // PARTS)
    kept = Kept.of(cb, x, axis, 0, False)  # for the form of its entries
    parts = [cb.alloc("part", b.dtype, (*others, each, PARTS)) for b in kept.entries]
    cb.stmts = [s for s in cb.stmts if not (isinstance(s, Alloc) and s.buffer in kept.entries)]

    def sort(at: Sequence[Var]) -> Stmt:
        *row, part = at
        one = _Part(cb, x, axis, Kept(tuple(parts), ()), tuple(row), largest, part)
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
    cb: ComputeBuilder, kept: Kept, old: _Lists, rows: Shape, count: int, length: int
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
        numbers = [clamped(n, e.Const(old.length)) for n in (first, turn - first)]
        heads = []
        for n, (place, whole) in enumerate(zip(places, (first, turn - first), strict=True)):
            there = old.at(row, pair * 2 + n, place)
            inside = e.Binary("lt", whole, e.Const(old.length))
            heads.append([e.select(inside, v, lowest_of(v.dtype)) for v in there])
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


def _store_results(
    cb: ComputeBuilder, kept: Kept, lists: _Lists, x: Buffer, axis: int, out: Buffer, found: bool
) -> None:
    """The places of the entries of the only list that is left, or what is there."""

    def result(at: Sequence[Var]) -> Stmt:
        row = (*at[:axis], *at[axis + 1 :])
        place = Var(cb.fresh("place"))
        where = clamped(kept.place(lists.at(row, e.ZERO, at[axis])), e.of_dim(x.shape[axis]))
        value = Load(x, (*at[:axis], place, *at[axis + 1 :])) if found else place
        return Let(place, where, Store(out, tuple(at), value))

    cb.each(out.shape, result, "result", "spatial")


@dataclass(frozen=True, slots=True)
class _Part(Row):
    """Statements for one part of a row: every PARTS-th element, from element `part` on."""

    part: Var

    def _new(self, place: Expr, use: Callable[[tuple[Var, ...]], Stmt]) -> Stmt:
        """Behind the end of the row stand entries that come last."""
        size, where = e.of_dim(self.x.shape[self.axis]), place * PARTS + self.part
        inside = e.Binary("lt", where, size)
        rank = rank_of(Load(self.x, self._along(where)), self.largest)
        entry = self.kept.entry(rank, where)
        lowest = [lowest_of(v.dtype) for v in entry]
        if len(entry) > 1:  # after all that are equal
            lowest[1] = e.const(dtypes.i64.max_value, dtypes.i64)
        names = tuple(self._var("new", v.dtype) for v in entry)
        stmt = use(names)
        for name, value, low in zip(names, entry, lowest, strict=True):
            stmt = Let(name, e.select(inside, value, low), stmt)
        return stmt

    def _kept_at(self, j: Expr) -> tuple[Expr, ...]:
        return (*self.at, j, self.part)


register(
    OpDef(
        "top_k", "The `k` greatest (or least) elements along `axis`, sorted, and their indices; of "
        "equal ones the lower index comes first. NaN counts as greater than every number.",
        (Operand("x"),), _top_rule, _top_reference, "opaque",
        (Attr("k", "dims"), Attr("axis", "int", -1), Attr("largest", "bool", True)), outputs=2,
        variants={"direct": Variant(_top_compute)},
    )
)  # fmt: skip
