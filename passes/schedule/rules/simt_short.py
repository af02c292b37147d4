"""Short rows on a SIMT machine: each thread has some of its own.

A thread computes all of its rows, a softmax over a few classes, say, or the sum over a window; what
it keeps between the nests of a row stays in registers. Where rows are single elements that lie side
by side, as channels of an image do, a thread has as many of them as are accessed at a time.
"""

from __future__ import annotations

from math import gcd

from aisc.ir.tensor.tree import extent_of, find_loop, find_place, places
from aisc.passes.schedule.kinds import MAX_UNROLL
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.epilogue import result_of, through_private
from aisc.passes.schedule.rules.simt_machine import over_blocks, side_by_side
from aisc.passes.schedule.rules.simt_maps import flat, spatial_loops, threads_of, together
from aisc.passes.schedule.rules.simt_nests import kept, merged, reduce_loops
from aisc.passes.schedule.schedule import Schedule


def simt_short_rows(s: Schedule, group: list[str], count: int, d: Chooser) -> Schedule:
    """Schedule blocks that share `count` loops over short rows as one launch."""
    s, group = _through_registers(s, group)
    loops = [[f.var.name for f in spatial_loops(find_place(s.func, n))[:count]] for n in group]
    s, lanes = _lanes(s, group, loops, d)
    s, rows = merged(s, loops)
    s, names = flat(s, rows) if len(rows) > 1 else (s, rows)
    loop = names[-1]
    s = s.split(loop, threads_of(group[0], d), names=(f"{loop}_b", f"{loop}_t"))
    blocks = [*names[:-1], f"{loop}_b"]
    s = over_blocks(kept(s, blocks, "register"), blocks).bind(f"{loop}_t", "thread.x")
    for name, lane in zip(group, lanes, strict=False):
        if side_by_side(find_place(s.func, name), find_loop(s.func, lane)):
            s = s.vectorize(lane)
    return _unrolled(s, f"{loop}_t")


def _through_registers(s: Schedule, group: list[str]) -> tuple[Schedule, list[str]]:
    """Sums that others see are computed in registers first."""
    found: list[str] = []
    for name in group:
        found.append(name)
        if find_place(s.func, name).block.combiner and result_of(s, name).role != "scratch":
            s, copy = through_private(s, name, "global")
            found.append(copy)
    return s, found


def _lanes(
    s: Schedule, group: list[str], loops: list[list[str]], d: Chooser
) -> tuple[Schedule, list[str]]:
    """Rows that are single elements, as many at a time as are accessed at a time: a loop of its own
    inside of each nest. The last of `loops` are exchanged for those over the pieces."""
    found = [find_place(s.func, name) for name in group]
    if any(len(spatial_loops(p)) != len(own) for p, own in zip(found, loops, strict=True)):
        return s, []
    last = [find_loop(s.func, own[-1]) for own in loops]
    wide = gcd(*(together(p, f.var, d) for p, f in zip(found, last, strict=True)))
    if wide < 2:
        return s, []
    lanes = []
    for name, own in zip(group, loops, strict=True):
        piece, lane = f"{own[-1]}_p", f"{own[-1]}_l"
        s = s.split(own[-1], wide, names=(piece, lane))
        own[-1] = piece
        inner = [f.var.name for f in find_place(s.func, name).loops]
        if inner[-1] != lane:
            s = s.reorder(*inner[inner.index(lane) + 1 :], lane)
        lanes.append(lane)
    return s, lanes


def _unrolled(s: Schedule, row: str) -> Schedule:
    """What a thread does in a row: a sum starts before its loops; those over little are unrolled,
    from the inside."""
    for place in places(find_loop(s.func, row)):
        loops = reduce_loops(place)
        if loops:
            s = s.decompose_reduction(place.block.name, loops[0].var.name)
    for name in [p.block.name for p in places(find_loop(s.func, row))]:
        left = MAX_UNROLL
        around = find_place(s.func, name).loops
        inner = around[[f.var.name for f in around].index(row) + 1 :]
        for f in reversed(inner):
            left //= extent_of(f) or MAX_UNROLL + 1
            if left > 0 and f.kind == "serial":
                s = s.unroll(f.var.name)
    return s
