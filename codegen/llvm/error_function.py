"""erf in f32 and f64.

Below a threshold ``x + x P(x^2)``; above it ``1 - 2^g(|x|)`` where the polynomial g approximates
``log2 erfc``, with an error weighted by erfc, since only the difference from 1 counts.

Coefficients: small arguments by interpolation at Chebyshev points, large ones by a weighted
minimax fit (Lawson's iteration), in 60-digit arithmetic.
"""

from __future__ import annotations

from aisc.codegen.llvm.exponential import EXP2_F64, EXP2_SHORT, nearest_power
from aisc.codegen.llvm.lanes import Lanes, fma, polynomial, where

# erf(x) / x - 1 in x^2 up to 0.9 and 1; errors 2^-30 and 2^-55.
SMALL_F32 = (
    0.12837916647633962, -0.3761263215401393, 0.11283671041450989, -0.02685804248294256,
    0.005197684914459649, -0.0008105054510808501, 8.212780533059878e-05,
)  # fmt: skip
SMALL_F64 = (
    0.1283791670955126, -0.3761263890318375, 0.11283791670954879, -0.026866170645076792,
    0.0052239776248180145, -0.000854832698083379, 0.0001205533111164271, -1.4925595266831182e-05,
    1.6461000484121368e-06, -1.6350312701054695e-07, 1.4659775274047436e-08,
    -1.1372848856791674e-09, 5.957176147748911e-11,
)  # fmt: skip
# log2 erfc(x) for x in [0.9, 4]; error of erf 2^-29.
LARGE_F32 = (
    -0.00025664414339205815, -1.62699601230012, -0.9190881619985133, -0.1500888643412757,
    0.0321360543643499, -0.0044074358867736835, 0.0002843694803984951,
)  # fmt: skip
# The same in x - 1.5 for x in [1, 6]; 2^-53.
LARGE_F64 = (
    -4.88278995352395, -5.062129516194544, -1.2878077782757982, -0.03725635962737623,
    0.008665903223592581, -0.0018137802794758982, 0.000311569189280806, -3.242267725103783e-05,
    -3.818577545166611e-06, 3.420391961047989e-06, -1.1812141824412118e-06, 2.778731312451407e-07,
    -4.0220582949892445e-08, -1.5573764348531308e-09, 3.4629707625652746e-09,
    -1.4080698225074112e-09, 3.814072887514318e-10, -7.600348573204639e-11,
    1.0980018269721632e-11, -1.0731787921670784e-12, 6.1658077235589e-14, -1.483657170098116e-15,
)  # fmt: skip


def erf(x: Lanes) -> Lanes:
    """``2/sqrt(pi)`` times the integral of ``e^(-t^2)`` from 0 to x."""
    size = abs(x)
    single = x.single
    small = fma(x, polynomial(x * x, SMALL_F32 if single else SMALL_F64), x)
    last = 4.0 if single else 6.0
    t = where(size > last, last, size)
    g = polynomial(t, LARGE_F32) if single else polynomial(t - 1.5, LARGE_F64)
    n, power = nearest_power(g, 1.0)
    r = g - n
    p = fma(r, polynomial(r, EXP2_SHORT if single else EXP2_F64), 1.0)
    large = fma(-p, power, 1.0).copysign(x)
    return where(size < (0.9486 if single else 1.0), small, large)
