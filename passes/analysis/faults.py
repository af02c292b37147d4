"""Which code can fail at run time: integer division, and indices and
sizes that come from data."""

from __future__ import annotations

from aisc.ir.node import Node
from aisc.ir.tensor.expr import WITHIN, Binary, Call, Const, Load, has_loads, is_tested
from aisc.ir.tensor.stmt import Stmt, Store
from aisc.ir.tensor.visitor import walk_accesses

DIVISIONS = ("floordiv", "mod", "truncdiv", "truncmod")


def can_fail(body: Stmt) -> bool:
    """Whether the code of a statement may have to report an error."""
    return any(_fails(n) for n in walk_accesses(body))  # without loads nothing fails


def _fails(n: Node) -> bool:
    if isinstance(n, Load | Store):
        return any(map(is_tested, n.indices))
    if isinstance(n, Call):
        return n.name == WITHIN
    if isinstance(n, Binary) and n.op in DIVISIONS and not n.a.dtype.is_float:
        return has_loads(n) and not (isinstance(n.b, Const) and n.b.value != 0)
    return False
