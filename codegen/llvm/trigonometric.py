"""sin, cos, tan and the inverse functions.

Everything is evaluated in f64. f64 arguments are reduced to ``[-pi/4, pi/4]`` as ``x - n pi/2``
with pi/2 in three parts and a double-double result (Cody & Waite 1980; Muller, *Elementary
Functions*, 2016, chapter 11): the fused multiply-add subtracts the first product exactly, so the
reduction holds up to :data:`SHORT`, also beside multiples of pi/2. Larger arguments, which are rare
and branched to, and f32 arguments from 2^30 on are reduced in integers (:mod:`payne_hanek`).

Coefficients: interpolation at Chebyshev points in 60-digit arithmetic, rounded to binary64.
"""

from __future__ import annotations

import math

from aisc.codegen.llvm import payne_hanek
from aisc.codegen.llvm.exponential import nearest
from aisc.codegen.llvm.lanes import Lanes, branch, fma, polynomial, where
from aisc.ir import dtypes

SHORT = 2.0**48  # the largest f64 |x| that three parts of pi/2 reduce
HALF_PI = (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33)
TWO_BY_PI = 0.6366197723675814
# (sin r - r) / r^3, (cos r - 1 + r^2/2) / r^4, (atan r - r) / r^3 and (asin r - r) / r^3 in r^2 for
# |r| up to pi/4, pi/4, tan(pi/8), 1/2; errors 2^-55 to 2^-58.
SIN = (
    -0.16666666666666666, 0.008333333333333331, -0.00019841269841264821, 2.7557319219150783e-06,
    -2.5052106167335705e-08, 1.6058521349954986e-10, -7.586094789672621e-13,
)  # fmt: skip
COS = (
    0.041666666666666664, -0.0013888888888888887, 2.480158730158451e-05, -2.755731922129809e-07,
    2.0876755754879594e-09, -1.1470455178216906e-11, 4.7455370173192576e-14,
)  # fmt: skip
ATAN = (
    -0.3333333333333333, 0.199999999999998, -0.14285714285659326, 0.11111111105106705,
    -0.09090908751076636, 0.0769229630497447, -0.06666423628069258, 0.058789145444006215,
    -0.052303478730160745, 0.04551108126325172, -0.034558092551413795, 0.01627194475162406,
)  # fmt: skip
ASIN = (
    0.16666666666666669, 0.07499999999998433, 0.04464285714635543, 0.030381944138531247,
    0.02237217294214989, 0.017352392720869973, 0.013971212973552933, 0.011479177415184906,
    0.01032281435018578, 0.005457506718640358, 0.01740087944269402, -0.014851887071247204,
    0.028757851367421566,
)  # fmt: skip

Reduced = tuple[Lanes, Lanes, Lanes]  # r, its low part, and the quadrant n as an integer


def _reduce(x: Lanes) -> Reduced:
    """``x = n pi/2 + r`` for f32 or f64 x, in f64."""
    if x.single:
        return _reduce_f32(x)
    n, k = nearest(x, TWO_BY_PI)
    t = fma(-n, HALF_PI[0], x)
    product = n * HALF_PI[1]
    product_low = fma(n, HALF_PI[1], -product)
    high = t - product
    back = high - t  # the exact rounding error of t - product, whichever is larger
    lost = (t - (high - back)) - (product + back)
    low = fma(-n, HALF_PI[2], lost - product_low)
    r = high + low
    return _unless_large(x, (r, low - (r - high), k))


def _unless_large(x: Lanes, short: Reduced) -> Reduced:
    """What the long reduction gives for f64 arguments that are too large for the short one."""
    size = abs(x)
    large = (size > SHORT) & (size < math.inf)

    def long() -> Reduced:
        found = payne_hanek.reduced_f64(where(large, x, SHORT), HALF_PI)
        r, low, k = (where(large, a, b) for a, b in zip(found, short, strict=True))
        return r, low, k

    r, low, k = branch(large, long, short)
    return r, low, k


