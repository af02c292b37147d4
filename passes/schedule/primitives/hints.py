"""Primitives that change no meaning, only what the caches hold: prefetch, prefetch_next,
stream_store."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from aisc.ir.diagnostics import error
from aisc.ir.node import Node, walk
from aisc.ir.target import LINE_BYTES
from aisc.ir.tensor.expr import ZERO, Const, Expr, Load, Var
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import For, Prefetch, Region, Stmt, Store, seq
from aisc.ir.tensor.tree import find_loop, find_place, fresh, replace_stmt
from aisc.ir.tensor.visitor import substitute, transform
from aisc.passes.schedule.primitives.storage import find_buffer
from aisc.passes.schedule.region import region_under
from aisc.passes.schedule.schedule import primitive

MAX_REQUESTS = 64


@primitive()
def prefetch(func: Func, block: str, name: str, loop: str, ahead: int = 0) -> Func:
    """Ask for the part of a buffer that a block touches in an iteration of `loop` at the start of
    that iteration, or of the one `ahead` iterations before.

    before: ``for i: { S(i); for j in 0..32: y[i, j] = … + x[i, j] }``
    after:  ``for i: { prefetch x[i, 0]; prefetch x[i, 16]; S(i); for j: … }``
    One request for each cache line of the region, at most 64. Always legal: a hint does nothing
    where the place lies outside of the buffer.
    """
    place, target, b = find_place(func, block), find_loop(func, loop), find_buffer(func, name)
    if target not in place.loops:
        raise error("E302", f"prefetch({block}, {name}, {loop}): the loop is not around the block")
    if b.space != "global":
        raise error("E302", f"prefetch({block}, {name}): it lies in {b.space}, not in memory")
    write = b in {w.buffer for w in place.block.writes}
    region = region_under(func, target, b, write)
    hints = _requests(func, f"{block}_{name}", region, write)
    if ahead:
        hints = substitute(hints, {target.var: target.var + ahead})
    return replace_stmt(func, target, replace(target, body=seq(hints, target.body)))


@primitive()
def prefetch_next(func: Func, block: str, name: str, loop: str, at: str) -> Func:
    """Ask in each iteration of `at` for a share of what a block reads of a buffer in the next
    iteration of `loop`, which is around `at`: all of it together.

    before: ``for p: for i: for k: … += x[i, k] * w[p, k]``
    after:  ``for p: for i: { prefetch w[p + 1, i*16]; for k: … += x[i, k] * w[p, k] }``
    Always legal, as a hint. Refused where what an iteration reads does not lie in one piece, or
    where more than 64 cache lines come to an iteration.
    """
    place, b = find_place(func, block), find_buffer(func, name)
    around, inner = find_loop(func, loop), find_loop(func, at)
    step = f"prefetch_next({block}, {name}, {loop}, {at})"
    depth = {f.var: k for k, f in enumerate(place.loops)}
    if not depth.get(around.var, len(depth)) < depth.get(inner.var, -1):
        raise error("E302", f"{step}: expected {loop} around {at}, both around the block")
    region = region_under(func, around, b, False)
    turn: Expr = Const(0)
    turns = 1
    for f in place.loops[depth[around.var] + 1 : depth[inner.var] + 1]:
        if not isinstance(f.extent, Const):
            raise error("E302", f"{step}: {f.var.name} has no constant number of turns")
        turn, turns = turn * f.extent + (f.var - f.low), turns * int(f.extent.value)
    lines = -(-_piece(region, step) * b.dtype.bytes // LINE_BYTES)
    share = -(-lines // turns)
    if share > MAX_REQUESTS:
        notes = (f"expected at most {MAX_REQUESTS} cache lines", f"got {share}")
        raise error("E302", f"{step}: the part is too large", *notes)
    var, elements = Var(fresh(func, f"{block}_{name}_n")), LINE_BYTES // b.dtype.bytes
    # Few lines are spread over all iterations, so that they come one after the other.
    line = turn * share + var if share > 1 else turn * lines // turns
    offset = line * elements
    low = [substitute(i, {around.var: around.var + 1}) for i in region.low]
    hint: Stmt = Prefetch(b, (*low[:-1], low[-1] + offset))
    if share > 1:
        hint = For(var, ZERO, Const(share), "unroll", hint)
    return replace_stmt(func, inner, replace(inner, body=seq(hint, inner.body)))


def _piece(region: Region, step: str) -> int:
    """Elements of a region that lies in one piece."""
    sizes = [int(e.value) if isinstance(e, Const) else 0 for e in region.extent] or [0]
    first = next((k for k, n in enumerate(sizes) if n != 1), len(sizes) - 1)
    if 0 in sizes or any(
        n != d for n, d in zip(sizes[first + 1 :], region.buffer.shape[first + 1 :], strict=True)
    ):
        raise error("E302", f"{step}: what is read does not lie in one piece")
    return prod(sizes)


@primitive()
def stream_store(func: Func, block: str, name: str) -> Func:
    """Write what a block stores to a buffer past the caches, where whole vectors are stored.

    before: ``for i: y[i] = x[i] + x[i]``
    after:  ``for i: stream y[i] = x[i] + x[i]``
    It saves reading the lines that are written, and what the caches hold stays there; what reads
    the buffer soon after finds it in memory only. Always legal: no result depends on it. Refused
    where the block reads the buffer itself, as reductions do.
    """
    place, b = find_place(func, block), find_buffer(func, name)
    step = f"stream_store({block}, {name})"
    if b not in {w.buffer for w in place.block.writes}:
        raise error("E302", f"{step}: the block does not write the buffer")
    if b.space != "global":
        raise error("E302", f"{step}: it lies in {b.space}, not in memory")
    if any(isinstance(n, Load) and n.buffer == b for n in walk(place.block.body)):
        raise error("E302", f"{step}: the block reads what it writes")

    def mark(n: Node) -> Node:
        return replace(n, stream=True) if isinstance(n, Store) and n.buffer == b else n

    new = replace(place.block, body=transform(place.block.body, mark))
    return replace_stmt(func, place.block, new)


def _requests(func: Func, hint: str, region: Region, write: bool) -> Stmt:
    """Unrolled loops over the cache lines of a region."""
    step = max(1, LINE_BYTES // region.buffer.dtype.bytes)
    loops: list[tuple[Var, int]] = []
    at: list[Expr] = []
    total = 1
    for d, (low, extent) in enumerate(zip(region.low, region.extent, strict=True)):
        if not isinstance(extent, Const):
            raise error("E302", f"prefetch of {region.buffer.name}: axis {d} has no constant part")
        last = d == region.buffer.rank - 1
        count = -(-int(extent.value) // step) if last else int(extent.value)
        total *= count
        var = Var(fresh(func, f"{hint}_h{d}"))
        if count > 1:
            loops.append((var, count))
        at.append(low + (var * step if last else var) if count > 1 else low)
    if total > MAX_REQUESTS:
        notes = (f"expected at most {MAX_REQUESTS} cache lines", f"got {total}")
        raise error("E302", f"prefetch of {region.buffer.name}: the part is too large", *notes)
    body: Stmt = Prefetch(region.buffer, tuple(at), write)
    for var, count in reversed(loops):
        body = For(var, ZERO, Const(count), "unroll", body)
    return body
