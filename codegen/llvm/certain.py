"""What is evaluated wherever an expression is, and what only under conditions of its own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from aisc.ir.node import walk
from aisc.ir.tensor.expr import WITHIN, Binary, Call, Expr, Load, Select
from aisc.ir.tensor.linear import operands


@lru_cache(maxsize=256)
def conditional(value: Expr) -> bool:
    """Whether parts of an expression are evaluated under conditions of its own."""
    return any(isinstance(n, Select) for n in walk(value))


@lru_cache(maxsize=256)
def certain_loads(value: Expr) -> tuple[Load, ...]:
    """Loads of an expression outside of the arms of its selects (and of indices), each once."""
    return tuple(dict.fromkeys(_certain(value)))


def _certain(e: Expr) -> Iterator[Load]:
    if isinstance(e, Load):
        yield e
    elif isinstance(e, Select):
        yield from _certain(e.cond)
    else:
        for a in operands(e):
            yield from _certain(a)


def is_certain(e: Expr, loads: frozenset[Load]) -> bool:
    """Whether an expression is made of `loads` alone and cannot fail."""
    if isinstance(e, Load):
        return e in loads
    if isinstance(e, Call) and e.name == WITHIN:
        return False
    divides = isinstance(e, Binary) and e.op in ("floordiv", "mod", "truncdiv", "truncmod", "div")
    return (e.dtype.is_float or not divides) and all(is_certain(a, loads) for a in operands(e))
