"""The primitive that overlaps the filling of a buffer with its use: pipeline."""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.node import Node
from aisc.ir.tensor.expr import ZERO, Const, Expr, Load, Var, binary, of_dim
from aisc.ir.tensor.func import Buffer, Func, row_major
from aisc.ir.tensor.stmt import Alloc, Block, For, Iter, Seq, Stmt, Store, seq
from aisc.ir.tensor.tree import (
    find_loop,
    find_place,
    indexer,
    map_blocks,
    outer_loops,
    places,
    push_guard,
    replace_stmt,
    with_regions,
    without_alloc,
)
from aisc.ir.tensor.visitor import substitute, transform
from aisc.passes.schedule.copies import Names, copied
from aisc.passes.schedule.dependence import Access, Order, accesses_under
from aisc.passes.schedule.flow import require_own_values
from aisc.passes.schedule.legality import conflicts, require_apart
from aisc.passes.schedule.motion import reads_of, updates, writes_of
from aisc.passes.schedule.region import dim_of, region_under
from aisc.passes.schedule.schedule import primitive


@primitive()
def pipeline(func: Func, loop: str, block: str) -> Func:
    """Fill a buffer for the next iteration of a loop while this one uses it (double_buffer).

    before: ``for k in 0..N: { fill t from x at k;  use t }``
    after:  ``fill t[0] from x at 0;  for k in 0..N: { if k + 1 < N: fill t[(k+1) % 2] from x at
    k + 1;  use t[k % 2] }``
    The buffer is doubled; outside of global memory each half has the extents that one iteration
    fills. The first filling gets fresh names. Legal when `block` alone writes the scratch buffer,
    in a statement of its own in the loop, each iteration reads only what it has filled itself, and
    nothing in the loop writes what the filling reads before its next turn.
    """
    place, target = find_place(func, block), find_loop(func, loop)
    step = f"pipeline({loop}, {block})"
    fill = _filling(func, place.block, target, step)
    (old,) = writes_of(place.block)
    _require_only_use(func, old, target, step)
    require_own_values(func, old, target, step)
    _require_early(func, target, fill, old, step)
    double = _doubled(func, target, old)
    names = Names(func)
    first = _at_turn(copied(fill, names), double, ZERO, target, names)
    if not indexer(outer_loops(func, target), func.dims).proves(binary("lt", ZERO, target.extent)):
        first = push_guard(first, binary("lt", ZERO, target.extent))
    ahead = _at_turn(fill, double, target.var + 1, target, names)
    ahead = push_guard(ahead, binary("lt", target.var + 1, target.extent))
    rest = [
        ahead if s is fill else _at_turn(s, double, target.var, target, names)
        for s in _statements(target)
        if s != Alloc(old)
    ]
    steady = replace(target, body=seq(*rest))
    return _declared(func, target, double, seq(first, steady))


@dataclass(frozen=True, slots=True)
class _Double:
    """The buffer `old` doubled to `new`; `low` is where one iteration's part begins."""

    old: Buffer
    new: Buffer
    low: tuple[Expr, ...]


def _statements(loop: For) -> tuple[Stmt, ...]:
    return loop.body.stmts if isinstance(loop.body, Seq) else (loop.body,)


def _filling(func: Func, block: Block, target: For, step: str) -> Stmt:
    """The statement of the loop's body that consists of the block's nest."""
    if target.kind != "serial" or target.low != ZERO:
        raise error("E302", f"{step}: the loop is not a serial one from 0")
    if (
        any(it.kind != "spatial" for it in block.iters)
        or len(writes_of(block)) != 1
        or updates(block)
    ):
        raise error("E302", f"{step}: the block is no map")
    for s in _statements(target):
        if [p.block for p in places(s)] == [block]:
            return s
    raise error(
        "E302", f"{step}: the block has no nest of its own in the loop's body",
        "move it there by compute_at",
    )  # fmt: skip


