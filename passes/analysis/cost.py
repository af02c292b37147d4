"""A rough count of scalar operations, to decide what is worth more than one thread."""

from __future__ import annotations

from aisc.ir.node import walk
from aisc.ir.tensor.expr import Const
from aisc.ir.tensor.stmt import Stmt
from aisc.passes.schedule.tree import places

# A kernel below this many scalar operations (some 15 microseconds of vector code) runs on one
# thread: waking another costs as much.
PARALLEL_OPERATIONS = 1 << 20


def operations(stmt: Stmt, unknown: int) -> int:
    """Scalar operations of a scheduled statement; symbolic extents count as `unknown`."""
    total = 0
    for place in places(stmt):
        work = sum(1 for _ in walk(place.block.body)) // 4 + 1
        for f in place.loops:
            work *= int(f.extent.value) if isinstance(f.extent, Const) else unknown
        total += work
    return total
