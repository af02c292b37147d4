"""Register tiles for reductions: rows × vectors of accumulators around the reduce loops.

The tile is MR rows by NV vectors; its accumulators live in registers over all reduce loops, the
operators that follow run on it before it is stored. Weights that are constant are packed at
compile time so that each reduce step reads NV consecutive vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod

from aisc.ir.arith.linear import mentions
from aisc.ir.node import walk
from aisc.ir.target import Target
from aisc.ir.tensor.expr import Binary, Const, Expr, Load
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.stmt import Block, For, Iter, Store
from aisc.passes.schedule.rules.structure import (
    MAX_WINDOW,
    Reduction,
    is_window,
    plain_axis,
    shared_iters,
    step_of,
    window_sizes,
)
from aisc.passes.schedule.schedule import Schedule, unless_refused
from aisc.passes.schedule.tree import find_loop, find_place, places

RUNTIME_PACK_ROWS = 32
MAX_ROWS = 14
WINDOW_ACCUMULATORS = 8
CACHED_BYTES = 512 << 10
# Rows of a tile where their number is known at run time only: a short input fills part of one tile.
SYMBOLIC_ROWS = 8
UNKNOWN_EXTENT = 1 << 20
# First-level data caches of current cores: 8 to 12 ways of 4 KiB.
CACHE_WAYS, CACHE_WAY_BYTES = 8, 4096


@dataclass(frozen=True, slots=True)
class Tile:
    """`rows` × `vectors` accumulators of `lanes` elements."""

    rows: int
    vectors: int
    lanes: int

    @property
    def width(self) -> int:
        """Elements per row."""
        return self.vectors * self.lanes


def candidate_tiles(reduction: Reduction, target: Target) -> list[Tile]:
    """Tiles that fit the register file, best first by the analytical rule.

    Wasted work (elements computed beyond the extents) decides first, then the number of
    accumulators, which hides the latency of the multiply-add.
    """
    lanes = max(1, target.vector_bits // 32)
    budget = target.vector_registers - 4
    width, height = _extent(reduction.lane), _extent(reduction.row)
    heights = range(1, min(_most_rows(reduction), height) + 1)
    limit = 8 if height < 4 else 4 if reduction.contraction else 2
    if is_window(reduction.block):  # unrolled taps share inputs, which need registers as well
        budget, limit = WINDOW_ACCUMULATORS, 1
    found = [
        Tile(r, v, lanes)
        for v in range(1, limit + 1)
        for r in heights
        if r * v + v + 1 <= budget + 3 and r * v <= budget
    ]
    return sorted(found, key=lambda t: _cost(t, width, height, reduction.contraction))


def _most_rows(reduction: Reduction) -> int:
    """Rows of a tile: fewer where their number is symbolic, and where they lie a multiple of a
    cache way apart, since then they all compete for one set of the first-level cache."""
    load, row = reduction.data, reduction.row
    if load is None or row is None:
        return MAX_ROWS
    most = MAX_ROWS if known_factor(row.extent) else SYMBOLIC_ROWS
    step = step_of(load, row.var)
    if step is None or step * load.dtype.bytes % CACHE_WAY_BYTES:
        return most
    return min(most, CACHE_WAYS - 1)


def _extent(it: Iter | None) -> int:
    """An extent, or that of one element of a batch whose size only the run knows."""
    return 1 if it is None else known_factor(it.extent) or UNKNOWN_EXTENT


def known_factor(extent: Expr) -> int:
    """The constant by which an extent is a multiple of something; 0 when there is none."""
    if isinstance(extent, Const):
        return int(extent.value)
    if isinstance(extent, Binary) and extent.op == "mul":
        return known_factor(extent.a) * known_factor(extent.b) or max(
            known_factor(extent.a), known_factor(extent.b)
        )
    return 0


def _cost(t: Tile, width: int, height: int, contraction: bool) -> tuple[float, float, int, int]:
    """Estimated cycles per useful element: one multiply-add or load per cycle and vector."""
    waste = _rounding(width, t.width) * _rounding(height, t.rows)
    loads = t.vectors + t.rows if contraction else t.vectors * t.rows
    latency = 8
    step = max(t.rows * t.vectors, loads * 0.75, latency)
    cycles = waste * step / (t.rows * t.vectors)
    return round(cycles, 3), waste, -(t.rows * t.vectors), t.vectors


def _rounding(extent: int, step: int) -> float:
    """How much longer an extent becomes in whole steps; not at all where it is unknown."""
    return 1.0 if extent == UNKNOWN_EXTENT else -(-extent // step) * step / extent


def schedule_tile(s: Schedule, reduction: Reduction, tile: Tile) -> Schedule:
    """Tile one reduction, with the map that reads it as epilogue."""
    block = reduction.block.name
    s = _pack_weights(s, reduction, tile)
    s, consumer = _consumer(s, block)
    loops = _loops_by_iter(s, block)
    lane, row = loops[reduction.lane.var.name], None
    s = s.clamp_tail(block, lane, tile.width, zero=True)
    if reduction.row is not None and tile.rows > 1:
        row = loops[reduction.row.var.name]
        s = s.clamp_tail(block, row, tile.rows)
    names = (f"{lane}_t", f"{lane}_v", f"{lane}_l")
    s = s.split(lane, tile.width, names=(names[0], f"{lane}_in"))
    s = s.split(f"{lane}_in", tile.lanes, names=(names[1], names[2]))
    inner = [names[1], names[2]]
    outer = [f.var.name for f in find_place(s.func, block).loops]
    if row is not None:
        s = s.split(row, tile.rows, names=(f"{row}_t", f"{row}_r"))
        inner.insert(0, f"{row}_r")
        outer[outer.index(row)] = f"{row}_t"
    reduce_loops = _reduce_loops(s, block)
    outer = [n for n in outer if n not in (*inner, *reduce_loops)]
    if reduction.contraction:  # the panel of weights stays in cache over all rows
        outer.remove(names[0])
        outer.insert(_count_shared(reduction, outer, loops), names[0])
    s = s.reorder(*outer, *reduce_loops, *inner)
    s = s.reverse_compute_at(consumer, outer[-1])
    s = s.set_scope(_result(s, block), "register")
    if row is not None:
        s = s.unroll(f"{row}_r")
    s = s.unroll(names[1]).vectorize(names[2])
    for name in _to_unroll(s, reduction, reduce_loops):
        s = s.unroll(name)
    s = s.decompose_reduction(block, reduce_loops[0] if reduce_loops else inner[0])
    s = schedule_consumer(s, consumer, outer, tile)
    return _prefetch_epilogue(s, consumer, outer[-1]) if reduction.contraction else s


def _to_unroll(s: Schedule, reduction: Reduction, reduce_loops: list[str]) -> list[str]:
    """Reduce loops without which the code is better: the inner ones of a window, whose places
    share what they read, and an innermost one that would end as soon as it has begun."""
    if is_window(reduction.block):
        sizes = window_sizes(reduction.block)
        return [n for k, n in enumerate(reduce_loops) if prod(sizes[k:]) <= MAX_WINDOW]
    last = reduce_loops[-1:]
    return [n for n in last if len(reduce_loops) > 1 and 1 < _count(find_loop(s.func, n)) <= 4]


def _count_shared(reduction: Reduction, outer: list[str], loops: dict[str, str]) -> int:
    """How many of the outermost loops choose among matrices: other weights in each iteration."""
    shared = [loops[it.var.name] for it in shared_iters(reduction) if it.var.name in loops]
    return next((k for k, name in enumerate(outer) if name not in shared), len(outer))


def _prefetch_epilogue(s: Schedule, consumer: str, loop: str) -> Schedule:
    """Ask for what the epilogue will read and write before the reduction starts, which hides the
    way to memory; what is small, or the same for all rows, is in cache already."""
    block = find_place(s.func, consumer).block
    rows = [it.var for it in block.iters[:-1]]
    for region in (*block.reads, *block.writes):
        moves = any(mentions(i, v) for i in region.low for v in rows)
        if moves and region.buffer.space == "global" and is_large(region.buffer):
            s = unless_refused(s, partial(_prefetch, consumer, region.buffer.name, loop))
    return s


def is_large(b: Buffer) -> bool:
    """Whether a buffer does not fit the second-level cache, even where unknown sizes are 1."""
    known = [d for d in b.shape if isinstance(d, int)]
    return prod(known) * b.dtype.bytes > CACHED_BYTES


def _prefetch(block: str, name: str, loop: str, s: Schedule) -> Schedule:
    return s.prefetch(block, name, loop)


def _loops_by_iter(s: Schedule, block: str) -> dict[str, str]:
    """Loop names of a freshly lowered block, by its iterators."""
    place = find_place(s.func, block)
    return {
        it.var.name: value.name
        for it, value in zip(place.block.iters, place.block.bindings, strict=True)
        if isinstance(value, type(it.var))
    }


def _reduce_loops(s: Schedule, block: str) -> list[str]:
    loops = _loops_by_iter(s, block)
    return [
        loops[it.var.name]
        for it in find_place(s.func, block).block.iters
        if it.kind != "spatial" and it.var.name in loops
    ]


def _pack_weights(s: Schedule, reduction: Reduction, tile: Tile) -> Schedule:
    """Pack the weights into panels of the tile's width, where each is read by many rows."""
    load = reduction.weights
    if load is None or not reduction.contraction:
        return s
    axis = plain_axis(load, reduction.lane.var)
    if axis is None:
        return s
    constant = load.buffer.role == "weight"
    if not constant and _extent(reduction.row) < RUNTIME_PACK_ROWS:
        return s
    rank = load.buffer.rank
    axes = [plain_axis(load, it.var) for it in shared_iters(reduction)]
    first = [k for k in axes if k is not None and k < axis]
    rest = [k for k in range(rank + 1) if k not in (axis, axis + 1, *first)]
    return s.pack(load.buffer.name, axis, tile.width, (*first, axis, *rest, axis + 1))


