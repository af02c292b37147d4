"""A rough count of scalar operations, to decide what is worth more than one thread."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

from aisc.ir.node import walk
from aisc.ir.tensor.expr import Binary, Const, Expr
from aisc.ir.tensor.stmt import Block, Stmt, Store
from aisc.passes.schedule.tree import places

# A kernel below this many scalar operations (some 15 microseconds of vector code) runs on one
# thread: waking another costs as much.
PARALLEL_OPERATIONS = 1 << 20


def _per_point(block: Block) -> int:
    """Operations of one execution of a block; a multiply-add of a sum counts as two, since its
    operands are in registers when it matters."""
    body = block.body
    if block.combiner == "sum" and isinstance(body, Store) and isinstance(body.value, Binary):
        parts = body.value.a, body.value.b
        if any(isinstance(p, Binary) and p.op == "mul" for p in parts):
            return 2
    return sum(1 for _ in walk(body)) // 4 + 1


_FOLD: Mapping[str, Callable[[int, int], int]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "min": min, "max": max,
    "floordiv": lambda a, b: a // b if b else 0, "mod": lambda a, b: a % b if b else 0,
}  # fmt: skip


def _extent(e: Expr, unknown: int) -> int:
    """An extent where every symbolic dimension is `unknown`."""
    if isinstance(e, Const):
        return int(e.value)
    if isinstance(e, Binary) and e.op in _FOLD:
        return _FOLD[e.op](_extent(e.a, unknown), _extent(e.b, unknown))
    return unknown


def operations(stmt: Stmt, unknown: int) -> int:
    """Scalar operations of a scheduled statement; symbolic dimensions count as `unknown`."""
    total = 0
    for place in places(stmt):
        work = _per_point(place.block)
        for f in place.loops:
            work *= _extent(f.extent, unknown)
        total += work
    return total
