"""``a ** b`` for floats and integers.

Floats: ``e^(b log|a|)`` with the logarithm to about 66 bits (the leading two terms of its series in
double-double arithmetic; Dekker 1971, Muller, *Elementary Functions*, 2016, chapter 11), always in
f64. Special cases are those of IEEE 754-2019 section 9.2.1.
"""

from __future__ import annotations

import math

from aisc.codegen.llvm.exponential import LN2_F64, clamp, exp, exp_of_sum
from aisc.codegen.llvm.lanes import Lanes, fma, polynomial, where
from aisc.codegen.llvm.logarithmic import log_of, split

# (2 atanh(s) - 2 s - 2/3 s^3) / s^5 in z = s^2, made as in `logarithmic`; relative error 2^-53.
ATANH_TAIL = (
    0.4, 0.28571428571429364, 0.22222222221656232, 0.18181818335314404,
    0.15384594970895457, 0.13334804238225345, 0.11706248540922386, 0.11723051028097754,
)  # fmt: skip
TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)

Pair = tuple[Lanes, Lanes]  # an unevaluated sum, the second part below the first's last place


def fast_sum(a: Lanes, b: Lanes) -> Pair:
    """``a + b`` exactly, where ``|a| >= |b|`` or a is 0."""
    total = a + b
    return total, b - (total - a)


def product(a: Lanes, b: Lanes) -> Pair:
    """``a * b`` exactly."""
    high = a * b
    return high, fma(a, b, -high)


def _log_pair(x: Lanes) -> Pair:
    """log x of positive finite f64 to about 66 bits."""
    f, e = split(x)
    g = f + 2.0
    g_low = f - (g - 2.0)
    s = f / g
    s_low = fma(-s, g_low, fma(-s, g, f)) / g
    z, z_low = product(s, s)
    z_low = fma(s + s, s_low, z_low)
    cube, cube_low = product(s, z)
    cube_low = fma(s_low, z, fma(s, z_low, cube_low))
    third, third_low = product(cube, s.of(TWO_THIRDS[0]))
    third_low = third_low + fma(cube_low, TWO_THIRDS[0], cube * TWO_THIRDS[1])
    tail = cube * z * polynomial(z, ATANH_TAIL)
    high, low = fast_sum(s + s, third)
    low = low + ((s_low + s_low) + (third_low + tail))
    big, big_low = product(e, s.of(LN2_F64[0]))
    total, lost = fast_sum(big, high)
    return fast_sum(total, lost + (fma(e, LN2_F64[1], big_low) + low))


def power_f64(a: Lanes, b: Lanes) -> Lanes:
    """``a ** b`` in f64."""
    size = abs(a)
    high, low = _log_pair(size)
    p, p_low = product(high, b)
    p_low = fma(low, b, p_low)
    inside = abs(p) < 746.0  # else the sum of parts may be inf - inf
    p = clamp(p, -746.0, 710.0)
    return _power_special(a, b, exp_of_sum(p, where(inside, p_low, 0.0)))


def power_f32(a: Lanes, b: Lanes) -> Lanes:
    """``a ** b`` of f32 values, computed in f64 and not yet rounded: the plain logarithm and its
    product with b are good to about 2^-44 of the result."""
    f, e = split(abs(a))
    return _power_special(a, b, exp(b * log_of(f, e)))


def _power_special(a: Lanes, b: Lanes, y: Lanes) -> Lanes:
    """`y` is the power of |a| for finite non-zero a; put sign and special values right."""
    size, exponent = abs(a), abs(b)
    whole = b.trunc().eq(b)
    half = b * 0.5
    odd = whole & half.trunc().ne(half)
    growing = (size > 1.0) & (b > 0.0) | (size < 1.0) & (b < 0.0)
    extreme = where(growing, math.inf, size.of(0.0))
    limit = size.eq(0.0) | size.eq(math.inf) | exponent.eq(math.inf)
    y = where(limit, extreme, y)
    y = where((a < 0.0) & ~whole & (size < math.inf), math.nan, y)
    negative = a.bits() < 0
    y = where(negative & odd, -y, y)
    y = where(a.ne(a) | b.ne(b), a + b, y)
    one = a.eq(1.0) | b.eq(0.0) | (size.eq(1.0) & exponent.eq(math.inf))
    return where(one, 1.0, y)


def power_int(a: Lanes, b: Lanes) -> Lanes:
    """``a ** b`` of integers by repeated squaring, wrapping; a negative exponent gives the
    reciprocal truncated, and 0 for base 0."""
    result = a.of(1)
    square = a
    for bit in range(a.dtype.bits):
        result = where(((b >> bit) & 1).ne(0), result * square, result)
        square = square * square
    if a.dtype.kind == "uint":
        return result
    unit = where(a.eq(-1), where((b & 1).ne(0), -1, a.of(1)), where(a.eq(1), a.of(1), 0))
    return where(b < 0, unit, result)
