"""The primitive that leaves out what nothing reads."""

from __future__ import annotations

from aisc.ir.diagnostics import error
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import Seq
from aisc.ir.tensor.tree import find_place, indexer, places, replace_stmt
from aisc.passes.schedule.dependence import Access, accesses_of, private_to
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
            pairs = [(a, b) for a, b in conflicts(own, reads) if not _is_apart(func, a, b)]
            require_apart(
                func, pairs, (), lambda a, b: [], step, f"block {other.block.name} needs it"
            )
    return replace_stmt(func, nest, Seq(()))


def _is_apart(func: Func, a: Access, b: Access) -> bool:
    """Whether the ranges of one axis tell that two accesses never meet, without integer sets."""
    pairs = zip(_ranges(func, a), _ranges(func, b), strict=True)
    return any(x[1] < y[0] or y[1] < x[0] for x, y in pairs)


def _ranges(func: Func, access: Access) -> list[tuple[float, float]]:
    """The least and the greatest index along each axis."""
    index = indexer(access.place.loops, func.dims)
    return [index.bounds(low) for low in access.low]
