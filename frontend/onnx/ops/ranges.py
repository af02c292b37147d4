"""ONNX operators whose results have as many elements as the data say: ranges, selections."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.building.fold import SMALL
from aisc.frontend.building.sizes import range_at_run_time
from aisc.frontend.onnx.fitting import one_value
from aisc.frontend.onnx.node import Node, onnx_op
from aisc.frontend.onnx.ops.shapes import bounded
from aisc.ir import dtypes
from aisc.ir.arith.poly import bounds, ceildiv, maximum, product
from aisc.ir.diagnostics import error
from aisc.ir.graph.core import AttrValue, Value

MAX_SEARCHED = 1 << 24  # elements of a constant in which places are found at import


@onnx_op("Range")
def _range(em: Emitter, node: Node) -> Value:
    operands = [one_value(em, node, node.input(i), "a bound") for i in range(3)]
    t = operands[0].type.dtype
    if any(v.type.dtype is not t for v in operands):
        raise node.malformed("the bounds must be of one type")
    if t.is_float:
        if any(em.array(v) is None for v in operands):
            return range_at_run_time(em, *operands)
        return _float_range(em, node, operands)
    known = [em.known(v) for v in operands]
    if any(k is None for k in known) or not isinstance(known[2].reshape(-1)[0], int):  # type: ignore[union-attr]
        return range_at_run_time(em, *operands)
    first, last, by = (k.reshape(-1)[0] for k in known if k is not None)
    if by == 0:
        raise node.malformed("the step is zero")
    size = maximum(ceildiv(last - first, by) if by > 0 else ceildiv(first - last, -by), 0)
    bounded(node, (size,), t)
    if isinstance(size, int) and size <= SMALL and isinstance(first, int):
        return em.constant(np.arange(size) * by + first, t)
    value = em.op("iota", shape=(size,), dtype=t)
    value = value if by == 1 else em.op("mul", value, em.like(by, value))
    return value if first == 0 else em.op("add", value, em.cast(em.dims_value(first), t))


def _float_range(em: Emitter, node: Node, operands: list[Value]) -> Value:
    t = operands[0].type.dtype
    a, b, step = (em.scalar(v, "a bound of a range of floats") for v in operands)
    count = (b - a) / step if step else math.nan
    if not math.isfinite(count):
        raise node.malformed(f"no range from {a} to {b} by {step}")
    size = max(math.ceil(count), 0)
    bounded(node, (size,), t)
    if size <= SMALL:
        return em.constant(np.arange(size) * step + a, t)
    places = em.cast(em.op("iota", shape=(size,)), dtypes.f64)
    return em.cast(em.op("add", em.op("mul", places, em.like(step, places)), em.like(a, places)), t)


def _true_places(em: Emitter, mask: Value) -> Value:
    """Places of the true elements of a vector of bools, in order."""
    count = em.op("reduce_sum", em.cast(mask, dtypes.i64), axes=(0,), keepdims=True)
    upper = bounds(mask.type.size)[1]
    size = em.names.fresh("d", 0, int(upper) if upper < 1 << 31 else 1 << 31)
    em.bind_values([count], [size])
    return em.op("true_places", mask, size=(size,))


@onnx_op("NonZero")
def _non_zero(em: Emitter, node: Node) -> Value:
    x = node.input(0)
    array = em.array(x)
    if array is not None:
        if array.size > MAX_SEARCHED:
            raise error("E105", "NonZero: the constant is too large", loc=node.loc)
        return em.constant(np.stack(np.nonzero(np.atleast_1d(array))).astype(np.int64))
    shape = x.type.shape or (1,)
    flat = em.reshape(x, (product(shape),))
    mask = flat if flat.type.dtype.kind == "bool" else em.cast(flat, dtypes.boolean)
    places = _true_places(em, mask)
    rows: list[Value] = []
    for axis, size in enumerate(shape):
        below = em.dims_value([product(shape[axis + 1 :])])
        row = em.op("div", places, em.op("max", below, em.constant([1], dtypes.i64)))
        if axis:
            whole = em.op("max", em.dims_value([size]), em.constant([1], dtypes.i64))
            row = em.op("mod", row, whole)
        rows.append(em.reshape(row, (1, places.type.size)))
    return em.op("concat", *rows, axis=0)


@onnx_op("Compress")
def _compress(em: Emitter, node: Node) -> Value:
    x, condition = node.input(0), node.input(1)
    axis = node.attr("axis", "int")
    if condition.type.rank != 1:
        raise node.malformed(f"the condition must be a vector, got {condition.type}")
    if axis is None:
        x, axis = em.reshape(x, (x.type.size,)), 0
    return em.op("gather", x, _true_places(em, condition), axis=axis)


@onnx_op("Unique")
def _unique(em: Emitter, node: Node) -> Sequence[Value]:
    x, axis = node.input(0), node.attr("axis", "int")
    attrs: dict[str, AttrValue] = {"binds": (em.names.fresh("d"),)}
    attrs["sorted"] = node.flag("sorted", True)
    if axis is not None:
        attrs["axis"] = axis
    return em.multi("unique", x, **attrs)


@onnx_op("NonMaxSuppression")
def _non_max_suppression(em: Emitter, node: Node) -> Value:
    boxes, scores = node.input(0), node.input(1)
    centred = node.flag("center_point_box")
    limits = [node.optional(k) for k in (2, 3, 4)]
    return em.multi(
        "non_max_suppression", boxes, scores, *limits, binds=(em.names.fresh("d"),), centred=centred
    )[0]
