"""Values over indices: elementwise parts of a formula as operators of the graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from aisc.ir.arith.poly import Dim, product
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import AttrValue, Value
from aisc.ir.rewrite.rules import Match
from aisc.ir.tensor.expr import (
    Binary,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Select,
    Unary,
    Var,
)
from aisc.ir.tensor.linear import operands
from aisc.passes.graph.formulas.body import Body

Emit = Callable[[Match], Value]
# A formula with more operators than this stays one kernel.
MAX_OPERATORS = 12
_BINARY = {
    "add": "add", "sub": "sub", "mul": "mul", "div": "div", "truncdiv": "div", "min": "min",
    "max": "max", "pow": "pow", "mod": "mod", "truncmod": "fmod", "and": "and", "or": "or",
    "xor": "xor", "shl": "shift_left", "shr": "shift_right", "eq": "equal", "lt": "less",
    "le": "less_equal", "gt": "greater", "ge": "greater_equal",
}  # fmt: skip
_UNARY = ("neg", "not", "abs", "floor", "ceil", "trunc", "round", "sqrt")
_CALLS = (
    "exp", "expm1", "log", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh",
    "tanh", "asinh", "acosh", "atanh", "erf", "isnan", "isinf",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Indexed:
    """A value with one axis for each of `axes`, in this order, and what makes it."""

    axes: tuple[Var, ...]
    emit: Emit

    def over(self, body: Body, axes: Sequence[Var]) -> Emit:
        """The value with these axes in this order; those that it lacks have the size 1."""

        def emit(m: Match) -> Value:
            own = [a for a in axes if a in self.axes]
            value = transposed(m, self.emit(m), [self.axes.index(a) for a in own])
            shape = tuple(body.extents[a] if a in self.axes else 1 for a in axes)
            return reshaped(m, value, shape)

        return emit


def transposed(m: Match, value: Value, perm: Sequence[int]) -> Value:
    """`value` with its axes in another order."""
    if list(perm) == list(range(len(perm))):
        return value
    return m.add("transpose", (value,), {"perm": tuple(perm)})


def reshaped(m: Match, value: Value, shape: tuple[Dim, ...]) -> Value:
    """`value` in another shape."""
    return value if value.type.shape == shape else m.add("reshape", (value,), {"shape": shape})


def joined(m: Match, value: Value, groups: Sequence[int]) -> Value:
    """`value` with as many axes joined at a time as `groups` says."""
    shape, at = list[Dim](), 0
    for count in groups:
        shape.append(product(value.type.shape[at : at + count]))
        at += count
    return reshaped(m, value, tuple(shape))


def indexed(body: Body, x: Expr) -> Indexed | None:
    """An expression as operators over whole operands; nothing where an element is read in another
    way, or a scalar function has no operator."""
    found = _Reader(body).read(x)
    return found if found is not None and operators(x) <= MAX_OPERATORS else None


def operators(x: Expr) -> int:
    """How many different scalar operations an expression has."""
    seen: set[Expr] = set()

    def count(y: Expr) -> int:
        if y in seen or isinstance(y, Load | Const | Var):
            return 0
        seen.add(y)
        return 1 + sum(map(count, operands(y)))

    return count(x)


@dataclass(frozen=True, slots=True)
class _Reader:
    body: Body

    def read(self, x: Expr) -> Indexed | None:
        """See :func:`indexed`."""
        match x:
            case Load():
                return self._load(x)
            case Const():
                return Indexed((), lambda m: m.make_constant(np.asarray(x.value, x.dtype.numpy)))
            case Var():
                return self._numbers(x)
            case Binary() if x.op == "ne":
                return self._map("not", (replace(x, op="eq"),), {})
            case Binary() if x.op in _BINARY:
                return self._map(_BINARY[x.op], (x.a, x.b), {})
            case Unary() if x.op in _UNARY:
                return self._map(x.op, (x.a,), {})
            case Cast():
                return self._map("cast", (x.a,), {"to": x.dtype})
            case Select():
                return self._map("where", (x.cond, x.then, x.other), {})
            case Call() if x.name in _CALLS:
                return self._map(x.name, x.args, {})
            case _:
                return None

    def _load(self, x: Load) -> Indexed | None:
        access = self.body.access(x)
        if access is None or not access.is_whole(self.body.extents):
            return None
        axes = tuple(p.index for p in access.places if p.index is not None)
        return Indexed(axes, lambda m: access.value)

    def _numbers(self, x: Var) -> Indexed | None:
        """The places of an index."""
        extent = self.body.extents.get(x)
        if extent is None:
            return None
        return Indexed((x,), lambda m: m.add("iota", (), {"shape": (extent,)}))

    def _map(self, op: str, args: Sequence[Expr], attrs: dict[str, AttrValue]) -> Indexed | None:
        """An elementwise operator over the axes that its operands have between them."""
        found = [self.read(a) for a in args]
        known = [f for f in found if f is not None]
        if len(known) < len(found):
            return None
        body = self.body
        used = {a for f in known for a in f.axes}
        axes = tuple(v for v in (*body.outer, *body.inner) if v in used)

        def emit(m: Match) -> Value:
            values = [f.over(body, axes)(m) if f.axes else f.emit(m) for f in known]
            return m.add(op, values, attrs)

        return Indexed(axes, emit)
