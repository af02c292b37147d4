"""A rough count of scalar operations, to decide what is worth more than one thread."""

from __future__ import annotations

from aisc.ir.node import walk
from aisc.ir.tensor.expr import Binary, Const
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


def operations(stmt: Stmt, unknown: int) -> int:
    """Scalar operations of a scheduled statement; symbolic extents count as `unknown`."""
    total = 0
    for place in places(stmt):
        work = _per_point(place.block)
        for f in place.loops:
            work *= int(f.extent.value) if isinstance(f.extent, Const) else unknown
        total += work
    return total