def _reduce_f32(x: Lanes) -> Reduced:
    wide = x.convert(dtypes.f64)
    n, k = nearest(wide, TWO_BY_PI)
    r = fma(-n, HALF_PI[1], fma(-n, HALF_PI[0], wide))
    large = abs(x) >= 2.0**30
    quarters = payne_hanek.quarters_f32(x)
    whole = (quarters + (1 << 61)) >> 62
    rest = (quarters - (whole << 62)).convert(dtypes.f64) * (HALF_PI[0] * 2.0**-62)
    return where(large, rest, r), r.of(0.0), where(large, whole, k)


def _sin_cos(r: Lanes, low: Lanes) -> tuple[Lanes, Lanes]:
    """Sine and cosine of a reduced argument."""
    z = r * r
    sine = r + fma(r * z, polynomial(z, SIN), low)
    half = z * 0.5
    w = 1.0 - half
    cosine = w + (((1.0 - w) - half) + fma(z * z, polynomial(z, COS), -(r * low)))
    return sine, cosine


def _finish(x: Lanes, y: Lanes, tiny: bool) -> Lanes:
    """NaN for infinities; x itself where it is tiny, with its sign of zero."""
    size = abs(x)
    y = y.convert(x.dtype)
    if tiny:
        y = where(size < 2.0**-27, x, y)
    return where(size < math.inf, y, math.nan)


def sin(x: Lanes) -> Lanes:
    """Sine."""
    r, low, n = _reduce(x)
    sine, cosine = _sin_cos(r, low)
    y = where((n & 1).ne(0), cosine, sine)
    return _finish(x, where((n & 2).ne(0), -y, y), tiny=True)


def cos(x: Lanes) -> Lanes:
    """Cosine."""
    r, low, n = _reduce(x)
    sine, cosine = _sin_cos(r, low)
    y = where((n & 1).ne(0), sine, cosine)
    return _finish(x, where(((n + 1) & 2).ne(0), -y, y), tiny=False)


def tan(x: Lanes) -> Lanes:
    """Tangent, the quotient of sine and cosine."""
    r, low, n = _reduce(x)
    sine, cosine = _sin_cos(r, low)
    odd = (n & 1).ne(0)
    return _finish(x, where(odd, -cosine, sine) / where(odd, sine, cosine), tiny=True)


def atan(x: Lanes) -> Lanes:
    """Inverse tangent: around 0, 1 or infinity, with one division."""
    a = abs(x)
    middle, large = a > math.sqrt(2.0) - 1.0, a > math.sqrt(2.0) + 1.0
    top = where(large, -1.0, where(middle, a - 1.0, a))
    r = top / where(large, a, where(middle, a + 1.0, 1.0))
    base, low = (where(large, part, where(middle, part / 2.0, a.of(0.0))) for part in HALF_PI[:2])
    z = r * r
    y = base + (r + fma(r * z, polynomial(z, ATAN), low))
    return where(a < 2.0**-28, x, y.copysign(x))


def _asin_parts(x: Lanes) -> tuple[Lanes, Lanes]:
    """(p, large): ``asin |x|`` is p, or ``pi/2 - 2p`` where `large` (from 1/2 on)."""
    a = abs(x)
    large = a > 0.5
    z = where(large, fma(a, -0.5, 0.5), a * a)
    s = where(large, z.sqrt(), a)
    return fma(s * z, polynomial(z, ASIN), s), large


def asin(x: Lanes) -> Lanes:
    """Inverse sine; NaN outside [-1, 1]."""
    p, large = _asin_parts(x)
    return where(large, HALF_PI[0] - (p + p - HALF_PI[1]), p).copysign(x)


def acos(x: Lanes) -> Lanes:
    """Inverse cosine; NaN outside [-1, 1]."""
    p, large = _asin_parts(x)
    middle = HALF_PI[0] - (p.copysign(x) - HALF_PI[1])
    end = where(x < 0.0, HALF_PI[0] - (p - HALF_PI[1]), p)
    return where(large, end + end, middle)
