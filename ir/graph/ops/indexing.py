"""Operators that read at computed indices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from aisc.ir import dtypes
from aisc.ir.arith.poly import minimum
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
from aisc.ir.graph.shapes.checks import no_size_below_zero, require
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
    """An index from data as i64, counted from the end when negative; it must be inside."""
    wide = e.cast(index, dtypes.i64)
    return e.within(e.select(wide < 0, wide + size, wide), size)


def wrap_indices(indices: Array, size: int, used: bool = True) -> Array:
    """Indices counted from the front; ``IndexError`` when one is outside, unless nothing is read
    there because the result is empty."""
    wide = indices.astype(np.int64)
    if not used:
        return np.zeros_like(wide)
    if wide.size and (wide.min() < -size or wide.max() >= size):
        raise IndexError(f"an index is outside an axis of size {size}")
    return np.where(wide < 0, wide + size, wide)


def taken(data: Array, shape: tuple[int, ...], read: Callable[[], Array]) -> Array:
    """What `read` gives, or nothing where the result has no elements."""
    return read() if math.prod(shape) else np.zeros(shape, data.dtype)


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
    shape = (*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])
    size = data.shape[axis]
    return [taken(data, shape, lambda: np.take(data, wrap_indices(indices, size), axis=axis))]


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


# --- within -----------------------------------------------------------------------------------
def _within_rule(call: OpCall) -> tuple[TensorType, ...]:
    x = call.type(0)
    if x.dtype is not dtypes.i64:
        raise call.fail(f"operand 'x' may not be {x.dtype}", "expected: i64")
    if len(call.attrs["size"]) != 1:
        raise call.fail("the size must be one dimension", code="E203")
    return (x,)


def _within_reference(call: OpCall, xs: Arrays) -> list[Array]:
    (x,), (size,) = present(xs), sizes(call.attrs["size"])
    if x.size and (x.min() < 0 or x.max() >= size):
        raise IndexError(f"not all of the numbers are at least 0 and below {size}")
    return [x]


register(
    OpDef(
        "within",
        "x, whose elements are at least 0 and below `size`; another one is an error of the run.",
        (Operand("x"),), _within_rule, _within_reference, "map", (Attr("size", "dims"),),
        scalar=lambda call, x: e.within(x[0], e.of_dim(call.attrs["size"][0])),
    )
)  # fmt: skip


# --- sample -----------------------------------------------------------------------------------
def _sample_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_rank(call, 0, 1)
    x, axis = call.type(0), _axis(call)
    if len(call.attrs["size"]) != 1:
        raise call.fail("the size must be one dimension", code="E203")
    no_size_below_zero(call, call.attrs["size"])
    if call.attrs["divide"] < 1:
        raise call.fail("the divisor must be positive", code="E203")
    least = minimum(1, call.attrs["size"][0])  # no elements may be sampled of none
    require(call, "<=", least, x.shape[axis], "an element to sample")
    return (TensorType((*x.shape[:axis], *call.attrs["size"], *x.shape[axis + 1 :]), x.dtype),)


def _sample_reference(call: OpCall, xs: Arrays) -> list[Array]:
    (x,), axis, attrs = present(xs), _axis(call), call.attrs
    (size,) = sizes(attrs["size"])
    at = (np.arange(size) * attrs["multiply"] + attrs["add"]) // attrs["divide"]
    return [np.take(x, np.clip(at, 0, x.shape[axis] - 1), axis=axis)]


def _sample_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    (x,), axis, attrs = ins, _axis(call), call.attrs
    assert x is not None, "the operand is absent"
    (size,), length = attrs["size"], x.shape[axis]
    ends = [0, size - 1] if isinstance(size, int) and isinstance(length, int) else []
    places = [(o * attrs["multiply"] + attrs["add"]) // attrs["divide"] for o in ends]
    inside = bool(places) and all(0 <= p < length for p in places)

    def value(*i: Var) -> Expr:
        at = (i[axis] * attrs["multiply"] + attrs["add"]) // attrs["divide"]
        if not inside:
            at = e.minimum(e.maximum(at, 0), e.of_dim(length) - 1)
        return Load(x, (*i[:axis], at, *i[axis + 1 :]))

    cb.map(outs[0], value, "sample")


register(
    OpDef(
        "sample",
        "`size` elements of x along `axis`; the one at o is that at ``floor((o * multiply + add) / "
        "divide)``, or that of the edge when it is outside.",
        (Operand("x"),), _sample_rule, _sample_reference, "movement",
        (Attr("axis", "int"), Attr("size", "dims"), Attr("multiply", "int", 1),
         Attr("add", "int", 0), Attr("divide", "int", 1)),
        variants={"direct": Variant(_sample_compute)},
    )
)  # fmt: skip


def elements_rule(call: OpCall) -> tuple[TensorType, ...]:
    """The type of what is gathered from, or scattered to, single elements."""
    infer.check_rank(call, 0, 1)
    infer.check_rank(call, 1, call.type(0).rank, call.type(0).rank)
    infer.check_dtype(call, 1, infer.is_integer)
    axis = _axis(call)
    for k, (n, size) in enumerate(zip(call.type(1).shape, call.type(0).shape, strict=True)):
        if k != axis:
            require(call, "<=", n, size, f"indices and data along axis {k}")
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
        _DATA, elements_rule, _elements_reference, "movement", (Attr("axis", "int", 0),),
        variants={"direct": Variant(_elements_compute)},
    )
)  # fmt: skip


def nd_depth(call: OpCall) -> int:
    """How many axes of data an index tuple addresses."""
    (depth,) = infer.static_dims(call, 1, (call.type(1).rank - 1,))
    return depth


def _nd_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_dtype(call, 1, infer.is_integer)
    infer.check_rank(call, 1, 1)
    data, indices, batch = call.type(0), call.type(1), call.attrs["batch_dims"]
    depth = nd_depth(call)
    if batch < 0 or batch >= indices.rank or batch + depth > data.rank:
        raise call.fail(f"index tuples of {depth} do not fit {data}")
    for a, b in zip(data.shape[:batch], indices.shape[:batch], strict=True):
        require(call, "==", a, b, "batch axes of data and indices")
    return (TensorType((*indices.shape[:-1], *data.shape[batch + depth :]), data.dtype),)


def _nd_reference(call: OpCall, xs: Arrays) -> list[Array]:
    data, indices = present(xs)
    batch, depth = call.attrs["batch_dims"], indices.shape[-1]
    lead = np.indices(indices.shape[:-1], sparse=True)[:batch]
    shape = (*indices.shape[:-1], *data.shape[batch + depth :])
    if not math.prod(shape):
        return [np.zeros(shape, data.dtype)]
    picks = [wrap_indices(indices[..., k], data.shape[batch + k]) for k in range(depth)]
    if not (*lead, *picks):
        return [np.broadcast_to(data, (*indices.shape[:-1], *data.shape))]
    return [data[(*lead, *picks)]]


def _nd_compute(cb: ComputeBuilder, call: OpCall, ins: Ins, outs: Outs) -> None:
    (data, indices), batch, depth = _two(ins), call.attrs["batch_dims"], nd_depth(call)
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
