"""ONNX operators that make or rearrange tensors: constants, shapes, reshape and kin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aisc.frontend.building.axes import with_axes, without_axes
from aisc.frontend.building.emitter import Emitter, Hole, is_computed
from aisc.frontend.building.limits import MAX_BYTES, reach
from aisc.frontend.building.sizes import (
    reshape_at_run_time,
    what_is_left,
)
from aisc.frontend.onnx.node import Node, onnx_op
from aisc.frontend.onnx.tensors import element_type, to_blob
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, floordiv, product
from aisc.ir.blob import Blob
from aisc.ir.diagnostics import error
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import Value


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
