"""Special functions that numpy lacks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from aisc.ir.dtypes import DType

# W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969).
_A = (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2,
      3.77485237685302021e2, 3.20937758913846947e3)  # fmt: skip
_B = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3,
      2.84423683343917062e3)  # fmt: skip
_C = (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0,
      6.61191906371416295e1, 2.98635138197400131e2, 8.81952221241769090e2,
      1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3)  # fmt: skip
_D = (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2,
      1.62138957456669019e3, 3.29079923573345963e3, 4.36261909014324716e3,
      3.43936767414372164e3, 1.23033935480374942e3)  # fmt: skip


def erf(x: NDArray[Any]) -> NDArray[Any]:
    """The error function in double precision (relative error below 1e-13), in x's dtype."""
    wide = np.asarray(x, np.float64)
    size = np.abs(wide)
    square = np.minimum(size, 0.46875) ** 2
    small = wide * np.polyval(_A, square) / np.polyval(_B, square)
    tail = np.clip(size, 0.46875, 6.0)  # erf(6) is 1 in double precision; clip keeps NaN
    large = 1.0 - np.exp(-tail * tail) * np.polyval(_C, tail) / np.polyval(_D, tail)
    result = np.where(size <= 0.46875, small, np.copysign(large, wide))
    return np.asarray(np.where(np.isnan(wide), wide, result).astype(np.asarray(x).dtype))


def saturated(x: NDArray[Any], to: DType) -> NDArray[Any]:
    """Floats truncated to an integer type: the nearest value of the type for those that do not fit,
    0 for NaN (IEEE 754-2019 leaves these open; so do WebAssembly's ``trunc_sat`` and LLVM's
    ``fptosi.sat``, whose choice this is)."""
    wide = np.trunc(np.asarray(x, np.float64))
    low, high = int(to.min_value), int(to.max_value)
    inside = (wide >= float(low)) & (wide < float(high + 1))
    fits = np.where(inside, wide, 0.0).astype(to.numpy)
    limits = np.where(wide < 0, np.asarray(low, to.numpy), np.asarray(high, to.numpy))
    return np.where(inside | np.isnan(wide), fits, limits)


def greater(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """The greater; the first of equal ones (of zeros with different signs), NaN if either is."""
    chosen: NDArray[Any] = np.maximum(a, b)
    return chosen if a.dtype.kind in "biu" else np.where((a >= b) | np.isnan(a), a, b)


def lesser(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """The lesser; the first of equal ones (of zeros with different signs), NaN if either is."""
    chosen: NDArray[Any] = np.minimum(a, b)
    return chosen if a.dtype.kind in "biu" else np.where((a <= b) | np.isnan(a), a, b)
