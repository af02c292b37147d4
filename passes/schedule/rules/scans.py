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
from aisc.ir.tensor.tree import Place, find_loop, find_place
from aisc.passes.schedule.rules.across import keep_totals
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.plain import SHORT_ROW, cut
from aisc.passes.schedule.rules.structure import is_straight, lanes_of
from aisc.passes.schedule.schedule import Schedule

# Rows that are worked on at once, where there are no vectors, best first.
AT_ONCE = (4, 5, 6, 7, 3, 2)


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
        return s if block.combiner else keep_totals(_side_by_side(s, block, (), d), block, d)
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
    whole = s
    s = cut(s, block, last, size, (), d)
    if s is whole:
        s = _side_by_side(s, block, (last,), d)
    return keep_totals(s, block, d)


def _side_by_side(s: Schedule, block: Block, columns: tuple[str, ...], d: Chooser) -> Schedule:
    """Several rows at a time, and all of their few `columns`, as totals in registers: each waits
    for its own last step only."""
    kinds = dict(zip(block.bindings, (it.kind for it in block.iters), strict=True))
    loops = find_place(s.func, block.name).loops
    first = next(k for k, f in enumerate(loops) if kinds.get(f.var) == "ordered")
    around = [f for f in loops[:first] if f.extent != ONE]
    row = around[-1] if around else None
    count = int(row.extent.value) if row and isinstance(row.extent, Const) else 0
    options = [n for n in AT_ONCE if n <= count]
    whole = (n for n in options if count % n == 0)  # no row is asked whether it is there
    own = next(whole, options[0]) if options else 1
    rows = d.pick(f"{block.name}.rows_at_once", (1, *options), own)
    inner = list(columns)
    if row is not None and rows > 1:
        names = (f"{row.var.name}_t", f"{row.var.name}_r")
        s = s.split(row.var.name, rows, names=names)
        behind = loops[loops.index(row) + 1 :]
        s = s.reorder(*(f.var.name for f in behind if f.var.name not in columns), names[1])
        inner.insert(0, names[1])
    for loop in inner:
        s = s.unroll(loop)
    return s


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
