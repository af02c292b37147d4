"""Elementary functions as straight-line vector code, without calls or tables in memory; only angles
beyond 2^48 in f64 branch to code that reads a table.

This file chooses the formula and the precision; the formulas are in :mod:`exponential`,
:mod:`logarithmic`, :mod:`power`, :mod:`error_function` and :mod:`trigonometric` beside it, and in
:mod:`tabled` for targets that look up registers. f16 and bf16 go through f32. The frequent f32
functions have code of their own, the others compute in f64 and round. Denormals are kept; NaN,
infinities and signed zeros are those of IEEE 754-2019 section 9.2. :data:`BOUNDS` states the
errors; the tests check them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from aisc.codegen.llvm import (
    error_function,
    exponential,
    logarithmic,
    power,
    tabled,
    trigonometric,
)
from aisc.codegen.llvm.lanes import Lanes
from aisc.codegen.llvm.types import Val
from aisc.ir import dtypes
from aisc.ir.diagnostics import InternalError
from aisc.ir.dtypes import DType

if TYPE_CHECKING:
    from aisc.codegen.llvm.vector_math import MathEmitter


def _rsqrt(x: Lanes) -> Lanes:
    """``1 / sqrt(x)``."""
    return 1.0 / x.sqrt()


FUNCTIONS: dict[str, Callable[[Lanes], Lanes]] = {
    "exp": exponential.exp,
    "exp2": exponential.exp2,
    "expm1": exponential.expm1,
    "sinh": exponential.sinh,
    "cosh": exponential.cosh,
    "tanh": exponential.tanh,
    "sigmoid": exponential.sigmoid,
    "log": logarithmic.log,
    "log2": logarithmic.log2,
    "log1p": logarithmic.log1p,
    "asinh": logarithmic.asinh,
    "acosh": logarithmic.acosh,
    "atanh": logarithmic.atanh,
    "erf": error_function.erf,
    "sin": trigonometric.sin,
    "cos": trigonometric.cos,
    "tan": trigonometric.tan,
    "asin": trigonometric.asin,
    "acos": trigonometric.acos,
    "atan": trigonometric.atan,
    "rsqrt": _rsqrt,
}
# Functions whose f32 form computes in f32.
SINGLE = frozenset(
    {
        "exp",
        "exp2",
        "expm1",
        "tanh",
        "sigmoid",
        "log",
        "log1p",
        "log2",
        "erf",
        "rsqrt",
        "sin",
        "cos",
        "tan",
    }
)
# Largest errors in ulp of the correctly rounded result, in f32 and f64.
BOUNDS: dict[str, tuple[float, float]] = {
    "exp": (1.0, 1.0),
    "exp2": (1.0, 1.0),
    "expm1": (2.0, 2.0),
    "sinh": (0.51, 3.0),
    "cosh": (0.51, 2.0),
    "tanh": (2.5, 2.5),
    "sigmoid": (2.5, 2.5),
    "log": (1.0, 1.0),
    "log2": (2.0, 2.0),
    "log1p": (1.5, 1.5),
    "asinh": (0.51, 3.0),
    "acosh": (0.51, 3.0),
    "atanh": (0.51, 3.0),
    "erf": (1.5, 2.0),
    "rsqrt": (1.5, 1.5),
    "sin": (0.51, 1.5),
    "cos": (0.51, 1.5),
    "tan": (0.51, 3.0),
    "asin": (0.51, 2.5),
    "acos": (0.51, 2.5),
    "atan": (0.51, 2.0),
    "pow": (0.51, 1.5),
}


class Elementary:
    """Emits functions through the arithmetic of a :class:`MathEmitter`."""

    def __init__(self, math: MathEmitter) -> None:
        self.m = math

    def call(self, name: str, x: Val) -> Val:
        """Function `name` of `x`, any float type, scalar or vector; errors in :data:`BOUNDS`."""
        if name not in FUNCTIONS:
            raise InternalError(f"no code for {name}")
        wide = dtypes.f32 if name in SINGLE and x.dtype.bits <= 32 else dtypes.f64
        operand = self.m.convert(x, wide)
        if wide is dtypes.f32 and name in tabled.FUNCTIONS and self.m.has_look_up:
            result = self._tabled(name, operand)
        else:
            result = FUNCTIONS[name](Lanes(self.m, operand)).v
        return self._narrowed(result, x.dtype)

    def _tabled(self, name: str, x: Val) -> Val:
        """A function of 16 lanes, for any number of lanes: the same bits for each."""
        if x.lanes > tabled.LANES:
            return self.m.joined(*(self._tabled(name, half) for half in self.m.halves(x)))
        whole = self.m.resized(x, tabled.LANES)
        return self.m.resized(tabled.FUNCTIONS[name](Lanes(self.m, whole)).v, x.lanes)

    def _narrowed(self, v: Val, to: DType) -> Val:
        """Round to the type of the operands; to f16 and bf16 by way of f32."""
        return self.m.convert(self.m.convert(v, dtypes.f32) if to.bits < 32 else v, to)

    def power(self, a: Val, b: Val) -> Val:
        """``a ** b``, see :mod:`aisc.codegen.llvm.power`."""
        if not a.dtype.is_float:
            return power.power_int(Lanes(self.m, a), Lanes(self.m, b)).v
        formula = power.power_f64 if a.dtype is dtypes.f64 else power.power_f32
        wide = [Lanes(self.m, self.m.convert(x, dtypes.f64)) for x in (a, b)]
        return self._narrowed(formula(*wide).v, a.dtype)
