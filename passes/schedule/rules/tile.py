"""Register tiles for reductions: rows × vectors of accumulators around the reduce loops.

The tile is MR rows by NV vectors; its accumulators live in registers over all reduce loops, the
operators that follow run on it before it is stored. Weights that are constant are packed at
compile time so that each reduce step reads NV consecutive vectors.

Decisions: the lanes of a vector and the rows and vectors of the tile, whether the weights are
packed, which loop is outside, how far the reduce loop is unrolled, and what is asked for early.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from math import prod

from aisc.ir.node import distinct, walk
from aisc.ir.target import Target
from aisc.ir.tensor.expr import Binary, Const, Load, Var
from aisc.ir.tensor.linear import mentions
from aisc.ir.tensor.stmt import Block, For, If
from aisc.ir.tensor.tree import find_loop, find_place, places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.codes import (
    codes_ahead,
    floats_of_panel,
    in_registers,
    is_short,
    maker_of,
    with_codes,
)
from aisc.passes.schedule.rules.dots import STEPS, Dot, candidates, instruction_for, issued, prepare
from aisc.passes.schedule.rules.epilogue import (
    lanes_reader,
    only_reader,
    result_of,
    through_private,
)
from aisc.passes.schedule.rules.memory import prefetch_epilogue
from aisc.passes.schedule.rules.narrow import narrow_last
from aisc.passes.schedule.rules.panels import (
    MOST_UNROLLED,
    around_rows,
    is_packed,
    pack_weights,
    panel_ahead,
    panels_outside,
    prefetch_next_panel,
    turns_of,
)
from aisc.passes.schedule.rules.structure import (
    MAX_WINDOW,
    Reduction,
    calls_functions,
    has_calls,
    is_window,
    known_factor,
    plain_axis,
    step_of,
    vectors_together,
    window_sizes,
)
from aisc.passes.schedule.rules.taps import is_one_vector, shared_taps, vector_lanes
from aisc.passes.schedule.rules.tile_cost import (
    ONE_TAP,
    Extents,
    Tile,
    cost,
    extent_of,
    last_vectors,
    narrows,
    paired,
    waste,
)
from aisc.passes.schedule.schedule import Schedule, unless_refused
from aisc.passes.tensor.peel_tails import WHOLE_APART

# Registers of a tile beside its accumulators.
OPERANDS = 4
# Steps of a product that is done before a large tile has begun, and rows of which all are one tile.
FEW_STEPS, FEW_ROWS = 12, 4
FEW_CALLS = 2  # vectors of functions whose code may be there for each of them


def pick_tile(s: Schedule, reduction: Reduction, d: Chooser) -> Tile:
    """The register tile of a reduction: the first of :func:`tiles_of` unless told otherwise."""
    shapes = [t.shape for t in tiles_of(s, reduction, d)]
    rows, vectors = d.pick(f"{reduction.block.name}.tile", shapes, shapes[0])
    return Tile(rows, vectors, _lanes(reduction, d))


def tiles_of(s: Schedule, reduction: Reduction, d: Chooser) -> list[Tile]:
    """The tiles of a reduction, best first; the first one whose vectors are pairs comes first where
    a map computes functions of them, two vectors at a time, and steps are few."""
    options, reader = tile_options(reduction, d), lanes_reader(s, reduction.block.name)
    functions = reader is not None and calls_functions(find_place(s.func, reader).block)
    several = reduction.contraction and extent_of(reduction.row) >= FEW_ROWS
    return paired(options, _extents(reduction, d)) if functions and several else options


def _lanes(reduction: Reduction, d: Chooser) -> int:
    most = vector_lanes(reduction, d.target)
    return d.pick(f"{reduction.block.name}.lanes", (n for n in (most // 2, most) if n > 1), most)


def tile_options(reduction: Reduction, d: Chooser, most: int = 0) -> list[Tile]:
    """Tiles that fit the register file, best first by the analytical rule.

    Wasted work (elements computed beyond the extents) decides first, then the number of
    accumulators, which hides the latency of the multiply-add.
    """
    target, lanes, extents = d.target, _lanes(reduction, d), _extents(reduction, d)
    budget, height = _budget(reduction, target), extents.height
    heights = range(1, min(_most_rows(reduction, target), height) + 1)
    limit = most or (8 if height < FEW_ROWS else 4 if reduction.contraction else 2)
    if is_window(reduction.block):  # unrolled taps share inputs, which need registers as well
        budget, limit = target.in_flight, 1
    if reduction.contraction and extents.steps <= FEW_STEPS and height >= FEW_ROWS:
        budget, limit = target.in_flight, 1  # tiles overlap, and write few rows at a time
    elif extents.taps.count > 1:  # weights of all taps and the places that a row reads
        budget, limit = target.vector_registers - 2 * extents.taps.count, 1
    best = next(iter(candidates(reduction, lanes, target)), None)
    beside = 1 if best is None else 1 + best.temporaries
    found = [
        Tile(r, v, lanes)
        for v in range(1, limit + 1)
        for r in heights
        if r * v + (1 if most and r == 1 else v) + beside <= budget + OPERANDS and r * v <= budget
    ]
    if best is not None and best.cycles() > 1:
        return sorted(found, key=lambda t: issued(best, t.shape, waste(t, extents), extents.steps))
    return sorted(found, key=lambda t: cost(t, extents))


def fewest_cycles(reduction: Reduction, d: Chooser, height: int = 0) -> float:
    """Cycles of the best tile for a useful element and step, with so many rows instead of the own
    ones, of which those of one line alone share taps."""
    found = _extents(reduction, d)
    tall = replace(found, height=height, taps=ONE_TAP) if height else found
    return min(cost(t, tall)[0] for t in tile_options(reduction, d))


def _extents(reduction: Reduction, d: Chooser) -> Extents:
    steps = prod(extent_of(it) for it in reduction.block.iters if it.kind == "reduce")
    width, height = extent_of(reduction.lane), extent_of(reduction.row)
    masked = reduction.contraction and height > 1 and not is_packed(reduction)
    taps = shared_taps(reduction, d)[1]
    return Extents(width, height, steps, reduction.contraction, taps, masked)


def _budget(reduction: Reduction, target: Target) -> int:
    """Registers for accumulators; where each row is one vector, all beside a weight and an
    element."""
    beside = 2 if is_one_vector(reduction, target) else OPERANDS
    return target.vector_registers - beside


def _most_rows(reduction: Reduction, target: Target) -> int:
    """Rows of a tile: two vectors of accumulators each must fit the registers, but for windows, and
    where there is one and such rows do not hide the latency. No more than hide it where their
    number is symbolic, so that a short input fills its tile; fewer where rows lie a multiple of a
    cache way apart, since then they all compete for one set of the first-level cache."""
    load, row, most = reduction.data, reduction.row, (target.vector_registers - OPERANDS) // 2
    if is_window(reduction.block):
        most = max(most, target.in_flight)
    elif is_one_vector(reduction, target) and most < target.in_flight:
        most = _budget(reduction, target)
    if load is None or row is None:
        return most
    most = most if known_factor(row.extent) else min(most, target.in_flight)
    step, cache = step_of(load, row.var), target.first_cache
    if step is None or step * load.dtype.bytes % cache.way_bytes:
        return most
    return min(most, cache.ways - 1)


def schedule_tile(s: Schedule, reduction: Reduction, d: Chooser) -> Schedule:
    """Tile one reduction, with the map that reads it as epilogue."""
    block, tile = reduction.block.name, pick_tile(s, reduction, d)
    s, maker, inlined = _with_codes(s, reduction, tile, d)
    s = pack_weights(s, reduction, tile, d)
    s, dot = _with_dot(s, reduction, tile, d)
    s, consumer = consumer_of(s, block)
    s, fill = _apart(s, block, consumer, tile, d)
    loops = loops_by_iter(s, block)
    lane, row = loops[reduction.lane.var.name], None
    s = s.clamp_tail(block, lane, tile.width, zero=True)
    if reduction.row is not None and tile.rows > 1:
        row = loops[reduction.row.var.name]
        s = s.clamp_tail(block, row, tile.rows)
    if fill:
        s = _whole_copy(s, fill, reduction, tile)
    names = (f"{lane}_t", f"{lane}_v", f"{lane}_l")
    s = s.split(lane, tile.width, names=(names[0], f"{lane}_in"))
    s = s.split(f"{lane}_in", tile.lanes, names=(names[1], names[2]))
    inner = [names[1], names[2]]
    outer = [f.var.name for f in find_place(s.func, block).loops]
    if row is not None:
        s = s.split(row, tile.rows, names=(f"{row}_t", f"{row}_r"))
        inner.insert(0, f"{row}_r")
        outer[outer.index(row)] = f"{row}_t"
    reduce_loops = reduce_loops_of(s, block)
    outer = [n for n in outer if n not in (*inner, *reduce_loops)]
    if dot is not None:
        over, taken = reduce_loops[-1], f"{lane}{STEPS}"
        s = s.split(over, dot.steps, names=(f"{over}_s", taken))
        reduce_loops[-1] = f"{over}_s"
        inner.append(taken)
    if maker or panels_outside(reduction, d):
        outer = around_rows(reduction, outer, names[0], loops, d)
    tap = loops.get(shared_taps(reduction, d)[0])
    _steps_inside(s, inner, reduce_loops, tap or "", names, inlined)
    count = _to_unroll(s, reduction, reduce_loops, d)
    ahead, turn = panel_ahead(s, reduction, outer, names[0], reduce_loops, d)
    s, reduce_loops = _in_turns(s, block, reduce_loops, turn, d)
    s = s.reorder(*outer, *reduce_loops, *inner)
    s = floats_of_panel(s, maker, names[0], tile.lanes, d) if maker else s
    s = _readers_inside(s, block, fill, consumer, outer, tile)
    for name in inner[: inner.index(names[2])]:
        s = s.unroll(name)
    s = s.vectorize(names[2]) if dot is None else s
    for name in reduce_loops[len(reduce_loops) - count :]:
        s = s.unroll(name)
    s = s.decompose_reduction(block, reduce_loops[0] if reduce_loops else inner[0])
    s = s if dot is None else s.vectorize(f"{names[2]}_init")
    s = schedule_consumer(s, consumer, outer, tile, rolled=bool(fill))
    s = whole_apart(s, consumer, outer, d)
    s = codes_ahead(s, block, reduce_loops[-1], d) if inlined and reduce_loops else s
    if ahead != "never":
        at = outer[-1] if ahead == "tiles" else f"{reduce_loops[-1].removesuffix('_u')}_s"
        s = unless_refused(s, partial(prefetch_next_panel, block, names[0], at))
    if not reduction.contraction:
        return _lines_ahead(s, reduction, outer, d)
    s = prefetch_epilogue(s, consumer, outer[-1], d)
    return _narrow_last(s, reduction, tile, (names[0], names[1]), d)


def _steps_inside(
    s: Schedule, inner: list[str], steps: list[str], tap: str, names: Sequence[str], codes: bool
) -> None:
    """Move the loop over taps that rows share into the tile, and that over rows of weights which
    share a byte: this one inside of the vectors, each of which then has few floats at a time."""
    if tap:
        steps.remove(tap)
        inner.insert(inner.index(names[1]), tap)
    if codes and len(steps) > 1 and is_short(s, steps[-1]):
        inner.insert(inner.index(names[2]), steps.pop())


def _with_codes(
    s: Schedule, reduction: Reduction, tile: Tile, d: Chooser
) -> tuple[Schedule, str, bool]:
    """Stored weights in panels; the map that makes floats of a panel, and whether tiles do."""
    map_of = maker_of(s, reduction)
    if map_of is None:
        return s, "", False
    own = in_registers(reduction, map_of, tile.rows)
    inlined = d.pick(f"{reduction.block.name}.in_registers", (False, True), own)
    after, maker = with_codes(s, reduction, tile.width, inlined)
    return after, maker, after is not s and not maker


def _narrow_last(
    s: Schedule, reduction: Reduction, tile: Tile, loops: tuple[str, str], d: Chooser
) -> Schedule:
    """Let the last panel have the vectors that it needs, and the masks, where that is worth it."""
    extents, block = _extents(reduction, d), reduction.block.name
    needed = last_vectors(tile, extents)
    if not needed or not d.pick(f"{block}.narrow", (False, True), narrows(tile, extents)):
        return s
    inside, whole = find_loop(s.func, loops[0]), extents.width // tile.width
    if needed == tile.vectors:
        return unless_refused(s, lambda s: s.partition(loops[0], whole))
    blocks = [p.block.name for p in places(inside)]
    return unless_refused(s, lambda s: narrow_last(s, loops[0], whole, loops[1], needed, blocks))


def _lines_ahead(s: Schedule, reduction: Reduction, outer: list[str], d: Chooser) -> Schedule:
    """Ask for the lines of an image that the next tiles read, where the lanes are places of a line
    and the image does not stay in the second-level cache: a tile reads a little of each line, which
    no machine foresees."""
    name, lane = reduction.block.name, reduction.lane.var
    loads = [n for n in distinct(find_place(s.func, name).block.body) if isinstance(n, Load)]
    images = [n for n in loads if n.buffer.role == "input" and mentions(n.indices[-1], lane)]
    if len(outer) < 2 or len(images) != 1 or plain_axis(images[0], lane) is not None:
        return s
    image = images[0].buffer
    known = prod(n for n in image.shape if isinstance(n, int)) * image.dtype.bytes
    far = known > d.target.second_cache.bytes
    if not d.pick(f"{name}.lines_ahead", (False, True), far):
        return s
    at, around = outer[-1], outer[-2]
    return unless_refused(s, lambda s: s.prefetch_next(name, image.name, around, at))


def _with_dot(
    s: Schedule, reduction: Reduction, tile: Tile, d: Chooser
) -> tuple[Schedule, Dot | None]:
    """What an instruction for sums of products needs, and the instruction if there is one."""
    dot = instruction_for(reduction, tile.lanes, d)
    if dot is None:
        return s, None
    ready = prepare(s, reduction, dot)
    return (s, None) if ready is s else (ready, dot)


def _to_unroll(s: Schedule, reduction: Reduction, loops: list[str], d: Chooser) -> int:
    """How many of the innermost reduce loops are unrolled: those of a window, whose places share
    what they read, and one that would end as soon as it has begun."""
    sizes = [_count(find_loop(s.func, n)) for n in loops]
    if is_window(reduction.block):
        places_of = window_sizes(reduction.block)
        own = sum(prod(places_of[k:]) <= MAX_WINDOW for k in range(len(loops)))
    else:
        own = int(len(loops) > 1 and 1 < sizes[-1] <= 4)
    options = [n for n in range(len(loops) + 1) if n == 0 or 0 < prod(sizes[-n:]) <= MOST_UNROLLED]
    return d.pick(f"{reduction.block.name}.unrolled", options, own)


def _in_turns(
    s: Schedule, block: str, loops: list[str], own: int, d: Chooser
) -> tuple[Schedule, list[str]]:
    """Some steps of a long reduce loop in each turn of it."""
    turn = d.pick(f"{block}.steps", turns_of(s, loops), own)
    if turn == 1:
        return s, loops
    last = loops[-1]
    s = s.split(last, turn, names=(f"{last}_s", f"{last}_u")).unroll(f"{last}_u")
    return s, [*loops[:-1], f"{last}_s", f"{last}_u"]


def loops_by_iter(s: Schedule, block: str) -> dict[str, str]:
    """Loop names of a freshly lowered block, by its iterators."""
    place = find_place(s.func, block)
    return {
        it.var.name: value.name
        for it, value in zip(place.block.iters, place.block.bindings, strict=True)
        if isinstance(value, type(it.var))
    }


def reduce_loops_of(s: Schedule, block: str) -> list[str]:
    """Loop names of a block's reduce iterators."""
    loops = loops_by_iter(s, block)
    return [
        loops[it.var.name]
        for it in find_place(s.func, block).block.iters
        if it.kind != "spatial" and it.var.name in loops
    ]


