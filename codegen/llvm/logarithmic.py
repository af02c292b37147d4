"""log, log2, log1p and the inverse hyperbolic functions, in f32 and f64.

``x = 2^e (1 + f)`` with ``1 + f`` in [sqrt(1/2), sqrt(2)). In f32 ``log(1 + f)`` is a polynomial in
f; in f64 it is ``2 atanh(s)``, ``s = f / (2 + f)``, arranged as ``f - (f^2/2 - s (f^2/2 + R))`` so
that the rounding of s does not show (Tang, *Table-driven implementation of the logarithm*, 1990;
Muller, *Elementary Functions*, 2016, chapter 11).

Coefficients: in f64 interpolation at Chebyshev points, in f32 a minimax fit, in 60-digit
arithmetic.
"""

from __future__ import annotations

import math

from aisc.codegen.llvm.exponential import LN2_F32, LN2_F64, LOG2E, power_of_two
from aisc.codegen.llvm.lanes import Lanes, fma, polynomial, where
from aisc.ir import dtypes

# (log(1 + f) - f + f^2/2) / f^3; relative error of the logarithm 2^-30.
LOG_F32 = (
    0.3333331260755904, -0.25000009344995255, 0.2000211730464434, -0.16668002605315055,
    0.1421959281339829, -0.12405570574563242, 0.11887855776600774, -0.11675333388382657,
    0.06746722151355684,
)  # fmt: skip
# (2 atanh(s) - 2 s) / s^3 in z = s^2; relative error 2^-54 of a term below z.
LOG_F64 = (
    0.6666666666666666, 0.4000000000000088, 0.28571428570803614, 0.22222222391713917,
    0.18181795640132906, 0.15386239702814658, 0.13268773138656886, 0.13086626147840102,
)  # fmt: skip
# log2 e beyond its f32 and f64 values.
LOG2E_LOW = (1.9259629911266175e-08, 2.0355273740931033e-17)


def split(x: Lanes) -> tuple[Lanes, Lanes]:
    """(f, e) with ``x = 2^e (1 + f)`` for positive finite x, denormals too; e as a float."""
    single = x.single
    mantissa, lift, tiny = (23, 24, 2.0**-126) if single else (52, 54, 2.0**-1022)
    small = x < tiny
    bits = where(small, x * 2.0**lift, x).bits()
    base = x.of(math.sqrt(0.5)).bits()
    above = bits - base
    e = where(small, (above >> mantissa) - lift, above >> mantissa)
    f = ((above & ((1 << mantissa) - 1)) + base).from_bits() - 1.0
    return f, e.convert(dtypes.f32 if single else dtypes.f64)


def log_of(f: Lanes, e: Lanes, tail: Lanes | None = None) -> Lanes:
    """``e ln 2 + log(1 + f) + tail``."""
    half = f * f * 0.5
    if f.single:
        high, low = LN2_F32
        rest = fma(f * f * f, polynomial(f, LOG_F32), e * low) - half
    else:
        high, low = LN2_F64
        s = f / (f + 2.0)
        z = s * s
        rest = fma(s, fma(z, polynomial(z, LOG_F64), half), e * low)
        if tail is not None:
            rest = rest + tail
        rest = rest - half
    return fma(e, high, rest + f) if f.single else _sum(e * high, e, high, f, rest)


def _sum(product: Lanes, e: Lanes, high: float, f: Lanes, rest: Lanes) -> Lanes:
    """``e * high + f + rest`` with the rounding of the first sum carried along."""
    total = product + f
    back = fma(e, high, -product) + (f - (total - product))
    return total + (rest + back)


def _special(x: Lanes, y: Lanes) -> Lanes:
    """The logarithm `y` of x > 0, and its values elsewhere."""
    other = where(x.eq(0.0), -math.inf, where(x < 0.0, math.nan, x))
    return where((x > 0.0) & (x < math.inf), y, other)


def log(x: Lanes) -> Lanes:
    """Natural logarithm."""
    f, e = split(x)
    return _special(x, log_of(f, e))


def log2(x: Lanes) -> Lanes:
    """Logarithm to base 2; exact at powers of two."""
    f, e = split(x)
    natural = log_of(f, x.of(0.0))
    return _special(x, e + fma(natural, LOG2E, natural * LOG2E_LOW[0 if x.single else 1]))


def log1p(x: Lanes) -> Lanes:
    """``log(1 + x)``."""
    return _log1p_f32(x) if x.single else _log1p_f64(x)


def _log1p_f32(x: Lanes) -> Lanes:
    """``1 + x = 2^e (1 + f)``, where e is that of the rounded sum and f is taken from x itself, as
    ``2^-e x + (2^-e - 1)``, so that nothing of x is lost."""
    u = 1.0 + x
    base = x.of(math.sqrt(0.5)).bits()
    e = (u.bits() - base) >> 23
    s = power_of_two(2 - e)  # 2^-e may be too small to be normal
    f = fma(x * 0.25, s, fma(s, 0.25, -1.0))
    y = _special(u, log_of(f, e.convert(dtypes.f32)))
    return where(abs(x) < 2.0**-25, x, y)


def _log1p_f64(x: Lanes) -> Lanes:
    """The rounding of ``1 + x`` is added back divided by ``1 + x``."""
    u = 1.0 + x
    part = u - 1.0
    lost = (1.0 - (u - part)) + (x - part)
    f, e = split(u)
    y = _special(u, log_of(f, e, lost / u))
    return where(abs(x) < 2.0**-54, x, y)


def asinh(x: Lanes) -> Lanes:
    """``log(a + sqrt(a^2 + 1))`` as log1p, with the sign of x; ``log a + log 2`` for large a."""
    a = abs(x)
    large = a > 2.0**60
    t = where(large, a, a + a * a / (1.0 + fma(a, a, 1.0).sqrt()))
    return (log1p(t) + where(large, x.of(LN2_F64[0]), 0.0)).copysign(x)


def acosh(x: Lanes) -> Lanes:
    """``log(x + sqrt(x^2 - 1))`` as log1p of ``t + sqrt(t (t + 2))``, ``t = x - 1``."""
    large = x > 2.0**60
    t = x - 1.0
    t = where(large, x, t + fma(t, t, t + t).sqrt())
    y = log1p(t) + where(large, x.of(LN2_F64[0]), 0.0)
    return where(x < 1.0, math.nan, y)


def atanh(x: Lanes) -> Lanes:
    """``log((1 + a) / (1 - a)) / 2`` as log1p of ``2a / (1 - a)``, with the sign of x."""
    a = abs(x)
    y = log1p((a + a) / (1.0 - a)) * 0.5
    return where(a < 2.0**-28, x, y.copysign(x))
