"""Operators with results of a size that depends on data: distinct elements, boxes that survive.

They have no native code: a program calls their references on the host.
"""

from __future__ import annotations

import numpy as np

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim
from aisc.ir.graph.opdef import Array, Arrays, Attr, OpCall, OpDef, Operand, present, register
from aisc.ir.graph.shapes import infer
from aisc.ir.types import TensorType

_BINDS = Attr("binds", "dims")
_NO_AXIS = 1 << 30


def _bound(call: OpCall) -> Dim:
    dims: tuple[Dim, ...] = call.attrs["binds"]
    if len(dims) != 1:
        raise call.fail("the number of results must be one dimension", code="E203")
    return dims[0]


# --- unique -----------------------------------------------------------------------------------
def _unique_rule(call: OpCall) -> tuple[TensorType, ...]:
    x, count = call.type(0), _bound(call)
    found: tuple[Dim, ...] = (count,)
    if call.attrs["axis"] != _NO_AXIS:
        axis = infer.normal_axis(call, call.attrs["axis"], x.rank)
        found = (*x.shape[:axis], count, *x.shape[axis + 1 :])
        total = x.shape[axis]
    else:
        total = x.size
    places = TensorType((count,), dtypes.i64)
    return TensorType(found, x.dtype), places, TensorType((total,), dtypes.i64), places


def _unique_reference(call: OpCall, xs: Arrays) -> list[Array]:
    (x,) = present(xs)
    axis = None if call.attrs["axis"] == _NO_AXIS else call.attrs["axis"]
    x = x if axis is not None else x.reshape(-1)
    along = axis if axis is not None else 0
    values, first, inverse, counts = np.unique(x, True, True, True, axis=along, equal_nan=False)
    inverse = inverse.reshape(-1)
    if not call.attrs["sorted"]:
        order = np.argsort(first)
        values, first, counts = np.take(values, order, along), first[order], counts[order]
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        inverse = place[inverse]
    return [values, first, inverse, counts]


register(
    OpDef(
        "unique",
        "The distinct elements of x (or slices along `axis`), sorted or in order of appearance; "
        "where each appears first; for each element of x its place among them; how often each "
        "occurs. `binds` is their number.",
        (Operand("x"),), _unique_rule, _unique_reference, "opaque",
        (_BINDS, Attr("axis", "int", _NO_AXIS), Attr("sorted", "bool", True)), outputs=4,
    )
)  # fmt: skip


# --- non-maximum suppression ------------------------------------------------------------------
def _suppression_rule(call: OpCall) -> tuple[TensorType, ...]:
    for k in (0, 1):
        infer.check_rank(call, k, 3, 3)
        infer.check_dtype(call, k, infer.is_float)
    return (TensorType((_bound(call), 3), dtypes.i64),)


def _corners(boxes: Array, centred: bool) -> Array:
    """Boxes as (y1, x1, y2, x2) with the lower corner first."""
    if centred:
        x, y, w, h = (boxes[:, k] for k in range(4))
        return np.stack([y - h / 2, x - w / 2, y + h / 2, x + w / 2], axis=1)
    y1, x1, y2, x2 = (boxes[:, k] for k in range(4))
    return np.stack(
        [np.minimum(y1, y2), np.minimum(x1, x2), np.maximum(y1, y2), np.maximum(x1, x2)], axis=1
    )


def _overlap(box: Array, others: Array) -> Array:
    """Intersection over union of a box with others."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    area = np.prod(others[:, 2:] - others[:, :2], axis=1)
    union = np.prod(box[2:] - box[:2]) + area - common
    return np.where(union > 0, common / np.where(union > 0, union, 1), 0)


def _kept(boxes: Array, scores: Array, most: int, overlap: float, least: float) -> list[int]:
    order = [int(k) for k in np.argsort(-scores, kind="stable") if scores[k] > least]
    chosen: list[int] = []
    for k in order:
        if len(chosen) >= most:
            break
        if not chosen or not np.any(_overlap(boxes[k], boxes[chosen]) > overlap):
            chosen.append(k)
    return chosen


def _scalar(x: Array | None, default: float) -> float:
    return default if x is None or not x.size else float(x.reshape(-1)[0])


def _suppression_reference(call: OpCall, xs: Arrays) -> list[Array]:
    boxes, scores = xs[0], xs[1]
    assert boxes is not None and scores is not None, "boxes and scores are there"
    most, overlap, least = ([*xs[2:], None, None, None])[:3]
    limit = int(_scalar(most, 0))
    rows: list[tuple[int, int, int]] = []
    for batch in range(scores.shape[0]):
        corners = _corners(boxes[batch].astype(np.float64), bool(call.attrs["centred"]))
        for kind in range(scores.shape[1]):
            found = _kept(
                corners, scores[batch, kind], limit, _scalar(overlap, 0.0), _scalar(least, -np.inf)
            )
            rows += [(batch, kind, k) for k in found]
    return [np.asarray(rows, np.int64).reshape(-1, 3)]


register(
    OpDef(
        "non_max_suppression",
        "Indices (batch, class, box) of the boxes that stay when those that overlap a better one "
        "by more than a share are dropped; at most so many of a class, with scores above a "
        "threshold. `binds` is their number; `centred` boxes are (x, y, width, height).",
        (Operand("boxes"), Operand("scores"), Operand("most", optional=True),
         Operand("overlap", optional=True), Operand("least", optional=True)),
        _suppression_rule, _suppression_reference, "opaque",
        (_BINDS, Attr("centred", "bool", False)),
    )
)  # fmt: skip
