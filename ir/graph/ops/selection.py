"""Operators that write at computed places: scatters, selections and top-k."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aisc.ir import dtypes
from aisc.ir.arith.poly import bounds
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
from aisc.ir.graph.ops.indexing import elements_rule, nd_depth, wrap_indices, wrapped
from aisc.ir.graph.ops.movement import sizes
from aisc.ir.graph.shapes import infer
from aisc.ir.graph.shapes.checks import no_size_below_zero, require
from aisc.ir.tensor import expr as e
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.combiner import COMBINERS
from aisc.ir.tensor.expr import Expr, Load, Var
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.stmt import For, If, IterKind, Let, Stmt, Store, seq
from aisc.ir.types import TensorType

Ins = Sequence[Buffer | None]
Outs = Sequence[Buffer]


def _axis(call: OpCall) -> int:
    return infer.normal_axis(call, call.attrs["axis"], call.type(0).rank)


def _present(ins: Ins) -> list[Buffer]:
    found = [b for b in ins if b is not None]
    assert len(found) == len(ins), "a required operand is absent"
    return found


# --- scatter ----------------------------------------------------------------------------------
_REDUCTIONS = ("none", "add", "mul", "max", "min")
_SCATTER = (Operand("data"), Operand("indices"), Operand("updates"))
_REDUCTION = Attr("reduction", "str", "none", _REDUCTIONS)
_UFUNCS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _scatter_at(out: Array, at: Any, updates: Array, reduction: str) -> None:
    if reduction == "none":
        out[at] = updates
    else:
        _UFUNCS[reduction].at(out, at, updates)


def _scatter_elements_rule(call: OpCall) -> tuple[TensorType, ...]:
    elements_rule(call)
    infer.same_dtype(call, 0, 2)
    infer.check_shape(call, 2, call.type(1).shape)
    return (call.type(0),)


def _scatter_elements_reference(call: OpCall, xs: Arrays) -> list[Array]:
    data, indices, updates = present(xs)
    out, axis = data.copy(), _axis(call)
    at: list[Array] = list(np.indices(indices.shape, sparse=True))
    at[axis] = wrap_indices(indices, data.shape[axis])
    _scatter_at(out, tuple(np.broadcast_arrays(*at)), updates, call.attrs["reduction"])
    return [out]


def _combined(out: Buffer, at: tuple[Expr, ...], update: Expr, reduction: str) -> Store:
    """``out[at] = update``, or combined with what is there."""
    return Store(out, at, update if reduction == "none" else _new(reduction, Load(out, at), update))


def _new(reduction: str, old: Expr, update: Expr) -> Expr:
    if old.dtype.kind == "bool":  # as numpy: add is or, mul is and
        names = {"add": "or", "mul": "and", "max": "or", "min": "and"}
        return e.binary(names[reduction], old, update)
    return e.binary(reduction, old, update)


def _scatter_elements_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    (data, indices, updates), (out,), axis = _present(ins), outs, _axis(call)
    size = e.of_dim(data.shape[axis])
    cb.map(out, lambda *i: Load(data, i), "copy")

    def update(i: Sequence[Var]) -> Stmt:
        at = (*i[:axis], wrapped(Load(indices, tuple(i)), size), *i[axis + 1 :])
        return _combined(out, at, Load(updates, tuple(i)), call.attrs["reduction"])

    cb.each(updates.shape, update, "scatter")


register(
    OpDef(
        "scatter_elements",
        "`data` with ``data[indices[i, j], j] = updates[i, j]`` (for axis 0), or combined by "
        "`reduction`.",
        _SCATTER, _scatter_elements_rule, _scatter_elements_reference, "movement",
        (Attr("axis", "int", 0), _REDUCTION),
        variants={"direct": Variant(_scatter_elements_compute)},
    )
)  # fmt: skip


def _scatter_nd_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_dtype(call, 1, infer.is_integer)
    infer.check_rank(call, 1, 1)
    infer.same_dtype(call, 0, 2)
    data, indices, depth = call.type(0), call.type(1), nd_depth(call)
    if depth > data.rank:
        raise call.fail(f"index tuples of {depth} do not fit {data}")
    infer.check_shape(call, 2, (*indices.shape[:-1], *data.shape[depth:]))
    return (data,)


def _scatter_nd_reference(call: OpCall, xs: Arrays) -> list[Array]:
    data, indices, updates = present(xs)
    out, depth = data.copy(), indices.shape[-1]
    if not updates.size:
        return [out]
    picks = tuple(wrap_indices(indices[..., k], data.shape[k]) for k in range(depth))
    _scatter_at(out, picks or (...,), updates, call.attrs["reduction"])
    return [out]


def _scatter_nd_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    (data, indices, updates), (out,), depth = _present(ins), outs, nd_depth(call)
    lead = indices.rank - 1
    cb.map(out, lambda *i: Load(data, i), "copy")

    def update(i: Sequence[Var]) -> Stmt:
        picks = [
            wrapped(Load(indices, (*i[:lead], e.Const(k))), e.of_dim(data.shape[k]))
            for k in range(depth)
        ]
        at = (*picks, *i[lead:])
        return _combined(out, at, Load(updates, tuple(i)), call.attrs["reduction"])

    cb.each(updates.shape, update, "scatter")


register(
    OpDef(
        "scatter_nd",
        "`data` with the slices at the index tuples replaced by `updates`, or combined by "
        "`reduction`.",
        _SCATTER, _scatter_nd_rule, _scatter_nd_reference, "movement", (_REDUCTION,),
        variants={"direct": Variant(_scatter_nd_compute)},
    )
)  # fmt: skip


# --- selections -------------------------------------------------------------------------------
def _places_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_dtype(call, 0, infer.is_bool)
    infer.check_rank(call, 0, 1, 1)
    if len(call.attrs["size"]) != 1:
        raise call.fail("the size must be one dimension", code="E203")
    no_size_below_zero(call, call.attrs["size"])
    return (TensorType(tuple(call.attrs["size"]), dtypes.i64),)


def _places_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    (mask,), (out,) = _present(ins), outs
    count = cb.alloc("count", dtypes.i64, ())
    cb.map(count, lambda: e.ZERO, "start")

    def keep(i: Sequence[Var]) -> Stmt:
        found = Load(count, ())
        place = e.within(found, e.of_dim(out.shape[0]))
        return If(
            Load(mask, tuple(i)), seq(Store(out, (place,), i[0]), Store(count, (), found + 1))
        )

    cb.each(mask.shape, keep, "places")


register(
    OpDef(
        "true_places",
        "The places of the true elements of a vector, in order; `size` is their number.",
        (Operand("mask"),), _places_rule,
        lambda call, xs: [np.flatnonzero(present(xs)[0])[: sizes(call.attrs["size"])[0]]],
        "movement", (Attr("size", "dims"),), variants={"direct": Variant(_places_compute)},
    )
)  # fmt: skip


# --- top-k ------------------------------------------------------------------------------------
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


def _top_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    """Insertion into the sorted results: an element that comes before the last of them moves those
    that it precedes by one. Most elements of a long axis cost no more than one comparison."""
    (x,), (values, places), axis = _present(ins), outs, _axis(call)
    (k,), largest = call.attrs["k"], call.attrs["largest"]
    rule = COMBINERS["argmax" if largest else "argmin_number"]
    worst = rule.identity([values.dtype, places.dtype])
    for b, v in zip((values, places), worst, strict=True):
        cb.map(b, lambda *_, v=v: v, "worst")

    def insert(at: Sequence[Var]) -> Stmt:
        def state(j: Expr) -> tuple[Load, Load]:
            where = (*at[:axis], j, *at[axis + 1 :])
            return Load(values, where), Load(places, where)

        new = Load(x, tuple(at)), at[axis]
        turn = Var(cb.fresh("turn"))
        j = e.of_dim(k) - 1 - turn
        here, before = state(j), state(e.maximum(j - 1, 0))
        passes = rule.comes_first(new, here)
        moves = e.logical_and(e.Binary("gt", j, e.ZERO), rule.comes_first(new, before))
        kept = [
            e.select(passes, e.select(moves, b, n), h)
            for n, h, b in zip(new, here, before, strict=True)
        ]
        names = [Var(cb.fresh(f"new_{h.buffer.name}"), h.dtype) for h in here]
        move: Stmt = seq(*(Store(h.buffer, h.indices, v) for h, v in zip(here, names, strict=True)))
        for var, value in zip(reversed(names), reversed(kept), strict=True):
            move = Let(var, value, move)
        shift = For(turn, e.ZERO, e.of_dim(k), "serial", move)
        end = state(e.of_dim(k) - 1)
        behind = e.Binary("lt" if largest else "gt", new[0], end[0])
        return If(e.Unary("not", behind), If(rule.comes_first(new, end), shift))

    def insert_if_wanted(at: Sequence[Var]) -> Stmt:
        some = bounds(k)[0] > 0
        return insert(at) if some else If(e.Binary("gt", e.of_dim(k), e.ZERO), insert(at))

    kinds: list[IterKind] = ["spatial"] * x.rank
    kinds[axis] = "ordered"
    if k != 0:
        cb.each(x.shape, insert_if_wanted, "top", kinds)


register(
    OpDef(
        "top_k", "The `k` greatest (or least) elements along `axis`, sorted, and their indices; of "
        "equal ones the lower index comes first. NaN counts as greater than every number.",
        (Operand("x"),), _top_rule, _top_reference, "opaque",
        (Attr("k", "dims"), Attr("axis", "int", -1), Attr("largest", "bool", True)), outputs=2,
        variants={"direct": Variant(_top_compute)},
    )
)  # fmt: skip
