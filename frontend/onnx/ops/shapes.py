"""ONNX operators that make or rearrange tensors: constants, shapes, reshape, slice, pad and kin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aisc.frontend.onnx.axes import count_of, spread, with_axes, without_axes
from aisc.frontend.onnx.emitter import Emitter, Hole, is_computed
from aisc.frontend.onnx.node import Node, onnx_op
from aisc.frontend.onnx.sizes import (
    reshape_at_run_time,
    slice_at_run_time,
    stepped_slice,
    what_is_left,
)
from aisc.frontend.onnx.tensors import MAX_BYTES, element_type, reach, to_blob
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, bounds, ceildiv, floordiv, maximum, minimum, product
from aisc.ir.blob import Blob
from aisc.ir.diagnostics import error
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import Value
from aisc.ir.types import MAX_SIZE


# --- constants --------------------------------------------------------------------------------
@onnx_op("Constant")
def _constant(em: Emitter, node: Node) -> Value:
    forms: list[Any] = []
    tensor = node.tensor("value")
    if tensor is not None:
        forms.append(to_blob(tensor, None, node.loc))
    for name, kind, t in (
        ("value_float", "float", dtypes.f32), ("value_floats", "floats", dtypes.f32),
        ("value_int", "int", dtypes.i64), ("value_ints", "ints", dtypes.i64),
    ):  # fmt: skip
        value = node.attr(name, kind)
        if value is not None:
            forms.append(Blob(np.asarray(value, t.numpy)))
    if len(forms) != 1:
        if node.attributes and not forms:
            raise node.unsupported("only numeric dense values are supported")
        raise node.malformed("exactly one value is needed")
    return em.blob(forms[0])


def bounded(node: Node, shape: Sequence[Dim], t: DType) -> None:
    """E103 or E105 unless `shape` is one that a tensor can have."""
    if any(isinstance(d, int) and d < 0 for d in shape):
        raise node.malformed(f"negative size in {list(map(str, shape))}")
    size = reach(shape)
    if size * t.bytes > MAX_BYTES:
        raise error("E105", f"{node.op}: {size} elements of {t} are too many", loc=node.loc)


@onnx_op("ConstantOfShape")
def _constant_of_shape(em: Emitter, node: Node) -> Value:
    tensor = node.tensor("value")
    fill = np.zeros((), np.float32)
    if tensor is not None:
        fill = to_blob(tensor, None, node.loc).array  # type: ignore[assignment]
    if fill.size != 1:
        raise node.malformed("the value must have one element")
    shape = em.dims(node.input(0), "the shape")
    bounded(node, shape, dtypes.from_numpy(fill.dtype))
    return em.filled(shape, fill)


@onnx_op("Shape")
def _shape(em: Emitter, node: Node) -> Value:
    shape = node.input(0).type.shape
    start, end = node.integer("start", 0), node.integer("end", len(shape))
    return em.dims_value(list(shape[slice(start, end)]))


@onnx_op("Size")
def _size(em: Emitter, node: Node) -> Value:
    return em.dims_value(node.input(0).type.size)


@onnx_op("EyeLike")
def _eye(em: Emitter, node: Node) -> Value:
    x, k, code = node.input(0), node.integer("k"), node.attr("dtype", "int")
    t = x.type.dtype if code is None else element_type(code, node.loc)
    if x.type.rank != 2:
        raise node.malformed(f"{x.type} is no matrix")
    bounded(node, x.type.shape, t)
    ones = em.filled(x.type.shape, np.ones((), t.numpy))
    return em.op("trilu", em.op("trilu", ones, k=k, upper=True), k=k, upper=False)


@onnx_op("OneHot")
def _one_hot(em: Emitter, node: Node) -> Value:
    indices, values, axis = node.input(0), node.input(2), node.integer("axis", -1)
    if node.input(1).type.size != 1:
        raise node.malformed(f"the depth must be one number, got {node.input(1).type}")
    (depth,) = em.dims(node.input(1), "the depth") if not _is_float(node.input(1)) else (
        int(em.scalar(node.input(1), "the depth")),
    )  # fmt: skip
    if indices.type.dtype.is_float:
        indices = em.cast(indices, dtypes.i64)
    hot = em.op("one_hot", indices, depth=(depth,), axis=axis)
    off, on = (em.reshape(em.slice_axis(values, 0, k, k + 1), ()) for k in (0, 1))
    return em.op("where", hot, on, off)


def _is_float(value: Value) -> bool:
    return value.type.dtype.is_float


# --- reshape and kin --------------------------------------------------------------------------
def reshaped(node: Node, x: Value, wanted: Sequence[Dim], allow_zero: bool) -> tuple[Dim, ...]:
    """The target shape with 0 (copy the size) and -1 (what is left) resolved."""
    shape: list[Dim] = []
    for axis, d in enumerate(wanted):
        if d == 0 and not allow_zero:
            if axis >= x.type.rank:
                raise node.malformed(f"size 0 at axis {axis} has nothing to copy in {x.type}")
            d = x.type.shape[axis]
        if isinstance(d, int) and d < -1:
            raise node.malformed(f"negative size {d}")
        shape.append(d)
    open_axes = [i for i, d in enumerate(shape) if d == -1]
    if len(open_axes) > 1:
        raise node.malformed("more than one size is -1")
    if open_axes:
        known = [d for d in shape if d != -1]
        rest, quotient = product(tuple(known)), what_is_left(x.type.shape, known)
        if quotient is None and isinstance(rest, int) and rest > 0 and not x.type.is_static:
            quotient = floordiv(x.type.size, rest)  # whether it is exact is tested at run time
        if quotient is None:
            text = ", ".join(map(str, shape))
            sizes = (*x.type.shape, *shape)
            raise node.misfit(f"{x.type} cannot be reshaped to [{text}]", *sizes)
        shape[open_axes[0]] = quotient
    return tuple(shape)


@onnx_op("Reshape", until=4)
def _reshape_attr(em: Emitter, node: Node) -> Value:
    x = node.input(0)
    return _as(em, x, reshaped(node, x, node.needed_ints("shape"), False))


def _as(em: Emitter, x: Value, shape: Sequence[Dim]) -> Value:
    """`x` under a shape; where only run time knows whether it fits, it is tested then."""
    return em.reshape(x, shape)


@onnx_op("Reshape", since=5)
def _reshape(em: Emitter, node: Node) -> Value:
    x, zero = node.input(0), node.flag("allowzero")
    wanted = em.parts(node.input(1))
    if wanted is not None and any(isinstance(d, Hole) for d in wanted.flat):
        return reshape_at_run_time(em, x, node.input(1), list(wanted.flat), zero)
    return _as(em, x, reshaped(node, x, em.dims(node.input(1), "the target shape"), zero))


@onnx_op("Flatten")
def _flatten(em: Emitter, node: Node) -> Value:
    x, axis = node.input(0), node.integer("axis", 1)
    rank = x.type.rank
    if not -rank <= axis <= rank:
        raise node.malformed(f"axis {axis} is outside {x.type}")
    axis = axis + rank if axis < 0 else axis
    return em.reshape(x, (product(x.type.shape[:axis]), product(x.type.shape[axis:])))


def axes_of(em: Emitter, node: Node, index: int, since: int) -> tuple[int, ...] | Value | None:
    """Axes from the attribute, or from input `index` since opset `since`, where they may be known
    to the run alone; ``None`` when absent."""
    if node.version < since:
        return node.ints("axes")
    if not node.has(index):
        return None
    given = node.input(index)
    return given if em.known(given) is None else em.ints(given, "the axes")


def positive_axes(node: Node, axes: Sequence[int], rank: int) -> list[int]:
    """Axes counted from the front; E103 when out of range or repeated."""
    found = [a + rank if a < 0 else a for a in axes]
    if any(not 0 <= a < rank for a in found) or len(set(found)) != len(found):
        raise node.malformed(f"axes {tuple(axes)} do not fit rank {rank}")
    return found


@onnx_op("Squeeze")
def _squeeze(em: Emitter, node: Node) -> Value:
    x, axes = node.input(0), axes_of(em, node, 1, 13)
    shape = x.type.shape
    if isinstance(axes, Value):
        return without_axes(em, x, axes)
    if axes is None:
        gone = [i for i, d in enumerate(shape) if d == 1]
    else:
        gone = positive_axes(node, axes, len(shape))
        if any(isinstance(shape[a], int) and shape[a] != 1 for a in gone):
            raise node.malformed(f"an axis of {x.type} to squeeze does not have size 1")
    x = em.assume(x, [1 if i in gone else d for i, d in enumerate(shape)])
    return em.reshape(x, tuple(d for i, d in enumerate(shape) if i not in gone))


@onnx_op("Unsqueeze")
def _unsqueeze(em: Emitter, node: Node) -> Value:
    x, axes = node.input(0), axes_of(em, node, 1, 13)
    if axes is None:
        raise node.malformed("the axes are missing")
    if isinstance(axes, Value):
        return with_axes(em, x, axes)
    rank = x.type.rank + len(axes)
    new, rest = positive_axes(node, axes, rank), iter(x.type.shape)
    return em.reshape(x, tuple(1 if i in new else next(rest) for i in range(rank)))


@onnx_op("Transpose")
def _transpose(em: Emitter, node: Node) -> Value:
    x = node.input(0)
    perm = node.ints("perm")
    return em.transpose(x, tuple(reversed(range(x.type.rank))) if perm is None else perm)


@onnx_op("Concat")
def _concat(em: Emitter, node: Node) -> Value:
    axis = node.integer("axis", 1) if node.version < 4 else node.attr("axis", "int")
    if axis is None:
        raise node.malformed("the axis is missing")
    return em.op("concat", *node.all_inputs(), axis=axis)


@onnx_op("Expand")
def _expand(em: Emitter, node: Node) -> Value:
    x, wanted = node.input(0), em.dims(node.input(1), "the target shape")
    bounded(node, wanted, x.type.dtype)
    rank = max(x.type.rank, len(wanted))
    old = (1,) * (rank - x.type.rank) + x.type.shape
    new = (1,) * (rank - len(wanted)) + tuple(wanted)
    shape: list[Dim] = []
    for o, n in zip(old, new, strict=True):
        if o == 1 or n == 1 or o == n:
            shape.append(n if o == 1 else o)
        elif isinstance(o, int) and isinstance(n, int):
            raise node.malformed(f"{x.type} does not broadcast to {list(map(str, wanted))}")
        else:
            shape.append(_stretched(em, o, n))
    y = em.stretch(em.reshape(x, old), shape)
    # A number that the run has compared with what it computed is known again.
    known = [o if isinstance(o, int) and o > 1 else d for o, d in zip(old, shape, strict=True)]
    return em.assume(y, known)


def _stretched(em: Emitter, size: Dim, wanted: Dim) -> Dim:
    """What an axis is expanded to: `wanted`, but its own size where that is 1. A wanted size of an
    input is taken not to be 1."""
    if not is_computed(wanted):
        return wanted
    found = em.dims_value([wanted])
    alone = em.op("equal", found, em.like(1, found))
    return em.bound(em.op("where", alone, em.dims_value([size]), found))


@onnx_op("Tile", since=6)
def _tile(em: Emitter, node: Node) -> Value:
    repeats = em.dims(node.input(1), "the repeats")
    bounded(node, repeats, dtypes.u8)
    return em.op("tile", node.input(0), repeats=repeats)


@onnx_op("Trilu")
def _trilu(em: Emitter, node: Node) -> Value:
    x, upper = node.input(0), node.flag("upper", True)
    if x.type.rank < 2:
        raise node.malformed(f"{x.type} is no matrix")
    if node.has(1) and em.array(node.input(1)) is None:
        return _trilu_at_run_time(em, x, em.reshape(node.input(1), ()), upper)
    k = int(em.scalar(node.input(1), "k")) if node.has(1) else 0
    return em.op("trilu", x, k=k, upper=upper)


def _trilu_at_run_time(em: Emitter, x: Value, k: Value, upper: bool) -> Value:
    """A triangle from a diagonal on that only the run knows."""
    rows, columns = x.type.shape[-2:]
    at = em.op("sub", em.op("iota", shape=(columns,)), em.cast(k, dtypes.i64))
    line = em.reshape(em.op("iota", shape=(rows,)), (rows, 1))
    kept = em.op("less_equal", line, at) if upper else em.op("less_equal", at, line)
    return em.op("where", kept, x, em.like(0, x))


# --- slice, split, pad ------------------------------------------------------------------------
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


# --- rearrangement ----------------------------------------------------------------------------
def _block(node: Node, x: Value) -> int:
    size = node.integer("blocksize")
    if x.type.rank != 4 or size < 1:
        raise node.malformed(f"block size {size} for {x.type}")
    return size


def _blocks(node: Node, size: Dim, block: int) -> Dim:
    """How many blocks an axis has; that they fill it is tested by the run where it must."""
    if isinstance(size, int) and size % block:
        raise node.malformed(f"an axis of size {size} does not split into blocks of {block}")
    return floordiv(size, block)


@onnx_op("DepthToSpace")
def _depth_to_space(em: Emitter, node: Node) -> Value:
    x, b = node.input(0), _block(node, node.input(0))
    n, c, h, w = x.type.shape
    inner = _blocks(node, c, b * b)
    if node.text("mode", "DCR") == "DCR":
        split, perm = em.reshape(x, (n, b, b, inner, h, w)), (0, 3, 4, 1, 5, 2)
    else:
        split, perm = em.reshape(x, (n, inner, b, b, h, w)), (0, 1, 4, 2, 5, 3)
    return em.reshape(em.transpose(split, perm), (n, inner, h * b, w * b))


@onnx_op("SpaceToDepth")
def _space_to_depth(em: Emitter, node: Node) -> Value:
    x, b = node.input(0), _block(node, node.input(0))
    n, c, h, w = x.type.shape
    rows, columns = _blocks(node, h, b), _blocks(node, w, b)
    split = em.reshape(x, (n, c, rows, b, columns, b))
    perm = (0, 3, 5, 1, 2, 4) if node.text("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return em.reshape(em.transpose(split, perm), (n, c * b * b, rows, columns))


# --- gathers and scatters ---------------------------------------------------------------------
@onnx_op("Gather")
def _gather(em: Emitter, node: Node) -> Value:
    return em.op("gather", node.input(0), node.input(1), axis=node.integer("axis"))


@onnx_op("GatherElements")
def _gather_elements(em: Emitter, node: Node) -> Value:
    return em.op("gather_elements", node.input(0), node.input(1), axis=node.integer("axis"))


@onnx_op("GatherND")
def _gather_nd(em: Emitter, node: Node) -> Value:
    return em.op("gather_nd", node.input(0), node.input(1), batch_dims=node.integer("batch_dims"))


@onnx_op("Scatter", "ScatterElements")
def _scatter_elements(em: Emitter, node: Node) -> Value:
    reduction, axis = node.text("reduction", "none"), node.integer("axis")
    inputs = (node.input(i) for i in range(3))
    return em.op("scatter_elements", *inputs, axis=axis, reduction=reduction)


@onnx_op("ScatterND")
def _scatter_nd(em: Emitter, node: Node) -> Value:
    inputs = (node.input(i) for i in range(3))
    return em.op("scatter_nd", *inputs, reduction=node.text("reduction", "none"))
