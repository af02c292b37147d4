"""The outermost loops of costly nests are divided among threads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod

from aisc.ir.tensor.expr import Const
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.linear import mentions
from aisc.ir.tensor.stmt import Alloc, Block, For, Seq, Stmt
from aisc.ir.tensor.tree import find_loop, find_place, places, statements
from aisc.passes.analysis.cost import work
from aisc.passes.schedule.dependence import private_to
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.schedule import Schedule

# What a symbolic extent counts for when a nest is judged worth dividing.
UNKNOWN_EXTENT = 256
# Iterations for each core that suffice to give all of them almost the same.
BALANCE = 16
# Iterations that stay together on one thread.
GRAINS = (1, 4, 16)


def divide(s: Schedule, name: str, known: Sequence[str], d: Chooser) -> Schedule:
    """Fuse the leading spatial loops of a costly nest and divide them among threads. `known` are
    the blocks from which its blocks were derived: one of them names the decision."""
    top = find_loop(s.func, name)
    if top.kind != "serial":
        return s
    spatial = spatial_chain(top, BALANCE * d.target.cores)
    if not spatial:
        return s
    block = _root(top, known)
    own = _shared(spatial) if is_costly(top, d) else 0
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


def is_costly(nest: For, d: Chooser) -> bool:
    """Whether a nest is worth dividing."""
    return work(nest, UNKNOWN_EXTENT) >= d.target.costs.parallel_work


def _shared(chain: Sequence[For]) -> int:
    """How many loops of a chain are divided: all, but for the innermost one where each thread has
    memory that its iterations use one after the other, and that stays in cache so."""
    inner = statements(chain[-1].body)
    kept = any(isinstance(n, Alloc) and n.buffer.space == "thread" for n in inner)
    return len(chain) - int(kept and len(chain) > 1)


def nests_apart(s: Schedule, blocks: Sequence[str], depth: int) -> Schedule:
    """Nests of their own for blocks that follow each other, out of the `depth` loops around."""
    for level in reversed(range(depth)):
        for block in blocks[:-1]:
            loop = find_place(s.func, block).loops[level]
            if isinstance(loop.body, Seq):
                s = s.fission(loop.var.name, block)
    return s


def are_few(loops: Sequence[For], d: Chooser) -> bool:
    """Whether loops have too few iterations to be divided evenly, as far as that is known."""
    known = [int(f.extent.value) for f in loops if isinstance(f.extent, Const)]
    return prod(known) < BALANCE * d.target.cores


def _together(loop: str, grain: int, s: Schedule) -> Schedule:
    s = s.split(loop, grain, names=(f"{loop}_g", f"{loop}_e"))
    return s.parallel(f"{loop}_g")


def _root(nest: For, known: Sequence[str]) -> str:
    """The block from which the last block of a nest was derived: the nest makes its result."""
    last = [p.block.name for p in places(nest)][-1]
    roots = [n for n in known if last == n or last.startswith(f"{n}_")]
    return max(roots, key=len, default=last)


def spatial_chain(top: For, enough: int) -> list[For]:
    """The leading perfectly nested loops that only spatial iterators of every block use; not the
    loop over vectors where those around it have `enough` iterations, so that a row stays a loop
    of its own, whose last turn alone needs masks."""
    found: list[For] = []
    node: Stmt = top
    while isinstance(node, For) and node.kind == "serial" and len(found) < 4:
        private = private_to(node.body)
        if not all(_spatial_in(p.block, node, private) for p in places(node)):
            break
        found.append(node)
        node = node.body
    if found and any(isinstance(n, Alloc) for n in statements(found[-1].body)):
        return found
    return found[:-1] if len(found) > 1 and _is_short(found, enough) else found


def _is_short(chain: list[For], enough: int) -> bool:
    """Whether an iteration of the innermost loop is too little work to find its place: one
    element, or one vector where sizes must be divided at run time or there are enough rows."""
    body = chain[-1].body
    if isinstance(body, For):
        if body.kind != "vectorize" or any(p.block.combiner for p in places(body)):
            return False
        if any(not isinstance(f.extent, Const) for f in chain[1:]):
            return True
        outer = [int(f.extent.value) for f in chain[:-1] if isinstance(f.extent, Const)]
        return len(outer) == len(chain) - 1 and prod(outer) >= enough
    return not any(isinstance(n, For) for n in statements(body))


def _spatial_in(block: Block, loop: For, private: frozenset[Buffer]) -> bool:
    """Whether a loop only chooses among results of a block, or each iteration has its own."""
    kinds = {
        it.kind
        for it, value in zip(block.iters, block.bindings, strict=True)
        if mentions(value, loop.var)
    }
    return kinds == {"spatial"} or (not kinds and {w.buffer for w in block.writes} <= private)
