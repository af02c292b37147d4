"""Nests that become one launch of a SIMT machine: their loops are merged, and what they hand on
stays near."""

from __future__ import annotations

from collections.abc import Callable

from aisc.ir.tensor.linear import mentions
from aisc.ir.tensor.stmt import Alloc, For
from aisc.ir.tensor.tree import Place, statements
from aisc.passes.schedule.schedule import Schedule, unless_refused


def reduce_loops(place: Place) -> list[For]:
    """The loops of what is reduced."""
    block = place.block
    values = [v for it, v in zip(block.iters, block.bindings, strict=True) if it.kind == "reduce"]
    return [f for f in place.loops if any(mentions(v, f.var) for v in values)]


def merged(s: Schedule, loops: list[list[str]]) -> tuple[Schedule, list[str]]:
    """The loops over rows of several nests as those of the first."""
    first = loops[0]
    for others in loops[1:]:
        for a, b in zip(first, others, strict=True):
            s = s.fuse_loops(a, b)
    return s, list(first)


def kept(s: Schedule, rows: list[str], space: str) -> Schedule:
    """What nothing outside of the innermost of these loops reads is kept in a memory, if its size
    is known and that is legal."""
    declared = [n.buffer for n in statements(s.func.body) if isinstance(n, Alloc)]
    for b in declared:
        if b.space == "global" and all(isinstance(x, int) for x in b.shape[len(rows) :]):
            s = unless_refused(s, _placed(b.name, space, rows[-1]))
    return s


def _placed(name: str, space: str, loop: str) -> Callable[[Schedule], Schedule]:
    return lambda s: s.set_scope(name, space, loop)
