"""ONNX operators over places in windows: Col2Im, maxima with their places, MaxUnpool, RoiAlign.

Places depend on sizes alone: constants where these are known, else computed by the run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.onnx.node import Node, onnx_op
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, floordiv, product
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import AttrValue, Value

Ints = Sequence[int]


Dims = Sequence[Dim]


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows over an image of `sizes`: per axis the kernel, how many windows there are, the pad
    before, stride and dilation."""

    sizes: Dims
    kernel: Ints
    counts: Dims
    pads: Dims
    strides: Ints
    dilations: Ints

    def places(self, em: Emitter) -> tuple[list[Value], Value]:
        """Coordinates of the elements of every window along each axis, and whether an element
        lies inside the image: over (windows along each axis..., kernel...)."""
        rank, axes = len(self.sizes), []
        inside: Value | None = None
        for k in range(rank):
            starts = em.op("mul", em.op("iota", shape=(self.counts[k],)),
                           em.constant(self.strides[k]))  # fmt: skip
            shape: list[Dim] = [1] * (2 * rank)
            shape[k] = self.counts[k]
            taps = np.arange(self.kernel[k]) * self.dilations[k]
            at = em.op("add", em.reshape(starts, shape), em.constant(taps.reshape(
                [-1 if a == rank + k else 1 for a in range(2 * rank)])))  # fmt: skip
            at = em.op("sub", at, _number(em, self.pads[k]))
            here = em.op("less_equal", em.like(0, at), at)
            here = em.op("and", here, em.op("less", at, _number(em, self.sizes[k])))
            inside = here if inside is None else em.op("and", inside, here)
            axes.append(at)
        assert inside is not None, "an image has axes"
        return axes, inside

    def flat(self, em: Emitter, axes: Sequence[Value], columns: bool = False) -> Value:
        """Coordinates as numbers in row-major order, or with the first axis fastest."""
        order = list(range(len(axes))) if columns else list(reversed(range(len(axes))))
        total, step = axes[order[0]], self.sizes[order[0]]
        for k in order[1:]:
            total = em.op("add", em.op("mul", axes[k], _number(em, step)), total)
            step = step * self.sizes[k]
        return total


def _number(em: Emitter, size: Dim) -> Value:
    """A dimension as a scalar."""
    return em.reshape(em.dims_value([size]), ())


def _ints(window: dict[str, AttrValue], name: str, default: Ints) -> tuple[int, ...]:
    value: Any = window[name]
    return tuple(value) or tuple(default)


def places_of_maxima(
    em: Emitter, node: Node, y: Value, window: dict[str, AttrValue], pads: Dims
) -> Value:
    """Where in the whole input each maximum of a pool `y` lies; `pads` are those before."""
    x, columns = node.input(0), bool(node.integer("storage_order"))
    (n, c, *sizes), counts = x.type.shape, y.type.shape[2:]
    rank = len(sizes)
    kernel, ones = _ints(window, "kernel_shape", ()), (1,) * rank
    strides, dilations = _ints(window, "strides", ones), _ints(window, "dilations", ones)
    windows = Windows(sizes, kernel, counts, pads, strides, dilations)
    total, area, taps = product(tuple(sizes)), product(tuple(counts)), math.prod(kernel)
    axes, inside = windows.places(em)
    numbers = windows.flat(em, axes)
    near = em.op("where", inside, numbers, em.like(0, numbers))
    taken = em.op("gather", em.reshape(x, (n, c, total)), em.reshape(near, (area * taps,)), axis=2)
    t = x.type.dtype
    lowest = em.constant(-np.inf if t.is_float else t.min_value, t)
    parts = em.reshape(taken, (n, c, area, taps))
    parts = em.op("where", em.reshape(inside, (area, taps)), parts, lowest)
    best = em.op("argmax", parts, axis=3, keepdims=True)
    if columns:
        numbers = windows.flat(em, axes, columns)
        near = em.op("where", inside, numbers, em.like(0, numbers))
    table = em.op("expand", em.reshape(near, (area, taps)), shape=(n, c, area, taps))
    found = em.reshape(em.op("gather_elements", table, best, axis=3), (n, c, area))
    images = em.reshape(em.op("iota", shape=(product((n, c)),)), (n, c, 1))
    whole = em.op("mul", images, _number(em, total))
    return em.reshape(em.op("add", found, whole), y.type.shape)