def _require_only_use(func: Func, old: Buffer, target: For, step: str) -> None:
    """The buffer is scratch, used in the loop only, and written by one block."""
    if old.role != "scratch":
        raise error("E302", f"{step}: {old.name} is visible outside")
    inside = [p.block for p in places(target)]
    users = [p.block for p in places(func.body) if old in reads_of(p.block) | writes_of(p.block)]
    if any(b not in inside for b in users):
        raise error("E302", f"{step}: {old.name} is used outside of the loop")
    writers = [b.name for b in users if old in writes_of(b)]
    if len(writers) != 1:
        raise error("E302", f"{step}: {old.name} is written by {', '.join(writers)}")


def _require_early(func: Func, target: For, fill: Stmt, old: Buffer, step: str) -> None:
    """What the filling reads is not written between its new place and its old one."""
    around = (*outer_loops(func, target), target)
    own = _others(fill, around, old)
    passed = False
    for s in _statements(target):
        if s is fill:
            passed = True
            continue
        # Statements after the filling come before its next turn; those before it, in its own.
        turn = 1 if passed else 0
        pairs = conflicts(own, _others(s, around, old))
        require_apart(
            func, pairs, around[:-1], _turns_apart(target, turn), step, "fill it at its place"
        )


def _others(s: Stmt, around: tuple[For, ...], old: Buffer) -> list[Access]:
    return [a for a in accesses_under(s, around) if a.buffer != old]


def _turns_apart(loop: For, turns: int) -> Order:
    return lambda a, b: [f"{a[loop.var]} = {b[loop.var]} + {turns}"]


def _doubled(func: Func, target: For, old: Buffer) -> _Double:
    """In global memory elements keep their places, which other iterations of outer loops share
    with nobody; elsewhere a half is what one iteration fills."""
    low: tuple[Expr, ...] = (ZERO,) * old.rank
    shape = old.shape
    if old.space != "global":
        region = region_under(func, target, old, write=True)
        low, shape = region.low, tuple(dim_of(e, func) for e in region.extent)
    new = replace(old, shape=(2, *shape), strides=row_major((2, *shape)))
    return _Double(old, new, low)


def _at_turn(s: Stmt, double: _Double, turn: Expr, target: For, names: Names) -> Stmt:
    """A statement of the loop's body in its iteration `turn`, over the doubled buffer."""

    def rewrite(b: Block) -> Stmt:
        used = double.old in reads_of(b) | writes_of(b)
        return _rebased(b, double, target.var, names) if used else b

    return substitute(map_blocks(s, rewrite), {target.var: turn})


def _rebased(b: Block, double: _Double, turn: Var, names: Names) -> Block:
    """The block over one half; the half and where its part begins are iterators of it."""
    half = Iter(Var(names.fresh(f"{b.name}_half")), Const(2), "spatial")
    iters, bindings = [half], [binary("mod", turn, 2)]
    base: list[Expr] = []
    for low, size in zip(double.low, double.old.shape, strict=True):
        if low != ZERO:
            iters.append(Iter(Var(names.fresh(f"{b.name}_base")), of_dim(size), "spatial"))
            bindings.append(low)
        base.append(ZERO if low == ZERO else iters[-1].var)

    def swap(n: Node) -> Node:
        if isinstance(n, Load | Store) and n.buffer == double.old:
            at = (half.var, *(i - low for i, low in zip(n.indices, base, strict=True)))
            return replace(n, buffer=double.new, indices=at)
        return n

    init = None if b.init is None else transform(b.init, swap)
    return with_regions(
        replace(
            b,
            iters=(*b.iters, *iters),
            bindings=(*b.bindings, *bindings),
            init=init,
            body=transform(b.body, swap),
        )
    )


def _declared(func: Func, target: For, double: _Double, pipelined: Stmt) -> Func:
    """The loop replaced; global buffers are declared at the start, others before the loop."""
    if double.old.space == "global":
        result = without_alloc(replace_stmt(func, target, pipelined), double.old)
        return replace(result, body=seq(Alloc(double.new), result.body))
    result = replace_stmt(func, target, seq(Alloc(double.new), pipelined))
    return without_alloc(result, double.old)
