"""Operators of a loop that look at elements, or write them, by name.

A slice, a row or another shape of an array is the rule that says where its elements lie: nothing is
computed until an element is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aisc.ir import dtypes
from aisc.ir.blob import Blob
from aisc.ir.graph.core import GraphNode
from aisc.ir.tensor.expr import (
    ZERO,
    Const,
    Expr,
    Select,
    Var,
    binary,
    cast,
    const,
    of_dim,
    within,
)
from aisc.ir.tensor.stmt import For, Stmt, Store
from aisc.passes.lower.elements import (
    Elements,
    Item,
    NotSequential,
    Places,
    Values,
    broadcast,
    whole,
)

MAX_ROW = 64  # elements that one statement of a turn writes


def axis_of(node: GraphNode) -> int:
    """The axis of a node."""
    axis: Any = node.attr("axis")
    return int(axis)


def _constant(_: Values, node: GraphNode) -> Item:
    blob = node.attr("value")
    assert isinstance(blob, Blob), "constant without a blob"
    if node.output.type.size != 1:
        raise NotSequential("an array of constants in a loop")
    return const(blob.array.reshape(-1)[0].item(), blob.dtype)


def _sizes(_: Values, node: GraphNode) -> Item:
    values: Any = node.attr("values")
    if len(values) == 1:
        return of_dim(values[0])

    def at(places: Places) -> Expr:
        (place,) = places
        if not isinstance(place, Const):
            raise NotSequential("sizes at a place of the run")
        return of_dim(values[int(place.value)])

    return Elements((len(values),), at)


def _reshape(s: Values, node: GraphNode) -> Item:
    """Another shape, of which axes of size 1 alone differ."""
    v = node.input_values[0]
    of, shape = s.elements(v), node.output.type.shape
    if node.output.type.size == 1 and v.type.size == 1:
        return s.number(v)
    if [d for d in of.shape if d != 1] != [d for d in shape if d != 1]:
        raise NotSequential("an array is reshaped")
    kept = [k for k, d in enumerate(shape) if d != 1]

    def at(places: Places) -> Expr:
        rest = iter(places[k] for k in kept)
        return of.at(tuple(ZERO if d == 1 else next(rest) for d in of.shape))

    return Elements(shape, at, of.storage)


def _slice(s: Values, node: GraphNode) -> Item:
    of = s.elements(node.input_values[0])
    starts: Any = node.attr("starts")
    steps: Any = node.attr("steps")

    def at(places: Places) -> Expr:
        found = []
        for p, start, step, d in zip(places, starts, steps, of.shape, strict=True):
            place = p * step + of_dim(start)
            inside = (
                isinstance(start, int) and isinstance(d, int) and isinstance(p, Const) and step > 0
            )
            known = inside and int(p.value) * step + start < d if isinstance(p, Const) else False
            found.append(place if known or place == p else within(place, of_dim(d)))
        return of.at(tuple(found))

    return Elements(node.output.type.shape, at, of.storage)


def _gather(s: Values, node: GraphNode) -> Item:
    data, index = node.input_values
    of, places_of, axis = s.elements(data), s.elements(index), axis_of(node)
    rank, size = len(places_of.shape), of_dim(of.shape[axis])
    alone = s.keep("place", _wrapped(s.number(index), size)) if index.type.size == 1 else None

    def at(places: Places) -> Expr:
        inner = places[axis : axis + rank]
        place = alone if alone is not None else _wrapped(places_of.at(inner), size)
        return of.at((*places[:axis], place, *places[axis + rank :]))

    return Elements(node.output.type.shape, at, (*of.storage, *places_of.storage))


def _gather_nd(s: Values, node: GraphNode) -> Item:
    data, index = node.input_values
    count = index.type.shape[-1]
    if index.type.size != count or not isinstance(count, int) or node.attr("batch_dims"):
        raise NotSequential("a gather of several elements")
    of, tuples = s.elements(data), s.elements(index)
    lead = len(index.type.shape) - 1
    fixed = [
        s.keep(
            "place", _wrapped(s.element(tuples, (*(ZERO,) * lead, Const(k))), of_dim(of.shape[k]))
        )
        for k in range(count)
    ]
    return Elements(
        node.output.type.shape, lambda places: of.at((*fixed, *places[lead:])), of.storage
    )


def _wrapped(place: Expr, size: Expr) -> Expr:
    """An index counted from the front, tested."""
    place = cast(place, dtypes.i64)
    if isinstance(place, Const):
        return within(place if int(place.value) >= 0 else place + size, size)
    return within(Select(binary("lt", place, ZERO), place + size, place), size)


def _expand(s: Values, node: GraphNode) -> Item:
    of, shape = s.elements(node.input_values[0]), node.output.type.shape
    return Elements(shape, lambda places: of.at(broadcast(of.shape, places, shape)), of.storage)


def _transpose(s: Values, node: GraphNode) -> Item:
    of = s.elements(node.input_values[0])
    perm: Any = node.attr("perm")
    back = [perm.index(k) for k in range(len(perm))]
    return Elements(
        node.output.type.shape, lambda places: of.at(tuple(places[k] for k in back)), of.storage
    )


def _concat(s: Values, node: GraphNode) -> Item:
    """Numbers that become a vector, as the index of an element."""
    parts = [s.elements(v) for v in node.input_values]
    axis = axis_of(node)
    if any(v.type.shape[axis] != 1 for v in node.input_values):
        raise NotSequential("arrays are joined")

    def at(places: Places) -> Expr:
        k = places[axis]
        if not isinstance(k, Const):
            raise NotSequential("a part at a place of the run")
        return parts[int(k.value)].at((*places[:axis], ZERO, *places[axis + 1 :]))

    return Elements(node.output.type.shape, at, tuple(x for p in parts for x in p.storage))


def _iota(_: Values, node: GraphNode) -> Item:
    return Elements(node.output.type.shape, lambda places: places[0])


def _scatter_nd(s: Values, node: GraphNode) -> Item:
    """Elements at one index are written where the array lies."""
    data, index, updates = node.input_values
    of, tuples, new = s.elements(data), s.elements(index), s.elements(updates)
    count, lead = index.type.shape[-1], len(index.type.shape) - 1
    if index.type.size != count or not isinstance(count, int) or node.attr("reduction") != "none":
        raise NotSequential("several elements are written")
    if not of.whole:
        raise NotSequential("an array is written that is not carried")
    s.element(of, (ZERO,) * len(of.shape))  # nothing has written it since
    storage = of.storage[0][0]
    fixed = [
        s.keep(
            "place", _wrapped(s.element(tuples, (*(ZERO,) * lead, Const(k))), of_dim(of.shape[k]))
        )
        for k in range(count)
    ]
    rest = of.shape[count:]
    loops = [Var(s.cb.fresh("e")) for _ in rest]
    source = s.element(new, (*(ZERO,) * lead, *loops))
    stmt: Stmt = Store(storage.buffer, (*fixed, *loops), source)
    for var, d in zip(reversed(loops), reversed(rest), strict=True):
        if not isinstance(d, int) or d > MAX_ROW:
            raise NotSequential("a long row is written")
        stmt = For(var, ZERO, of_dim(d), "serial", stmt)
    s.body.append(stmt)
    storage.version += 1
    return whole(storage)


RULES: dict[str, Callable[[Values, GraphNode], Item]] = {
    "constant": _constant, "sizes": _sizes, "reshape": _reshape, "slice": _slice, "gather": _gather,
    "gather_nd": _gather_nd, "expand": _expand, "transpose": _transpose, "concat": _concat,
    "iota": _iota, "scatter_nd": _scatter_nd,
}  # fmt: skip
