"""Combiners: the associative operations a *reduce* iterator may use, with their identities.

Several results are allowed: ``argmax`` combines (value, index) pairs. A combiner is named in
:class:`aisc.ir.tensor.stmt.Block`; scheduling steps that reorder a reduction rely on it, and
nothing else, being associative and commutative (up to rounding for floats).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from aisc.ir import dtypes
from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType
from aisc.ir.tensor.expr import (
    Binary,
    Const,
    Expr,
    Select,
    binary,
    const,
    equal,
    logical_and,
)
from aisc.ir.tensor.expr import math as math_call


@dataclass(frozen=True, slots=True)
class Combiner:
    """`identity(dtypes)` gives one value per result; `combine(a, b)` merges two states; `order`
    is there for combiners that choose one of two states."""

    name: str
    results: int
    identity: Callable[[Sequence[DType]], tuple[Expr, ...]]
    combine: Callable[[Sequence[Expr], Sequence[Expr]], tuple[Expr, ...]]
    order: Callable[[Sequence[Expr], Sequence[Expr]], Expr] | None = None

    def comes_first(self, a: Sequence[Expr], b: Sequence[Expr]) -> Expr:
        """Whether the state `a` is preferred to `b`, for combiners that choose one of them."""
        assert self.order is not None, f"{self.name} does not choose"
        return self.order(a, b)


def _lowest(dtype: DType) -> Const:
    return const(-math.inf if dtype.is_float else dtype.min_value, dtype)


def _highest(dtype: DType) -> Const:
    return const(math.inf if dtype.is_float else dtype.max_value, dtype)


def _simple(name: str, op: str, identity: Callable[[DType], Expr]) -> Combiner:
    return Combiner(name, 1, lambda t: (identity(t[0]),), lambda a, b: (binary(op, a[0], b[0]),))


def _arg(name: str, op: str, nan_first: bool = True) -> Combiner:
    """(value, index): the better value, of equal ones the lower index; NaN wins over numbers, or
    loses against them."""
    start = _lowest if op == "gt" else _highest

    def comes_first(a: Sequence[Expr], b: Sequence[Expr]) -> Expr:
        earlier = Binary("lt", a[1], b[1])
        better = Binary(op, a[0], b[0])
        take: Expr = Binary("or", better, logical_and(equal(a[0], b[0]), earlier))
        if not a[0].dtype.is_float:
            return take
        nan_a, nan_b = math_call("isnan", a[0]), math_call("isnan", b[0])
        if nan_first:
            return Select(nan_b, logical_and(nan_a, earlier), Binary("or", take, nan_a))
        return Select(nan_a, logical_and(nan_b, earlier), Binary("or", take, nan_b))

    def combine(a: Sequence[Expr], b: Sequence[Expr]) -> tuple[Expr, ...]:
        take = comes_first(b, a)
        return Select(take, b[0], a[0]), Select(take, b[1], a[1])

    def identity(types: Sequence[DType]) -> tuple[Expr, ...]:
        worst = (
            const(math.nan, types[0]) if types[0].is_float and not nan_first else start(types[0])
        )
        return worst, const(types[1].max_value, types[1])

    return Combiner(name, 2, identity, combine, comes_first)


COMBINERS: dict[str, Combiner] = {
    c.name: c
    for c in (
        _simple("sum", "add", lambda t: const(0, t)),
        _simple("prod", "mul", lambda t: const(1, t)),
        _simple("max", "max", _lowest),
        _simple("min", "min", _highest),
        _simple("all", "and", lambda t: const(True, dtypes.boolean)),
        _simple("any", "or", lambda t: const(False, dtypes.boolean)),
        _arg("argmax", "gt"),
        _arg("argmin", "lt"),
        _arg("argmin_number", "lt", nan_first=False),
    )
}
