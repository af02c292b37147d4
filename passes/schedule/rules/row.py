"""Row kernels: reductions along contiguous rows and the maps around them, one row after the other.

Softmax, normalisations, sums and arg-reductions compute a few numbers per row and use them on the
row again. Their loops over rows become one, so that a row stays in the first-level cache from its
first use to its last, and what belongs to one row lives on the stack or in registers. Each
reduction has several partial results per row, as many for every number of threads.
"""

from __future__ import annotations

from functools import partial
from math import prod

from aisc.ir.node import walk
from aisc.ir.tensor.expr import ONE, Const, Expr, Load, Var
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.linear import mentions
from aisc.ir.tensor.stmt import Block, For, Iter, Seq, Stmt, Store
from aisc.ir.tensor.tree import find_loop, find_place, places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.plain import vectorize_map
from aisc.passes.schedule.rules.structure import (
    analyse,
    has_calls,
    is_window,
    lane_options,
    lanes_of,
    step_of,
    vectors_together,
)
from aisc.passes.schedule.schedule import Schedule, unless_refused

# Turns over vectors of partial results from which on these pay.
LEAST_TURNS = 4
LAST_CHUNKS = 4
SHORTEST_ROW = 4  # elements of a row from which on it is a vector, perhaps a shorter one
# Vectors of a row up to which several are worked on at once, and how many.
SHORT_ROW, AT_ONCE = 8, (4, 5, 6, 7, 3, 2)
UNKNOWN = 1 << 20
# Vectors of partial results.
PARTIALS = (1, 2, 4, 8)


def schedule_rows(s: Schedule, d: Chooser) -> Schedule | None:
    """Schedule a function that works on rows alone; ``None`` for others."""
    axes = _row_axes(s, d)
    if axes is None:
        return None
    last = list(places(s.func.body))[-1].block.name
    for place in list(places(s.func.body)):
        if place.block.combiner:
            s = chunk(s, place.block.name, d)
    after = _costly_numbers(s, axes)
    apart = [find_place(s.func, name).loops[0].var.name for name in after]
    names = [x.var.name for x in top_loops(s.func.body) if x.var.name not in apart]
    if len(names) > 1 and not d.pick(f"{last}.rows_fused", (True, False), True):
        return None
    s, several = _several_rows(s, names, axes, d)
    names = [x.var.name for x in top_loops(s.func.body) if x.var.name not in apart]
    merged = unless_refused(s, partial(_merge, names=names, axes=axes))
    if merged is s and axes and len(names) > 1:  # a row reads what others have made
        return None
    s = merged
    shared = {r.buffer for name in after for r in find_place(s.func, name).block.reads}
    for b, block in _scratch(s).items():
        if b in shared:  # of all rows
            continue
        size = _row_bytes(b, axes, 2 * d.target.first_cache.bytes)
        if size is None:
            continue
        own = 2 * size <= d.target.first_cache.bytes
        if d.pick(f"{block}.on_stack", (True, False), own):
            s = unless_refused(s, partial(_stack, b.name))
    for place in list(places(s.func.body)):
        inner = axes + bool(several)
        s = unless_refused(s, partial(_vectorize_row, place.block.name, inner, d))
    for loop in several:
        s = unless_refused(s, partial(_unroll, loop))
    for name in after:
        s = d.attempt(s, partial(vectorize_map, place=find_place(s.func, name), d=d))
    return s


def _costly_numbers(s: Schedule, axes: int) -> list[str]:
    """The last maps that compute a number of each row by elementary functions: vectors of rows
    after all of them, rather than one number after the other."""
    found = [p.block for p in places(s.func.body)]
    count = 0
    while count + 1 < len(found) and _is_number(found[-1 - count], axes):
        count += 1
    last = found[len(found) - count :]
    return [b.name for b in last] if any(map(has_calls, last)) else []


def _is_number(block: Block, axes: int) -> bool:
    return not block.combiner and len(block.iters) == axes


