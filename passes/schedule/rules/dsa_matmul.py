"""The default schedule of an integer matrix product on a systolic array: primitives only.

Operands are filled up with zeros to whole tiles by maps on the host, tiles are moved into the
scratchpad, weights into the array, and rows stream through them into accumulators, weight
stationary: ``for columns: for depth: preload; for rows: compute``. The result leaves the
accumulators once per block of columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from aisc.ir.diagnostics import error
from aisc.ir.node import walk
from aisc.ir.tensor.expr import Cast, Load, Var
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import Block, Store
from aisc.ir.tensor.tree import extent_of, find_loop, find_place, fresh, places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.epilogue import through_private
from aisc.passes.schedule.rules.inlining import inline_where_legal
from aisc.passes.schedule.rules.structure import analyse
from aisc.passes.schedule.schedule import Schedule


@dataclass(frozen=True, slots=True)
class _Names:
    """The product's block, its loops over rows, columns and depth, its operands, and unused names
    for their tiles: data and weights in the scratchpad, weights in the cells, accumulators."""

    block: str
    loops: tuple[str, str, str]
    operands: tuple[str, str]
    data: str
    weights: str
    cells: str
    acc: str


def dsa_matmul(func: Func, d: Chooser) -> Schedule:
    """Schedule the one matrix product of `func`; E302 when there is none or when its types do not
    fit the array (the message of ``tensorize`` says how)."""
    s, target = _with_casts(Schedule.of(func)), d.target
    names = _names(s.func)
    i, j, k = names.loops
    tile = target.limits["tile"]
    whole = all(_extent(s, loop) % tile == 0 for loop in names.loops)
    if not whole:
        s = _padded(s, names, tile)
    s, copy = _accumulate(s, names, tile)
    s = _tile_loops(s, names, tile, d)
    s = _move_in(s, names, whole)
    s = s.reverse_compute_at(copy, f"{j}_o").set_scope(names.acc, "accumulator")
    rows = find_place(s.func, copy).loops[-2].var.name
    s = s.split(rows, tile, names=("out_o", "out_i"))
    s = s.decompose_reduction(names.block, f"{k}_o")
    where = (
        (_nest(s, f"{names.data}_fill"), "mvin"),
        (_nest(s, f"{names.weights}_fill"), "mvin"),
        (_nest(s, f"{names.cells}_fill"), "preload"),
        (f"{i}_i_init", "clear"),
        (f"{i}_i", "compute"),
        ("out_i", "mvout"),
    )
    for loop, instruction in where:
        s = s.tensorize(loop, instruction, target.name)
    return replace(s, picks=d.picks)


def _with_casts(s: Schedule) -> Schedule:
    """Casts of operands as part of the product that reads them."""
    for place in places(s.func.body):
        body = place.block.body
        if isinstance(body, Store) and isinstance(body.value, Cast) and not place.block.combiner:
            s = inline_where_legal(s, place.block.name)
    return s


def _names(func: Func) -> _Names:
    found = [p.block for p in places(func.body) if analyse(p.block) is not None]
    if len(found) == 1 and len(found[0].iters) == 3:
        block = found[0]
        loops = [v.name for v in block.bindings if isinstance(v, Var)]
        loads = _operands(block)
        if len(loops) == 3 and len(loads) == 2:
            i, j, k = loops
            operands = (loads[0].buffer.name, loads[1].buffer.name)
            tiles = (fresh(func, n) for n in ("data_tile", "weight_tile", "cells", "sums"))
            return _Names(block.name, (i, j, k), operands, *tiles)
    raise error("E302", f"{func.name} is not one matrix product")


def _operands(block: Block) -> list[Load]:
    """The factors at (row, depth) and (depth, column), in this order."""
    i, j, k = (it.var for it in block.iters)
    loads = [n for n in walk(block.body) if isinstance(n, Load)]
    found = [[n for n in loads if n.indices == at] for at in ((i, k), (k, j))]
    return [group[0] for group in found if group]


def _extent(s: Schedule, loop: str) -> int:
    extent = extent_of(find_loop(s.func, loop))
    if extent is None:
        raise error("E302", f"the extent of loop {loop} is not constant")
    return extent


def _padded(s: Schedule, names: _Names, tile: int) -> Schedule:
    """Copies of both operands filled up with zeros, and a result of whole tiles."""
    for name in names.operands:
        s = s.cache_read(names.block, name, "global", f"{name}_pad")
        for axis in (0, 1):
            fill = f"{name}_pad_fill"
            s = s.clamp_tail(fill, f"{fill}_i{axis}", tile, zero=True)
    s = s.pad_reduction(names.block, names.loops[2], tile)
    if find_place(s.func, names.block).block.writes[0].buffer.role != "scratch":
        s = s.cache_write(names.block, "global", "out_pad")
    return s


def _accumulate(s: Schedule, names: _Names, tile: int) -> tuple[Schedule, str]:
    """Sum in accumulators; gives the block that copies them out."""
    s, copy = through_private(s, names.block, "accumulator", names.acc)
    for axis, loop in enumerate(names.loops[:2]):
        s = s.clamp_tail(names.block, loop, tile)
        s = s.clamp_tail(copy, f"{copy}_i{axis}", tile)
    return s, copy


def _tile_loops(s: Schedule, names: _Names, tile: int, d: Chooser) -> Schedule:
    """Tiles of the array: as many rows of them at a time as accumulators hold, so that weights stay
    in the array for all of these."""
    (i, j, k), target = names.loops, d.target
    tiles = _extent(s, i) // tile
    room = target.memory("accumulator").bytes // (4 * tile * tile)
    if room < 1:
        raise error("E402", f"the accumulators of {target.name} hold no tile")
    fitting = [n for n in range(1, tiles + 1) if tiles % n == 0 and n <= room]
    block = d.pick(f"{names.block}.tiles_of_rows", fitting, max(fitting))
    s = s.split(i, block * tile, names=(f"{i}_m", f"{i}_in"))
    s = s.split(f"{i}_in", tile, names=(f"{i}_o", f"{i}_i"))
    for loop in (j, k):
        s = s.split(loop, tile, names=(f"{loop}_o", f"{loop}_i"))
    inner = (f"{i}_i", f"{j}_i", f"{k}_i")
    return s.reorder(f"{i}_m", f"{j}_o", f"{k}_o", f"{i}_o", *inner)


def _move_in(s: Schedule, names: _Names, whole: bool) -> Schedule:
    """Tiles of the data per rows, of the weights per depth, and the weights into the cells."""
    data, weights = names.operands
    if not whole:
        data, weights = f"{data}_pad", f"{weights}_pad"
    s = s.cache_read(names.block, data, "scratchpad", names.data)
    s = s.cache_read(names.block, weights, "scratchpad", names.weights)
    s = s.cache_read(names.block, names.weights, "array", names.cells)
    i, _, k = names.loops
    s = s.compute_at(f"{names.cells}_fill", f"{k}_o")
    s = s.compute_at(f"{names.weights}_fill", f"{k}_o")
    s = s.compute_at(f"{names.data}_fill", f"{i}_o")
    s = s.set_scope(names.data, "scratchpad").set_scope(names.weights, "scratchpad")
    return s.set_scope(names.cells, "array")


def _nest(s: Schedule, block: str) -> str:
    """The first of the two loops around a block that moves a tile."""
    return find_place(s.func, block).loops[-2].var.name