def _result(s: Schedule, block: str) -> str:
    return find_place(s.func, block).block.writes[0].buffer.name


def _consumer(s: Schedule, block: str) -> tuple[Schedule, str]:
    """The map that reads the result at its own iterators; a copy is made when there is none."""
    reader = in_place_reader(s, block)
    if reader is not None:
        return s, reader
    before = {p.block.name for p in places(s.func.body)}
    s = s.cache_write(block, "global")
    (copy,) = (p.block.name for p in places(s.func.body) if p.block.name not in before)
    return s, copy


def in_place_reader(s: Schedule, block: str) -> str | None:
    """The only map that reads the private result of a block, at its own iterators."""
    out = find_place(s.func, block).block.writes[0].buffer
    readers = [p.block for p in places(s.func.body) if out in {r.buffer for r in p.block.reads}]
    if out.role == "scratch" and len(readers) == 1 and _reads_in_place(readers[0], out):
        return readers[0].name
    return None


def _reads_in_place(block: Block, out: Buffer) -> bool:
    if any(it.kind != "spatial" for it in block.iters) or not isinstance(block.body, Store):
        return False
    iters = tuple(it.var for it in block.iters)
    loads = [n for n in walk(block.body) if isinstance(n, Load) and n.buffer == out]
    return block.body.indices == iters and all(n.indices == iters for n in loads)


def schedule_consumer(s: Schedule, block: str, outer: list[str], tile: Tile) -> Schedule:
    """Unroll the rows of the epilogue, vectorize its lanes."""
    loops = [f for f in find_place(s.func, block).loops if f.var.name not in outer]
    for k, loop in enumerate(loops):
        if k == len(loops) - 1 and _count(loop) > 1:
            last = loop.var.name
            if _count(loop) > tile.lanes:
                s = s.split(last, tile.lanes, names=(f"{last}_v", f"{last}_l"))
                s = s.unroll(f"{last}_v")
                last = f"{last}_l"
            s = s.vectorize(last)
        else:
            s = s.unroll(loop.var.name)
    return s


def _count(loop: For) -> int:
    return int(loop.extent.value) if isinstance(loop.extent, Const) else 0