def _several_rows(
    s: Schedule, names: list[str], axes: int, d: Chooser
) -> tuple[Schedule, list[str]]:
    """Each nest with a loop over a few rows inside of those over rows, and these loops, where rows
    are short and looked at again: what is computed of a row waits for itself, from its sum to its
    root or logarithm, and several rows wait at the same time."""
    found = list(places(s.func.body))
    last = found[-1].block
    again = sum(it.kind == "spatial" for it in last.iters) > axes and not last.combiner
    counts = [_known(f) for f in found[0].loops[:axes]]
    axis = max((k for k, n in enumerate(counts) if n > 1), default=0)
    several = [n for n in AT_ONCE if n <= counts[axis] < UNKNOWN] if again and names[1:] else []
    longest = max(prod(map(_known, p.loops[axes:])) for p in found)
    short = several and longest <= SHORT_ROW * lanes_of(last, d.target)
    whole = (n for n in several if counts[axis] % n == 0)  # no row is asked whether it is there
    own = next(whole, several[0]) if short else 1
    rows = d.pick(f"{last.name}.rows_at_once", (1, *several), own)
    if rows == 1:
        return s, []
    inner = []
    for name in names:
        loops = _row_loops(find_loop(s.func, name), axes)
        turns, row = f"{loops[axis]}_t", f"{loops[axis]}_r"
        s = s.split(loops[axis], rows, names=(turns, row))
        if axis + 1 < axes:
            s = s.reorder(*loops[axis + 1 :], row)
        inner.append(row)
    return s, inner


def _row_loops(nest: For, axes: int) -> list[str]:
    """The loops over rows, from the outermost one."""
    loops = [nest]
    while len(loops) < axes and isinstance(loops[-1].body, For):
        loops.append(loops[-1].body)
    return [f.var.name for f in loops]


def _size(extent: Expr) -> int:
    """A constant extent, or 0."""
    return int(extent.value) if isinstance(extent, Const) else 0


def _known(loop: For) -> int:
    """Iterations of a loop; as many as make a row long where only the run knows."""
    return int(loop.extent.value) if isinstance(loop.extent, Const) else UNKNOWN


def _row_axes(s: Schedule, d: Chooser) -> int | None:
    """How many outer axes all nests share as rows, if every reduction runs along one."""
    found = list(places(s.func.body))
    reductions = [p.block for p in found if p.block.combiner]
    if not reductions:
        return None
    rows = [it.extent for it in reductions[0].iters if it.kind == "spatial"]
    for p in found:
        own = [it.extent for it in p.block.iters if it.kind == "spatial"]
        fresh = [f.var for f in p.loops] == list(p.block.bindings)
        if (
            not fresh
            or own[: len(rows)] != rows
            or any(it.kind == "ordered" for it in p.block.iters)
        ):
            return None
        if p.block.combiner and (own != rows or not _is_row(p.block, d)):
            return None
    return len(rows) if rows and len(top_loops(s.func.body)) == len(found) else None


def _is_row(block: Block, d: Chooser) -> bool:
    found = analyse(block)
    if found is None or is_window(block):
        return False
    if found.contraction and not 0 < _size(found.lane.extent) < SHORTEST_ROW:  # it gets tiles
        return False
    return chunk_loop(block, d) is not None


def chunk_loop(block: Block, d: Chooser) -> str | None:
    """The loop of a reduction along contiguous elements that is worth partial results."""
    inner = [it for it in block.iters if it.kind == "reduce"][-1:]
    if not inner or block.init is None or not isinstance(block.body, Store):
        return None
    extent = inner[0].extent
    if isinstance(extent, Const) and int(extent.value) < SHORTEST_ROW:
        return None
    loads = [n for n in walk(block.body) if isinstance(n, Load) and n.buffer != block.body.buffer]
    if any(step_of(n, inner[0].var) not in (0, 1) for n in loads):
        return None
    if any(_slides(n, inner[0], block) for n in loads):
        return None
    loop = block.bindings[block.iters.index(inner[0])]
    return loop.name if isinstance(loop, Var) else None


def _slides(load: Load, inner: Iter, block: Block) -> bool:
    """Whether what is summed up lies side by side for results that lie side by side, too, as under
    a window that moves along a row: then results are lanes."""
    lane = [it for it in block.iters if it.kind == "spatial" and it.extent != ONE][-1:]
    return bool(lane) and step_of(load, inner.var) == step_of(load, lane[0].var) == 1


def chunk(s: Schedule, name: str, d: Chooser) -> Schedule:
    """Give a reduction along contiguous rows one partial result per lane, or several of them; they
    are combined pairwise: by vectors first, then one after the other."""
    block = find_place(s.func, name).block
    loop = chunk_loop(block, d)
    if loop is None:
        return s
    lanes, extent = lanes_of(block, d.target), find_loop(s.func, loop).extent
    size = int(extent.value) if isinstance(extent, Const) else 0
    if size:
        lanes = min(lanes, 1 << (size - 1).bit_length())
    hiding = 1 << (d.target.costs.fma_latency - 1).bit_length()  # the latency of an addition
    vectors = d.pick(
        f"{name}.partials",
        (n for n in PARTIALS if n == 1 or size >= n * lanes),
        hiding if size >= LEAST_TURNS * hiding * lanes else 1,
        exact=False,
    )
    if vectors > 1:
        s = _partial(s, name, loop, vectors * lanes, lanes, unroll=False)
        name = f"{name}_combine"
        loop = _last_loop(s, name)
        s = _partial(s, name, loop, lanes, lanes, unroll=True)
    else:
        s = _partial(s, name, loop, lanes, lanes, unroll=False)
    if lanes > LAST_CHUNKS:
        name = f"{name}_combine"
        s = _partial(s, name, _last_loop(s, name), LAST_CHUNKS, LAST_CHUNKS, unroll=True)
    name = f"{name}_combine"
    last = _last_loop(s, name)
    return s.decompose_reduction(name, last).unroll(last)


