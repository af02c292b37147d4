"""Scans: what goes on from step to step for every row, with vectors of the rows beside each other.

A running total along an axis is computed for all that lies behind it at once; the axes behind are
one where all that is read and written passes through them as one.
"""

from __future__ import annotations

from collections.abc import Iterator

from aisc.ir.node import walk
from aisc.ir.tensor.expr import ONE, Const, Expr, Load, Select, Var, of_dim
from aisc.ir.tensor.linear import mentions, operands
from aisc.ir.tensor.stmt import Block, Iter, Store
from aisc.ir.tensor.tree import Place, find_loop
from aisc.passes.schedule.rules.across import keep_totals
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.plain import SHORT_ROW, cut
from aisc.passes.schedule.rules.structure import is_straight, lanes_of
from aisc.passes.schedule.schedule import Schedule


def is_scan(block: Block) -> bool:
    """Whether a block has steps that follow each other, each of which does the same."""
    return any(it.kind == "ordered" for it in block.iters) and is_straight(block)


def vectorize_scan(s: Schedule, place: Place, d: Chooser) -> Schedule:
    """Vectors along the last axes of a scan, whose totals are then kept in registers."""
    block = place.block
    spatial = [
        value.name
        for it, value in zip(block.iters, block.bindings, strict=True)
        if it.kind == "spatial" and isinstance(value, Var)
    ]
    if not spatial or len(spatial) != sum(it.kind == "spatial" for it in block.iters):
        return s
    if block.combiner or block.iters[-1].kind == "ordered":
        # What follows each other lies together: no lanes.
        return s if block.combiner else keep_totals(s, block, d)
    flat = _static_suffix(block, spatial[-_joint_axes(block) :], lanes_of(block, d.target))
    flat = _longer(block, spatial, flat)
    joint = d.pick(f"{block.name}.joint", range(1, len(flat) + 1), len(flat))
    flat = flat[len(flat) - joint :]
    last = flat[0]
    for k, name in enumerate(flat[1:]):
        s = s.fuse(last, name, name=f"{flat[0]}_f{k}")
        last = f"{flat[0]}_f{k}"
    loop = find_loop(s.func, last)
    size = int(loop.extent.value) if isinstance(loop.extent, Const) else None
    return keep_totals(cut(s, block, last, size, (), d), block, d)


def _static_suffix(block: Block, spatial: list[str], lanes: int) -> list[str]:
    """The innermost of the last `spatial` loops whose fused index needs no division at run time:
    those of constant extent, and one symbolic loop around them where they are short."""
    extents = [it.extent for it in block.iters if it.kind == "spatial"][-len(spatial) :]
    first, size = len(spatial), 1
    while first > 0:
        extent = extents[first - 1]
        if not isinstance(extent, Const):
            break
        first, size = first - 1, size * int(extent.value)
    if first > 0 and size < SHORT_ROW * lanes:
        first -= 1
    return spatial[first:]


def _longer(block: Block, spatial: list[str], flat: list[str]) -> list[str]:
    """The loops to cut, or the one before them where they have one turn between them: what is
    before an axis of one element lies together, too."""
    extents = [it.extent for it in block.iters if it.kind == "spatial"]
    first = len(spatial) - len(flat)
    while first > 0 and all(d == ONE for d in extents[first:]):
        first, flat = first - 1, [spatial[first - 1]]
    return flat


def _joint_axes(block: Block) -> int:
    """How many of a map's last axes are one stretch in all that it reads and writes: each access
    has them at its end, with their whole sizes, or lacks them."""
    iters = [it for it in block.iters if it.kind == "spatial"]
    accesses = [n for n in walk(block.body) if isinstance(n, Load | Store)]
    conditions = {v for n in walk(block.body) if isinstance(n, Select) for v in _places_in(n.cond)}
    joint = 1
    while joint < len(iters):
        ending = iters[-joint - 1 :]
        if any(it.var in conditions for it in ending):
            break
        if not all(_is_joint(n, ending) for n in accesses):
            break
        joint += 1
    return joint


def _places_in(cond: Expr) -> Iterator[Var]:
    """Iterators on whose value, and not on what is read there, a condition depends."""
    if isinstance(cond, Var):
        yield cond
    elif not isinstance(cond, Load):
        for a in operands(cond):
            yield from _places_in(a)


def _is_joint(access: Load | Store, ending: list[Iter]) -> bool:
    at, count = access.indices, len(ending)
    if not any(mentions(i, it.var) for i in at for it in ending):
        return True
    inner = at[:-count]
    return (
        at[-count:] == tuple(it.var for it in ending)
        and not any(mentions(i, it.var) for i in inner for it in ending)
        and [of_dim(d) for d in access.buffer.shape[-count + 1 :]]
        == [it.extent for it in ending[1:]]
    )
