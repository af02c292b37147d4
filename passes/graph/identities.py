"""Rules that remove operators that do nothing, and merge chains of movements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aisc.ir.graph.core import Value
from aisc.ir.rewrite.rules import Match, Rule, rule


def _only(m: Match) -> Value:
    value = m.input(0)
    assert value is not None, "a required input is absent"
    return value


@rule("transpose")
def transpose_identity(m: Match) -> Sequence[Value] | None:
    """``transpose(x, 0..n-1) -> x``."""
    perm = m.node.attr("perm")
    assert isinstance(perm, tuple), "perm is a tuple"
    return (_only(m),) if perm == tuple(range(len(perm))) else None


@rule("transpose")
def transpose_twice(m: Match) -> Sequence[Value] | None:
    """``transpose(transpose(x, p), q) -> transpose(x, p[q])``."""
    inner = m.producer(m.input(0), "transpose")
    if inner is None:
        return None
    p, q = inner.attr("perm"), m.node.attr("perm")
    assert isinstance(p, tuple) and isinstance(q, tuple), "perm is a tuple"
    perm = tuple(p[k] for k in q if isinstance(k, int))
    return (m.add("transpose", (inner.inputs[0],), {"perm": perm}, (inner,)),)


@rule("reshape")
def reshape_identity(m: Match) -> Sequence[Value] | None:
    """``reshape(x, shape of x) -> x``."""
    x = _only(m)
    return (x,) if x.type == m.node.output.type else None


@rule("reshape")
def reshape_twice(m: Match) -> Sequence[Value] | None:
    """``reshape(reshape(x, s), t) -> reshape(x, t)``."""
    inner = m.producer(m.input(0), "reshape")
    if inner is None:
        return None
    shape = m.node.output.type.shape
    return (m.add("reshape", (inner.inputs[0],), {"shape": shape}, (inner,)),)


@rule("transpose")
def transpose_is_reshape(m: Match) -> Sequence[Value] | None:
    """``transpose(x, p) -> reshape(x, …)`` when only axes of size 1 change places."""
    x, perm = _only(m), m.node.attr("perm")
    assert isinstance(perm, tuple), "perm is a tuple"
    moving = [k for k in perm if isinstance(k, int) and x.type.shape[k] != 1]
    if moving != sorted(moving):
        return None
    return (m.add("reshape", (x,), {"shape": m.node.output.type.shape}),)


@rule("expand", "cast", "concat", "slice", "pad")
def same_type_movement(m: Match) -> Sequence[Value] | None:
    """``expand(x) -> x``, ``cast(x) -> x``, ``concat(x) -> x``, … when nothing changes."""
    x = _only(m)
    single = len(m.node.inputs) == 1 or m.node.op == "expand"
    if not single or x.type != m.node.output.type:
        return None
    if m.node.op == "slice" and any(s != 1 for s in _ints(m, "steps")):
        return None
    if m.node.op == "pad" and any(_ints(m, "pads")):
        return None
    return (x,)


def _ints(m: Match, name: str) -> tuple[object, ...]:
    value = m.node.attr_map.get(name, ())
    return value if isinstance(value, tuple) else ()


@rule("relu")
def relu_twice(m: Match) -> Sequence[Value] | None:
    """``relu(relu(x)) -> relu(x)``."""
    return (_only(m),) if m.producer(m.input(0), "relu") else None


def _neutral(m: Match, number: float) -> bool:
    """Whether the right operand is a constant full of `number` that does not widen the left."""
    c, x = m.constant(m.input(1)), m.input(0)
    if c is None or x is None or x.type != m.node.output.type or c.size == 0:
        return False
    return c.size <= 1 << 16 and bool(np.all(c.array == number))


@rule("mul", "div")
def times_one(m: Match) -> Sequence[Value] | None:
    """``x * 1 -> x``, ``x / 1 -> x`` (exact, also for NaN and -0)."""
    return (_only(m),) if _neutral(m, 1) else None


@rule("add", "sub")
def integer_plus_zero(m: Match) -> Sequence[Value] | None:
    """``x + 0 -> x``, ``x - 0 -> x`` on integers (on floats, -0 + 0 is +0)."""
    if m.node.output.type.dtype.is_float:
        return None
    return (_only(m),) if _neutral(m, 0) else None


@rule("pow")
def small_power(m: Match) -> Sequence[Value] | None:
    """``x ** 1 -> x``, ``x ** 2 -> x * x``, ``x ** 3 -> x * x * x`` on floats: within one more
    rounding (integers overflow in their own way)."""
    x = _only(m)
    if not x.type.dtype.is_float:
        return None
    for exponent in (1, 2, 3):
        if _neutral(m, exponent):
            value = x
            for _ in range(exponent - 1):
                value = m.add("mul", (value, x))
            return (value,)
    return None


RULES: tuple[Rule, ...] = (
    transpose_identity, transpose_twice, transpose_is_reshape, reshape_identity, reshape_twice,
    same_type_movement, relu_twice, times_one, integer_plus_zero,
    small_power,
)  # fmt: skip