def _partial(s: Schedule, name: str, loop: str, chunks: int, lanes: int, unroll: bool) -> Schedule:
    """Divide a reduction into `chunks` interleaved ones, as vectors of `lanes`."""
    lanes *= vectors_together(find_place(s.func, name).block, chunks, lanes)
    s = s.split_chunks(name, loop, chunks)
    inner = _last_loop(s, name)
    if chunks > lanes:
        s = s.split(inner, lanes, names=(f"{inner}_v", f"{inner}_l"))
        s, inner = s.unroll(f"{inner}_v"), f"{inner}_l"
    outer = _outermost_reduce_loop(s, name)
    s = s.vectorize(inner).decompose_reduction(name, outer)
    return s.unroll(outer) if unroll else s


def _last_loop(s: Schedule, name: str) -> str:
    return find_place(s.func, name).loops[-1].var.name


def _outermost_reduce_loop(s: Schedule, name: str) -> str:
    """The first loop around a block that a reduce iterator uses."""
    place = find_place(s.func, name)
    pairs = zip(place.block.iters, place.block.bindings, strict=True)
    values = [value for it, value in pairs if it.kind == "reduce"]
    return next(f.var.name for f in place.loops if any(mentions(v, f.var) for v in values))


def top_loops(body: Stmt) -> list[For]:
    """The outermost loops of a statement."""
    stmts = body.stmts if isinstance(body, Seq) else (body,)
    return [x for x in stmts if isinstance(x, For)]


def _merge(s: Schedule, names: list[str], axes: int) -> Schedule:
    """One loop for the rows of all nests, axis by axis."""
    for axis in range(axes):
        first, *others = names
        for other in others:
            s = s.fuse_loops(first, other)
        if axis + 1 < axes:
            names = [x.var.name for x in top_loops(find_loop(s.func, first).body)]
    return s


def _scratch(s: Schedule) -> dict[Buffer, str]:
    """Private buffers in memory, and the first block that writes each."""
    found: dict[Buffer, str] = {}
    for p in places(s.func.body):
        for b in (w.buffer for w in p.block.writes):
            if b.role == "scratch" and b.space == "global":
                found.setdefault(b, p.block.name)
    return found


def _row_bytes(b: Buffer, axes: int, most: int) -> int | None:
    """Bytes of the part of one row; ``None`` where they are not known or more than `most`."""
    sizes = [d for d in b.shape[axes:] if isinstance(d, int)]
    known = len(sizes) == b.rank - min(axes, b.rank)
    size = prod(sizes) * b.dtype.bytes
    return size if known and size <= most else None


def _unroll(loop: str, s: Schedule) -> Schedule:
    return s.unroll(loop)


def _stack(name: str, s: Schedule) -> Schedule:
    return s.set_scope(name, "stack")


def _vectorize_row(name: str, axes: int, d: Chooser, s: Schedule) -> Schedule:
    """The elements of a row as lanes, for a map over them."""
    place = find_place(s.func, name)
    inner = place.loops[axes:]
    block = place.block
    if block.combiner or len(inner) != 1 or inner[0].kind != "serial":
        return s
    if not isinstance(block.body, Store) or not _moves(block, inner[0].var):
        return s
    last, own = inner[0].var.name, lanes_of(block, d.target)
    extent = inner[0].extent
    size = int(extent.value) if isinstance(extent, Const) else None
    own *= vectors_together(block, size, own)
    lanes = d.pick(f"{name}.lanes", lane_options(own, size), own)
    s = s.split(last, lanes, names=(f"{last}_o", f"{last}_l"))
    return s.vectorize(f"{last}_l")


def _moves(block: Block, var: Var) -> bool:
    """Whether the last element index of the result moves with the loop."""
    values: dict[Var, Expr] = {
        it.var: v for it, v in zip(block.iters, block.bindings, strict=True)
    }  # fmt: skip
    assert isinstance(block.body, Store), "a plain block"
    last = block.body.indices[-1:]
    return any(isinstance(i, Var) and mentions(values.get(i, i), var) for i in last)
