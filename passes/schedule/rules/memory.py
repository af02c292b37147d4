"""Kernels on more data than caches hold: their results go past the caches, their rows come early.

A result that will have left the caches before anything reads it is stored past them: its lines are
not read first, and do not drive out what is still to be read. Stores that follow each other closely
gain from it, but between long computations they are slower than ordinary ones (measured on Zen 4:
tanh by half). So maps with elementary functions compute some pages into the first-level cache, ask
for their operands meanwhile, and then store them in one go::

    for t { for e in 0..1024 { prefetch x[t, e + 1024]; c[e] = exp(x[t, e]) };  stream y[t, …] = c }

A row kernel goes over its row several times, and waits for memory in the
first: its last pass asks for the next row, one line for each vector.
"""

from __future__ import annotations

from functools import partial
from math import prod

from aisc.ir.target import Target
from aisc.ir.tensor.expr import Const
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.linear import mentions
from aisc.ir.tensor.stmt import Block, For, Prefetch, Store
from aisc.ir.tensor.tree import Place, find_place, places, statements
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.epilogue import result_of, through_private
from aisc.passes.schedule.rules.structure import has_calls, lanes_of
from aisc.passes.schedule.schedule import Schedule, unless_refused

# The part of the first-level cache that what is computed in such a pass takes.
BURST_PART = 8


def burst_of(block: Block, target: Target) -> int:
    """Elements of such a pass."""
    assert isinstance(block.body, Store), "a plain block"
    return target.first_cache.bytes // BURST_PART // block.body.buffer.dtype.bytes


def is_far(func: Func, target: Target) -> bool:
    """Whether a function surely touches more than caches hold, much of it results: nothing of it is
    in cache when it is run again, nor when the next kernel begins."""
    far = target.costs.far_bytes
    sizes = [_bytes(b) for b in func.params if b.role != "weight"]
    results = [_bytes(b) for b in func.params if b.role == "output"]
    return sum(sizes) >= far and 4 * sum(results) >= far


def _bytes(b: Buffer) -> int:
    """Least size of a buffer."""
    known = [d for d in b.shape if isinstance(d, int)]
    return prod(known) * b.dtype.bytes if len(known) == b.rank else 0


def use_memory(s: Schedule, d: Chooser) -> Schedule:
    """The last steps on the nests of a function: hints about far memory."""
    far = is_far(s.func, d.target)
    blocks = [p.block for p in places(s.func.body)]
    asked = {
        n.buffer for n in statements(s.func.body) if isinstance(n, Prefetch)
    }  # epilogues of tiles
    for block in blocks:
        if not block.combiner and not has_calls(block):
            found = [w.buffer for w in block.writes if w.buffer.role == "output"]
            for name in [b.name for b in found if b not in asked]:
                if d.pick(f"{block.name}.streamed", (False, True), far):
                    s = unless_refused(s, partial(_stream, block.name, name))
    for b in [b for b in s.func.params if b.role == "input"]:
        found_row = _last_pass(s, b)
        if found_row is None:
            continue
        block_name, loop = found_row
        if d.pick(f"{block_name}.next_row", (False, True), far):
            s = unless_refused(s, partial(_next_row, block_name, b.name, loop))
    return s


