"""ONNX Resize and Upsample: separable, one axis after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.building.resampling import MAX_POSITIONS, NEAREST, Spec, resample
from aisc.frontend.building.resampling_at_run_time import OpenAxis, resample_at_run_time
from aisc.frontend.onnx.node import Node, onnx_op
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, floordiv
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.graph.core import Value

Array = np.ndarray[Any, Any]
_MAX_EXACT = 1 << 10  # terms of a scale under which sizes are products without rounding


@dataclass(frozen=True, slots=True)
class _Axis:
    """What becomes of one axis; a scale that only the run knows is a vector of one f64."""

    axis: int
    out: Dim
    scale: float | Value


def _targets(em: Emitter, node: Node, x: Value, axes: Sequence[int]) -> list[_Axis]:
    """The axes that are resized."""
    place = 1 if node.version < 11 else 2
    if node.has(place + 1) and node.version >= 11:
        sizes = em.dims(node.input(place + 1), "the sizes")
        if sizes:
            _require_all(node, x, axes, sizes)
            return _to_sizes(em, node, x, axes, sizes)
    if not node.has(place):
        raise node.malformed("neither scales nor sizes are given")
    given = node.input(place)
    known = em.array(given)
    if known is not None:
        factors = [float(s) for s in known.ravel()]
        return _by_factors(em, node, x, axes, factors)
    if given.type.shape != (len(axes),):
        raise node.malformed(f"scales {given.type} do not fit {x.type}")
    found = []
    for k, axis in enumerate(axes):
        scale = em.slice_axis(em.cast(given, dtypes.f32), 0, k, k + 1)
        found.append(_Axis(axis, _scaled(em, x.type.shape[axis], scale), _wide(em, scale)))
    return found


def _wide(em: Emitter, v: Value) -> Value:
    return em.cast(v, dtypes.f64)


def _scaled(em: Emitter, size: Dim, scale: Value) -> Dim:
    """``floor(size * scale)`` in f32, as onnxruntime rounds it, for a scale of the run."""
    product = em.op("mul", em.cast(em.dims_value([size]), dtypes.f32), scale)
    return em.bound(em.cast(em.op("floor", product), dtypes.i64))


def _require_all(node: Node, x: Value, axes: Sequence[int], given: Sequence[object]) -> None:
    if len(given) != len(axes):
        raise node.malformed(f"{[str(g) for g in given]} do not fit {x.type}")


def _by_factors(
    em: Emitter, node: Node, x: Value, axes: Sequence[int], factors: Sequence[float]
) -> list[_Axis]:
    _require_all(node, x, axes, factors)
    if not all(0 < s < 1e9 for s in factors):
        raise node.malformed(f"scales {factors} do not fit {x.type}")
    return [
        _Axis(axis, _size_by(em, x.type.shape[axis], s), s)
        for axis, s in zip(axes, factors, strict=True)
    ]


def _size_by(em: Emitter, size: Dim, scale: float) -> Dim:
    """``floor(size * scale)``: exactly for simple scales, else rounded as f32."""
    top, bottom = scale.as_integer_ratio()
    if max(top, bottom) <= _MAX_EXACT:
        return floordiv(size * top, bottom)
    if isinstance(size, int):
        return int(np.floor(np.float32(size) * np.float32(scale)))
    return _scaled(em, size, em.constant([scale], dtypes.f32))


def _to_sizes(
    em: Emitter, node: Node, x: Value, axes: Sequence[int], sizes: Sequence[Dim]
) -> list[_Axis]:
    """Axes brought to sizes, or as near as one scale for all of them allows."""
    policy = node.text("keep_aspect_ratio_policy", "stretch")
    old = [x.type.shape[a] for a in axes]
    if all(isinstance(d, int) for d in (*old, *sizes)):
        return _to_known_sizes(node, axes, [int(str(d)) for d in old], [int(str(d)) for d in sizes])
    ratios = [_ratio(em, d, s) for d, s in zip(old, sizes, strict=True)]
    if policy == "stretch":
        return [_Axis(a, s, r) for a, s, r in zip(axes, sizes, ratios, strict=True)]
    vectors = [em.constant([r], dtypes.f64) if isinstance(r, float) else r for r in ratios]
    one = vectors[0]
    for r in vectors[1:]:
        one = em.op("min" if policy == "not_larger" else "max", one, r)
    found = []
    for axis, d in zip(axes, old, strict=True):
        near = em.op("mul", _wide(em, em.dims_value([d])), one)
        whole = em.op("floor", em.op("add", near, em.like(0.5, near)))
        found.append(_Axis(axis, em.bound(em.cast(whole, dtypes.i64)), one))
    return found


def _ratio(em: Emitter, size: Dim, wanted: Dim) -> float | Value:
    """How much larger an axis becomes."""
    if size == wanted:
        return 1.0
    if isinstance(size, int) and isinstance(wanted, int) and size:
        return wanted / size
    return em.op("div", _wide(em, em.dims_value([wanted])), _wide(em, em.dims_value([size])))


def _to_known_sizes(
    node: Node, axes: Sequence[int], old: list[int], sizes: list[int]
) -> list[_Axis]:
    policy = node.text("keep_aspect_ratio_policy", "stretch")
    if min(sizes, default=1) < 1 or min(old, default=1) < 1:
        raise node.malformed(f"sizes {sizes} do not fit {old}")
    scales = [s / d for s, d in zip(sizes, old, strict=True)]
    if policy != "stretch" and scales:
        one = min(scales) if policy == "not_larger" else max(scales)
        scales = [one] * len(scales)
        sizes = [math.floor(d * one + 0.5) for d in old]
    return [_Axis(*parts) for parts in zip(axes, sizes, scales, strict=True)]


def _spec(node: Node) -> Spec:
    modern = node.version >= 11
    spec = Spec(
        mode=node.text("mode", "nearest"),
        transform=node.text("coordinate_transformation_mode", "half_pixel")
        if modern
        else "asymmetric",
        nearest=node.text("nearest_mode", "round_prefer_floor") if modern else "floor",
        cubic=node.number("cubic_coeff_a", -0.75),
        exclude_outside=node.flag("exclude_outside"),
        antialias=node.flag("antialias"),
        extrapolation=node.number("extrapolation_value"),
    )
    node.text("keep_aspect_ratio_policy")
    if spec.mode not in ("nearest", "linear", "cubic") or spec.nearest not in NEAREST:
        raise node.malformed(f"mode '{spec.mode}', nearest_mode '{spec.nearest}'")
    return spec


def _resized(em: Emitter, node: Node, targets: Sequence[_Axis]) -> Value:
    x, spec = node.input(0), _spec(node)
    crop = spec.transform == "tf_crop_and_resize"
    regions = _regions(em, node, len(targets)) if crop else None
    y = x
    outsides: list[tuple[int, Value]] = []
    for k, t in enumerate(targets):
        if t.out == x.type.shape[t.axis] and t.scale == 1.0 and not crop:
            continue
        y, outside = _along(em, node, spec, y, t, None if regions is None else regions[k])
        outsides.append((t.axis, outside))
    for axis, outside in outsides if crop else ():
        mask = em.reshape(outside, (y.type.shape[axis], *[1] * (y.type.rank - 1 - axis)))
        y = em.op("where", mask, em.like(spec.extrapolation, y), y)
    return y


_Region = tuple[Value, Value]


def _regions(em: Emitter, node: Node, count: int) -> list[_Region]:
    """Start and end of the crop of each axis, as vectors of one f64."""
    roi = node.input(1)
    if roi.type.shape != (2 * count,):
        raise node.malformed(f"a region {roi.type} for {count} axes")
    parts = [_wide(em, em.slice_axis(roi, 0, k, k + 1)) for k in range(2 * count)]
    return list(zip(parts[:count], parts[count:], strict=True))


def _along(
    em: Emitter, node: Node, spec: Spec, x: Value, t: _Axis, region: _Region | None
) -> tuple[Value, Value]:
    """`x` resized along one axis, and which positions lay outside the input."""
    size = x.type.shape[t.axis]
    known = [em.array(v) for v in region or ()]
    numbers = [float(a[0]) for a in known if a is not None]
    if isinstance(size, int) and isinstance(t.out, int) and isinstance(t.scale, float):
        if size == 0 or t.out > MAX_POSITIONS:
            raise node.unsupported(f"resizing an axis from {size} to {t.out}")
        if len(numbers) == len(known):
            start, end = numbers if numbers else (0.0, 1.0)
            y, outside = resample(em, spec, x, t.axis, t.out, t.scale, (start, end))
            return y, em.constant(outside)
    fixed = t.scale if isinstance(t.scale, float) else None
    if spec.antialias and fixed is None:
        message = f"{node.op}: the scales of an antialiased resize of {x.type} must be known"
        raise error("E204", message, loc=node.loc)
    scale = em.constant([t.scale], dtypes.f64) if isinstance(t.scale, float) else t.scale
    return resample_at_run_time(em, spec, x, OpenAxis(t.axis, size, t.out, scale, region, fixed))


@onnx_op("Resize", since=10)
def _resize(em: Emitter, node: Node) -> Value:
    rank = node.input(0).type.rank
    axes = node.ints("axes") or tuple(range(rank))
    axes = tuple(a + rank if a < 0 else a for a in axes)
    if any(not 0 <= a < rank for a in axes) or len(set(axes)) != len(axes):
        raise node.malformed(f"axes {axes} do not fit rank {rank}")
    return _resized(em, node, _targets(em, node, node.input(0), axes))


@onnx_op("Upsample", since=7, until=9)
def _upsample(em: Emitter, node: Node) -> Value:
    axes = tuple(range(node.input(0).type.rank))
    if node.version < 9:
        scales: Sequence[float] = node.attr("scales", "floats", ())
        return _resized(em, node, _by_factors(em, node, node.input(0), axes, scales))
    return _resized(em, node, _targets(em, node, node.input(0), axes))
