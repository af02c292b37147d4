"""Operators that write at computed places: scatters and selections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aisc.ir import dtypes
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
from aisc.ir.graph.shapes.checks import no_size_below_zero
from aisc.ir.tensor import expr as e
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Expr, Load, Var
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.stmt import If, Stmt, Store, seq
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