def in_bursts(s: Schedule, block: str, loop: str, burst: int, d: Chooser) -> Schedule:
    """Let a map over far memory whose single loop is `loop` write to a buffer of `burst` elements
    in cache first."""
    place = find_place(s.func, block)
    extent = place.loops[-1].extent
    if (
        len(place.loops) != 1
        or not isinstance(extent, Const)
        or not isinstance(place.block.body, Store)
    ):
        return s
    count = int(extent.value)
    lanes = lanes_of(place.block, d.target)
    if count % burst:
        s = s.partition(loop, count // burst * burst, names=(loop, f"{loop}_rest"))
        s = s.split(f"{loop}_rest", lanes, names=(f"{loop}_rest_o", f"{loop}_rest_l"))
        s = s.vectorize(f"{loop}_rest_l")
    s = s.split(loop, burst, names=(f"{loop}_t", f"{loop}_e"))
    s, copy = _through_cache(s, block, f"{loop}_t")
    last = find_place(s.func, copy).loops[-1].var.name
    for inner in (f"{loop}_e", last):
        s = s.split(inner, lanes, names=(f"{inner}_o", f"{inner}_l")).vectorize(f"{inner}_l")
    own = burst // lanes  # vectors from what is computed to what is asked for
    ahead = d.pick(f"{block}.ahead", (0, own // 4, own // 2, 2 * own), own)
    for name in [r.buffer.name for r in find_place(s.func, block).block.reads] if ahead else []:
        s = unless_refused(s, partial(_ahead, block, name, f"{loop}_e_o", ahead))
    return s


def _through_cache(s: Schedule, block: str, loop: str) -> tuple[Schedule, str]:
    """A private buffer for what a block writes in an iteration of `loop`, and its copy."""
    s, copy = through_private(s, block, "global")
    private = result_of(s, block).name
    return s.reverse_compute_at(copy, loop).set_scope(private, "stack"), copy


def _ahead(block: str, name: str, loop: str, ahead: int, s: Schedule) -> Schedule:
    return s.prefetch(block, name, loop, ahead=ahead)


def _stream(block: str, name: str, s: Schedule) -> Schedule:
    return s.stream_store(block, name)


def _last_pass(s: Schedule, b: Buffer) -> tuple[str, For] | None:
    """The block of the last of several passes over the rows of `b`, and its loop over vectors."""
    passes = [p for p in places(s.func.body) if _passes_over(p, b)]
    if len(passes) < 2 or len({p.loops[0].var for p in passes}) > 1:
        return None
    loop = _vectors(passes[-1])
    if loop is None or not isinstance(loop.extent, Const):
        return None
    return passes[-1].block.name, loop


def _next_row(block: str, name: str, loop: For, s: Schedule) -> Schedule:
    """Let such a pass ask for the next row."""
    assert isinstance(loop.extent, Const), "of known length"
    return s.prefetch(block, name, loop.var.name, ahead=int(loop.extent.value))


def _passes_over(place: Place, b: Buffer) -> bool:
    return bool(place.loops) and b in {r.buffer for r in place.block.reads}


def _vectors(place: Place) -> For | None:
    """The loop over the vectors of a row."""
    if len(place.loops) < 3 or place.loops[-1].kind != "vectorize":
        return None
    loop = place.loops[-2]
    return loop if loop.kind == "serial" and not place.block.combiner else None


def prefetch_epilogue(s: Schedule, consumer: str, loop: str, d: Chooser) -> Schedule:
    """Ask for what the epilogue will read and write before the reduction starts, which hides the
    way to memory; what is small, or the same for all rows, is in cache already."""
    block = find_place(s.func, consumer).block
    rows = [it.var for it in block.iters[:-1]]
    for k, region in enumerate((*block.reads, *block.writes)):
        moves = any(mentions(i, v) for i in region.low for v in rows)
        if moves and region.buffer.space == "global":
            own = is_large(region.buffer, d.target)
            if d.pick(f"{consumer}.early{k}", (False, True), own):
                s = unless_refused(s, partial(_prefetch, consumer, region.buffer.name, loop))
    return s


def is_large(b: Buffer, target: Target) -> bool:
    """Whether a buffer does not stay in the second-level cache, of which it gets half, even where
    unknown sizes are 1."""
    known = [d for d in b.shape if isinstance(d, int)]
    return prod(known) * b.dtype.bytes > target.second_cache.bytes // 2


def _prefetch(block: str, name: str, loop: str, s: Schedule) -> Schedule:
    return s.prefetch(block, name, loop)
