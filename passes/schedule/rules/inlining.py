"""Maps are inlined into what reads them: among maps, the first step of every schedule."""

from __future__ import annotations

from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import Block, Store
from aisc.ir.tensor.tree import Place, places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.structure import has_calls
from aisc.passes.schedule.schedule import Schedule, unless_refused


def inline_maps(s: Schedule, d: Chooser) -> Schedule:
    """Inline every map whose readers are all maps, unless it would repeat costly work, or what it
    reads is written between it and a reader."""
    refused: set[str] = set()
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
    if not readers or any(r.combiner for r in readers):
        return False
    return not has_calls(block) or (len(readers) == 1 and _same_size(block, readers[0]))


def _same_size(a: Block, b: Block) -> bool:
    return [it.extent for it in a.iters] == [it.extent for it in b.iters]