def consumer_of(s: Schedule, block: str) -> tuple[Schedule, str]:
    """The map that reads the result at its own iterators; a copy is made when there is none."""
    s = _with_parts(s, block)
    reader = lanes_reader(s, block)
    return (s, reader) if reader is not None else through_private(s, block, "global")


def _apart(s: Schedule, block: str, consumer: str, tile: Tile, d: Chooser) -> tuple[Schedule, str]:
    """Let a map that calls functions read a copy of the tile in memory, row after row: its code is
    there once, not for every accumulator. Also the block that copies; none where the map is
    computed from registers."""
    several = tile.rows > 1 and tile.rows * tile.vectors > FEW_CALLS
    own = several and has_calls(find_place(s.func, consumer).block)
    if not d.pick(f"{consumer}.rolled", (False, True), own):
        return s, ""
    return through_private(s, block, "global")


def _readers_inside(
    s: Schedule, block: str, fill: str, consumer: str, outer: list[str], tile: Tile
) -> Schedule:
    """The tile in registers, read where it is made: by the map, or by the copy that it reads."""
    for name in filter(None, (fill, consumer)):
        s = s.reverse_compute_at(name, outer[-1])
    s = s.set_scope(result_of(s, block).name, "register")
    if not fill:
        return s
    s = s.set_scope(result_of(s, fill).name, "stack")
    return schedule_consumer(s, fill, outer, tile)


