"""Reductions on a SIMT machine: a row for a block, or lanes of results for the threads of one.

Reductions and maps over the same rows are one launch. A row is walked over by the threads of a
block, or by a warp where rows are not long: each thread reduces what it meets, and what threads
have is combined in shared memory by a tree, in an order that depends on nothing but its size. What
a row keeps between its nests stays in shared memory.

Reductions over an axis that is not the last in memory have a thread for each of some neighbouring
results, and the rows of threads divide the reduction.
"""

from __future__ import annotations

from aisc.ir.diagnostics import error
from aisc.ir.node import walk
from aisc.ir.tensor.expr import Const, Load
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.tree import Place, extent_of, find_loop, find_place
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.simt_machine import most_threads, over_blocks, warp_of
from aisc.passes.schedule.rules.simt_maps import flat, spatial_loops
from aisc.passes.schedule.rules.simt_nests import kept, merged, reduce_loops
from aisc.passes.schedule.rules.simt_registers import simt_registers
from aisc.passes.schedule.rules.simt_short import simt_short_rows
from aisc.passes.schedule.rules.structure import step_of
from aisc.passes.schedule.schedule import Schedule

# Elements of a row that each thread shall have at least, before another warp helps; warps at most.
OWN_ELEMENTS, MOST_WARPS = 4, 8
# Warps of a block whose rows have one each.
ROWS = 4
# What is combined by one thread at the end of a tree.
LAST = 8
# Turns of a thread's walk over a row that are unrolled.
MOST_TURNS = 16
# Elements of a reduction from which on several threads divide it.
LONG = 16


def rows_of(func: Func, names: list[str]) -> list[str]:
    """The first of these blocks that have their rows in common with a reduction among them, if it
    goes along rows; none where the first has not."""
    found = [find_place(func, n) for n in names]
    first = next((p for p in found if p.block.combiner), None)
    if first is None or not (_along_rows(first) or not _is_long(first)):
        return []
    rows = _rows(first)
    together = []
    for p in found:
        if not _has_rows(p, rows):
            break
        together.append(p.block.name)
    return together if first.block.name in together else []


def _rows(place: Place) -> list[str]:
    """Extents of the loops that choose a row, without those of one iteration at the end."""
    sizes = [str(f.extent) for f in spatial_loops(place)]
    while sizes and sizes[-1] == "1":
        sizes.pop()
    return sizes


def _has_rows(place: Place, rows: list[str]) -> bool:
    loops = spatial_loops(place)
    same = [str(f.extent) for f in loops[: len(rows)]] == rows
    plain = all(it.kind != "ordered" for it in place.block.iters)
    return same and plain and list(place.loops[: len(rows)]) == loops[: len(rows)]


def _is_long(place: Place) -> bool:
    total = 1
    for f in reduce_loops(place):
        if not isinstance(f.extent, Const):
            return True
        total *= int(f.extent.value)
    return total >= LONG


def _along_rows(place: Place) -> bool:
    """Whether what is reduced lies side by side, rather than the results."""
    loops = reduce_loops(place)
    if not loops or not spatial_loops(place):
        return bool(loops)
    block = place.block
    names = dict(zip(block.bindings, block.iters, strict=True))
    last = names.get(loops[-1].var)
    if last is None:
        return False
    loads = [n for n in walk(block.body) if isinstance(n, Load) and _depends(n, last.var)]
    return bool(loads) and all(step_of(n, last.var) == 1 for n in loads)


def _depends(n: Load, var: object) -> bool:
    return any(var in set(walk(i)) for i in n.indices)


def simt_rows(s: Schedule, group: list[str], d: Chooser) -> Schedule:
    """Schedule blocks that share their rows as one launch."""
    first = next(p for n in group if (p := find_place(s.func, n)).block.combiner)
    count = len(_rows(first))
    if count == 0:
        raise error("E302", f"{first.block.name} gives one element")
    if not _is_long(first):
        return simt_short_rows(s, group, count, d)
    if d.pick(f"{group[0]}.registers", (True, False), True):
        after = d.attempt(s, lambda t: simt_registers(t, group, count, d))
        if after is not s:
            return after
    loops = [[f.var.name for f in spatial_loops(find_place(s.func, n))[:count]] for n in group]
    s, last = merged(s, loops)
    threads, rows = _threads(first, group[0], d)
    for name in group:
        s = _within(s, name, last, threads)
    if rows > 1:
        s = s.split(last[-1], rows, names=(f"{last[-1]}_b", f"{last[-1]}_y"))
        s = s.bind(f"{last[-1]}_y", "thread.y")
        last = [*last[:-1], f"{last[-1]}_b"]
    return over_blocks(kept(s, last, "shared"), last)


