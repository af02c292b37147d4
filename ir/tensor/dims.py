"""Expressions over dimensions alone, as dimensions."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

from aisc.ir.arith.poly import Dim, floordiv, maximum, minimum, mod
from aisc.ir.tensor.expr import Binary, Const, Expr, Var

_OPS: Mapping[str, Callable[[Dim, Dim], Dim]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": floordiv,
    "mod": mod,
    "min": minimum,
    "max": maximum,
}


def as_dim(expr: Expr, size: Callable[[Var], Dim | None]) -> Dim | None:
    """An i64 expression as a dimension, of what `size` says of its variables; nothing for one that
    is none."""
    if isinstance(expr, Const):
        return int(expr.value)
    if isinstance(expr, Var):
        return size(expr)
    if isinstance(expr, Binary) and expr.op in _OPS:
        a, b = as_dim(expr.a, size), as_dim(expr.b, size)
        return None if a is None or b is None else _OPS[expr.op](a, b)
    return None
