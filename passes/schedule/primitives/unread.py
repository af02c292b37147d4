"""The primitive that leaves out what nothing reads."""

from __future__ import annotations

from aisc.ir.diagnostics import error
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import Seq
from aisc.ir.tensor.tree import find_place, places, replace_stmt
from aisc.passes.schedule.dependence import accesses_of, private_to
from aisc.passes.schedule.legality import conflicts, require_apart
from aisc.passes.schedule.primitives.blocks import nest_of
from aisc.passes.schedule.schedule import primitive


@primitive()
def remove_unread(func: Func, block: str) -> Func:
    """Leave out a block whose results no other block reads.

    before: ``for v in 0..2: a[v] = f(v);  for w in 2..3: a[w] = f(w);  for v in 0..2: y[v] = a[v]``
    after ``remove_unread`` of the second block: without it
    Legal when it writes private buffers alone, and no element of them that another block reads.
    """
    place, step = find_place(func, block), f"remove_unread({block})"
    nest = nest_of(func, place)
    written = {r.buffer for r in place.block.writes}
    private = private_to(func.body)
    if not all(b in private or b.role == "scratch" for b in written):
        raise error("E302", f"{step}: it writes what others may read", "expected private buffers")
    if len(list(places(nest))) != 1:
        raise error("E302", f"{step}: its loops are around other blocks too", "fission first")
    own = [a for a in accesses_of(place) if a.write]
    for other in places(func.body):
        if other.block.name != block and written & {r.buffer for r in other.block.reads}:
            reads = [a for a in accesses_of(other) if not a.write]
            remedy = f"block {other.block.name} needs it"
            require_apart(func, conflicts(own, reads), (), lambda a, b: [], step, remedy)
    return replace_stmt(func, nest, Seq(()))