def _threads(first: Place, name: str, d: Chooser) -> tuple[int, int]:
    """Threads of a row, and rows of a block."""
    warp, most = warp_of(d.target), most_threads(d.target)
    sizes = [f.extent for f in reduce_loops(first)]
    total = 1
    for e in sizes:
        total *= int(e.value) if isinstance(e, Const) else MOST_WARPS * warp
    options = [n * warp for n in (1, 2, 4, 8, 16, 32) if n * warp <= most]
    enough = next((n for n in options if n * OWN_ELEMENTS >= total), options[-1])
    own = min(enough, MOST_WARPS * warp, options[-1])
    threads = d.pick(f"{name}.row_threads", options, own)
    rows = d.pick(f"{name}.rows", (1, 2, ROWS, 2 * ROWS), ROWS if threads == warp else 1)
    return threads, max(1, min(rows, most // threads))


def _within(s: Schedule, name: str, rows: list[str], threads: int) -> Schedule:
    """What a block does in a row, divided among its threads."""
    place = find_place(s.func, name)
    if place.block.combiner:
        return _reduced(s, place, threads)
    inner = [f.var.name for f in place.loops if f.var.name not in rows]
    inner = [n for n in inner if extent_of(find_loop(s.func, n)) != 1] or inner[-1:]
    if not inner:
        return s
    s, names = flat(s, inner)
    loop = names[-1]
    if len(names) > 1 or extent_of(find_loop(s.func, loop)) == 1:
        return s
    s = s.split(loop, threads, names=(f"{loop}_o", f"{loop}_t"))
    return s.reorder(f"{loop}_t", f"{loop}_o").bind(f"{loop}_t", "thread.x")


def _reduced(s: Schedule, place: Place, threads: int) -> Schedule:
    """A reduction by threads, combined by a tree."""
    name = place.block.name
    s, names = flat(s, [f.var.name for f in reduce_loops(place)])
    loop = names[-1]
    s = s.split(loop, threads, names=(f"{loop}_o", f"{loop}_t"))
    if len(names) == 1:
        s = s.reorder(f"{loop}_t", f"{loop}_o")
    s = s.rfactor(name, f"{loop}_t").bind(f"{loop}_t", "thread.x")
    if (extent_of(find_loop(s.func, f"{loop}_o")) or MOST_TURNS + 1) <= MOST_TURNS:
        s = s.unroll(f"{loop}_o")
    return _tree(s, f"{name}_combine", threads, threads)


def _tree(s: Schedule, name: str, count: int, threads: int) -> Schedule:
    """Combine what `count` threads have: neighbours a few each, that lie far apart, until one does
    the rest."""
    loop = find_place(s.func, name).loops[-1].var.name
    if count <= LAST:
        return s.unroll(loop)
    left = -(-count // LAST)
    s = s.split(loop, left, names=(f"{loop}_o", f"{loop}_i")).reorder(f"{loop}_i", f"{loop}_o")
    s = s.rfactor(name, f"{loop}_i").unroll(f"{loop}_o")
    s = s.predicate(f"{loop}_i", threads).bind(f"{loop}_i", "thread.x")
    return _tree(s, f"{name}_combine", left, threads)


def simt_columns(s: Schedule, name: str, d: Chooser) -> Schedule:
    """Schedule a long reduction whose results lie side by side, rather than what it reads."""
    place = find_place(s.func, name)
    loops = spatial_loops(place)
    if not place.block.combiner or not loops or not _is_long(place):
        raise error("E302", f"{name} is no long reduction")
    warp, most = warp_of(d.target), most_threads(d.target)
    lanes = d.pick(f"{name}.lanes", (warp // 2, warp, 2 * warp), warp)
    depth = d.pick(f"{name}.depth", (4, 8, 16), min(8, most // lanes))
    reduced = [f.var.name for f in reduce_loops(place)]
    names = [f.var.name for f in loops]
    s = (
        s.reorder(*names, *reduced)
        if [f.var.name for f in place.loops] != [*names, *reduced]
        else s
    )
    s, kept = flat(s, reduced)
    loop = kept[-1]
    last = names[-1]
    s = s.split(last, lanes, names=(f"{last}_b", f"{last}_t"))
    s = s.split(loop, depth, names=(f"{loop}_o", f"{loop}_t"))
    if len(kept) == 1:
        s = s.reorder(f"{loop}_t", f"{loop}_o")
    s = s.rfactor(name, f"{loop}_t")
    part = find_place(s.func, name).block.writes[0].buffer
    # Neighbours of a warp have neighbouring results: their sums lie side by side.
    s = s.permute(part.name, (part.rank - 1, *range(part.rank - 1)))
    s = s.set_scope(part.name, "shared", f"{last}_b")
    s = s.bind(f"{last}_t", "thread.x").bind(f"{loop}_t", "thread.y")
    return over_blocks(s, [*names[:-1], f"{last}_b"])
