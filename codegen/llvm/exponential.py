"""exp, exp2, expm1, sigmoid and the hyperbolic functions, in f32 and f64.

``x = n ln 2 + r`` with ``|r| <= ln 2 / 2`` by Cody and Waite's two-part reduction (Muller,
*Elementary Functions*, 2016, chapter 11). With fused multiply-adds the first step is exact. The
result is scaled by ``2^n`` in two factors, so overflow, denormals and zero come out rounded once.

Coefficients: interpolation at Chebyshev points in 60-digit arithmetic, rounded to binary64; those
of e^r in f32 are Remez's, for the smallest relative error of what they are used for.
"""

from __future__ import annotations

from aisc.codegen.llvm.lanes import Lanes, fma, polynomial, where
from aisc.ir import dtypes

LOG2E = 1.4426950408889634
# ln 2 in two parts, each with all bits of its type.
LN2_F32 = (0.693147182464599609375, -1.904654299957768e-09)
LN2_F64 = (0.6931471805599453, 2.3190468138462996e-17)
# (exp(r) - 1 - r) / r^2 on |r| <= 0.3469; errors 2^-28 of exp(r), 2^-26 of exp(r) - 1, and 2^-58.
EXP_F32 = (
    0.4999999337415934, 0.1666651952363298, 0.04166840086480515, 0.008368851130602597,
    0.0013814331598376044,
)  # fmt: skip
EXPM1_F32 = (
    0.5000000062647529, 0.16666542048375618, 0.041666279079066657, 0.008366710648092529,
    0.0013946670341990564,
)  # fmt: skip
EXP_F64 = (
    0.5, 0.1666666666666667, 0.04166666666666667, 0.008333333333326084,
    0.0013888888888883711, 0.0001984126987500228, 2.480158732567746e-05, 2.755725517000089e-06,
    2.755727347871858e-07, 2.5105312729622103e-08, 2.09147553258932e-09,
)  # fmt: skip
# (2^r - 1) / r on |r| <= 0.5; errors 2^-32 and 2^-55.
EXP2_F32 = (
    0.6931471805599453, 0.24022650922288757, 0.055504108839096185, 0.009618056678524637,
    0.001333350238616277, 0.0001546144469856913, 1.5297323760701075e-05,
)  # fmt: skip
# The same to 2^-27, where a part of the result's precision is enough.
EXP2_SHORT = (
    0.6931471880262288, 0.24022650760568126, 0.05550357114219078, 0.009618082557277852,
    0.0013390863364671234, 0.0001545316294512069,
)  # fmt: skip
EXP2_F64 = (
    0.6931471805599453, 0.24022650695910072, 0.055504108664821625, 0.00961812910762848,
    0.001333355814640647, 0.00015403530393370734, 1.5252733841556773e-05, 1.3215486808705563e-06,
    1.0178057087733941e-07, 7.0548973041554995e-09, 4.4558179083360645e-10, 2.5729324177362305e-11,
)  # fmt: skip


def clamp(x: Lanes, low: float, high: float) -> Lanes:
    """`x` within bounds; NaN stays."""
    return at_most(at_least(x, low), high)


def at_most(x: Lanes, high: float) -> Lanes:
    """The smaller one; NaN stays."""
    return Lanes(x.m, x.m.binary("min", x.of(high).v, x.v))


def at_least(x: Lanes, low: float) -> Lanes:
    """The larger one; NaN stays."""
    return Lanes(x.m, x.m.binary("max", x.of(low).v, x.v))


def nearest(x: Lanes, factor: float) -> tuple[Lanes, Lanes]:
    """``x * factor`` rounded to an integer below 2^22 (f32) or 2^51 (f64): as a float and as an
    integer."""
    n, bits = _nearest(x, factor, 0)
    signed = Lanes(x.m, x.m.bitcast(bits.v, dtypes.i32 if x.single else dtypes.i64))
    return n, signed - x.of(_magic(x, 0)).bits()


def _magic(x: Lanes, bias: int) -> float:
    return 1.5 * 2.0 ** (23 if x.single else 52) + bias


def _nearest(x: Lanes, factor: float, bias: int) -> tuple[Lanes, Lanes]:
    """:func:`nearest` as a float, and bits of which the lower half is the integer plus `bias`:
    adding 1.5 * 2^23 leaves it there, also defined for NaN. What stands above is for who shifts
    it out."""
    magic = _magic(x, bias)
    shifted = fma(x, factor, magic)
    bits = x.m.bitcast(shifted.v, dtypes.u32 if x.single else dtypes.u64)
    return shifted - magic, Lanes(x.m, bits)


def nearest_power(x: Lanes, factor: float, by: int = 0) -> tuple[Lanes, Lanes]:
    """:func:`nearest` as a float n, and ``2^(n + by)``, a normal number."""
    n, bits = _nearest(x, factor, by + _exponent(x)[1])
    return n, _as_power(bits)


def _exponent(x: Lanes) -> tuple[int, int]:
    """The bits of the mantissa of a float of some width, and the bias of its exponent."""
    return (23, 127) if x.dtype.bits == 32 else (52, 1023)


def power_of_two(k: Lanes) -> Lanes:
    """``2^k`` for an integer within the exponent range of the float of its width."""
    return _as_power(k + _exponent(k)[1])


def _as_power(biased: Lanes) -> Lanes:
    """The power of two with this biased exponent, in the last bits."""
    return (biased << _exponent(biased)[0]).from_bits()