def _whole_copy(s: Schedule, fill: str, reduction: Reduction, tile: Tile) -> Schedule:
    """Let all of a tile be copied, with what is beyond the end; not where only the run knows a
    size, as what is read there is then not known to be the tile's."""
    spatial = [it for it in reduction.block.iters if it.kind == "spatial"]
    if not all(isinstance(it.extent, Const) for it in spatial):
        return s
    loops = list(loops_by_iter(s, fill).values())
    for it, size in ((reduction.lane, tile.width), (reduction.row, tile.rows)):
        if it is not None and size > 1:
            s = s.clamp_tail(fill, loops[spatial.index(it)], size)
    return s


def _with_parts(s: Schedule, block: str) -> Schedule:
    """Let the map that reads the result of a block at a quotient and a remainder of one of its
    iterators, as channels of groups, have an iterator for each."""
    out = result_of(s, block)
    reader = only_reader(s, out)
    if reader is None:
        return s
    loads = [n for n in distinct(reader.body) if isinstance(n, Load) and n.buffer == out]
    for high, low in dict.fromkeys(pair for n in loads for pair in pairwise(n.indices)):
        if not isinstance(high, Binary) or not isinstance(low, Binary) or high.b != low.b:
            continue
        found = [k for k, it in enumerate(reader.iters) if it.var == high.a == low.a]
        if found and (high.op, low.op) == ("floordiv", "mod") and isinstance(high.b, Const):
            s = unless_refused(s, partial(_in_parts, reader, found[0], int(high.b.value)))
    return s


