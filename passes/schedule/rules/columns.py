"""Tiles with columns of several parts of a product, for maps that read all parts at one place.

Gates lie side by side in the columns of a product, and the state is updated from all gates of a
unit. A tile has the same few columns of each part: what follows then reads nothing but registers.
Weights are packed so that a step of the reduction reads all its columns one after the other::

    for c { alloc s;  for k { unroll gate in 0..4: s[gate] += h[k] * w_packed[c, k, gate] }
            y[c] = sigmoid(s[0]) * tanh(s[1]) + … }

Elementary functions of a few elements wait for each other. So where rows are few, tiles store their
sums in a block that stays in the first-level cache, and the maps run when the block is complete.
"""

from __future__ import annotations

from functools import partial
from math import prod

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.dtypes import f32
from aisc.ir.node import walk
from aisc.ir.target import Target
from aisc.ir.tensor.expr import Const, Expr, Load, Var
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.linear import Indexer
from aisc.ir.tensor.stmt import Block, Store
from aisc.ir.tensor.tree import find_place, places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.epilogue import in_place_reader, result_of, through_private
from aisc.passes.schedule.rules.panels import panels_outside
from aisc.passes.schedule.rules.parallel import is_costly
from aisc.passes.schedule.rules.structure import (
    Reduction,
    analyse,
    known_factor,
    plain_axis,
    vectors_together,
)
from aisc.passes.schedule.rules.tile import (
    loops_by_iter,
    reduce_loops_of,
    schedule_consumer,
    tile_options,
    whole_apart,
)
from aisc.passes.schedule.rules.tile_cost import LATENCY, Extents, Tile, cost, extent_of, rounding
from aisc.passes.schedule.schedule import Schedule

# Rows whose maps run for a block of columns at a time.
FEW_ROWS = 16


def schedule_columns(s: Schedule, reduction: Reduction, d: Chooser) -> Schedule:
    """Tile a product whose columns are read in parts, with the maps that follow as epilogue; the
    same schedule for others."""
    size = _part_size(s, reduction)
    if not size or not d.pick(f"{reduction.block.name}.parts", (True, False), True):
        return s
    return d.attempt(s, partial(_schedule, reduction, size, d))


def _part_size(s: Schedule, reduction: Reduction) -> int:
    """Columns of each part, if all readers of a private product are maps that read parts of one
    size: several parts, or several maps of one; else 0."""
    out, lane = _sums(s, reduction.block.name)[1], reduction.lane
    if not reduction.contraction or out.role != "scratch" or not isinstance(lane.extent, Const):
        return 0
    if reduction.weights is None or plain_axis(reduction.weights, lane.var) is None:
        return 0
    blocks = [p.block for p in places(s.func.body)]
    readers = [b for b in blocks if out in {r.buffer for r in b.reads} and b.init is None]
    sizes = {_size_of_reader(b, n) for b in readers for n in _loads(b, out.name)}
    size = sizes.pop() if len(sizes) == 1 else 0
    columns, after = int(lane.extent.value), _after(blocks, reduction.block.name)
    maps = all(b.init is None and not b.combiner for b in after)
    several = 0 < size < columns or (size == columns and len(after) > 1)
    return size if maps and several and size > 1 and columns % size == 0 else 0


def _sums(s: Schedule, product: str) -> tuple[str, Buffer]:
    """The block that makes what is read in parts: the product or the map that reads it in place;
    and its result."""
    reader = in_place_reader(s, product)
    out = result_of(s, product if reader is None else reader.name)
    if reader is None or out.role != "scratch" or not reader.iters:
        return product, result_of(s, product)
    return reader.name, out


def _after(blocks: list[Block], name: str) -> list[Block]:
    return blocks[[b.name for b in blocks].index(name) + 1 :]


def _loads(block: Block, name: str) -> list[Load]:
    return [n for n in walk(block.body) if isinstance(n, Load) and n.buffer.name == name]


