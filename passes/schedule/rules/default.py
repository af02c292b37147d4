"""The default schedule of a function: one decision after another, primitives only.

1. maps are inlined into the maps that read them; 2. attention becomes the streaming one,
convolutions Winograd's where it pays;
3. reductions get register tiles, with the maps that follow them as epilogues; 4. what is left is
vectorized along its last axis, or tiled where it transposes; 5. kernels on far memory get hints;
6. the outermost loops of costly nests are divided among threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from aisc.ir.arith.linear import mentions, operands
from aisc.ir.node import walk
from aisc.ir.target import Target
from aisc.ir.tensor.expr import Const, Expr, Load, Select, Var, of_dim
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import Alloc, Block, For, Iter, Stmt, Store
from aisc.passes.analysis.cost import work
from aisc.passes.schedule.dependence import private_to
from aisc.passes.schedule.rules.attention import use_attention
from aisc.passes.schedule.rules.inlining import inline_maps, inline_where_legal
from aisc.passes.schedule.rules.memory import in_bursts, is_far, use_memory
from aisc.passes.schedule.rules.row import chunk, schedule_rows, top_loops
from aisc.passes.schedule.rules.stem import keep_source_order
from aisc.passes.schedule.rules.structure import Reduction, analyse, has_calls, is_window, lanes_of
from aisc.passes.schedule.rules.tile import Tile, candidate_tiles, schedule_tile
from aisc.passes.schedule.rules.transpose import tile_transposed
from aisc.passes.schedule.rules.winograd import block_tiles, use_winograd
from aisc.passes.schedule.schedule import Schedule, unless_refused
from aisc.passes.schedule.tree import Place, find_loop, find_place, places

# What a symbolic extent counts for when a nest is judged worth dividing.
UNKNOWN_EXTENT = 256
# Rows of fewer elements are joined to longer ones before they are cut into vectors.
SHORT_ROW = 64


def default_schedule(func: Func, target: Target, tile: Tile | None = None) -> Schedule:
    """Schedule `func`; `tile` overrides the choice for its contraction (the tuner's decision)."""
    return complete(prepared(func, target), target, tile)


def complete(s: Schedule, target: Target, tile: Tile | None = None) -> Schedule:
    """The steps after :func:`prepared`."""
    s = schedule_rows(s, target) or block_tiles(_schedule_nests(s, target, tile), target)
    s = use_memory(s, target)
    for nest in top_loops(s.func.body):
        s = unless_refused(s, partial(_parallel, name=nest.var.name, target=target))
    return s


def packer_schedule(func: Func, target: Target) -> Schedule:
    """The schedule of what packs weights, once and on one thread: vectors."""
    return _schedule_nests(Schedule.of(func), target, None)


def _schedule_nests(s: Schedule, target: Target, tile: Tile | None) -> Schedule:
    """Each nest for itself: tiles, partial results, vectors."""
    for name in [p.block.name for p in places(s.func.body)]:
        reduction = analyse(find_place(s.func, name).block)
        if reduction is not None and _worth_tiling(reduction, target):
            chosen = tile if tile is not None and reduction.contraction else None
            s = schedule_tile(s, reduction, chosen or candidate_tiles(reduction, target)[0], target)
        else:
            s = unless_refused(s, partial(chunk, name=name, target=target))
    for name in [p.block.name for p in places(s.func.body)]:
        place = find_place(s.func, name)
        if all(f.kind == "serial" for f in place.loops):
            before = s
            s = unless_refused(s, partial(tile_transposed, place=place, target=target))
            if s is before:
                s = unless_refused(s, partial(_vectorize, place=place, target=target))
    return s


def prepared(func: Func, target: Target) -> Schedule:
    """The first steps of every schedule of `func`: maps inlined, variants chosen."""
    s = use_attention(inline_maps(Schedule.of(func)), target)
    s = _inline_borders(use_winograd(s, target))
    return keep_source_order(s, target)


def _inline_borders(s: Schedule) -> Schedule:
    """Let windows that reduce over few places read a bordered input where it lies: they read each
    element about as often as copying it would touch it."""
    for name in [p.block.name for p in places(s.func.body)]:
        block = find_place(s.func, name).block
        readers = [p.block for p in places(s.func.body) if _reads(p.block, block)]
        guarded = isinstance(block.body, Store) and isinstance(block.body.value, Select)
        if guarded and len(readers) == 1 and is_window(readers[0]) and not has_calls(block):
            s = inline_where_legal(s, name)
    return s


def _reads(reader: Block, writer: Block) -> bool:
    return bool({r.buffer for r in reader.reads} & {w.buffer for w in writer.writes})


def tiles(start: Schedule, target: Target) -> list[Tile]:
    """Register tiles for the first contraction of what :func:`prepared` gave, best estimate first;
    none without one."""
    found = tiled_contraction(start, target)
    return [] if found is None else candidate_tiles(found, target)


def tiled_contraction(start: Schedule, target: Target) -> Reduction | None:
    """The first contraction that gets a register tile."""
    for place in places(start.func.body):
        found = analyse(place.block)
        if found is not None and found.contraction and _worth_tiling(found, target):
            return found
    return None


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
            inner_only = uses == [] or uses == [n.buffer.rank - 1]
            if not inner_only and n is not reduction.weights:
                return False
    return target.vector_bits >= 128


def _vectorize(s: Schedule, place: Place, target: Target) -> Schedule:
    """Vectorize the last spatial loop of a nest; a contiguous map is first fused into one loop."""
    block = place.block
    spatial = [
        value.name
        for it, value in zip(block.iters, block.bindings, strict=True)
        if it.kind == "spatial" and isinstance(value, type(it.var))
    ]
    if not spatial or len(spatial) != sum(it.kind == "spatial" for it in block.iters):
        return s
    if block.combiner or not isinstance(block.body, Store):
        return s
    if block.iters[-1].kind == "ordered":  # what follows each other lies together: no lanes
        return s
    flat = _static_suffix(block, spatial[-_joint_axes(block) :])
    last = flat[0]
    for k, name in enumerate(flat[1:]):
        s = s.fuse(last, name, name=f"{flat[0]}_f{k}")
        last = f"{flat[0]}_f{k}"
    if len(flat) == len(spatial) and has_calls(block) and is_far(s.func, target):
        whole = s
        s = unless_refused(s, partial(in_bursts, block=block.name, loop=last, target=target))
        if s is not whole:
            return s
    loop = next(f for f in find_place(s.func, block.name).loops if f.var.name == last)
    lanes = lanes_of(block, target)
    if isinstance(loop.extent, Const) and int(loop.extent.value) < lanes // 2:
        return s
    s = s.split(last, lanes, names=(f"{last}_o", f"{last}_l"))
    return s.vectorize(f"{last}_l")


def _static_suffix(block: Block, spatial: list[str]) -> list[str]:
    """The innermost of the last `spatial` loops whose fused index needs no division at run time:
    those of constant extent, and one symbolic loop around them where they are short."""
    extents = [it.extent for it in block.iters if it.kind == "spatial"][-len(spatial) :]
    first, size = len(spatial), 1
    while first > 0:
        extent = extents[first - 1]
        if not isinstance(extent, Const):
            break
        first, size = first - 1, size * int(extent.value)
    if first > 0 and size < SHORT_ROW:
        first -= 1
    return spatial[first:]


def _joint_axes(block: Block) -> int:
    """How many of a map's last axes are one stretch in all that it reads and writes: each access
    has them at its end, with their whole sizes, or lacks them."""
    iters = [it for it in block.iters if it.kind == "spatial"]
    accesses = [n for n in walk(block.body) if isinstance(n, Load | Store)]
    conditions = {v for n in walk(block.body) if isinstance(n, Select) for v in _places_in(n.cond)}
    joint = 1
    while joint < len(iters):
        ending = iters[-joint - 1 :]
        if any(it.var in conditions for it in ending):
            break
        if not all(_is_joint(n, ending) for n in accesses):
            break
        joint += 1
    return joint


def _places_in(cond: Expr) -> Iterator[Var]:
    """Iterators on whose value, and not on what is read there, a condition depends."""
    if isinstance(cond, Var):
        yield cond
    elif not isinstance(cond, Load):
        for a in operands(cond):
            yield from _places_in(a)


def _is_joint(access: Load | Store, ending: list[Iter]) -> bool:
    at, count = access.indices, len(ending)
    if not any(mentions(i, it.var) for i in at for it in ending):
        return True
    inner = at[:-count]
    return (
        at[-count:] == tuple(it.var for it in ending)
        and not any(mentions(i, it.var) for i in inner for it in ending)
        and [of_dim(d) for d in access.buffer.shape[-count + 1 :]]
        == [it.extent for it in ending[1:]]
    )


def _parallel(s: Schedule, name: str, target: Target) -> Schedule:
    """Fuse the leading spatial loops of a costly nest and divide them among threads."""
    top = find_loop(s.func, name)
    if work(top, UNKNOWN_EXTENT) < target.costs.parallel_work or top.kind != "serial":
        return s
    spatial = _spatial_chain(top)
    if not spatial:
        return s
    fused = spatial[0].var.name
    for k, loop in enumerate(spatial[1:]):
        new = f"{name}_p{k}"
        s = s.fuse(fused, loop.var.name, name=new)
        fused = new
    return s.parallel(fused)


def _spatial_chain(top: For) -> list[For]:
    """The leading perfectly nested loops that only spatial iterators of every block use."""
    found: list[For] = []
    node: Stmt = top
    while isinstance(node, For) and node.kind == "serial" and len(found) < 4:
        private = private_to(node.body)
        if not all(_spatial_in(p.block, node, private) for p in places(node)):
            break
        found.append(node)
        node = node.body
    if found and any(isinstance(n, Alloc) for n in walk(found[-1].body)):
        return found
    return found[:-1] if len(found) > 1 and _is_short(found) else found


def _is_short(chain: list[For]) -> bool:
    """Whether an iteration of the innermost loop is too little work to find its place: one
    element, or one vector where sizes must be divided at run time."""
    body = chain[-1].body
    if not isinstance(body, For):
        return True
    divided = any(not isinstance(f.extent, Const) for f in chain[1:])
    return divided and body.kind == "vectorize"


def _spatial_in(block: Block, loop: For, private: frozenset[Buffer]) -> bool:
    """Whether a loop only chooses among results of a block, or each iteration has its own."""
    kinds = {
        it.kind
        for it, value in zip(block.iters, block.bindings, strict=True)
        if mentions(value, loop.var)
    }
    return kinds == {"spatial"} or (not kinds and {w.buffer for w in block.writes} <= private)