@onnx_op("MaxUnpool")
def _max_unpool(em: Emitter, node: Node) -> Value:
    x, indices, kernel = node.input(0), node.input(1), node.needed_ints("kernel_shape")
    rank = len(kernel)
    strides = node.ints("strides") or (1,) * rank
    pads = node.ints("pads") or (0,) * (2 * rank)
    if x.type.rank != rank + 2 or indices.type.rank != x.type.rank:
        raise node.malformed(f"kernel {kernel} and places {indices.type} do not fit {x.type}")
    indices = em.assume(indices, x.type.shape)
    spatial = [
        (d - 1) * strides[k] - pads[k] - pads[rank + k] + kernel[k]
        for k, d in enumerate(x.type.shape[2:])
    ]
    shape = (*x.type.shape[:2], *spatial)
    whole = product(shape)
    zeros = em.filled((whole,), np.zeros((), x.type.dtype.numpy))
    count = x.type.size
    at = em.op("within", em.reshape(em.cast(indices, dtypes.i64), (count, 1)), size=(whole,))
    y = em.op("scatter_nd", zeros, at, em.reshape(x, (count,)), reduction="none")
    y = em.reshape(y, shape)
    if not node.has(2):
        return y
    wanted = em.dims(node.input(2), "the output shape")
    if len(wanted) != len(shape):
        raise node.malformed(f"{shape} does not fit into {list(map(str, wanted))}")
    more = [w - d for w, d in zip(wanted, shape, strict=True)]
    if any(isinstance(m, int) and m < 0 for m in more):
        raise node.malformed(f"{shape} does not fit into {list(map(str, wanted))}")
    return em.op("pad", y, pads=(*(0,) * len(more), *more), mode="constant")


@onnx_op("Col2Im")
def _col2im(em: Emitter, node: Node) -> Value:
    x = node.input(0)
    sizes = em.dims(node.input(1), "the image's sizes")
    kernel = em.ints(node.input(2), "the block's sizes")
    rank = len(sizes)
    pads = node.ints("pads") or (0,) * (2 * rank)
    strides, dilations = node.ints("strides") or (1,) * rank, node.ints("dilations") or (1,) * rank
    if x.type.rank != 3 or not len(kernel) == len(strides) == len(dilations) == rank:
        raise node.malformed(f"blocks {kernel} of an image {sizes} do not fit {x.type}")
    counts = [
        floordiv(sizes[k] + (pads[k] + pads[rank + k] - dilations[k] * (kernel[k] - 1) - 1),
                 strides[k]) + 1
        for k in range(rank)
    ]  # fmt: skip
    blocks, area, total = product(tuple(counts)), math.prod(kernel), product(tuple(sizes))
    n, rows = x.type.shape[:2]
    if isinstance(rows, int) and rows % area:
        raise node.malformed(f"blocks {kernel} do not fit {x.type}")
    c = floordiv(rows, area)
    x = em.assume(x, (n, c * area, blocks))
    windows = Windows(sizes, kernel, counts, pads[:rank], strides, dilations)
    axes, inside = windows.places(em)
    # What lies in the padding is added to an element that is cut off.
    target = em.op("where", inside, windows.flat(em, axes), _number(em, total))
    target = em.transpose(target, (*range(rank, 2 * rank), *range(rank)))
    parts = em.transpose(em.reshape(x, (n, c, area, blocks)), (2, 3, 0, 1))
    zeros = em.filled((total + 1, n, c), np.zeros((), x.type.dtype.numpy))
    sums = em.op("scatter_nd", zeros, em.reshape(target, (area * blocks, 1)),
                 em.reshape(parts, (area * blocks, n, c)), reduction="add")  # fmt: skip
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
    x = em.not_empty(x, (2, 3))
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
    image = em.op("within", image, size=(n,))
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