def _size_of_reader(block: Block, load: Load) -> int:
    """The extent of a map's last iterator, where the map reads at its own iterators but for whole
    multiples of that extent in the last one; else 0."""
    last = block.iters[-1] if block.iters else None
    if last is None or not isinstance(last.extent, Const) or not isinstance(block.body, Store):
        return 0
    own: tuple[Expr, ...] = tuple(it.var for it in block.iters)
    form, size = Indexer().linear(load.indices[-1]), int(last.extent.value)
    whole = form.coeff(last.var) == 1 and len(form.terms) == 1 and form.const % size == 0
    return size if whole and load.indices[:-1] == own[:-1] else 0


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a product of `count` parts of `size` columns is tiled.

    together: a register tile has columns of all parts, else of one; block: columns of each part
    for which the maps run at a time, in memory of the first-level cache; 0 where they run on
    registers.
    """

    size: int
    count: int
    tile: Tile
    together: bool
    block: int


def _schedule(reduction: Reduction, size: int, d: Chooser, s: Schedule) -> Schedule:
    name = reduction.block.name
    costly = is_costly(find_place(s.func, name).loops[0], d)
    plan = _plan(reduction, size, d.target.cores if costly else 1, d)
    s = _packed(s, reduction, plan)
    made = list(dict.fromkeys((name, _sums(s, name)[0])))
    after = [b.name for b in _after([p.block for p in places(s.func.body)], made[-1])]
    part: list[str] = []
    for block in made if plan.count > 1 else ():
        s, loop = _in_parts(s, block, size)
        part = part or [loop]
    found = analyse(find_place(s.func, name).block)
    assert found is not None, "the same product with two iterators for its columns"
    if plan.block and len(made) == 1:
        s, copy = through_private(s, name, "global")
        made.append(copy)
    s, at, outer = _tiled(s, found, part, plan, panels_outside(reduction, d))
    for consumer in made[1:]:
        s = s.reverse_compute_at(consumer, outer[-1])
        s = s.set_scope(result_of(s, name).name, "register")
    for consumer in after:
        s = s.reverse_compute_at(consumer, at)
    for b in dict.fromkeys(result_of(s, n) for n in (made[-1], *after)):
        if b.role == "scratch":
            s = s.set_scope(b.name, "stack" if plan.block else "register")
    inner = [f.var.name for f in find_place(s.func, name).loops if f.var.name not in outer]
    steps = [n for n in reduce_loops_of(s, name) if n in inner]
    for loop in inner[:-1]:
        s = s if loop in steps else s.unroll(loop)
    s = s.vectorize(inner[-1]).decompose_reduction(name, steps[0])
    for consumer in made[1:]:
        s = schedule_consumer(s, consumer, outer, plan.tile)
        s = whole_apart(s, consumer, outer, d)
    for consumer in after:
        if plan.block:
            s = _vectors(s, consumer, plan)
        else:
            s = schedule_consumer(s, consumer, outer, plan.tile)
    return s


def _tiled(
    s: Schedule, found: Reduction, part: list[str], plan: _Plan, panels: bool
) -> tuple[Schedule, str, list[str]]:
    """The product in tiles; also the loop in which the maps run, and those around a tile."""
    name, tile = found.block.name, plan.tile
    loops = loops_by_iter(s, name)
    lane, row = loops[found.lane.var.name], None
    s = s.clamp_tail(name, lane, plan.block or tile.width, zero=True)
    if found.row is not None and tile.rows > 1:
        row = loops[found.row.var.name]
        s = s.clamp_tail(name, row, tile.rows)
    blocks: list[str] = []
    column = lane
    if plan.block:
        blocks, column = [f"{lane}_b"], f"{lane}_c"
        s = s.split(lane, plan.block, names=(blocks[0], column))
    names = (f"{lane}_t", f"{lane}_v", f"{lane}_l")
    s = s.split(column, tile.width, names=(names[0], f"{lane}_in"))
    s = s.split(f"{lane}_in", tile.lanes, names=(names[1], names[2]))
    inner = [*(part if plan.together else []), names[1], names[2]]
    outer = [f.var.name for f in find_place(s.func, name).loops]
    if row is not None:
        s = s.split(row, tile.rows, names=(f"{row}_t", f"{row}_r"))
        inner.insert(0, f"{row}_r")
        outer[outer.index(row)] = f"{row}_t"
    steps = reduce_loops_of(s, name)
    tiles = [*blocks, names[0], *(p for p in part if not plan.together)]
    rest = [n for n in outer if n not in (*inner, *steps, *tiles)]
    outer = [*tiles, *rest] if panels or blocks else [*rest, *tiles]
    s = s.reorder(*outer, *steps, *inner)
    return s, blocks[0] if blocks else outer[-1], outer


def _vectors(s: Schedule, consumer: str, plan: _Plan) -> Schedule:
    """Vectors of a map that runs on a block."""
    place, lanes = find_place(s.func, consumer), plan.tile.lanes
    last = place.loops[-1].var.name
    together = vectors_together(place.block, plan.block, lanes)
    lanes *= together if plan.block % (lanes * together) == 0 else 1
    if plan.block > lanes:
        s = s.split(last, lanes, names=(f"{last}_v", f"{last}_l"))
        last = f"{last}_l"
    return s.vectorize(last)


def _plan(reduction: Reduction, size: int, cores: int, d: Chooser) -> _Plan:
    """A tile has columns of all parts where it has one row, or many rows have tiles of their own.
    Maps of few rows run for several tiles at once: they wait for each other less."""
    count = known_factor(reduction.lane.extent) // size
    rows = 1 if reduction.row is None else known_factor(reduction.row.extent)
    few = 0 < rows <= FEW_ROWS
    if few and rows > 1:
        tile = _pick_column(reduction, size, d)
        block = _block(rows * count, size, tile, cores, d.target)
        if block:
            return _Plan(size, count, tile, False, block)
    tile = _pick_tile(reduction, size, count, d)
    block = _block(rows * count, size, tile, cores, d.target) if few else 0
    return _Plan(size, count, tile, True, block)


def _block(sums: int, size: int, tile: Tile, cores: int, target: Target) -> int:
    """Columns, with `sums` sums each, for which the maps run at once: whole tiles, no more of them
    than the columns need, as many as leave something for each of the cores, and whose sums stay in
    a part of the first-level cache."""
    tiles = -(-size // tile.width)
    whole = [n * tile.width for n in range(1, tiles + 1) if tiles % n == 0]
    most = target.first_cache.bytes // (4 * f32.bytes * sums)
    near = [n for n in whole if n <= most] or whole[:1]
    shared = [n for n in near if size > n * (cores - 1)] or near[:1]
    return max(shared, default=0)


def _pick_column(reduction: Reduction, size: int, d: Chooser) -> Tile:
    """Rows and vectors of one part: what costs least for its columns, some of which the last tile
    may lack."""
    rows, steps = extent_of(reduction.row), (it for it in reduction.block.iters)
    depth = prod(extent_of(it) for it in steps if it.kind == "reduce")
    extents = Extents(size, rows, depth, contraction=True)
    options = sorted(tile_options(reduction, d), key=lambda t: cost(t, extents))
    shapes = [t.shape for t in options]
    rows, vectors = d.pick(f"{reduction.block.name}.column", shapes, shapes[0])
    return Tile(rows, vectors, options[0].lanes)


def _pick_tile(reduction: Reduction, size: int, count: int, d: Chooser) -> Tile:
    """Rows, and vectors of each of `count` parts: the first tile whose vectors can be divided among
    them, without waste in each; of one row, the smallest that hides the latency, as the next turn
    of a loop finds the last tiles in cache."""
    options = tile_options(reduction, d, d.target.vector_registers if count > 1 else 0)
    found = [Tile(t.rows, t.vectors // count, t.lanes) for t in options if t.vectors % count == 0]
    if not found:
        raise error("E304", f"{reduction.block.name}: {count} parts do not fit the registers")
    waste = [rounding(size, t.width) for t in found]
    least = [t for t, w in zip(found, waste, strict=True) if w == min(waste)]
    if all(t.rows == 1 for t in least):
        least = [t for t in reversed(least) if t.vectors * count >= LATENCY] or least
    shapes = [t.shape for t in least]
    name = "columns" if count > 1 else "column"
    rows, vectors = d.pick(f"{reduction.block.name}.{name}", shapes, shapes[0])
    return Tile(rows, vectors, found[0].lanes)


def _packed(s: Schedule, reduction: Reduction, plan: _Plan) -> Schedule:
    """Constant weights with the columns of a tile, of all its parts, side by side in each step."""
    load = reduction.weights
    assert load is not None, "a contraction has weights"
    if load.buffer.role != "weight":
        return s
    axis = plain_axis(load, reduction.lane.var)
    assert axis is not None, "the lane's axis"
    name, rank, width = load.buffer.name, load.buffer.rank, plan.tile.width
    if plan.count == 1:
        others = [k for k in range(rank + 1) if k not in (axis, axis + 1)]
        return s.pack(name, axis, width, (axis, *others, axis + 1))
    before = {b.name for b in s.func.params}
    s = s.pack(name, axis, plan.size, tuple(range(rank + 1)))
    (name,) = (b.name for b in s.func.params if b.name not in before)
    others = [k for k in range(rank + 2) if k not in (axis, axis + 1, axis + 2)]
    middle = [*others, axis] if plan.together else [axis, *others]
    return s.pack(name, axis + 1, width, (axis + 1, *middle, axis + 2))


def _in_parts(s: Schedule, name: str, size: int) -> tuple[Schedule, str]:
    """A block with an iterator for its parts and one for the columns of each; also the loop over
    parts."""
    out = result_of(s, name)
    s = s.split_axis(out.name, out.rank - 1, size)
    block = find_place(s.func, name).block
    spatial = [k for k, it in enumerate(block.iters) if it.kind == "spatial"]
    loop = block.bindings[spatial[-1]]
    assert isinstance(loop, Var), "a fresh block"
    s = s.split(loop.name, size, names=(f"{loop.name}_part", f"{loop.name}_c"))
    return s.split_iter(name, spatial[-1], size), f"{loop.name}_part"
