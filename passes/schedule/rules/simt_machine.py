"""What the rules for SIMT machines take from a description, and how they divide loops."""

from __future__ import annotations

from collections.abc import Sequence

from aisc.ir.dtypes import DType
from aisc.ir.node import walk
from aisc.ir.target import Target
from aisc.ir.tensor.expr import Load, Select, variables
from aisc.ir.tensor.stmt import For, ForKind, Store
from aisc.ir.tensor.tree import Place, indexer, linear_address
from aisc.ir.tensor.visitor import substitute
from aisc.passes.schedule.schedule import Schedule

GRID: tuple[ForKind, ...] = ("block.x", "block.y", "block.z")


def warp_of(target: Target) -> int:
    """Threads that run together."""
    return int(target.limits.get("warp", 1))


def most_threads(target: Target) -> int:
    """Threads of a block, at most."""
    return int(target.limits.get("threads_per_block", warp_of(target)))


def lanes_of(target: Target, dtype: DType) -> int:
    """Elements that a thread reads or writes at a time."""
    return max(1, target.vector_bits // (8 * dtype.bytes))


def over_blocks(s: Schedule, loops: Sequence[str]) -> Schedule:
    """The outermost loops of a nest, from outside to inside, to blocks: the last one along x, the
    one before along y, those before that together along z."""
    names = list(loops)
    while len(names) > len(GRID):
        first, second = names[:2]
        s = s.fuse(first, second, name=f"{first}_z")
        names[:2] = [f"{first}_z"]
    for name, axis in zip(names, reversed(GRID[: len(names)]), strict=True):
        s = s.bind(name, axis)
    return s


def side_by_side(place: Place, loop: For) -> bool:
    """Whether all that a nest reads and writes lies next to one another along a loop, or is the
    same; and no condition depends on it."""
    block = place.block
    values = dict(zip((it.var for it in block.iters), block.bindings, strict=True))
    index = indexer(place.loops)
    for n in walk(substitute(block.body, values)):
        if isinstance(n, Load | Store):
            step = linear_address(n.buffer, n.indices, index).coeff(loop.var)
            if step not in (0, 1):
                return False
        elif isinstance(n, Select) and loop.var in variables(n.cond):
            return False
    return loop.var not in variables(place.predicate)
