"""Primitives on blocks: inline, compute_at, reverse_compute_at, clamp_tail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from aisc.ir.arith.poly import Dim, maximum
from aisc.ir.diagnostics import error
from aisc.ir.node import Node, map_children, walk
from aisc.ir.tensor.expr import (
    TRUE,
    ZERO,
    Const,
    Expr,
    Load,
    Select,
    Var,
    binary,
    const,
    logical_and,
    of_dim,
    select,
)
from aisc.ir.tensor.func import Buffer, Func, row_major
from aisc.ir.tensor.linear import Indexer, mentions
from aisc.ir.tensor.stmt import Block, For, If, Iter, Region, Seq, Stmt, Store, seq
from aisc.ir.tensor.tree import (
    Place,
    find_loop,
    find_place,
    fresh,
    guarded,
    indexer,
    map_blocks,
    places,
    replace_stmt,
    statements,
    with_regions,
    without_alloc,
)
from aisc.ir.tensor.visitor import replace_buffers, substitute, transform
from aisc.passes.schedule.dependence import Names, Order, accesses_of
from aisc.passes.schedule.legality import (
    conflicts,
    own_elements,
    require_apart,
    require_independent,
)
from aisc.passes.schedule.motion import (
    order_of,
    reads_of,
    require_unchanged,
    require_visible,
    updates,
    with_allocs_first,
    writes_of,
)
from aisc.passes.schedule.points import require_same_points
from aisc.passes.schedule.region import dim_of, region_under
from aisc.passes.schedule.schedule import primitive


def nest_of(func: Func, place: Place) -> Stmt:
    """The outermost statement that contains only this block: its whole loop nest."""
    node: Stmt = place.loops[0] if place.loops else place.block
    for loop in (*place.loops, place.block):
        inside = list(places(loop))
        if len(inside) == 1:
            return loop
    return node


def _is_scratch(buffer: Buffer) -> bool:
    return buffer.role == "scratch"


@primitive()
def inline(func: Func, block: str) -> Func:
    """Put the expression of a map block into its readers and drop the block.

    before: ``t[i] = f(i); y[j] = g(t[j])``   after: ``y[j] = g(f(j))``.
    Legal for a block with spatial iterators only that writes one scratch buffer at its iterators,
    where nothing writes what it reads up to its readers.
    """
    place = find_place(func, block)
    b, store = place.block, place.block.body
    if b.init is not None or not isinstance(store, Store) or place.predicate != TRUE:
        raise error("E302", f"inline({block}): only unconditional map blocks can be inlined")
    if not _is_scratch(store.buffer):
        raise error("E302", f"inline({block}): {store.buffer.name} is not a scratch buffer")
    if store.indices != tuple(it.var for it in b.iters):
        raise error("E302", f"inline({block}): the store is not indexed by the iterators")
    target = store.buffer
    if updates(b):
        raise error("E302", f"inline({block}): it updates {target.name} in place")
    if any(target in writes_of(p.block) for p in places(func.body) if p.block is not b):
        raise error("E302", f"inline({block}): another block writes {target.name} too")
    for reader in (p.block for p in places(func.body)):
        if target in {r.buffer for r in reader.reads}:
            require_unchanged(f"inline({block})", func, b, b, reader, {target})

    def expand(n: Node) -> Node:
        if isinstance(n, Load) and n.buffer == target:
            return substitute(store.value, dict(zip(store.indices, n.indices, strict=True)))  # type: ignore[arg-type]
        return n

    def rewrite(other: Block) -> Stmt:
        if target not in {r.buffer for r in other.reads}:
            return other
        init = None if other.init is None else transform(other.init, expand)
        return with_regions(replace(other, init=init, body=transform(other.body, expand)))

    without = replace_stmt(func, nest_of(func, place), None)
    body = map_blocks(without.body, rewrite)
    result = without_alloc(replace(func, body=body), target)
    require_visible(f"inline({block})", result)
    return result


@primitive()
def reverse_compute_at(func: Func, block: str, loop: str) -> Func:
    """Move a consumer into a loop of its producer, at the end of that loop's body.

    before: ``for i: for j: t[i,j] = …;  for a: for b: y[a,b] = g(t[a,b])``
    after:  ``for i: { for j: t[i,j] = …; for j: y[i,j] = g(t[i,j]) }``
    Legal when the block is a map, reads what the loop produces at its own iterators, and the
    part that one iteration produces is complete by its end. Loops around both stay as they are.
    It may reduce over one iterator, if each iteration of a loop produces one value of it. A block
    that updates elements in place takes all that an iteration produces, and once.
    """
    place, target = find_place(func, block), find_loop(func, loop)
    produced = {w.buffer for p in places(target) for w in p.block.writes}
    reads = [r for r in place.block.reads if r.buffer in produced]
    _require_unguarded("reverse_compute_at", place)
    around = _loops_to(func, target)
    shared = sum(f is g for f, g in zip(place.loops, around, strict=False))
    kept = _kept(place, around)
    folded = [it for it in place.block.iters if it.kind != "spatial" and it.var not in kept]
    if not reads or len(folded) > 1 or any(it.kind != "reduce" for it in folded):
        raise error("E302", f"reverse_compute_at({block}): it is no map over results of {loop}")
    step = f"reverse_compute_at({block}, {loop})"
    inside = [p.block for p in places(target)]
    if place.block in inside or order_of(func, inside[0]) > order_of(func, place.block):
        raise error("E302", f"{step}: it does not come after loop {loop}")
    read = {r.buffer for r in reads}
    require_unchanged(step, func, place.block, inside[0], place.block, read, shared)
    _require_final(step, func, place, target, read)
    window = _window(func, target, reads)
    if any(not _goes_along(window, it, around) for it in folded):
        raise error("E302", f"{step}: it does not add up what loops around it produce, in turn")
    moved = _new_nest(func, place, window, around, kept)
    cut_off = any(isinstance(n, If) for n in statements(moved))
    if updates(place.block) and (cut_off or not _updates_once(place.block, reads, kept)):
        raise error("E302", f"{step}: it updates what it writes in place")
    cut = with_allocs_first(replace_stmt(func, nest_of(func, place), None))
    again = find_loop(cut, loop)
    result = replace_stmt(cut, again, replace(again, body=seq(again.body, moved)))
    require_visible(step, result)
    new = find_place(result, block)
    require_same_points(result, place, new, step)
    _require_complete(result, new, find_loop(result, loop), read, step, shared)
    _require_still_independent(result, find_loop(result, loop), step)
    return result


def _goes_along(window: Mapping[Var, tuple[Expr, Expr]], it: Iter, around: tuple[For, ...]) -> bool:
    """Whether one of the loops `around` a place gives an iterator its values there, in order."""
    low, extent = window.get(it.var, (ZERO, it.extent))
    whole = [f for f in around if f.var == low and f.low == ZERO and f.extent == it.extent]
    return len(whole) == 1 and extent == Const(1) and whole[0].kind == "serial"


def _kept(place: Place, around: tuple[For, ...]) -> dict[Var, Expr]:
    """The iterators of a block, with their values, that only loops give a value that are `around`
    another place as well."""
    own = {f.var for f in place.loops if not any(f is g for g in around)}
    pairs = zip(place.block.iters, place.block.bindings, strict=True)
    return {it.var: v for it, v in pairs if not any(mentions(v, x) for x in own)}


def _updates_once(block: Block, reads: list[Region], kept: Mapping[Var, Expr]) -> bool:
    """Whether a block that updates elements in place does so at its own iterators, each of which
    says what it reads of `reads`: where nothing produces these twice, it is executed once."""
    store = block.body
    if not isinstance(store, Store):
        return False
    old = [n for n in walk(store.value) if isinstance(n, Load) and n.buffer == store.buffer]
    own = {it.var for it in block.iters} - kept.keys()
    known = {i for r in reads for i in r.low if isinstance(i, Var)}
    return all(n.indices == store.indices for n in old) and own <= known


def _require_still_independent(func: Func, target: For, step: str) -> None:
    """Threads and lanes that a block was moved into do not conflict because of it."""
    for loop in _loops_to(func, target):
        if loop.kind in ("parallel", "vectorize"):
            require_independent(func, loop, step, apart=loop.kind == "parallel")


def _window(func: Func, target: For, reads: list[Region]) -> dict[Var, tuple[Expr, Expr]]:
    """What one iteration of `target` produces for each iterator that indexes a read."""
    window: dict[Var, tuple[Expr, Expr]] = {}
    for read in reads:
        region = region_under(func, target, read.buffer, write=True)
        for at, low, extent in zip(read.low, region.low, region.extent, strict=True):
            if isinstance(at, Var):
                window.setdefault(at, (low, extent))
    return window


def _loops_to(func: Func, loop: For) -> tuple[For, ...]:
    """The loops around and including `loop`."""
    for place in places(func.body):
        for k, f in enumerate(place.loops):
            if f is loop:
                return place.loops[: k + 1]
    return ()


def _require_unguarded(step: str, place: Place) -> None:
    """A guard speaks of the loops that the block leaves behind."""
    if place.predicate != TRUE:
        name = place.block.name
        raise error("E302", f"{step}({name}): its loops have guarded tails", "move it, then split")


def _require_final(step: str, func: Func, consumer: Place, target: For, read: set[Buffer]) -> None:
    """Nothing after `target` and before the consumer may write what the consumer reads."""
    inside = [p.block for p in places(target)]
    order, own = order_of(func, inside[-1]), order_of(func, consumer.block)
    for k, p in enumerate(places(func.body)):
        if order < k < own and writes_of(p.block) & read:
            raise error("E303", f"{step}: block {p.block.name} still writes what it reads")


def _require_complete(
    func: Func, consumer: Place, target: For, read: set[Buffer], step: str, shared: int
) -> None:
    """No later iteration may write what the consumer, in its new place, reads; those of the
    outermost `shared` loops, which the consumer has not left, come later as before."""
    loops = _loops_to(func, target)
    mine = [a for a in accesses_of(consumer) if a.buffer in read]
    writers = [
        (p.block, [a for a in accesses_of(_around(p, loops)) if a.write])
        for p in places(target)
        if p.block is not consumer.block
    ]
    touched = [*mine, *(a for _, writes in writers for a in writes)]
    apart = {b for b in read if own_elements(func, loops, [a for a in touched if a.buffer == b])}
    order = _later_in(loops[shared:])
    for block, writes in writers:
        pairs = [(a, b) for a, b in conflicts(writes, mine) if b.buffer not in apart]
        remedy = f"choose a loop in which block {block.name} has finished"
        require_apart(func, pairs, loops[:shared], order, step, remedy)


def _around(place: Place, loops: tuple[For, ...]) -> Place:
    """A place found below the last of `loops`, with all loops around it."""
    return replace(place, loops=(*loops[:-1], *place.loops))


def _later_in(loops: tuple[For, ...]) -> Order:
    """The first execution is in a later iteration of the loops than the second."""

    def order(a: Names, b: Names) -> list[str]:
        ways = []
        for k, f in enumerate(loops):
            same = [f"{a[g.var]} = {b[g.var]}" for g in loops[:k]]
            ways.append(" and ".join([*same, f"{a[f.var]} > {b[f.var]}"]))
        return [f"({' or '.join(f'({way})' for way in ways)})"]

    return order


def _new_nest(
    func: Func,
    place: Place,
    window: dict[Var, tuple[Expr, Expr]],
    outer: tuple[For, ...],
    kept: Mapping[Var, Expr],
) -> Stmt:
    """Loops over the window of each iterator around a copy of the block; `kept` iterators keep
    their values."""
    index = indexer(outer, func.dims)
    bindings: list[Expr] = []
    conds: list[Expr] = []
    loops: list[For] = []
    for it in place.block.iters:
        if it.var in kept:
            bindings.append(kept[it.var])
            continue
        low, extent = window.get(it.var, (ZERO, it.extent))
        value = low
        if extent != Const(1):
            var = Var(fresh(func, f"{place.block.name}_{it.var.name.rsplit('_', 1)[-1]}"))
            loops.append(For(var, ZERO, extent, "serial", Seq(())))
            value = low + var
            high = index.bounds(extent)[1]
            index = index.bind(var, 0, high - 1)
        bindings.append(value)
        whole = any(f.var == value and (f.low, f.extent) == (ZERO, it.extent) for f in outer)
        for inside in (binary("lt", value, it.extent), binary("ge", value, ZERO)):
            if not whole and not index.proves(inside):
                conds.append(index.simplify(inside))
    body: Stmt = guarded(
        replace(place.block, bindings=tuple(bindings)), logical_and(*conds, place.predicate)
    )
    for f in reversed(loops):
        body = replace(f, body=body)
    return body


@primitive()
def compute_at(func: Func, block: str, loop: str) -> Func:
    """Move a producer into a loop of its consumers, at the start of that loop's body, where it
    computes only what one iteration reads.

    before: ``for a: t[a] = …;  for i: for j: y[i] += t[i+j]``
    after:  ``for i: { for a in window(i): t[a] = …; for j: y[i] += t[i+j] }``
    Legal for a map block whose scratch result is read below `loop` only; threads and lanes must
    not compute the same element.
    """
    place, target = find_place(func, block), find_loop(func, loop)
    _require_unguarded("compute_at", place)
    if any(it.kind != "spatial" for it in place.block.iters) or len(place.block.writes) != 1:
        raise error("E302", f"compute_at({block}): it is not a map block")
    buffer = place.block.writes[0].buffer
    store = place.block.body
    if not isinstance(store, Store) or store.indices != tuple(i.var for i in place.block.iters):
        raise error("E302", f"compute_at({block}): the store is not indexed by the iterators")
    below = {id(p.block) for p in places(target)}
    for p in places(func.body):
        if id(p.block) not in below and buffer in {r.buffer for r in p.block.reads}:
            raise error("E303", f"compute_at({block}): {p.block.name} reads it outside of {loop}")
    if not _is_scratch(buffer) or updates(place.block):
        raise error("E302", f"compute_at({block}): {buffer.name} is not computed from others")
    step = f"compute_at({block}, {loop})"
    users = [p.block for p in places(target)]
    if not any(buffer in reads_of(b) for b in users):
        raise error("E302", f"{step}: nothing reads {buffer.name} there")
    if place.block in users or order_of(func, users[0]) < order_of(func, place.block):
        raise error("E302", f"{step}: the block does not come before the loop")
    require_unchanged(step, func, place.block, place.block, users[-1], {buffer})
    if any(buffer in writes_of(p.block) for p in places(func.body) if p.block is not place.block):
        raise error("E303", f"{step}: another block writes {buffer.name} too")
    region = region_under(func, target, buffer, write=False)
    window = {
        it.var: (low, extent)
        for it, low, extent in zip(place.block.iters, region.low, region.extent, strict=True)
    }
    moved = _new_nest(func, place, window, _loops_to(func, target), {})
    cut = with_allocs_first(replace_stmt(func, nest_of(func, place), None))
    again = find_loop(cut, loop)
    result = replace_stmt(cut, again, replace(again, body=seq(moved, again.body)))
    require_visible(step, result)
    _require_still_independent(result, find_loop(result, loop), step)
    return result


@primitive()
def clamp_tail(func: Func, block: str, loop: str, multiple: int, zero: bool = False) -> Func:
    """Round a loop up to a multiple so that full tiles always run; excess iterations are harmless.

    before: ``for i in 0..N: t[i] = f(x[i])``
    after:  ``for i in 0..ceil(N/m)*m: t[i] = f(x[min(i, N-1)])`` with `t` enlarged.
    With `zero`, a read that could leave its buffer gives 0 instead (for loops that become lanes).
    Legal when the loop carries a spatial iterator of this block alone and the block writes scratch
    buffers only: whoever reads them reads the first N elements.
    """
    place, target = find_place(func, block), find_loop(func, loop)
    if multiple < 1:
        raise error("E302", f"clamp_tail({block}, {loop}): {multiple} is no positive number")
    n = target.extent
    count = (
        Const(-(-int(n.value) // multiple) * multiple)
        if isinstance(n, Const)
        else (binary("floordiv", n + (multiple - 1), Const(multiple)) * multiple)
    )
    if count == n:
        return func
    inside = list(places(target))
    if len(inside) != 1 or inside[0].block is not place.block or target.low != ZERO:
        raise error("E302", f"clamp_tail({block}, {loop}): the loop must hold this block alone")
    found = [k for k, v in enumerate(place.block.bindings) if v == target.var]
    if len(found) != 1 or place.block.iters[found[0]].kind != "spatial":
        raise error("E302", f"clamp_tail({block}, {loop}): the loop is not a spatial iterator")
    it = place.block.iters[found[0]]
    if it.extent != n:
        raise error("E302", f"clamp_tail({block}, {loop}): the loop is a part of the iterator only")
    _require_own_axis(place.block, it.var, f"clamp_tail({block}, {loop})")
    index = _iter_ranges(func, place, it.var, count)
    iters = tuple(replace(i, extent=count) if i is it else i for i in place.block.iters)
    sizes: dict[Expr, Expr] = {i.var: i.extent for i in iters}
    body = _clamped(place.block.body, it, index, sizes, zero)
    new = with_regions(replace(place.block, iters=iters, body=body))
    func = replace_stmt(func, place.block, new)
    old = find_loop(func, loop)
    func = replace_stmt(func, old, replace(old, extent=count))
    return _enlarge(func, find_place(func, block).block, it.var, count)


def _require_own_axis(block: Block, var: Var, step: str) -> None:
    """Excess iterations write behind the end of an axis, and nowhere else."""
    for region in block.writes:
        own = [i for i in region.low if mentions(i, var)]
        if own != [var]:
            raise error("E302", f"{step}: {region.buffer.name} has no axis of its own for it")


def _iter_ranges(func: Func, place: Place, var: Var, count: Expr) -> Indexer:
    index = Indexer({d.name: (0, float("inf")) for d in func.dims})
    for it in place.block.iters:
        high = index.bounds(count if it.var == var else it.extent)[1]
        index = index.bind(it.var, 0, high - 1)
    return index


def _clamped(body: Stmt, it: Iter, index: Indexer, sizes: Mapping[Expr, Expr], zero: bool) -> Stmt:
    """`body` with the reads that excess iterations could take outside of their buffers changed."""
    written = {n.buffer for n in walk(body) if isinstance(n, Store)}
    last = binary("min", it.var, it.extent - 1)

    def inside(i: Expr, d: Dim) -> bool:
        whole = i in sizes and index.linear(sizes[i]) == index.linear(of_dim(d))
        return whole or index.proves(binary("lt", i, of_dim(d)))

    def go(n: Node) -> Node:
        m = map_children(n, go)
        if isinstance(n, Select) and isinstance(m, Select) and not zero:
            moved = m.then is not n.then or m.other is not n.other
            return replace(m, cond=substitute(n.cond, {it.var: last})) if moved else m
        if not isinstance(n, Load) or n.buffer in written:
            return m
        if not any(mentions(i, it.var) for i in n.indices):
            return m
        if all(inside(i, d) for i, d in zip(n.indices, n.buffer.shape, strict=True)):
            return m
        if zero:
            return select(binary("lt", it.var, it.extent), m, const(0, n.dtype))  # type: ignore[arg-type]
        return Load(n.buffer, tuple(substitute(i, {it.var: last}) for i in n.indices))

    result = go(body)
    assert isinstance(result, Stmt), "a body stays a statement"
    return result


def _enlarge(func: Func, block: Block, var: Var, count: Expr) -> Func:
    """Grow the dimensions of scratch results that are indexed by `var`."""
    for region in block.writes:
        if not _is_scratch(region.buffer):
            raise error("E303", f"clamp_tail: {region.buffer.name} is visible outside")
        shape = tuple(
            maximum(dim_of(count, func), d) if i == var else d
            for i, d in zip(region.low, region.buffer.shape, strict=True)
        )
        new = replace(region.buffer, shape=shape, strides=row_major(shape))
        func = replace(func, body=replace_buffers(func.body, {region.buffer: new}))
    return func
