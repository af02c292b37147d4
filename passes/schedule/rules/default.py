"""The default schedule of a function: one decision after another, primitives only.

1. maps are inlined into the maps that read them; 2. attention becomes the streaming one,
convolutions Winograd's where it pays, tiles take pixels of several lines;
3. reductions get register tiles, with the maps that follow them as epilogues; 4. what is left is
vectorized along its last axis, or tiled where it transposes; 5. kernels on far memory get hints;
6. the outermost loops of costly nests are divided among threads.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import prod

from aisc.ir.node import walk
from aisc.ir.target import Target
from aisc.ir.tensor.expr import Const, Load, Select
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.linear import mentions
from aisc.ir.tensor.stmt import Block, Iter, Store
from aisc.ir.tensor.tree import find_place, places
from aisc.passes.schedule.rules.across import rows_as_lanes
from aisc.passes.schedule.rules.attention import use_attention
from aisc.passes.schedule.rules.chains import use_chains
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.columns import schedule_columns
from aisc.passes.schedule.rules.dots import use_instructions
from aisc.passes.schedule.rules.grouped import schedule_grouped
from aisc.passes.schedule.rules.groups import use_groups
from aisc.passes.schedule.rules.inlining import inline_maps, inline_where_legal
from aisc.passes.schedule.rules.memory import use_memory
from aisc.passes.schedule.rules.parallel import divide
from aisc.passes.schedule.rules.pixels import use_pixels
from aisc.passes.schedule.rules.plain import vectorize_map
from aisc.passes.schedule.rules.row import chunk, chunk_loop, schedule_rows, top_loops
from aisc.passes.schedule.rules.scans import is_scan, vectorize_scan
from aisc.passes.schedule.rules.singles import several_results
from aisc.passes.schedule.rules.source_order import keep_source_order
from aisc.passes.schedule.rules.structure import (
    MAX_WINDOW,
    Reduction,
    analyse,
    has_calls,
    is_window,
    known_factor,
    step_of,
)
from aisc.passes.schedule.rules.tile import schedule_tile
from aisc.passes.schedule.rules.transpose import tile_transposed
from aisc.passes.schedule.rules.turns import use_turns
from aisc.passes.schedule.rules.winograd import block_tiles, use_winograd
from aisc.passes.schedule.schedule import Schedule

# Reads of an element for which it is gathered where it lies.
OFTEN = 2
# Results for which a vector of places is read once more rather than copied with a border.
FEW_RESULTS = 3


def default_schedule(func: Func, d: Chooser) -> Schedule:
    """Schedule `func` as `d` decides."""
    return complete(prepared(func, d), d)


def complete(s: Schedule, d: Chooser) -> Schedule:
    """The steps after :func:`prepared`."""
    known = [p.block.name for p in places(s.func.body)]
    s = schedule_rows(s, d) or block_tiles(_schedule_nests(s, d), d)
    s = use_memory(s, d)
    for nest in top_loops(s.func.body):
        s = d.attempt(s, partial(divide, name=nest.var.name, known=known, d=d))
    s = use_instructions(use_turns(s, d), d)
    return replace(s, picks=d.picks)


def packer_schedule(func: Func, target: Target) -> Schedule:
    """The schedule of what packs weights, once and on one thread: vectors."""
    return _schedule_nests(Schedule.of(func), Chooser(target))


def _schedule_nests(s: Schedule, d: Chooser) -> Schedule:
    """Each nest for itself: tiles, partial results, vectors."""
    for name in [p.block.name for p in places(s.func.body)]:
        reduction = analyse(find_place(s.func, name).block)
        if reduction is not None and _worth_tiling(reduction, d.target):
            before = s
            s = schedule_columns(s, reduction, d)
            s = schedule_grouped(s, reduction, d) if s is before else s
            s = schedule_tile(s, reduction, d) if s is before else s
        elif chunk_loop(find_place(s.func, name).block, d) is not None:
            s = d.attempt(s, partial(chunk, name=name, d=d))
        elif reduction is not None:
            s = d.attempt(s, partial(several_results, name=name, d=d))
    for name in [p.block.name for p in places(s.func.body)]:
        place = find_place(s.func, name)
        if all(f.kind == "serial" for f in place.loops):
            before = s
            s = d.attempt(s, partial(rows_as_lanes, place=place, d=d))
            if s is before:
                s = d.attempt(s, partial(tile_transposed, place=place, d=d))
            if s is before:
                rule = vectorize_scan if is_scan(place.block) else vectorize_map
                s = d.attempt(s, partial(rule, place=place, d=d))
    return s


def prepared(func: Func, d: Chooser) -> Schedule:
    """The first steps of every schedule of `func`: maps inlined, variants chosen."""
    start = Schedule.of(func)
    chained = use_chains(start, d)
    s = inline_maps(start, d) if chained is start else chained
    s = use_attention(s, d)
    s = _inline_borders(use_groups(use_winograd(s, d), d), d)
    s = keep_source_order(s, d)
    for reduction in tiled_contractions(s, d.target):
        s = use_pixels(s, reduction, d)
    return s


def _inline_borders(s: Schedule, d: Chooser) -> Schedule:
    """Let windows that reduce over few places read a bordered input where it lies: they read each
    element about as often as copying it would touch it."""
    for name in [p.block.name for p in places(s.func.body)]:
        block = find_place(s.func, name).block
        readers = [p.block for p in places(s.func.body) if _reads(p.block, block)]
        guarded = isinstance(block.body, Store) and isinstance(block.body.value, Select)
        if not guarded or len(readers) != 1 or has_calls(block):
            continue
        if not _stays_bordered(readers[0], block, d.target):
            continue
        if d.pick(f"{name}.inline", (True, False), True):
            s = inline_where_legal(s, name)
    return s


def _stays_bordered(reader: Block, border: Block, target: Target) -> bool:
    """Whether a window or a contraction reads the input of a border as quickly as a copy with it:
    its lanes lie side by side, and are guarded together, or else one by one, but not often, and
    for rows of which it is known where they are."""
    store, often, row = border.body, _reads_of_element(reader, border), _row_of(reader)
    assert isinstance(store, Store) and isinstance(store.value, Select), "a guarded copy"
    guard = store.value.cond
    rows = any(mentions(guard, it.var) for it in border.iters[-2:-1])
    known = not rows or _in_whole_tiles(reader, target)
    if _reads_along_rows(reader, border):
        sharing = 1 if row is None else known_factor(row.extent)
        return often <= (MAX_WINDOW if known and _keeps_rows(border) else OFTEN * sharing)
    apart = mentions(guard, border.iters[-1].var)
    plain = often <= MAX_WINDOW or (known and not apart)
    return is_window(reader) and _keeps_rows(border) and plain


def _in_whole_tiles(reader: Block, target: Target) -> bool:
    """Whether the rows of a window are all in whole tiles, or few."""
    rows = [known_factor(it.extent) for it in reader.iters if it.kind == "spatial"][-2:-1] or [1]
    sizes = range(target.in_flight // 2 + 1, target.in_flight + 1)
    few = 0 < rows[0] <= 2 * target.in_flight
    return few or (rows[0] > 0 and any(rows[0] % n == 0 for n in sizes))


def _keeps_rows(block: Block) -> bool:
    """Whether what a copy stores side by side lies side by side where it comes from."""
    loads = [n for n in walk(block.body) if isinstance(n, Load)]
    return all(step_of(n, block.iters[-1].var) in (0, 1) for n in loads)


def _reads_of_element(reader: Block, writer: Block) -> float:
    """How often a reduction reads an element that a copy stores; sizes that only the run knows are
    taken to be the same in both."""
    points = [prod(known_factor(it.extent) or 1 for it in b.iters) for b in (reader, writer)]
    return points[0] / max(1, points[1])


def _row_of(block: Block) -> Iter | None:
    """The iterator whose values share what a contraction reads along its lanes."""
    found = analyse(block)
    return found.row if found is not None else None


def _reads_along_rows(reader: Block, writer: Block) -> bool:
    """Whether a contraction reads vectors of what a block writes, each once or twice: its lanes are
    places, and it has few results for each of them."""
    found, row = analyse(reader), _row_of(reader)
    if found is None or not found.contraction or found.weights is None:
        return False
    if row is not None and not 0 < known_factor(row.extent) < FEW_RESULTS:
        return False
    return found.weights.buffer in {w.buffer for w in writer.writes}


def _reads(reader: Block, writer: Block) -> bool:
    return bool({r.buffer for r in reader.reads} & {w.buffer for w in writer.writes})


def tiled_contractions(start: Schedule, target: Target) -> list[Reduction]:
    """The contractions of what :func:`prepared` gave that get register tiles."""
    found = [analyse(p.block) for p in places(start.func.body)]
    return [r for r in found if r is not None and r.contraction and _worth_tiling(r, target)]


def _worth_tiling(reduction: Reduction, target: Target) -> bool:
    """Tiles need lanes at unit stride in every operand that they index."""
    lane, weights = reduction.lane.var, reduction.weights
    if isinstance(reduction.lane.extent, Const):
        packed = weights is not None and weights.buffer.role == "weight"
        shared = packed and reduction.contraction and reduction.row is not None
        if int(reduction.lane.extent.value) < (2 if shared else 4):
            return False
    for n in walk(reduction.block.body):
        if isinstance(n, Load):
            uses = [k for k, i in enumerate(n.indices) if mentions(i, lane)]
            last = uses == [] or uses == [n.buffer.rank - 1]
            inner_only = last or step_of(n, lane) == 1  # axes of one element may be behind
            if not inner_only and n is not reduction.weights:
                return False
            if inner_only and abs(step_of(n, lane) or 0) > MAX_WINDOW:
                return False
    return target.vector_bits >= 128
