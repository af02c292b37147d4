"""Attention in one kernel: blocks of queries as lanes, blocks of keys one after the other.

The variant *streaming attention* leaves two products, a few maps and two reductions per block of
keys. All of them have the queries of the block as lanes, so that keys and values are read one
element at a time where they lie, in any layout, maxima and sums need no work across lanes, and any
number of keys is exact. Both products are register tiles: some keys, or some elements of a value,
times the vectors of queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError
from aisc.ir.dtypes import f32
from aisc.ir.target import Target
from aisc.ir.tensor.expr import Const, Expr, Load
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.linear import Indexer, mentions
from aisc.ir.tensor.stmt import Block, Store
from aisc.ir.tensor.tree import find_place, places
from aisc.passes.schedule.products import factors
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.decoding import PER_QUERY, Rows, schedule_rows_of
from aisc.passes.schedule.rules.inlining import inline_maps, inline_where_legal
from aisc.passes.schedule.rules.memory import is_large
from aisc.passes.schedule.rules.tile import OPERANDS, schedule_consumer
from aisc.passes.schedule.rules.tile_cost import Tile
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.schedule.variants.attention import Attention, attention_of

VECTORS = (1, 2, 4)
# Lanes for each query up to which those without one cost less than scores in memory do: more where
# keys are as few as lanes, so that scores do not fill vectors either, or not in cache to be turned.
SOME_PADDED, MOST_PADDED = 1.35, 1.6
# Queries up to which each is a row of its own.
MOST_ROWS = 4


@dataclass(frozen=True, slots=True)
class Blocks:
    """Vectors of queries, keys, and rows of the register tiles of both products."""

    lanes: int
    vectors: int
    keys: int
    rows: int
    width: int

    @property
    def queries(self) -> int:
        """Queries of a block."""
        return self.lanes * self.vectors


def use_attention(s: Schedule, d: Chooser) -> Schedule:
    """Replace the attention that `s` computes by the streaming one, scheduled, where it pays."""
    found = find_attention(s)
    if found is None:
        return s
    moved, name, attention = found
    own = _algorithm(attention, d.target)
    options = ["nests", "streaming", *(["rows"] if has_few_rows(attention, d.target) else [])]
    if not _fits(attention, d.target):
        options = ["nests"]
    algorithm = d.pick(f"{name}.algorithm", options, own, exact=False)
    if algorithm == "streaming":
        blocks = choose(attention, name, d)
        return d.attempt(s, lambda _: _schedule(moved, name, blocks))
    if algorithm == "rows":
        rows = choose_rows(attention, name, d)
        return d.attempt(s, lambda _: schedule_rows_of(moved, name, rows))
    return s


def is_attention(func: Func, target: Target) -> bool:
    """Whether :func:`use_attention` replaces what a lowered function computes."""
    found = find_attention(inline_maps(Schedule.of(func), Chooser(target)))
    return found is not None and _algorithm(found[2], target) != "nests"


def is_copy(func: Func) -> bool:
    """Whether a lowered function only stores the elements of its operand elsewhere."""
    blocks = [p.block for p in places(func.body)]
    return len(blocks) == 1 and _moves(blocks[0])


def find_attention(s: Schedule) -> tuple[Schedule, str, Attention] | None:
    """`s` with the copies that its products read inlined, the last block of its attention, and what
    that is made of."""
    products = [p.block for p in places(s.func.body) if _is_product(p.block)]
    if len(products) < 2 or not any(p.block.combiner == "max" for p in places(s.func.body)):
        return None
    s = _inline_moves(s, products)
    for block in reversed(products):
        try:
            return s, block.name, attention_of(s.func, find_place(s.func, block.name))
        except CompileError:
            continue
    return None


def _algorithm(a: Attention, target: Target) -> str:
    """One kernel where that is faster than a product, a softmax and a product."""
    if _fits(a, target) and fills_lanes(a, target):
        return "streaming"
    return "rows" if _fits(a, target) and has_few_rows(a, target) else "nests"


def _fits(a: Attention, target: Target) -> bool:
    """Whether what belongs to a block of queries is of known size, and a small part of the
    second-level cache."""
    sizes = _known(a.depth.extent), _known(a.width.extent)
    if sizes[1] and _divisor(sizes[1], 2 * target.in_flight) < min(target.in_flight, sizes[1]):
        return False
    return all(sizes) and target.vector_bits // 8 * sum(sizes) <= target.second_cache.bytes // 4


def accumulators(target: Target) -> int:
    """Those of a register tile: twice as many as hide the latency of the multiply-add."""
    return min(2 * target.in_flight, target.vector_registers - OPERANDS)


def fills_lanes(a: Attention, target: Target) -> bool:
    """Whether enough lanes hold queries; of how many is not known there may be many."""
    queries, keys, lanes = _known(a.lane.extent), _known(a.keys.extent), target.lanes(f32)
    padded = -(-queries // lanes) * lanes
    short = 0 < keys <= 2 * lanes or is_large(a.key.buffer, target)
    most = MOST_PADDED if short else SOME_PADDED
    return padded <= most * queries


def has_few_rows(a: Attention, target: Target) -> bool:
    """Whether there are few queries, and whole vectors of each operand lie together in memory,
    along depth and width."""
    if not 0 < _known(a.lane.extent) <= MOST_ROWS:
        return False
    vectors = (a.query, a.depth), (a.key, a.depth), (a.value, a.width)
    return all(
        _known(it.extent) % target.lanes(f32) == 0
        and Indexer().linear(load.indices[-1]).coeff(it.var) == 1
        and not any(mentions(i, it.var) for i in load.indices[:-1])
        for load, it in vectors
    )


def _is_product(block: Block) -> bool:
    store = block.body
    return block.combiner == "sum" and isinstance(store, Store) and factors(store.value) is not None


def _inline_moves(s: Schedule, products: Sequence[Block]) -> Schedule:
    """Let products read where their operands lie, and not a copy in another order."""
    read = {r.buffer for b in products for r in b.reads}
    for block in [p.block for p in places(s.func.body)]:
        if _moves(block) and block.writes[0].buffer in read:
            s = inline_where_legal(s, block.name)
    return s


def _moves(block: Block) -> bool:
    store = block.body
    return isinstance(store, Store) and isinstance(store.value, Load) and not block.combiner


def choose(a: Attention, name: str, d: Chooser) -> Blocks:
    """The sizes of blocks and tiles: the vectors of queries that let the cores end first, as far as
    they stay in twice the first cache; scores in half of it; keys in equal blocks."""
    target, lanes = d.target, d.target.lanes(a.dtype)
    cache, vector = target.first_cache.bytes, lanes * a.dtype.bytes
    own = vector * (_known(a.depth.extent) + _known(a.width.extent))
    size = _known(a.width.extent)
    hidden, most_rows = target.in_flight, 2 * target.in_flight
    counts = [
        v for v in VECTORS
        if v == 1 or (v * own <= 2 * cache and _divisor(size, most_rows // v) * v >= hidden)
    ]  # fmt: skip
    best = min(
        counts, key=lambda v: (_rounds(a, v * lanes, target.cores) * v, _loads(v, target), -v)
    )
    vectors = d.pick(f"{name}.vectors", counts, best, exact=False)
    rows = _rows(vectors, target)
    most = cache // 2 // (vectors * vector) // rows * rows
    groups = -(-(_known(a.keys.extent) or most) // rows)
    count = -(-groups * rows // most)
    fewer = [g for g in (-(-groups // (f * count)) for f in (1, 2, 4)) if g > 0]
    keys = d.pick(f"{name}.keys", [g * rows for g in fewer], fewer[0] * rows, exact=False)
    width = _divisor(size, rows)
    return Blocks(lanes, vectors, keys, rows, width)


def _rows(vectors: int, target: Target) -> int:
    """Rows of a register tile of so many vectors, which take registers as well, and an element."""
    free = min(accumulators(target), target.vector_registers - vectors - 1)
    return max(1, free // vectors)


def _loads(vectors: int, target: Target) -> float:
    """Loads for each multiply-add of such a tile."""
    rows = _rows(vectors, target)
    return (rows + vectors) / (rows * vectors)


def _rounds(a: Attention, queries: int, cores: int) -> float:
    """Blocks of queries that a core works off; of unknown sizes there are 1, shared evenly."""
    sizes = [_known(it.extent) for it in a.rows if it is not a.lane]
    blocks = prod(n or 1 for n in sizes) * -(-(_known(a.lane.extent) or 1) // queries)
    whole = all(sizes) and _known(a.lane.extent)
    return -(-blocks // cores) if whole else blocks / cores


def choose_rows(a: Attention, name: str, d: Chooser) -> Rows:
    """The sizes for a few queries: all of them at once, scores in half of the first cache."""
    lanes = d.target.lanes(a.dtype)
    queries = _known(a.lane.extent)
    most = d.target.first_cache.bytes // 2 // (queries * lanes * a.dtype.bytes) * lanes
    keys = -(-(_known(a.keys.extent) or most) // lanes) * lanes
    count = -(-keys // most)
    size = _known(a.width.extent) // lanes
    own = _divisor(size, max(1, 2 * d.target.in_flight // queries))
    vectors = d.pick(f"{name}.vectors", (n for n in range(1, own) if size % n == 0), own)
    return Rows(queries, -(-keys // (count * lanes)) * lanes, lanes, vectors)


def _known(e: Expr) -> int:
    return int(e.value) if isinstance(e, Const) else 0


def _divisor(n: int, most: int) -> int:
    """The largest divisor up to a limit."""
    return max(d for d in range(1, most + 1) if n % d == 0)


class _Loops:
    """The innermost loops of a block that are its own, by the last part of their names."""

    def __init__(self, s: Schedule, block: str, axes: str) -> None:
        found = find_place(s.func, block).loops[-len(axes) :]
        self.of = {a: f.var.name for a, f in zip(axes, found, strict=True)}

    def __getitem__(self, axis: str) -> str:
        return self.of[axis]


def _schedule(s: Schedule, name: str, b: Blocks) -> Schedule:
    s = s.variant(name, "streaming_attention", b.queries, b.keys, b.rows)
    for step in PER_QUERY:
        s = _lanes(s, f"{name}_{step}", "i", b)
    for block in (f"{name}_clear", f"{name}_exp"):
        s = _lanes(s, block, "ji", b)
    for block in (f"{name}_max", f"{name}_sum"):
        s = _fold(s, block, b)
    for block in [p.block.name for p in places(s.func.body)]:
        step = block.removeprefix(f"{name}_")
        if step != block and step.endswith(("turn", "back")):
            s = _turn(s, block, b)
        elif step != block and step.endswith(("rows", "out")):
            s = _copy(s, block, b)
    s = _scores(s, f"{name}_scores", f"{name}_mask", b)
    return _values(s, name, f"{name}_rescale", b)


def _split_lanes(s: Schedule, loop: str, b: Blocks) -> tuple[Schedule, list[str]]:
    names = (f"{loop}_v", f"{loop}_l")
    return s.split(loop, b.lanes, names=names), list(names)


def _lanes(s: Schedule, block: str, axes: str, b: Blocks) -> Schedule:
    """A map with the queries as its last axis."""
    loops = _Loops(s, block, axes)
    s, (v, lane) = _split_lanes(s, loops["i"], b)
    return s.unroll(v).vectorize(lane)


def _fold(s: Schedule, block: str, b: Blocks) -> Schedule:
    """A reduction over the keys, in registers."""
    loops = _Loops(s, block, "ij")
    s, inner = _split_lanes(s, loops["i"], b)
    s = s.reorder(loops["j"], *inner).unroll(inner[0]).vectorize(inner[1])
    return s.decompose_reduction(block, loops["j"])


def _turn(s: Schedule, block: str, b: Blocks) -> Schedule:
    """A copy whose last axis lies apart in what it reads: square tiles, transposed in registers."""
    row, lane = (f.var.name for f in find_place(s.func, block).loops[-2:])
    extents = [_known(f.extent) for f in find_place(s.func, block).loops[-2:]]
    s = s.split(lane, b.lanes, names=(f"{lane}_v", f"{lane}_l"))
    if all(n % b.lanes == 0 for n in extents):
        s = s.split(row, b.lanes, names=(f"{row}_t", f"{row}_e"))
        s = s.reorder(f"{row}_t", f"{lane}_v", f"{row}_e", f"{lane}_l").unroll(f"{row}_e")
    return s.vectorize(f"{lane}_l")


def _copy(s: Schedule, block: str, b: Blocks) -> Schedule:
    """A copy of rows."""
    last = find_place(s.func, block).loops[-1].var.name
    return s.split(last, b.lanes, names=(f"{last}_v", f"{last}_l")).vectorize(f"{last}_l")


def _scores(s: Schedule, block: str, consumer: str, b: Blocks) -> Schedule:
    """The products of a group of keys with the queries, and what makes scores of them."""
    loops = _Loops(s, block, "grid")
    return _product(s, block, consumer, loops, b)


def _values(s: Schedule, block: str, consumer: str, b: Blocks) -> Schedule:
    """The products of some elements of the values with the weights, added to the result."""
    w = _Loops(s, block, "gid")["g"]
    s = s.split(w, b.width, names=(f"{w}_t", f"{w}_r"))
    return _product(s, block, consumer, _Loops(s, block, "grid"), b)


def _product(s: Schedule, block: str, consumer: str, loops: _Loops, b: Blocks) -> Schedule:
    """A register tile per iteration of `g`, with the map that follows."""
    s, inner = _split_lanes(s, loops["i"], b)
    s = s.reorder(loops["g"], loops["d"], loops["r"], *inner)
    s = s.reverse_compute_at(consumer, loops["g"])
    result = find_place(s.func, block).block.writes[0].buffer.name
    s = s.set_scope(result, "register").unroll(loops["r"]).unroll(inner[0]).vectorize(inner[1])
    s = s.decompose_reduction(block, loops["d"])
    outer = [f.var.name for f in find_place(s.func, block).loops]
    outer = outer[: outer.index(loops["g"]) + 1]
    return schedule_consumer(s, consumer, outer, Tile(b.rows, b.vectors, b.lanes))