def _in_parts(block: Block, position: int, factor: int, s: Schedule) -> Schedule:
    loop = block.bindings[position]
    if isinstance(loop, Var):
        s = s.split(loop.name, factor)
    return s.split_iter(block.name, position, factor)


def schedule_consumer(
    s: Schedule, block: str, outer: list[str], tile: Tile, rolled: bool = False
) -> Schedule:
    """Unroll the rows of the epilogue, unless they stay a loop, vectorize its lanes."""
    loops = [f for f in find_place(s.func, block).loops if f.var.name not in outer]
    for k, loop in enumerate(loops):
        if k == len(loops) - 1 and _count(loop) > 1:
            last, lanes = loop.var.name, tile.lanes
            together = vectors_together(find_place(s.func, block).block, _count(loop), lanes)
            lanes *= together if rolled and tile.vectors % together == 0 else 1
            if _count(loop) > lanes:
                s = s.split(last, lanes, names=(f"{last}_v", f"{last}_l"))
                s = s.unroll(f"{last}_v")
                last = f"{last}_l"
            s = s.vectorize(last)
        elif not rolled:
            s = s.unroll(loop.var.name)
    return s


def whole_apart(s: Schedule, block: str, outer: list[str], d: Chooser) -> Schedule:
    """Let whole tiles be stored without masks where a masked store is slow."""
    place = find_place(s.func, block)
    loops = [f.var.name for f in place.loops if f.var.name not in outer and _count(f) > 1]
    if not loops or not any(isinstance(n, If) for n in walk(place.loops[-1])):
        return s
    own = d.target.costs.masked_store > 1
    if not d.pick(f"{block}.whole_apart", (False, True), own):
        return s
    return s.annotate(loops[0], WHOLE_APART, 1)


def _count(loop: For) -> int:
    return int(loop.extent.value) if isinstance(loop.extent, Const) else 0
