"""exp, tanh and erf in f32, with tables of 16 numbers that one instruction looks up.

An argument is reduced to one of 16 places and a small rest; a table gives each coefficient of the
polynomial in the rest. That takes fewer instructions than the forms without tables (in
:mod:`exponential`, :mod:`error_function`), and look-ups use other execution units. Tang,
*Table-Driven Implementation of the Exponential Function in IEEE Floating-Point Arithmetic* (1989).

Coefficients: interpolation at Chebyshev points in 48-digit arithmetic, rounded to binary32.
"""

from __future__ import annotations

from aisc.codegen.llvm.exponential import LN2_F32, LOG2E, at_least, at_most, clamp
from aisc.codegen.llvm.lanes import Lanes, fma, where

LANES = 16
# 2^(j/16), and by which part of it rounding has changed it.
POWERS = (
    1.0, 1.0442737, 1.0905077, 1.1387886, 1.1892071, 1.2418578, 1.2968396, 1.3542556, 1.4142135,
    1.4768262, 1.5422108, 1.6104903, 1.6817929, 1.7562522, 1.8340081, 1.9152066,
)  # fmt: skip
POWERS_REST = (
    0.0, 4.628547e-08, -1.19921575e-08, 4.7297824e-08, 3.193418e-08, 3.6210572e-08, -3.099072e-08,
    -7.475213e-09, 1.7114271e-08, -3.0476834e-08, 5.233334e-09, 6.1075918e-09, -1.4719605e-08,
    -5.258795e-09, -6.1282597e-09, 5.1406093e-09,
)  # fmt: skip
# (e^r - 1) / r - 1 on |r| <= ln 2 / 32, without its constant 0; error 2^-34.
EXP = (0.50001496, 0.16666966)
# erf(j/4 + d) in d on [0, 1/4]; of place 0, where the constant is not used, erf(d) - d. A row for
# each power of d, an element for each place.
ERF = (
    (
        0.0, 0.2763264, 0.5204999, 0.71115565, 0.8427008, 0.92290014, 0.96610516, 0.9866717,
        0.9953223, 0.9985373, 0.999593, 0.9998994, 0.9999779, 0.9999957, 0.9999993, 0.9999999,
    ),
    (
        0.12837914, 1.0600125, 0.8787811, 0.6429306, 0.41510797, 0.23652188, 0.11893081, 0.05277516,
        0.020666933, 0.0071422122, 0.0021782042, 0.0005862356, 0.00013923619, 2.918347e-05,
        5.397901e-06, 8.8107834e-07,
    ),
    (
        6.188743e-06, -0.26492533, -0.4393223, -0.48217723, -0.41512972, -0.29568693, -0.17841992,
        -0.09236407, -0.041331593, -0.016065245, -0.0054419553, -0.0016103024, -0.00041696377,
        -9.460165e-05, -1.8825724e-05, -3.2885764e-06,
    ),
    (
        -0.37631622, -0.31049672, -0.14765318, 0.026410062, 0.13873686, 0.1681421, 0.13917595,
        0.09029631, 0.048184693, 0.021639768, 0.008285331, 0.0027263635, 0.0007752213,
        0.00019120517, 4.1023424e-05, 7.672832e-06,
    ),
    (
        0.0019222784, 0.13707148, 0.19242413, 0.15389118, 0.06652164, -0.010833843, -0.0479567,
        -0.049255095, -0.03418517, -0.018431043, -0.008113049, -0.0029870642, -0.0009327319,
        -0.00024920315, -5.731279e-05, -1.1395462e-05,
    ),
    (
        0.106150225, 0.04534746, -0.027088888, -0.06678138, -0.061098672, -0.030638589,
        -0.0022792881, 0.011347224, 0.012451553, 0.008360143, 0.0042337757, 0.0017256449,
        0.0005832176, 0.00016617769, 4.0335097e-05, 8.398558e-06,
    ),
)  # fmt: skip
# tanh(c + d) in d from c = 1/4, 3/8, 1/2, 3/4, ... 8 up to the next one, the place made of the last
# bits of the exponent and the first of the mantissa; from 0 to 1/4, tanh(d) - d. That of 12 is one.
TANH_IS_ONE = 9.010913  # from here on it is nearer to one than to the number below
TANH = (
    (
        0.9640276, 0.9950548, 0.9993293, 0.9999877, 0.99999976, 1.0, 0.0, 0.0, 0.0, 0.0, 0.24491866,
        0.3583574, 0.46211717, 0.63514894, 0.7615942, 0.90514827,
    ),
    (
        0.07065044, 0.0098654805, 0.0013384101, 2.4529529e-05, 4.5009247e-07, 0.0, 0.0, 0.0, 0.0,
        5.562179e-09, 0.94001484, 0.87157995, 0.78644764, 0.59658575, 0.4199751, 0.18070705,
    ),
    (
        -0.06810411, -0.009808237, -0.001319097, -2.4188279e-05, -4.494293e-07, 0.0, 0.0, 0.0, 0.0,
        -1.6037283e-06, -0.23022719, -0.312337, -0.36342537, -0.3789185, -0.31987432, -0.16357955,
    ),
    (
        0.042089015, 0.0064247083, 0.00082539034, 1.5146264e-05, 2.9609023e-07, 0.0, 0.0, 0.0, 0.0,
        -0.33325806, -0.25695068, -0.17860427, -0.09433642, 0.041751835, 0.10388843, 0.08797889,
    ),
    (
        -0.017897652, -0.0030111186, -0.00033882385, -6.222665e-06, -1.3905638e-07, 0.0, 0.0, 0.0,
        0.0, -0.0012996498, 0.13965468, 0.16824748, 0.16622078, 0.10043259, 0.026175326,
        -0.025930634,
    ),
    (
        0.0049903905, 0.00096036936, 8.307325e-05, 1.5268444e-06, 4.3828535e-08, 0.0, 0.0, 0.0, 0.0,
        0.14356256, 0.07265551, 0.01715214, -0.036305565, -0.06829303, -0.04232483, 0.00037077133,
    ),
    (
        -0.0007009219, -0.00015666662, -9.099818e-06, -1.6735453e-07, -6.915572e-09, 0.0, 0.0, 0.0,
        0.0, -0.03768912, -0.07239851, -0.061637215, -0.02403979, 0.012994145, 0.015089277,
        0.0020743716,
    ),
)  # fmt: skip


