"""Which functions can fail at run time: integer division, and indices that come from data."""

from __future__ import annotations

from aisc.ir.node import Node, walk
from aisc.ir.tensor.expr import Binary, Const, Expr, Load
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import Store

DIVISIONS = ("floordiv", "mod", "truncdiv", "truncmod")


def from_data(expr: Expr) -> bool:
    """Whether an index depends on the contents of a buffer."""
    return any(isinstance(n, Load) for n in walk(expr))


def can_fail(func: Func) -> bool:
    """Whether the code of `func` may have to report an error."""
    return any(_fails(n) for n in walk(func.body))


def _fails(n: Node) -> bool:
    if isinstance(n, Load | Store):
        return any(from_data(i) for i in n.indices)
    if isinstance(n, Binary) and n.op in DIVISIONS and not n.a.dtype.is_float:
        return from_data(n) and not (isinstance(n.b, Const) and n.b.value != 0)
    return False
