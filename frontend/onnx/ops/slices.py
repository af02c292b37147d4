"""ONNX operators that cut tensors and put borders around them: Slice, Split, Pad."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aisc.frontend.building.axes import count_of, spread
from aisc.frontend.building.emitter import Emitter, Hole, is_computed
from aisc.frontend.building.sizes import (
    slice_at_run_time,
    stepped_slice,
)
from aisc.frontend.onnx.node import Node, onnx_op
from aisc.frontend.onnx.ops.shapes import positive_axes
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, bounds, ceildiv, floordiv, maximum, minimum
from aisc.ir.diagnostics import error
from aisc.ir.graph.core import Value
from aisc.ir.types import MAX_SIZE


class UnknownSign(Exception):
    """Whether a bound counts from the front or from the end is known only at run time."""


def clamp(position: Dim, size: Dim, low: Dim, high: Dim) -> Dim:
    """A slice bound counted from the front and clamped to ``[low, high]``."""
    if isinstance(position, int) and abs(position) >= MAX_SIZE:  # "to the end", "from the start"
        return high if position > 0 else low
    if isinstance(position, int) and position < 0:
        position = position + size
    elif bounds(position)[0] < 0:
        raise UnknownSign
    return minimum(maximum(position, low), high)


def _slice(
    em: Emitter, node: Node, axes: Sequence[int], starts: Sequence[Dim], ends: Sequence[Dim],
    steps: Sequence[int],
) -> Value:  # fmt: skip
    x = node.input(0)
    rank = x.type.rank
    if not len(axes) == len(starts) == len(ends) == len(steps):
        raise node.malformed("starts, ends, axes and steps differ in length")
    low, high = [0] * rank, list(x.type.shape)
    begin: list[Dim] = list(low)
    by = [1] * rank
    for axis, a, b, step in zip(positive_axes(node, axes, rank), starts, ends, steps, strict=True):
        size = x.type.shape[axis]
        if step == 0:
            raise node.malformed("a step is zero")
        if step > 0:
            begin[axis] = clamp(a, size, 0, size)
            high[axis] = maximum(clamp(b, size, 0, size), begin[axis])
        else:
            begin[axis] = clamp(a, size, 0, size - 1)
            high[axis] = minimum(clamp(b, size, -1, size - 1), begin[axis])
        by[axis] = step
    return em.op("slice", x, starts=tuple(begin), ends=tuple(high), steps=tuple(by))


@onnx_op("Slice", until=9)
def _slice_attrs(em: Emitter, node: Node) -> Value:
    starts, ends = node.needed_ints("starts"), node.needed_ints("ends")
    axes = node.ints("axes") or tuple(range(len(starts)))
    return _slice(em, node, axes, starts, ends, (1,) * len(starts))


@onnx_op("Slice", since=10)
def _slice_inputs(em: Emitter, node: Node) -> Value:
    starts, ends = (em.parts(node.input(k)) for k in (1, 2))
    if starts is None or ends is None:
        raise error("E204", "Slice: how many axes it cuts is not known", loc=node.loc)
    if any(node.has(k) and em.known(node.input(k)) is None for k in (3, 4)):
        return _slice_by_values(em, node, starts.size)
    axes = em.ints(node.input(3), "the axes") if node.has(3) else tuple(range(starts.size))
    steps = em.ints(node.input(4), "the steps") if node.has(4) else (1,) * starts.size
    bounds_ = [list(starts.flat), list(ends.flat)]
    if not any(isinstance(d, Hole) for side in bounds_ for d in side):
        try:
            return _slice(em, node, axes, bounds_[0], bounds_[1], steps)
        except UnknownSign:
            pass
    if not len(axes) == starts.size == ends.size == len(steps) or 0 in steps:
        raise node.malformed("starts, ends, axes and steps do not fit")
    cuts = zip(positive_axes(node, axes, node.input(0).type.rank), steps, strict=True)
    return slice_at_run_time(em, node.input(0), list(cuts), node.input(1), node.input(2))


def _slice_by_values(em: Emitter, node: Node, count: int) -> Value:
    """A slice whose axes or steps only the run knows."""
    x, (starts, ends) = node.input(0), (node.input(1), node.input(2))
    rank = x.type.rank
    axes = node.input(3) if node.has(3) else em.constant(np.arange(count))
    steps = node.input(4) if node.has(4) else em.constant(np.ones(count, np.int64))
    if em.known(axes) is None:
        starts = spread(em, axes, starts, 0, rank)
        ends = spread(em, axes, ends, MAX_SIZE, rank)
        steps, cut = spread(em, axes, steps, 1, rank), list(range(rank))
    else:
        cut = positive_axes(node, em.ints(axes, "the axes"), rank)
    if starts.type.size != len(cut) or steps.type.size != len(cut):
        raise node.malformed("starts, ends, axes and steps differ in length")
    known = em.known(steps)
    if known is not None:
        by = [int(s) for s in known.ravel()]
        return slice_at_run_time(em, x, list(zip(cut, by, strict=True)), starts, ends)
    for k, axis in enumerate(cut):
        bounds_ = [em.element(v, k) for v in (starts, ends, steps)]
        x = stepped_slice(em, x, axis, *bounds_)
    return x


def _differ(a: Dim, b: Dim) -> bool:
    """Whether two sizes are known to differ."""
    return isinstance(a, int) and isinstance(b, int) and a != b


@onnx_op("Split")
def _split(em: Emitter, node: Node) -> Sequence[Value]:
    x = node.input(0)
    (axis,) = positive_axes(node, [node.integer("axis")], x.type.rank)
    size, count = x.type.shape[axis], node.integer("num_outputs", len(node.outputs))
    sizes: Sequence[Dim] | None = node.ints("split")
    if sizes is None and node.has(1):
        sizes = em.dims(node.input(1), "the sizes of the parts")
    if sizes is None:
        each = ceildiv(size, count) if node.version >= 18 else floordiv(size, count)
        sizes = [each] * (count - 1) + [size - each * (count - 1)]
    total: Dim = sum(sizes, 0)
    if any(bounds(d)[1] < 0 for d in sizes) or _differ(total, size):
        raise node.malformed(f"parts {list(map(str, sizes))} of an axis of size {size}")
    x = em.assume(x, [total if a == axis else d for a, d in enumerate(x.type.shape)])
    parts: list[Value] = []
    start: Dim = 0
    for part in sizes:
        parts.append(em.slice_axis(x, axis, start, start + part))
        start = start + part
    return parts


@onnx_op("Pad")
def _pad(em: Emitter, node: Node) -> Value:
    x, mode = node.input(0), node.text("mode", "constant")
    value: Value | None = None
    pads: Sequence[Dim]
    if node.version < 11:
        pads = node.ints("pads") or node.needed_ints("paddings")
        number = node.number("value", 0.0)
        value = em.like(number, x) if number else None
    else:
        pads, cuts = _pads(em, node, x.type.rank)
        value = em.reshape(node.input(2), ()) if node.has(2) else None
    inputs = (x,) if value is None or mode != "constant" else (x, value)
    y = em.op("pad", *inputs, pads=tuple(pads), mode=mode)
    if node.version < 11 or not any(cuts):
        return y
    rank = x.type.rank
    ends = [d - c for d, c in zip(y.type.shape, cuts[rank:], strict=True)]
    return em.op("slice", y, starts=tuple(cuts[:rank]), ends=tuple(ends), steps=(1,) * rank)


def _pads(em: Emitter, node: Node, rank: int) -> tuple[Sequence[Dim], Sequence[Dim]]:
    """The pads of all axes, and what is cut off after them. Of a pad that only the run knows each
    is a dimension, and one of them 0."""
    given, axes = node.input(1), node.optional(3) if node.version >= 18 else None
    if axes is not None and em.known(axes) is None:
        count = count_of(em, axes)
        wide = em.reshape(em.cast(given, dtypes.i64), (2 * count,))
        halves = (em.slice_axis(wide, 0, 0, count), em.slice_axis(wide, 0, count, 2 * count))
        ends = [spread(em, axes, half, 0, rank) for half in halves]
        given, axes = em.op("concat", *ends, axis=0), None
    parts = em.parts(given)
    if parts is None:
        raise error("E204", "Pad: how many pads there are is not known", loc=node.loc)
    pads = list(parts.flat)
    if axes is None:
        order = list(range(len(pads)))
    else:
        numbers = positive_axes(node, em.ints(axes, "the axes"), rank)
        order = [*numbers, *(a + rank for a in numbers)]
    if len(pads) != len(order) or max(order, default=0) >= 2 * rank:
        raise node.malformed(f"{len(pads)} pads do not fit {node.input(0).type}")
    more, less = list[Dim]([0] * (2 * rank)), list[Dim]([0] * (2 * rank))
    for place, pad in zip(order, pads, strict=True):
        if isinstance(pad, int) or (not isinstance(pad, Hole) and bounds(pad)[0] >= 0):
            more[place] = pad
            continue
        found = em.dims_value([pad]) if not isinstance(pad, Hole) else em.element(*pad.at)
        zero = em.like(0, found)
        more[place] = em.bound(em.op("max", found, zero))
        less[place] = em.bound(em.op("max", em.op("neg", found), zero))
    _name_sizes(em, node.input(0), more, less)
    return more, less


def _name_sizes(em: Emitter, x: Value, more: list[Dim], less: list[Dim]) -> None:
    """Let what is added and cut at the ends of open axes be such that sizes are plain dimensions:
    products of sums of many sizes are long."""
    rank = x.type.rank
    for axis, d in enumerate(x.type.shape):
        if not (is_computed(more[axis]) or is_computed(more[axis + rank])):
            continue
        whole = em.bound(em.dims_value([d + more[axis] + more[axis + rank]]))
        more[axis + rank] = whole - d - more[axis]
        left = em.bound(em.dims_value([whole - less[axis] - less[axis + rank]]))
        less[axis + rank] = whole - less[axis] - left
