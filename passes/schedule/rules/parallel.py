"""The outermost loops of costly nests are divided among threads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from aisc.ir.node import walk
from aisc.ir.tensor.expr import Const
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.linear import mentions
from aisc.ir.tensor.stmt import Alloc, Block, For, Stmt
from aisc.ir.tensor.tree import find_loop, places
from aisc.passes.analysis.cost import work
from aisc.passes.schedule.dependence import private_to
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.schedule import Schedule

# What a symbolic extent counts for when a nest is judged worth dividing.
UNKNOWN_EXTENT = 256
# Iterations that stay together on one thread.
GRAINS = (1, 4, 16)


def divide(s: Schedule, name: str, known: Sequence[str], d: Chooser) -> Schedule:
    """Fuse the leading spatial loops of a costly nest and divide them among threads. `known` are
    the blocks from which its blocks were derived: one of them names the decision."""
    top = find_loop(s.func, name)
    if top.kind != "serial":
        return s
    spatial = _spatial_chain(top)
    if not spatial:
        return s
    block = _root(top, known)
    costly = work(top, UNKNOWN_EXTENT) >= d.target.costs.parallel_work
    own = _shared(spatial) if costly else 0
    count = min(d.pick(f"{block}.divided", range(len(spatial) + 1), own), len(spatial))
    if count == 0:
        return s
    fused = spatial[0].var.name
    for k, loop in enumerate(spatial[1:count]):
        new = f"{name}_p{k}"
        s = s.fuse(fused, loop.var.name, name=new)
        fused = new
    grain = d.pick(f"{block}.grain", GRAINS, 1)
    together = s if grain == 1 else d.attempt(s, partial(_together, fused, grain))
    return s.parallel(fused) if together is s else together


def _shared(chain: Sequence[For]) -> int:
    """How many loops of a chain are divided: all, but for the innermost one where each thread has
    memory that its iterations use one after the other, and that stays in cache so."""
    inner = walk(chain[-1].body)
    kept = any(isinstance(n, Alloc) and n.buffer.space == "thread" for n in inner)
    return len(chain) - int(kept and len(chain) > 1)


def _together(loop: str, grain: int, s: Schedule) -> Schedule:
    s = s.split(loop, grain, names=(f"{loop}_g", f"{loop}_e"))
    return s.parallel(f"{loop}_g")


def _root(nest: For, known: Sequence[str]) -> str:
    """The block from which the last block of a nest was derived: the nest makes its result."""
    last = [p.block.name for p in places(nest)][-1]
    roots = [n for n in known if last == n or last.startswith(f"{n}_")]
    return max(roots, key=len, default=last)


def _spatial_chain(top: For) -> list[For]:
    """The leading perfectly nested loops that only spatial iterators of every block use."""
    found: list[For] = []
    node: Stmt = top
    while isinstance(node, For) and node.kind == "serial" and len(found) < 4:
        private = private_to(node.body)
        if not all(_spatial_in(p.block, node, private) for p in places(node)):
            break
        found.append(node)
        node = node.body
    if found and any(isinstance(n, Alloc) for n in walk(found[-1].body)):
        return found
    return found[:-1] if len(found) > 1 and _is_short(found) else found


def _is_short(chain: list[For]) -> bool:
    """Whether an iteration of the innermost loop is too little work to find its place: one
    element, or one vector where sizes must be divided at run time."""
    body = chain[-1].body
    if not isinstance(body, For):
        return True
    divided = any(not isinstance(f.extent, Const) for f in chain[1:])
    return divided and body.kind == "vectorize"


def _spatial_in(block: Block, loop: For, private: frozenset[Buffer]) -> bool:
    """Whether a loop only chooses among results of a block, or each iteration has its own."""
    kinds = {
        it.kind
        for it, value in zip(block.iters, block.bindings, strict=True)
        if mentions(value, loop.var)
    }
    return kinds == {"spatial"} or (not kinds and {w.buffer for w in block.writes} <= private)
