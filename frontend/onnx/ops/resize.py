"""ONNX Resize and Upsample: separable, each axis a weighted sum of samples.

The taps of an output position depend on sizes alone, so places and weights are constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from aisc.frontend.onnx.emitter import Emitter
from aisc.frontend.onnx.node import Node, onnx_op
from aisc.ir.arith.poly import Dim
from aisc.ir.diagnostics import error
from aisc.ir.graph.core import Value

Array = np.ndarray[Any, Any]
MAX_POSITIONS = 1 << 24  # along one axis of a result
_MAX_DIVISOR = 1 << 12


@dataclass(frozen=True, slots=True)
class _Spec:
    """The attributes of a resize."""

    mode: str
    transform: str
    nearest: str
    cubic: float
    exclude_outside: bool
    antialias: bool
    extrapolation: float


def _coordinates(spec: _Spec, size: int, out: int, scale: float, roi: tuple[float, float]) -> Array:
    """Where each output position lies in the input."""
    x = np.arange(out, dtype=np.float64)
    match spec.transform:
        case "asymmetric":
            return x / scale
        case "align_corners":
            return x * ((size - 1) / (out - 1)) if out > 1 else x * 0
        case "pytorch_half_pixel":
            return (x + 0.5) / scale - 0.5 if out > 1 else x * 0
        case "half_pixel_symmetric":
            offset = size / 2 * (1 - out / (size * scale))
            return offset + (x + 0.5) / scale - 0.5
        case "tf_crop_and_resize":
            start, end = roi
            if out == 1:
                return x + 0.5 * (start + end) * (size - 1)
            return start * (size - 1) + x * (end - start) * (size - 1) / (out - 1)
        case _:
            return (x + 0.5) / scale - 0.5


_NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _kernel(spec: _Spec, distance: Array) -> Array:
    """Weight of a tap at a distance from the position: a tent, or Keys' cubic."""
    d, a = np.abs(distance), spec.cubic
    if spec.mode == "linear":
        return np.asarray(np.maximum(1 - d, 0))
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.asarray(np.where(d <= 1, near, np.where(d < 2, far, 0)))


def _taps(spec: _Spec, at: Array, size: int, scale: float) -> tuple[Array, Array]:
    """(out, count) places along one axis, those beyond the edges among them, and their weights."""
    stretch = min(scale, 1.0) if spec.antialias else 1.0
    radius = math.ceil((1 if spec.mode == "linear" else 2) / stretch)
    taps = np.floor(at)[:, None] + np.arange(1 - radius, radius + 1)
    weight = _kernel(spec, (taps - at[:, None]) * stretch)
    if spec.exclude_outside:
        weight = np.where((taps >= 0) & (taps < size), weight, 0)
    total = weight.sum(axis=1, keepdims=True)
    weight = weight / np.where(total == 0, 1, total)
    used = (weight != 0).any(axis=0)
    if not used.any():
        used[0] = True
    return taps[:, used].astype(np.int64), weight[:, used]


def _sum_of_taps(em: Emitter, x: Value, axis: int, taps: Array, weights: Array) -> Value:
    """The elements at each column of `taps` along `axis`, times its weights, added up."""
    shape = (-1, *[1] * (x.type.rank - 1 - axis))
    total: Value | None = None
    for places, weight in zip(taps.T, weights.T, strict=True):
        part = _picked(em, x, axis, places)
        if not np.all(weight == 1):
            part = em.op("mul", part, em.constant(weight.reshape(shape), x.type.dtype))
        total = part if total is None else em.op("add", total, part)
    assert total is not None, "at least one tap"
    return total


def _picked(em: Emitter, x: Value, axis: int, places: Array) -> Value:
    """Elements of `x` along `axis`, those of the edges for places outside: at evenly spaced places
    as a sample, else as a gather."""
    size = x.type.shape[axis]
    assert isinstance(size, int), "checked to be known"
    steps = _even_steps(places, size) if len(places) else None
    if steps is None:
        return em.op("gather", x, em.constant(np.clip(places, 0, size - 1)), axis=axis)
    multiply, add, divide = steps
    attrs = {"multiply": multiply, "add": add, "divide": divide}
    return em.op("sample", x, axis=axis, size=(len(places),), **attrs)