def exp(x: Lanes) -> Lanes:
    """``e^x = 2^(n + j/16) e^r``; error below 0.6 ulp."""
    return _exp_less(clamp(x, -105.0, 89.0), 0)


def sigmoid(x: Lanes) -> Lanes:
    """``1 / (1 + e^-x)``; 2 ulp. Parts of it are scaled as in :func:`.exponential.sigmoid`."""
    return 2.0**-24 / (_exp_less(-clamp(x, -104.5, 25.0), 24) + 2.0**-24)


def _exp_less(x: Lanes, by: int) -> Lanes:
    """``e^x 2^-by``."""
    magic = 1.5 * 2.0**19  # numbers beside it are multiples of 1/16
    shifted = fma(x, LOG2E, magic)
    n, place = shifted - magic, shifted.bits()
    scaled = shifted - (magic + by) if by else n
    high, low = LN2_F32
    r = fma(-n, low, fma(-n, high, x))
    p = fma(fma(r, EXP[1], EXP[0]), r, 1.0)
    power = _at(POWERS, place)
    return _scaled(fma(power, fma(p, r, _at(POWERS_REST, place)), power), scaled)


def erf(x: Lanes) -> Lanes:
    """``2/sqrt(pi)`` times the integral of ``e^(-t^2)`` from 0 to x; 1.2 ulp."""
    t = at_most(abs(x), 3.95)
    magic = 1.5 * 2.0**21  # numbers beside it are multiples of 1/4
    shifted = _sum_below(t, magic)
    c = shifted - magic
    return _piece(ERF, shifted.bits(), t, t - c, t < 0.25).copysign(x)


def tanh(x: Lanes) -> Lanes:
    """Hyperbolic tangent; 1.8 ulp, and exactly one where it rounds to one."""
    t = abs(x)
    t = where(t > TANH_IS_ONE, 12.0, t)
    small = t < 0.25
    bits = at_least(t, 0.1875).bits()
    c = where(small, 0.0, (bits & -(1 << 22)).from_bits())
    return _piece(TANH, bits >> 22, t, t - c, small).copysign(x)


FUNCTIONS = {"exp": exp, "erf": erf, "tanh": tanh, "sigmoid": sigmoid}


def _piece(
    table: tuple[tuple[float, ...], ...], place: Lanes, t: Lanes, d: Lanes, small: Lanes
) -> Lanes:
    """The polynomial of a place in d; near 0, where d is t, added to t."""
    p = _at(table[-1], place)
    for row in reversed(table[1:-1]):
        p = fma(p, d, _at(row, place))
    return fma(p, d, where(small, t, _at(table[0], place)))


def _at(table: tuple[float, ...], place: Lanes) -> Lanes:
    """The element of a table that the last four bits of each lane say."""
    return Lanes(place.m, place.m.look_up(table, place.v))


def _sum_below(a: Lanes, b: float) -> Lanes:
    """A sum that is rounded down."""
    return Lanes(a.m, a.m.add_down(a.v, a.of(b).v))


def _scaled(y: Lanes, n: Lanes) -> Lanes:
    """``y * 2^floor(n)``, rounded once."""
    return Lanes(y.m, y.m.scale_floor(y.v, n.v))
