"""Place the scratch buffers of an entry in one arena, by lifetimes.

before: ``alloc a; call k0(x, a); alloc b; call k1(a, b); alloc c; call k2(b, c)``
after:  a at arena+0, b at arena+1024, c at arena+0.

Static sizes are placed best-fit, the largest first, against the buffers alive at the same time
(Pisarchyk & Lee, *Efficient Memory Management for Deep Neural Net Inference*, 2020). With symbolic
sizes a buffer takes over the place of a dead one of the same size, or a place of its own after
all others, so that offsets are dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from aisc.ir.arith.poly import Dim, ceildiv
from aisc.ir.tensor.func import Buffer, Func, Program
from aisc.ir.tensor.stmt import Alloc, Barrier, Seq, Stmt
from aisc.ir.tensor.visitor import buffers_of, replace_buffers
from aisc.passes.plan.bind import storage

ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class _Interval:
    """A storage: its size in bytes and the first and last statement that uses it."""

    name: str
    size: Dim
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A planned Program: `arena` is the size of the arena in bytes, `live` the greatest sum of
    sizes alive at once (``None`` when sizes are symbolic)."""

    program: Program
    arena: Dim
    live: int | None


def plan_memory(program: Program) -> Plan:
    """Give every scratch buffer of the entry a base and an offset."""
    entry = program.entry
    stmts = entry.body.stmts if isinstance(entry.body, Seq) else (entry.body,)
    intervals = _lifetimes(entry, stmts)
    if all(isinstance(i.size, int) for i in intervals):
        live: int | None = _largest_live_set(intervals)
        offsets, total = _best_fit(intervals)
    else:
        live = None
        offsets, total = _take_over(intervals)
    table: dict[Buffer, Buffer] = {}
    for b in buffers_of(entry.body):
        if storage(b) in offsets:
            table[b] = replace(b, base="arena", offset=offsets[storage(b)])
    body = replace_buffers(entry.body, table)
    planned = replace(entry, body=body).with_attrs(arena=str(total))
    return Plan(replace(program, entry=planned), total, live)


def _lifetimes(entry: Func, stmts: tuple[Stmt, ...]) -> list[_Interval]:
    """Scratch storages in order of first use. Threads run ahead of each other up to the next
    barrier, so a storage lives to the end of its last barrier-free stretch, and from its start."""
    fixed = {storage(b) for b in entry.params}
    stretch = 0
    seen: dict[str, _Interval] = {}
    for stmt in stmts:
        if isinstance(stmt, Barrier):
            stretch += 1
        if isinstance(stmt, Alloc | Barrier):
            continue
        for b in buffers_of(stmt):
            name = storage(b)
            if name in fixed:
                continue
            size = ceildiv(b.bytes, ALIGNMENT) * ALIGNMENT
            old = seen.get(name)
            if old is None:
                seen[name] = _Interval(name, size, stretch, stretch)
            else:
                seen[name] = replace(old, last=stretch)
    return list(seen.values())


def _best_fit(intervals: list[_Interval]) -> tuple[dict[str, Dim], Dim]:
    placed: list[tuple[int, int, _Interval]] = []
    offsets: dict[str, Dim] = {}
    total = 0
    for item in sorted(intervals, key=lambda i: (-_bytes(i), i.first, i.name)):
        alive = sorted(
            (p for p in placed if p[2].first <= item.last and item.first <= p[2].last),
            key=lambda p: (p[0], p[1]),
        )
        start = _smallest_gap(alive, _bytes(item))
        placed.append((start, start + _bytes(item), item))
        offsets[item.name] = start
        total = max(total, start + _bytes(item))
    return offsets, total


def _bytes(i: _Interval) -> int:
    assert isinstance(i.size, int), "a static size"
    return i.size


def _smallest_gap(alive: list[tuple[int, int, _Interval]], size: int) -> int:
    best, best_gap, end = -1, 0, 0
    for low, high, _ in alive:
        gap = low - end
        if gap >= size and (best < 0 or gap < best_gap):
            best, best_gap = end, gap
        end = max(end, high)
    return best if best >= 0 else end


def _largest_live_set(intervals: list[_Interval]) -> int:
    times = sorted({i.first for i in intervals})
    return max(
        (sum(_bytes(i) for i in intervals if i.first <= t <= i.last) for t in times), default=0
    )


def _take_over(intervals: list[_Interval]) -> tuple[dict[str, Dim], Dim]:
    slots: list[tuple[Dim, Dim, int]] = []  # size, offset, last use
    offsets: dict[str, Dim] = {}
    total: Dim = 0
    for item in sorted(intervals, key=lambda i: (i.first, i.name)):
        free = next(
            (k for k, s in enumerate(slots) if s[0] == item.size and s[2] < item.first), None
        )
        if free is None:
            slots.append((item.size, total, item.last))
            offsets[item.name] = total
            total = total + item.size
        else:
            slots[free] = (item.size, slots[free][1], item.last)
            offsets[item.name] = slots[free][1]
    return offsets, total
