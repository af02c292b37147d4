"""Resampling along one axis: each element of the result is a weighted sum of elements (taps).

Where sizes and scales are known, places and weights are constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from aisc.frontend.building.emitter import Emitter
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Value

Array = np.ndarray[Any, Any]
MAX_POSITIONS = 1 << 24  # along one axis of a result
_MAX_DIVISOR = 1 << 12


@dataclass(frozen=True, slots=True)
class Spec:
    """The attributes of a resize."""

    mode: str
    transform: str
    nearest: str
    cubic: float
    exclude_outside: bool
    antialias: bool
    extrapolation: float


def coordinates(spec: Spec, size: int, out: int, scale: float, roi: tuple[float, float]) -> Array:
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


NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _kernel(spec: Spec, distance: Array) -> Array:
    """Weight of a tap at a distance from the position: a tent, or Keys' cubic."""
    d, a = np.abs(distance), spec.cubic
    if spec.mode == "linear":
        return np.asarray(np.maximum(1 - d, 0))
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.asarray(np.where(d <= 1, near, np.where(d < 2, far, 0)))


def radius_of(spec: Spec, stretch: float) -> int:
    """How many taps lie on either side of a place."""
    return math.ceil((1 if spec.mode == "linear" else 2) / stretch)


def _taps(spec: Spec, at: Array, size: int, scale: float) -> tuple[Array, Array]:
    """(out, count) places along one axis, those beyond the edges among them, and their weights."""
    stretch = min(scale, 1.0) if spec.antialias else 1.0
    radius = radius_of(spec, stretch)
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


def resample(
    em: Emitter, spec: Spec, x: Value, axis: int, out: int, scale: float, roi: tuple[float, float]
) -> tuple[Value, Array]:
    """`x` resampled along an axis of known size, and which positions lay outside the input."""
    size = x.type.shape[axis]
    assert isinstance(size, int), "a known size"
    at = coordinates(spec, size, out, scale, roi)
    outside = (at < 0) | (at > size - 1)
    if spec.mode == "nearest":
        picks = NEAREST[spec.nearest](at).astype(np.int64)
        return _picked(em, x, axis, picks), outside
    return _sum_of_taps(em, x, axis, *_taps(spec, at, size, scale)), outside
