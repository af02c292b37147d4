"""Attention of a few queries in one kernel: keys and values as lanes.

Each key is read once, by vectors along its depth, whose lanes are summed by transposing squares in
registers; each value once, by vectors along its width. Nothing is packed or turned in memory, which
is what counts where as much is read as is computed.
"""

from __future__ import annotations

from aisc.ir.dataclass import dataclass
from aisc.ir.tensor.tree import extent_of, find_place
from aisc.passes.schedule.rules.tile import schedule_consumer
from aisc.passes.schedule.rules.tile_cost import Tile
from aisc.passes.schedule.schedule import Schedule

# Chunks of a depth that are unrolled.
MOST_UNROLLED = 8
# Maps over the queries of a block.
PER_QUERY = ("low", "none", "raise", "safe", "fall", "move", "add", "invert")


@dataclass(frozen=True, slots=True)
class Rows:
    """Queries, keys of a block, elements of a vector, vectors of a value in registers at a time."""

    queries: int
    keys: int
    lanes: int
    vectors: int


def schedule_rows_of(s: Schedule, name: str, b: Rows) -> Schedule:
    """The variant for a few queries of the attention that ends in block `name`, scheduled."""
    s = s.variant(name, "streaming_rows", b.queries, b.keys, b.lanes)
    for step in PER_QUERY:
        s = s.unroll(_loops(s, f"{name}_{step}", 1)[0])
    for step in ("clear", "out"):
        w = _loops(s, f"{name}_{step}", 1)[0]
        s = s.split(w, b.lanes, names=(f"{w}_v", f"{w}_l")).vectorize(f"{w}_l")
    s = _scores(s, name)
    for step in ("max", "sum"):
        s = _folded(s, f"{name}_{step}")
    s = s.vectorize(_loops(s, f"{name}_exp", 1)[0])
    return _values(s, name, b)


def _loops(s: Schedule, block: str, count: int) -> list[str]:
    """The innermost loops of a block."""
    return [f.var.name for f in find_place(s.func, block).loops[-count:]]


def _scores(s: Schedule, name: str) -> Schedule:
    """A vector of scores at a time, from as many vectors of products."""
    block = f"{name}_lanes"
    i, g, r, lane, o = _loops(s, block, 5)
    part = find_place(s.func, block).block.writes[0].buffer.name
    few = extent_of(find_place(s.func, block).loops[-1])
    s = s.reorder(i, g, o, r, lane).unroll(r).vectorize(lane).decompose_reduction(block, o)
    if few is not None and few <= MOST_UNROLLED:
        s = s.unroll(o)
    si, sg, sr, sl = _loops(s, f"{name}_scores", 4)
    s = s.reorder(si, sg, sl, sr).unroll(sl).vectorize(sr)
    s = s.decompose_reduction(f"{name}_scores", sl)
    mi, mg, mr = _loops(s, f"{name}_mask", 3)
    s = s.vectorize(mr)
    result = find_place(s.func, f"{name}_scores").block.writes[0].buffer.name
    for other, inner in ((si, sg), (mi, mg)):
        s = s.fuse_loops(i, other).fuse_loops(g, inner)
    return s.set_scope(part, "stack").set_scope(result, "register")


def _folded(s: Schedule, block: str) -> Schedule:
    """A reduction over groups of keys by vectors, and one over the lanes of the result."""
    i, lane, g = _loops(s, f"{block}_lanes", 3)
    s = s.reorder(i, g, lane).vectorize(lane).decompose_reduction(f"{block}_lanes", g)
    last = _loops(s, block, 1)[0]
    return s.decompose_reduction(block, last).unroll(last)


def _values(s: Schedule, name: str, b: Rows) -> Schedule:
    """A tile of all queries times some vectors of the values."""
    i, w, j = _loops(s, name, 3)
    s = s.split(w, b.vectors * b.lanes, names=(f"{w}_t", f"{w}_i"))
    s = s.split(f"{w}_i", b.lanes, names=(f"{w}_v", f"{w}_l"))
    s = s.reorder(f"{w}_t", j, i, f"{w}_v", f"{w}_l")
    s = s.reverse_compute_at(f"{name}_rescale", f"{w}_t")
    sums = find_place(s.func, name).block.writes[0].buffer.name
    s = s.set_scope(sums, "register").unroll(i).unroll(f"{w}_v").vectorize(f"{w}_l")
    s = s.decompose_reduction(name, j)
    outer = [f.var.name for f in find_place(s.func, name).loops]
    outer = outer[: outer.index(f"{w}_t") + 1]
    return schedule_consumer(s, f"{name}_rescale", outer, Tile(b.queries, b.vectors, b.lanes))