def _even_steps(places: Array, size: int) -> tuple[int, int, int] | None:
    """Numbers with ``places[o] = floor((o * multiply + add) / divide)``, if there are some."""
    out, at = len(places), np.arange(len(places))
    ends = int(places[-1] - places[0])
    ratios = {Fraction(size, out), Fraction(size - 1, max(out - 1, 1))}
    ratios.add(Fraction(ends, max(out - 1, 1)).limit_denominator(_MAX_DIVISOR))
    for ratio in sorted(ratios):
        multiply, divide = 2 * ratio.numerator, 2 * ratio.denominator
        low = int((divide * places - at * multiply).max())
        high = int((divide * (places + 1) - at * multiply).min()) - 1
        if low <= high:
            return multiply, low, divide
    return None


def _resize_axis(
    em: Emitter, node: Node, spec: _Spec, x: Value, axis: int, out: int, scale: float,
    roi: tuple[float, float],
) -> tuple[Value, Array]:  # fmt: skip
    """`x` resized along one axis, and which positions lay outside the input."""
    size = x.type.shape[axis]
    if not isinstance(size, int):
        raise error("E204", f"{node.op}: the sizes of {x.type} must be known", loc=node.loc)
    if size == 0 or out > MAX_POSITIONS:
        raise node.unsupported(f"resizing an axis from {size} to {out}")
    at = _coordinates(spec, size, out, scale, roi)
    outside = (at < 0) | (at > size - 1)
    if spec.mode == "nearest":
        picks = _NEAREST[spec.nearest](at).astype(np.int64)
        return _picked(em, x, axis, picks), outside
    return _sum_of_taps(em, x, axis, *_taps(spec, at, size, scale)), outside


def _targets(
    em: Emitter, node: Node, x: Value, axes: Sequence[int]
) -> tuple[list[int], list[int], list[float]]:
    """The axes that are resized, with the output size and the scale of each. An axis that keeps a
    size which only the run knows, as a batch, is none of them."""
    place = 1 if node.version < 11 else 2
    crop = node.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    together = node.text("keep_aspect_ratio_policy", "stretch") != "stretch"
    if node.has(place + 1) and node.version >= 11:
        sizes = em.dims(node.input(place + 1), "the sizes")
        if sizes:
            _require_all(node, x, axes, sizes)
            keeps = [
                not (crop or together) and d == x.type.shape[a]
                for a, d in zip(axes, sizes, strict=True)
            ]
            kept = _resized_axes(node, x, axes, keeps)
            wanted = [d for a, d in zip(axes, sizes, strict=True) if a in kept]
            known = [d for d in wanted if isinstance(d, int)]
            if len(known) != len(wanted):
                raise error("E204", f"{node.op}: the sizes must be known", loc=node.loc)
            return kept, *_kept_ratio(node, _static(x, kept), known)
    scales = em.array(node.optional(place))
    if scales is None:
        raise error("E204", f"{node.op}: the scales must be known", loc=node.loc)
    factors = [float(s) for s in scales.ravel()]
    _require_all(node, x, axes, factors)
    if not all(0 < s < 1e9 for s in factors):
        raise node.malformed(f"scales {factors} do not fit {x.type}")
    kept = _resized_axes(node, x, axes, [not crop and s == 1 for s in factors])
    chosen = [s for a, s in zip(axes, factors, strict=True) if a in kept]
    return kept, [math.floor(d * s) for d, s in zip(_static(x, kept), chosen, strict=True)], chosen


def _require_all(node: Node, x: Value, axes: Sequence[int], given: Sequence[object]) -> None:
    if len(given) != len(axes):
        raise node.malformed(f"{[str(g) for g in given]} do not fit {x.type}")


