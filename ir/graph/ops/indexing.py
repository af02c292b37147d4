"""Operators that read or write at computed indices: gathers, scatters and top-k."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aisc.ir import dtypes
from aisc.ir.graph import infer
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
from aisc.ir.tensor import expr as e
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Expr, Load, Var
from aisc.ir.tensor.func import Buffer
from aisc.ir.types import TensorType

Ins = Sequence[Buffer | None]
Outs = Sequence[Buffer]
_DATA = (Operand("data"), Operand("indices"))


def _two(ins: Ins) -> tuple[Buffer, Buffer]:
    data, indices = ins[0], ins[1]
    assert data is not None, "the data are absent"
    assert indices is not None, "the indices are absent"
    return data, indices


def _axis(call: OpCall) -> int:
    return infer.normal_axis(call, call.attrs["axis"], call.type(0).rank)


def wrapped(index: Expr, size: Expr) -> Expr:
    """An index as i64, counted from the end when negative."""
    wide = e.cast(index, dtypes.i64)
    return e.select(wide < 0, wide + size, wide)


def wrap_indices(indices: Array, size: int) -> Array:
    """Indices counted from the front; ``IndexError`` when one is outside."""
    wide = indices.astype(np.int64)
    if wide.size and (wide.min() < -size or wide.max() >= size):
        raise IndexError(f"an index is outside an axis of size {size}")
    return np.where(wide < 0, wide + size, wide)


# --- gather -----------------------------------------------------------------------------------
def _gather_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_rank(call, 0, 1)
    infer.check_dtype(call, 1, infer.is_integer)
    data, axis = call.type(0), _axis(call)
    shape = (*data.shape[:axis], *call.type(1).shape, *data.shape[axis + 1 :])
    return (TensorType(shape, data.dtype),)


def _gather_reference(call: OpCall, xs: Arrays) -> list[Array]:
    data, indices = present(xs)
    axis = _axis(call)
    return [np.take(data, wrap_indices(indices, data.shape[axis]), axis=axis)]


def _gather_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    (data, indices), axis = _two(ins), _axis(call)
    size = e.of_dim(data.shape[axis])

    def value(*i: Var) -> Expr:
        at = wrapped(Load(indices, i[axis : axis + indices.rank]), size)
        return Load(data, (*i[:axis], at, *i[axis + indices.rank :]))

    cb.map(outs[0], value, "gather")


register(
    OpDef(
        "gather",
        "Slices of `data` along `axis` at `indices`, as numpy.take; negative ones count from the "
        "end.",
        _DATA, _gather_rule, _gather_reference, "movement", (Attr("axis", "int", 0),),
        variants={"direct": Variant(_gather_compute)},
    )
)  # fmt: skip


def _elements_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_rank(call, 0, 1)
    infer.check_rank(call, 1, call.type(0).rank, call.type(0).rank)
    infer.check_dtype(call, 1, infer.is_integer)
    _axis(call)
    return (TensorType(call.type(1).shape, call.type(0).dtype),)


def _elements_reference(call: OpCall, xs: Arrays) -> list[Array]:
    data, indices = present(xs)
    axis = _axis(call)
    cut = tuple(slice(None) if a == axis else slice(0, n) for a, n in enumerate(indices.shape))
    wide = wrap_indices(indices, data.shape[axis])
    return [np.take_along_axis(data[cut], wide, axis=axis)]


def _elements_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    (data, indices), axis = _two(ins), _axis(call)
    size = e.of_dim(data.shape[axis])

    def value(*i: Var) -> Expr:
        return Load(data, (*i[:axis], wrapped(Load(indices, i), size), *i[axis + 1 :]))

    cb.map(outs[0], value, "gather")


register(
    OpDef(
        "gather_elements",
        "``out[i, j] = data[indices[i, j], j]`` (for axis 0); negative indices count from the end.",
        _DATA, _elements_rule, _elements_reference, "movement", (Attr("axis", "int", 0),),
        variants={"direct": Variant(_elements_compute)},
    )
)  # fmt: skip


def _nd_depth(call: OpCall) -> int:
    """How many axes of data an index tuple addresses."""
    (depth,) = infer.static_dims(call, 1, (call.type(1).rank - 1,))
    return depth


def _nd_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_dtype(call, 1, infer.is_integer)
    infer.check_rank(call, 1, 1)
    data, indices, batch = call.type(0), call.type(1), call.attrs["batch_dims"]
    depth = _nd_depth(call)
    if batch < 0 or batch >= indices.rank or batch + depth > data.rank:
        raise call.fail(f"index tuples of {depth} do not fit {data}")
    if data.shape[:batch] != indices.shape[:batch]:
        raise call.fail(f"batch axes of {data} and {indices} differ")
    return (TensorType((*indices.shape[:-1], *data.shape[batch + depth :]), data.dtype),)


def _nd_reference(call: OpCall, xs: Arrays) -> list[Array]:
    data, indices = present(xs)
    batch, depth = call.attrs["batch_dims"], indices.shape[-1]
    lead = np.indices(indices.shape[:-1], sparse=True)[:batch]
    picks = [wrap_indices(indices[..., k], data.shape[batch + k]) for k in range(depth)]
    if not (*lead, *picks):
        return [np.broadcast_to(data, (*indices.shape[:-1], *data.shape))]
    return [data[(*lead, *picks)]]


def _nd_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    (data, indices), batch, depth = _two(ins), call.attrs["batch_dims"], _nd_depth(call)
    lead = indices.rank - 1

    def value(*i: Var) -> Expr:
        picks = [
            wrapped(Load(indices, (*i[:lead], e.Const(k))), e.of_dim(data.shape[batch + k]))
            for k in range(depth)
        ]
        return Load(data, (*i[:batch], *picks, *i[lead:]))

    cb.map(outs[0], value, "gather")


register(
    OpDef(
        "gather_nd",
        "Slices of `data` at the index tuples along the last axis of `indices`, after `batch_dims` "
        "common axes.",
        _DATA, _nd_rule, _nd_reference, "movement", (Attr("batch_dims", "int", 0),),
        variants={"direct": Variant(_nd_compute)},
    )
)  # fmt: skip


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
    _elements_rule(call)
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


register(
    OpDef(
        "scatter_elements",
        "`data` with ``data[indices[i, j], j] = updates[i, j]`` (for axis 0), or combined by "
        "`reduction`.",
        _SCATTER, _scatter_elements_rule, _scatter_elements_reference, "opaque",
        (Attr("axis", "int", 0), _REDUCTION),
    )
)  # fmt: skip


def _scatter_nd_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_dtype(call, 1, infer.is_integer)
    infer.check_rank(call, 1, 1)
    infer.same_dtype(call, 0, 2)
    data, indices, depth = call.type(0), call.type(1), _nd_depth(call)
    if depth > data.rank:
        raise call.fail(f"index tuples of {depth} do not fit {data}")
    infer.check_shape(call, 2, (*indices.shape[:-1], *data.shape[depth:]))
    return (data,)


def _scatter_nd_reference(call: OpCall, xs: Arrays) -> list[Array]:
    data, indices, updates = present(xs)
    out, depth = data.copy(), indices.shape[-1]
    picks = tuple(wrap_indices(indices[..., k], data.shape[k]) for k in range(depth))
    _scatter_at(out, picks or (...,), updates, call.attrs["reduction"])
    return [out]


register(
    OpDef(
        "scatter_nd",
        "`data` with the slices at the index tuples replaced by `updates`, or combined by "
        "`reduction`.",
        _SCATTER, _scatter_nd_rule, _scatter_nd_reference, "opaque", (_REDUCTION,),
    )
)  # fmt: skip


# --- top-k ------------------------------------------------------------------------------------
def _top_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_rank(call, 0, 1)
    infer.check_dtype(call, 0, infer.is_number)
    x, axis, k = call.type(0), _axis(call), call.attrs["k"]
    size = x.shape[axis]
    if k < 0 or (isinstance(size, int) and k > size):
        raise call.fail(f"k = {k} does not fit an axis of size {size}")
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    return TensorType(shape, x.dtype), TensorType(shape, dtypes.i64)


def _top_reference(call: OpCall, xs: Arrays) -> list[Array]:
    (x,) = present(xs)
    axis = _axis(call)
    key = np.flip(x, axis) if call.attrs["largest"] else x
    order = np.argsort(key, axis=axis, kind="stable")
    if call.attrs["largest"]:
        order = x.shape[axis] - 1 - np.flip(order, axis)
    order = np.take(order, np.arange(call.attrs["k"]), axis=axis)
    return [np.take_along_axis(x, order, axis=axis), order]


register(
    OpDef(
        "top_k", "The `k` greatest (or least) elements along `axis`, sorted, and their indices; of "
        "equal ones the lower index comes first.",
        (Operand("x"),), _top_rule, _top_reference, "opaque",
        (Attr("k", "int"), Attr("axis", "int", -1), Attr("largest", "bool", True)), outputs=2,
    )
)  # fmt: skip
