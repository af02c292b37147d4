"""Maps are inlined into what reads them: among maps, the first step of every schedule."""

from __future__ import annotations

from aisc.ir.node import walk
from aisc.ir.tensor.expr import ONE, Cast, Load
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import Block, Store
from aisc.ir.tensor.tree import Place, places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.structure import analyse, has_calls
from aisc.passes.schedule.schedule import Schedule, unless_refused


def inline_maps(s: Schedule, d: Chooser, kept: frozenset[str] = frozenset()) -> Schedule:
    """Inline every map whose readers are all maps, unless it would repeat costly work, or what it
    reads is written between it and a reader, or it is to be `kept`."""
    refused = set(kept)
    while True:
        for place in places(s.func.body):
            name = place.block.name
            if name in refused or not _inlinable(s.func, place):
                continue
            after = inline_where_legal(s, name)
            if after is not s and d.pick(f"{name}.inline", (True, False), True):
                s = after
                break
            refused.add(name)
        else:
            return s


def inline_where_legal(s: Schedule, block: str) -> Schedule:
    """Inline one map, unless that is refused."""
    return unless_refused(s, lambda before: before.inline(block))


def _inlinable(func: Func, place: Place) -> bool:
    block, store = place.block, place.block.body
    if block.init is not None or block.combiner or not isinstance(store, Store):
        return False
    if any(it.kind == "ordered" for it in block.iters):
        return False
    if store.buffer.role != "scratch" or store.indices != tuple(it.var for it in block.iters):
        return False
    blocks = [p.block for p in places(func.body)]
    readers = [b for b in blocks if store.buffer in {r.buffer for r in b.reads}]
    if any(b is not block and store.buffer in {r.buffer for r in b.writes} for b in blocks):
        return False
    if not readers:
        return False
    if _counts_places(block) and not all(_same_size(block, r) for r in readers):
        return False
    if block.iters and _is_read_in_parts(block, readers) and _follows_reduction(block, blocks):
        return False
    if any(r.combiner for r in readers):
        return len(readers) == 1 and _is_read_once(block, readers[0])
    if not has_calls(block):
        return True
    in_order = any(it.kind == "ordered" for r in readers for it in r.iters)  # so without lanes
    return len(readers) == 1 and not in_order and _same_size(block, readers[0])


def _counts_places(block: Block) -> bool:
    """Whether a map turns integers of its places alone into floats: it is a table of few numbers,
    while vectors of such are computed one after the other."""
    casts = [n for n in walk(block.body) if isinstance(n, Cast) and n.dtype.is_float]
    loads = any(isinstance(n, Load) for n in walk(block.body))
    return len(block.iters) == 1 and not loads and any(not n.a.dtype.is_float for n in casts)


def _is_read_in_parts(block: Block, readers: list[Block]) -> bool:
    """Whether readers have fewer columns than a map: its vectors are computed once, where the
    reduction before it stores its own."""
    return any(r.iters and r.iters[-1].extent != block.iters[-1].extent for r in readers)


def _follows_reduction(block: Block, blocks: list[Block]) -> bool:
    made = {w.buffer for b in blocks if b.combiner for w in b.writes}
    return bool(made & {r.buffer for r in block.reads})


def _same_size(a: Block, b: Block) -> bool:
    return [it.extent for it in a.iters] == [it.extent for it in b.iters]


def _is_read_once(block: Block, reader: Block) -> bool:
    """Whether a reduction has a point for each of the map's, and computes nothing but their sum,
    maximum or the like."""
    points = [sorted(str(it.extent) for it in b.iters if it.extent != ONE) for b in (block, reader)]
    found = analyse(reader)
    return points[0] == points[1] and (found is None or not found.contraction)