def _resized_axes(node: Node, x: Value, axes: Sequence[int], keeps: Sequence[bool]) -> list[int]:
    """Axes but those that keep a size that is not known; E204 where another one is not known."""
    shape = x.type.shape
    kept = [a for a, same in zip(axes, keeps, strict=True) if not same or _is_known(shape[a])]
    if not all(_is_known(shape[a]) for a in kept):
        raise error("E204", f"{node.op}: the sizes of {x.type} must be known", loc=node.loc)
    return kept


def _is_known(size: Dim) -> bool:
    return isinstance(size, int) and size > 0


def _static(x: Value, axes: Sequence[int]) -> list[int]:
    return [d for d in (x.type.shape[a] for a in axes) if isinstance(d, int)]


def _kept_ratio(node: Node, static: list[int], sizes: list[int]) -> tuple[list[int], list[float]]:
    policy = node.text("keep_aspect_ratio_policy", "stretch")
    if min(sizes, default=1) < 1:
        raise node.malformed(f"sizes {sizes} do not fit {static}")
    scales = [s / d for s, d in zip(sizes, static, strict=True)]
    if policy != "stretch" and scales:
        one = min(scales) if policy == "not_larger" else max(scales)
        scales = [one] * len(scales)
        sizes = [math.floor(d * one + 0.5) for d in static]
    return sizes, scales


def _spec(node: Node) -> _Spec:
    modern = node.version >= 11
    spec = _Spec(
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
    if spec.mode not in ("nearest", "linear", "cubic") or spec.nearest not in _NEAREST:
        raise node.malformed(f"mode '{spec.mode}', nearest_mode '{spec.nearest}'")
    return spec


def _resized(
    em: Emitter, node: Node, axes: Sequence[int], sizes: Sequence[int], scales: Sequence[float]
) -> Value:
    x, spec = node.input(0), _spec(node)
    crop = spec.transform == "tf_crop_and_resize"
    roi = em.array(node.optional(1)) if crop else None
    if crop and (roi is None or roi.size != 2 * len(axes)):
        raise error("E204", "Resize: the region must be known", loc=node.loc)
    outsides: list[tuple[int, Array]] = []
    y = x
    for k, (axis, out, scale) in enumerate(zip(axes, sizes, scales, strict=True)):
        region = (0.0, 1.0) if roi is None else (float(roi[k]), float(roi[k + len(axes)]))
        if out == x.type.shape[axis] and scale == 1.0 and not crop:
            continue
        y, outside = _resize_axis(em, node, spec, y, axis, out, scale, region)
        outsides.append((axis, outside))
    if crop:
        for axis, outside in outsides:
            mask = em.constant(outside.reshape(-1, *[1] * (y.type.rank - 1 - axis)))
            y = em.op("where", mask, em.like(spec.extrapolation, y), y)
    return y


@onnx_op("Resize", since=10)
def _resize(em: Emitter, node: Node) -> Value:
    rank = node.input(0).type.rank
    axes = node.ints("axes") or tuple(range(rank))
    axes = tuple(a + rank if a < 0 else a for a in axes)
    if any(not 0 <= a < rank for a in axes) or len(set(axes)) != len(axes):
        raise node.malformed(f"axes {axes} do not fit rank {rank}")
    return _resized(em, node, *_targets(em, node, node.input(0), axes))


@onnx_op("Upsample", since=7, until=9)
def _upsample(em: Emitter, node: Node) -> Value:
    axes = tuple(range(node.input(0).type.rank))
    if node.version < 9:
        scales: Sequence[float] = node.attr("scales", "floats", ())
        shape = [d for d in node.input(0).type.shape if isinstance(d, int)]
        if len(shape) != len(axes) or len(scales) != len(axes):
            raise node.malformed(f"scales {scales} do not fit {node.input(0).type}")
        sizes = [math.floor(d * s) for d, s in zip(shape, scales, strict=True)]
        return _resized(em, node, axes, sizes, scales)
    return _resized(em, node, *_targets(em, node, node.input(0), axes))