def nearest_twice(x: Lanes, factor: float, by: int = 0) -> tuple[Lanes, Lanes]:
    """:func:`nearest` as a float n, and ``n + by`` for :func:`scale`: bits whose halves are biased
    exponents of two factors."""
    return _nearest(x, factor, by + 2 * _exponent(x)[1])


def scale(y: Lanes, bits: Lanes) -> Lanes:
    """``y * 2^k`` for y about 1 and k up to twice the exponent range, from the bits that
    :func:`nearest_twice` gives; rounded once."""
    if y.m.has_scaling(y.v):
        zero = y.of(_magic(y, 2 * _exponent(y)[1])).bits()
        signed = y.m.bitcast(bits.v, zero.dtype)
        return Lanes(y.m, y.m.ldexp(y.v, (Lanes(y.m, signed) - zero).v))
    half = bits >> 1
    return y * _as_power(half) * _as_power(bits - half)


def _reduced(x: Lanes, n: Lanes) -> Lanes:
    """r with ``x = n ln 2 + r``."""
    high, low = LN2_F32 if x.single else LN2_F64
    return fma(-n, low, fma(-n, high, x))


def _expm1_reduced(r: Lanes) -> Lanes:
    """``exp(r) - 1`` for a reduced argument."""
    return fma(r * r, polynomial(r, EXPM1_F32 if r.single else EXP_F64), r)


def _exp_reduced(r: Lanes) -> Lanes:
    """``exp(r)`` for a reduced argument: the same polynomial without the sum being put off."""
    coefficients = EXP_F32 if r.single else EXP_F64
    return polynomial(r, (1.0, 1.0, *coefficients))


def exp(x: Lanes) -> Lanes:
    """``e^x``."""
    x = clamp(x, *((-105.0, 89.0) if x.single else (-746.0, 710.0)))
    return exp_of_sum(x, None)


def sigmoid(x: Lanes) -> Lanes:
    """``1 / (1 + e^-x)``, with numerator and denominator times ``2^-by``, whereby the denominator
    does not overflow before the quotient is zero."""
    low, high, by = (-104.5, 25.0, 24) if x.single else (-746.0, 50.0, 54)
    x = -clamp(x, low, high)
    n, s = nearest_power(x, LOG2E, -by)
    return 2.0**-by / fma(_exp_reduced(_reduced(x, n)), s, 2.0**-by)


def exp_of_sum(high: Lanes, low: Lanes | None) -> Lanes:
    """``e^(high + low)``, `low` tiny; `high` and `low` finite, `high` in the range of exponents."""
    n, k = nearest_twice(high, LOG2E)
    r = _reduced(high, n)
    return scale(_exp_reduced(r if low is None else r + low), k)


def exp2(x: Lanes) -> Lanes:
    """``2^x``."""
    x = clamp(x, *((-151.0, 129.0) if x.single else (-1076.0, 1025.0)))
    n, k = nearest_twice(x, 1.0)
    r = x - n
    return scale(fma(r, polynomial(r, EXP2_F32 if x.single else EXP2_F64), 1.0), k)


def _scaled_expm1(x: Lanes, by: int) -> Lanes:
    """``(e^x - 1) 2^by``; x not tiny, from -50, and no more than that the powers are normal."""
    n, s = nearest_power(x, LOG2E, by)
    return fma(_expm1_reduced(_reduced(x, n)), s, s - 2.0**by)


def expm1(x: Lanes) -> Lanes:
    """``e^x - 1``: a quarter of it does not overflow before it does."""
    single = x.single
    y = _scaled_expm1(clamp(x, *((-25.0, 89.0) if single else (-50.0, 710.0))), -2) * 4.0
    return where(abs(x) < (2.0**-25 if single else 2.0**-54), x, y)


def sinh(x: Lanes) -> Lanes:
    """``(e^x - e^-x) / 2`` from ``t = e^|x| - 1`` as ``(t + t/(t + 1)) / 2``."""
    size = abs(x)
    t = _scaled_expm1(where(size > 710.6, 710.6, size), -2) * 2.0
    y = where(size > 40.0, t, t + t / (2.0 * t + 1.0))  # t may be infinite
    return where(size < 2.0**-28, x, y.copysign(x))


def cosh(x: Lanes) -> Lanes:
    """``(e^x + e^-x) / 2``."""
    size = abs(x)
    size = where(size > 720.0, 720.0, size)
    n, k = nearest_twice(size, LOG2E, -1)
    t = scale(_exp_reduced(_reduced(size, n)), k)
    return t + 0.25 / t


def tanh(x: Lanes) -> Lanes:
    """``t / (t + 1)`` with ``t = (e^(2|x|) - 1) / 2``; |x| = n (ln 2)/2 + r. The larger x, the less
    does t matter: in f32, the second part of ln 2 does not."""
    size = at_most(abs(x), 10.0 if x.single else 20.0)
    n, s = nearest_power(size, 2.0 * LOG2E)
    high, low = LN2_F32 if x.single else LN2_F64
    r = fma(-n, high / 2, size)
    r = r if x.single else fma(-n, low / 2, r)
    of_twice = (c * 2.0**k for k, c in enumerate(EXPM1_F32 if x.single else EXP_F64, 1))
    t = fma(fma(r * r, polynomial(r, tuple(of_twice)), r), s, fma(s, 0.5, -0.5))
    return (t / (t + 1.0)).signed_as(x)
