"""Tiles of products by codes whose scales are those of groups: scales multiply sums of groups.

Where one tile has all rows, codes become floats in its registers, and each group is added up before
its scale is looked at::

    for panel { acc = 0;  for group { s = 0;  for k { s += x[k] * f32(q) };  acc += s * scale } }
"""

from __future__ import annotations

from functools import partial

from aisc.ir.diagnostics import error
from aisc.ir.tensor.tree import find_place
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.codes import codes_ahead, is_short, maker_of, with_codes
from aisc.passes.schedule.rules.epilogue import only_reader, result_of
from aisc.passes.schedule.rules.structure import Reduction, known_factor
from aisc.passes.schedule.rules.tile import (
    FEW_ROWS,
    consumer_of,
    loops_by_iter,
    pick_tile,
    reduce_loops_of,
    schedule_consumer,
    tiles_of,
    whole_apart,
)
from aisc.passes.schedule.rules.tile_cost import Tile
from aisc.passes.schedule.schedule import Schedule


def schedule_grouped(s: Schedule, reduction: Reduction, d: Chooser) -> Schedule:
    """Tile a product by codes in groups, with the map that follows as epilogue; the same schedule
    for others. Whether it is one depends on no tile, for it gives other bits."""
    rows = 1 if reduction.row is None else known_factor(reduction.row.extent)
    if maker_of(s, reduction) is None or not 0 < rows <= FEW_ROWS:
        return s
    if not d.pick(f"{reduction.block.name}.groups", (False, True), True, exact=False):
        return s
    tiles = [pick_tile(s, reduction, d), *tiles_of(s, reduction, d)]
    fit = [t for t in tiles if t.rows == rows]
    return d.attempt(s, partial(_grouped, reduction, fit[0], d)) if fit else s


def _grouped(reduction: Reduction, tile: Tile, d: Chooser, s: Schedule) -> Schedule:
    block, before = reduction.block.name, s
    s, maker = with_codes(s, reduction, tile.width, True)
    if maker or s is before:
        raise error("E302", f"{block}: its codes are not read in place")
    s = s.variant(block, "grouped_sums")
    reader = only_reader(s, result_of(s, block))
    assert reader is not None, "the sum of groups"
    final = reader.name
    s, consumer = consumer_of(s, final)
    lane, inner = loops_by_iter(s, block)[reduction.lane.var.name], list[str]()
    last = list(loops_by_iter(s, final).values())[_spatial(s, final) - 1]
    s = s.clamp_tail(block, lane, tile.width).clamp_tail(final, last, tile.width)
    names = (f"{lane}_t", f"{lane}_v", f"{lane}_l")
    s = s.split(lane, tile.width, names=(names[0], f"{lane}_in"))
    s = s.split(f"{lane}_in", tile.lanes, names=(names[1], names[2]))
    steps = reduce_loops_of(s, block)
    loops = [f.var.name for f in find_place(s.func, block).loops]
    groups = [n for n in loops[loops.index(names[2]) + 1 :] if n not in steps]
    rows = loops[: loops.index(names[0])]
    inner = [*rows, names[1]]
    if len(steps) > 1 and is_short(s, steps[-1]):
        inner.append(steps.pop())
    s = s.reorder(names[0], *groups, *steps, *inner, names[2])
    s = s.reverse_compute_at(final, groups[-1]).reverse_compute_at(consumer, names[0])
    for name in (block, final):
        s = s.set_scope(result_of(s, name).name, "register")
    for name in inner:
        s = s.unroll(name)
    s = s.vectorize(names[2]).decompose_reduction(block, steps[0])
    s = schedule_consumer(s, final, [names[0], *groups], tile)
    s = s.decompose_reduction(final, groups[0])
    s = schedule_consumer(s, consumer, [names[0]], tile)
    s = whole_apart(s, consumer, [names[0]], d)
    return codes_ahead(s, block, steps[-1], d)


def _spatial(s: Schedule, block: str) -> int:
    return sum(it.kind == "spatial" for it in find_place(s.func, block).block.iters)
