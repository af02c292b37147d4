"""Resampling along an axis whose size, or whose scale, only the run knows: places and weights are
computed by the graph, in f64 as the constants of :mod:`aisc.frontend.building.resampling` are."""

from __future__ import annotations

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.building.resampling import Spec, radius_of
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Value


@dataclass(frozen=True, slots=True)
class OpenAxis:
    """One axis: its sizes before and after, its scale and the region of a crop (start, end), as
    vectors of one f64; `known` is the scale where it is a number."""

    axis: int
    size: Dim
    out: Dim
    scale: Value
    roi: tuple[Value, Value] | None = None
    known: float | None = None


class _Numbers:
    """Arithmetic on f64 vectors; numbers become constants."""

    def __init__(self, em: Emitter) -> None:
        self.em = em

    def __call__(self, op: str, *items: Value | float) -> Value:
        values = (v if isinstance(v, Value) else self.em.constant(v, dtypes.f64) for v in items)
        return self.em.op(op, *values)

    def size(self, d: Dim) -> Value:
        """A dimension as a vector of one number."""
        return self.em.cast(self.em.dims_value([d]), dtypes.f64)


def resample_at_run_time(em: Emitter, spec: Spec, x: Value, a: OpenAxis) -> tuple[Value, Value]:
    """`x` resampled along an axis, and a vector of which positions lay outside the input."""
    f = _Numbers(em)
    last = f("sub", f.size(a.size), 1.0)
    at = _coordinates(f, spec, a, last)
    outside = f("or", f("less", at, 0.0), f("greater", at, last))
    if spec.mode == "nearest":
        return _picked(em, f, x, a, _nearest(f, spec.nearest, at), last), outside
    return _sum_of_taps(em, f, spec, x, a, at, last), outside


def _coordinates(f: _Numbers, spec: Spec, a: OpenAxis, last: Value) -> Value:
    """Where each output position lies in the input."""
    x = f.em.cast(f.em.op("iota", shape=(a.out,)), dtypes.f64)
    out = f.size(a.out)
    steps = f("max", f("sub", out, 1.0), 1.0)
    half = f("sub", f("div", f("add", x, 0.5), a.scale), 0.5)
    match spec.transform:
        case "asymmetric":
            return f("div", x, a.scale)
        case "align_corners":
            return f("where", f("greater", out, 1.0), f("mul", x, f("div", last, steps)), 0.0)
        case "pytorch_half_pixel":
            return f("where", f("greater", out, 1.0), half, 0.0)
        case "half_pixel_symmetric":
            whole = f("div", out, f("mul", f.size(a.size), a.scale))
            return f("add", half, f("mul", f("div", f.size(a.size), 2.0), f("sub", 1.0, whole)))
        case "tf_crop_and_resize":
            assert a.roi is not None, "a crop has a region"
            start, end = a.roi
            middle = f("mul", f("mul", f("add", start, end), 0.5), last)
            part = f("div", f("mul", f("mul", x, f("sub", end, start)), last), steps)
            along = f("add", f("mul", start, last), part)
            return f("where", f("greater", out, 1.0), along, f("add", x, middle))
        case _:
            return half


def _nearest(f: _Numbers, mode: str, at: Value) -> Value:
    if mode == "round_prefer_floor":
        return f("ceil", f("sub", at, 0.5))
    if mode == "round_prefer_ceil":
        return f("floor", f("add", at, 0.5))
    return f(mode, at)


def _picked(em: Emitter, f: _Numbers, x: Value, a: OpenAxis, places: Value, last: Value) -> Value:
    """Elements of `x` along the axis, those of the edges for places outside."""
    inside = f("min", f("max", places, 0.0), last)
    return em.op("gather", x, em.cast(inside, dtypes.i64), axis=a.axis)


def _kernel(f: _Numbers, spec: Spec, distance: Value) -> Value:
    """Weight of a tap at a distance: a tent, or Keys' cubic."""
    d, a = f("abs", distance), spec.cubic
    if spec.mode == "linear":
        return f("max", f("sub", 1.0, d), 0.0)

    def horner(*factors: float) -> Value:
        total = f("add", f("mul", d, factors[0]), factors[1])
        for c in factors[2:]:
            total = f("add", f("mul", total, d), c)
        return total

    near, far = horner(a + 2, -(a + 3), 0.0, 1.0), horner(a, -5 * a, 8 * a, -4 * a)
    beyond = f("where", f("less", d, 2.0), far, 0.0)
    return f("where", f("less_equal", d, 1.0), near, beyond)


def _sum_of_taps(
    em: Emitter, f: _Numbers, spec: Spec, x: Value, a: OpenAxis, at: Value, last: Value
) -> Value:
    stretch = min(a.known, 1.0) if spec.antialias and a.known is not None else 1.0
    radius, first = radius_of(spec, stretch), f("floor", at)
    taps = [f("add", first, float(k)) for k in range(1 - radius, radius + 1)]
    weights = [_kernel(f, spec, f("mul", f("sub", t, at), stretch)) for t in taps]
    if spec.exclude_outside:
        weights = [
            f("where", f("and", f("less_equal", 0.0, t), f("less_equal", t, last)), w, 0.0)
            for t, w in zip(taps, weights, strict=True)
        ]
    total = weights[0]
    for w in weights[1:]:
        total = f("add", total, w)
    total = f("where", f("equal", total, 0.0), 1.0, total)
    shape = (a.out, *[1] * (x.type.rank - 1 - a.axis))
    result: Value | None = None
    for t, w in zip(taps, weights, strict=True):
        factor = em.reshape(em.cast(f("div", w, total), x.type.dtype), shape)
        part = em.op("mul", _picked(em, f, x, a, t, last), factor)
        result = part if result is None else em.op("add", result, part)
    assert result is not None, "at least one tap"
    return result
