"""ONNX operators over places in windows: Col2Im, maxima with their places, MaxUnpool, RoiAlign.

Places depend on sizes alone, so they are constants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from aisc.frontend.onnx.emitter import Emitter
from aisc.frontend.onnx.node import Node, onnx_op
from aisc.ir import dtypes
from aisc.ir.arith.poly import product
from aisc.ir.graph.core import AttrValue, Value

Array = np.ndarray[Any, Any]
MAX_PLACES = 1 << 24
Ints = Sequence[int]


def window_places(
    node: Node, sizes: Ints, kernel: Ints, counts: Ints, attrs: tuple[Ints, Ints, Ints]
) -> tuple[Array, Array]:
    """For every window (rows) the coordinates of its elements (columns) in an image, and which of
    them lie inside; `attrs` are pads before, strides and dilations."""
    pads, strides, dilations = attrs
    if math.prod(counts) * math.prod(kernel) > MAX_PLACES:
        raise node.unsupported(f"windows {tuple(kernel)} over {tuple(sizes)} are too many")
    rank = len(sizes)
    axes = []
    for k in range(rank):
        first = np.arange(counts[k]) * strides[k] - pads[k]
        places = first[:, None] + np.arange(kernel[k]) * dilations[k]
        shape = [1] * (2 * rank)
        shape[k], shape[rank + k] = places.shape
        axes.append(np.broadcast_to(places.reshape(shape), (*counts, *kernel)))
    at = np.stack(axes, axis=-1).reshape(math.prod(counts), math.prod(kernel), rank)
    return at, np.all((at >= 0) & (at < np.asarray(sizes)), axis=-1)


def flat(at: Array, sizes: Ints, columns: bool = False) -> Array:
    """Coordinates as numbers in row-major order, or with the first axis fastest."""
    order = range(len(sizes)) if columns else reversed(range(len(sizes)))
    total, step = np.zeros(at.shape[:-1], np.int64), 1
    for k in order:
        total, step = total + at[..., k] * step, step * sizes[k]
    return total


def static_sizes(node: Node, x: Value) -> tuple[int, ...]:
    """The spatial sizes of an image; they must be known."""
    sizes = tuple(d for d in x.type.shape[2:] if isinstance(d, int))
    if not sizes or len(sizes) != x.type.rank - 2:
        raise node.unsupported(f"the spatial sizes of {x.type} must be known")
    return sizes


def _ints(window: dict[str, AttrValue], name: str, default: Ints) -> tuple[int, ...]:
    value: Any = window[name]
    return tuple(value) or tuple(default)


def places_of_maxima(em: Emitter, node: Node, y: Value, window: dict[str, AttrValue]) -> Value:
    """Where in the whole input each maximum of a pool `y` lies."""
    x, columns = node.input(0), bool(node.integer("storage_order"))
    sizes, counts = static_sizes(node, x), static_sizes(node, y)
    rank = len(sizes)
    kernel, ones = _ints(window, "kernel_shape", ()), (1,) * rank
    attrs = (
        _ints(window, "pads", (0,) * rank)[:rank],
        _ints(window, "strides", ones),
        _ints(window, "dilations", ones),
    )
    at, inside = window_places(node, sizes, kernel, counts, attrs)
    n, c, total, area = *x.type.shape[:2], math.prod(sizes), math.prod(counts)
    near = np.where(inside, flat(at, sizes), 0)
    taken = em.op("gather", em.reshape(x, (n, c, total)), em.constant(near.reshape(-1)), axis=2)
    t = x.type.dtype
    lowest = em.constant(-np.inf if t.is_float else t.min_value, t)
    parts = em.reshape(taken, (n, c, area, near.shape[1]))
    parts = em.op("where", em.constant(inside), parts, lowest)
    best = em.op("argmax", parts, axis=3, keepdims=True)
    numbers = em.constant(np.where(inside, flat(at, sizes, columns), 0))
    table = em.op("expand", numbers, shape=(n, c, area, near.shape[1]))
    found = em.reshape(em.op("gather_elements", table, best, axis=3), (n, c, area))
    images = em.reshape(em.op("iota", shape=(product((n, c)),)), (n, c, 1))
    return em.reshape(em.op("add", found, em.op("mul", images, em.like(total, images))),
                      y.type.shape)  # fmt: skip


@onnx_op("MaxUnpool")
def _max_unpool(em: Emitter, node: Node) -> Value:
    x, indices, kernel = node.input(0), node.input(1), node.needed_ints("kernel_shape")
    rank = len(kernel)
    strides = node.ints("strides") or (1,) * rank
    pads = node.ints("pads") or (0,) * (2 * rank)
    if x.type.rank != rank + 2 or indices.type.rank != rank + 2:
        raise node.malformed(f"kernel {kernel} and places {indices.type} do not fit {x.type}")
    if indices.type.shape != x.type.shape:
        sizes = (*indices.type.shape, *x.type.shape)
        raise node.misfit(f"places {indices.type} do not fit {x.type}", *sizes)
    spatial = [
        (d - 1) * strides[k] - pads[k] - pads[rank + k] + kernel[k]
        for k, d in enumerate(x.type.shape[2:])
    ]
    shape = (*x.type.shape[:2], *spatial)
    zeros = em.filled((product(shape),), np.zeros((), x.type.dtype.numpy))
    count = x.type.size
    at = em.reshape(em.cast(indices, dtypes.i64), (count, 1))
    y = em.op("scatter_nd", zeros, at, em.reshape(x, (count,)), reduction="none")
    y = em.reshape(y, shape)
    if not node.has(2):
        return y
    wanted = em.ints(node.input(2), "the output shape")
    more = [w - d if isinstance(d, int) else 0 for w, d in zip(wanted, shape, strict=True)]
    if min(more) < 0:
        raise node.malformed(f"{shape} does not fit into {wanted}")
    return em.op("pad", y, pads=(*(0,) * len(more), *more), mode="constant")


@onnx_op("Col2Im")
def _col2im(em: Emitter, node: Node) -> Value:
    x = node.input(0)
    sizes = em.ints(node.input(1), "the image's sizes")
    kernel = em.ints(node.input(2), "the block's sizes")
    rank = len(sizes)
    pads = node.ints("pads") or (0,) * (2 * rank)
    strides, dilations = node.ints("strides") or (1,) * rank, node.ints("dilations") or (1,) * rank
    if x.type.rank != 3 or not len(kernel) == len(strides) == len(dilations) == rank:
        raise node.malformed(f"blocks {kernel} of an image {sizes} do not fit {x.type}")
    counts = [
        (sizes[k] + pads[k] + pads[rank + k] - dilations[k] * (kernel[k] - 1) - 1) // strides[k] + 1
        for k in range(rank)
    ]
    at, inside = window_places(node, sizes, kernel, counts, (pads[:rank], strides, dilations))
    n, rows, area = x.type.shape[0], x.type.shape[1], math.prod(kernel)
    if not isinstance(rows, int) or rows % area or x.type.shape[2] != at.shape[0]:
        text = f"blocks {kernel} of an image {sizes} do not fit {x.type}"
        raise node.misfit(text, *x.type.shape[1:])
    c, total = rows // area, math.prod(sizes)
    # What lies in the padding is added to an element that is cut off.
    target = np.where(inside, flat(at, sizes), total).T.reshape(-1, 1)
    parts = em.reshape(em.transpose(em.reshape(x, (n, c, area, at.shape[0])), (2, 3, 0, 1)),
                       (target.size, n, c))  # fmt: skip
    zeros = em.filled((total + 1, n, c), np.zeros((), x.type.dtype.numpy))
    sums = em.op("scatter_nd", zeros, em.constant(target), parts, reduction="add")
    image = em.transpose(em.slice_axis(sums, 0, 0, total), (1, 2, 0))
    return em.reshape(image, (n, c, *sizes))


# --- RoiAlign ---------------------------------------------------------------------------------
@onnx_op("RoiAlign")
def _roi_align(em: Emitter, node: Node) -> Value:
    x, rois, mode = node.input(0), node.input(1), node.text("mode", "avg")
    out = node.integer("output_height", 1), node.integer("output_width", 1)
    ratio, t = node.integer("sampling_ratio"), rois.type.dtype
    half = node.version >= 16 and node.text("coordinate_transformation_mode", "half_pixel") == (
        "half_pixel"
    )
    if x.type.rank != 4 or rois.type.rank != 2 or mode not in ("avg", "max"):
        raise node.malformed(f"mode '{mode}' over {x.type} at {rois.type}")
    if ratio < 1:
        raise node.unsupported("a number of samples that depends on the regions' sizes")
    r, (n, c, *sizes) = rois.type.shape[0], x.type.shape
    scaled = em.op("mul", rois, em.like(node.number("spatial_scale", 1.0), rois))
    scaled = em.op("sub", scaled, em.like(0.5 if half else 0.0, rois))
    taps = []
    for k in (0, 1):
        low, high = (em.slice_axis(scaled, 1, i, i + 1) for i in (1 - k, 3 - k))
        span = em.op("sub", high, low)
        span = span if half else em.op("max", span, em.like(1, span))
        places = em.constant((np.arange(out[k] * ratio) + 0.5) / (out[k] * ratio), t)
        at = em.op("add", low, em.op("mul", span, places))
        shape = (r, 1, 1, out[1], ratio) if k else (r, out[0], ratio, 1, 1)
        limit = em.cast(em.reshape(em.dims_value([sizes[k]]), ()), t)
        taps.append(_corners(em, em.reshape(at, shape), limit))
    rows = em.reshape(em.transpose(x, (0, 2, 3, 1)), (product((n, *sizes)), c))
    image = em.assume(em.cast(node.input(2), dtypes.i64), (r,))
    image = em.reshape(image, (r, 1, 1, 1, 1))
    height, width = (em.reshape(em.dims_value([d]), ()) for d in sizes)
    total: Value | None = None
    for row, row_weight in taps[0]:
        line = em.op("mul", em.op("add", em.op("mul", image, height), row), width)
        for column, weight in taps[1]:
            part = em.op("gather", rows, em.op("add", line, column), axis=0)
            both = em.op("mul", row_weight, weight)
            part = em.op("mul", part, em.cast(em.reshape(both, (*both.type.shape, 1)),
                                              x.type.dtype))  # fmt: skip
            join = "add" if mode == "avg" else "max"
            total = part if total is None else em.op(join, total, part)
    assert total is not None, "there are four corners"
    kind = "reduce_mean" if mode == "avg" else "reduce_max"
    return em.transpose(em.op(kind, total, axes=(2, 4), keepdims=False), (0, 3, 1, 2))


def _corners(em: Emitter, at: Value, size: Value) -> list[tuple[Value, Value]]:
    """The two elements beside a place and their weights, 0 beyond the image."""
    zero, one = em.like(0, at), em.like(1, at)
    last = em.op("sub", size, one)
    inside = em.op("less_equal", em.like(-1, at), at)
    inside = em.op("and", inside, em.op("less_equal", at, size))
    near = em.op("min", em.op("max", at, zero), last)
    low = em.op("floor", near)
    high = em.op("min", em.op("add", low, one), last)
    t = em.op("sub", near, low)
    weights = (em.op("sub", one, t), t)
    return [
        (em.cast(place, dtypes.i64), em.op("where", inside, w, zero))
        for place, w in zip((low, high), weights, strict=True)
    ]
