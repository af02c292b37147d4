"""Places of an entry's buffers: memory segments, reserved when the sizes in them are known.

before: ``alloc a; call k0(x, a); alloc b; call k1(a, b); alloc c; call k2(b, c)``
after:  ``reserve arena0 2048; a at arena0+0, b at arena0+1024, c at arena0+0``

Buffers are grouped by the dimension of theirs that is bound last: one segment for those whose sizes
are known at the start, another after each ``bind`` on which sizes depend. Sizes that are numbers
are placed here; where one is symbolic, the ``reserve`` holds sizes and lifetimes, and the same
algorithm (:func:`aisc.ir.tensor.first_fit.first_fit`) runs when its values are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from itertools import accumulate

from aisc.ir.arith.poly import Poly, symbol
from aisc.ir.dataclass import dataclass
from aisc.ir.node import map_children, walk
from aisc.ir.tensor.expr import ZERO, Const, Expr, Load, Var, of_dim
from aisc.ir.tensor.first_fit import aligned, first_fit
from aisc.ir.tensor.func import Buffer, Func, Program
from aisc.ir.tensor.stmt import (
    Alloc,
    Barrier,
    Bind,
    CallKernel,
    HostCall,
    If,
    Reserve,
    Seq,
    Slot,
    Stmt,
    While,
    seq,
)
from aisc.ir.tensor.verify_func import deferred_outputs
from aisc.ir.tensor.visitor import buffers_of, replace_buffers
from aisc.passes.plan.barriers import is_shared
from aisc.passes.plan.overlap import storage


@dataclass(frozen=True, slots=True)
class Plan:
    """A planned Program: `arena` is the size in bytes of the segment reserved at the start, `live`
    the greatest sum of sizes in it alive at once (``None`` when sizes are symbolic)."""

    program: Program
    arena: int | None
    live: int | None


@dataclass(slots=True)
class _Span:
    """A storage and the times of its first and last use."""

    root: Buffer
    first: int
    last: int


def plan_memory(program: Program, apart: bool = False) -> Plan:
    """Give every scratch buffer of the entry a segment and an offset. With `apart` each storage has
    a segment of its own, so that whatever leaves it can be seen to."""
    entry = program.entry
    spans = _Timeline({k.name: k for k in program.kernels}, entry).spans
    groups = _groups(entry)
    members: dict[tuple[int, str], list[_Span]] = {}
    for span in spans.values():
        names = (s.name for s in span.root.type.symbols)
        group = max((groups.get(n, 0) for n in names), default=0)
        members.setdefault((group, span.root.space), []).append(span)
    reserves: dict[int, list[Reserve]] = {}
    places: dict[str, tuple[str, int | Poly]] = {}
    for (group, space), items in members.items():
        arena = f"arena{group}" if space == "global" else f"arena{group}.{space}"
        parts = {arena: items}
        if apart:
            parts = {f"{arena}.{k}": [item] for k, item in enumerate(items)}
        for name, part in parts.items():
            reserve, offsets = _segment(name, part)
            reserves.setdefault(group, []).append(reserve)
            places.update({b: (name, at) for b, at in offsets.items()})
    body = seq(*reserves.get(0, ()), _reserved(entry.body, groups, reserves))
    table = {b: _placed(b, places) for b in _allocated(entry) if storage(b) in places}
    params = tuple(table.get(b, b) for b in entry.params)
    planned = replace(entry, params=params, body=replace_buffers(body, table))
    first = reserves.get(0, [])
    sizes = [int(r.size.value) for r in first if isinstance(r.size, Const) and not r.slots]
    static = len(sizes) == len(first)
    known = [s for (group, _), items in members.items() if group == 0 for s in items]
    live = _largest_live_set(known) if static else None
    return Plan(replace(program, entry=planned), sum(sizes) if static else None, live)


def _allocated(entry: Func) -> list[Buffer]:
    found = [n.buffer for n in walk(entry.body) if isinstance(n, Alloc)]
    return [*found, *deferred_outputs(entry)]


def _placed(b: Buffer, places: Mapping[str, tuple[str, int | Poly]]) -> Buffer:
    segment, at = places[storage(b)]
    return replace(b, base=segment, offset=b.offset + at)


def _groups(entry: Func) -> dict[str, int]:
    """Variable -> number of the first ``bind`` (or host call) that gives it a value, from 1 on."""
    found: dict[str, int] = {}
    count = 0
    for n in walk(entry.body):
        names = n.vars if isinstance(n, Bind) else n.binds if isinstance(n, HostCall) else ()
        new = [v.name for v in names if v.name not in found]
        if new:
            count += 1
            found.update(dict.fromkeys(new, count))
    return found


def _reserved(s: Stmt, groups: Mapping[str, int], reserves: Mapping[int, list[Reserve]]) -> Stmt:
    """`s` with memory reserved wherever the sizes of a segment are bound."""
    if isinstance(s, Bind | HostCall):
        names = s.vars if isinstance(s, Bind) else s.binds
        known = dict.fromkeys(groups[v.name] for v in names)
        return seq(s, *(r for g in known for r in reserves.get(g, ())))
    if isinstance(s, Seq):
        return seq(*(_reserved(x, groups, reserves) for x in s.stmts))
    if isinstance(s, If | While):
        return map_children(
            s, lambda n: _reserved(n, groups, reserves) if isinstance(n, Stmt) else n
        )
    return s


def _segment(name: str, items: list[_Span]) -> tuple[Reserve, dict[str, int | Poly]]:
    """The reservation of a segment, and the offsets of its storages."""
    sizes = [i.root.bytes for i in items]
    numbers = [n for n in sizes if isinstance(n, int)]
    if len(numbers) == len(sizes):
        spans = [(n, i.first, i.last) for n, i in zip(numbers, items, strict=True)]
        found, total = first_fit(spans)
        places = {i.root.name: at for i, at in zip(items, found, strict=True)}
        return Reserve(name, Const(total)), dict(places)
    slots = tuple(
        Slot(Var(f"{i.root.name}.at"), of_dim(n), i.first, i.last)
        for i, n in zip(items, sizes, strict=True)
    )
    offsets: dict[str, int | Poly] = {
        i.root.name: symbol(f"{i.root.name}.at", kind="derived") for i in items
    }
    return Reserve(name, ZERO, slots), offsets


def _largest_live_set(items: list[_Span]) -> int:
    changes: list[tuple[int, int]] = []  # at a step; what ends before a step comes first
    for i in items:
        assert isinstance(i.root.bytes, int), "sizes are known"
        size = aligned(i.root.bytes)
        changes += [(i.first, size), (i.last + 1, -size)]
    return max(accumulate(size for _, size in sorted(changes)), default=0)


@dataclass(slots=True)
class _Timeline:
    """Lifetimes of storages, in steps of the entry's statements in order.

    What all threads use may be in use until the next barrier, and from the one before; what
    thread 0 alone uses, only in its step. A storage declared before a loop and used in it lives
    through the whole loop, and so does one that is in use when the next turn starts; arms of a
    branch follow each other.
    """

    kernels: Mapping[str, Func]
    entry: Func
    spans: dict[str, _Span] = field(default_factory=dict)
    _now: int = 0
    _stretch: int = 0
    _shared: set[str] = field(default_factory=set)
    _roots: dict[str, Buffer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for b in deferred_outputs(self.entry):
            self._roots[b.name] = b
        self._stmt(self.entry.body)
        self._meet()
        for b in deferred_outputs(self.entry):
            self._use(b.name, self._now)

    def _stmt(self, s: Stmt) -> None:
        if isinstance(s, Seq):
            for x in s.stmts:
                self._stmt(x)
        elif isinstance(s, Alloc):
            if s.buffer.base in ("", s.buffer.name) and s.buffer.role in ("scratch", "output"):
                self._roots[s.buffer.name] = s.buffer
        elif isinstance(s, Barrier | Reserve):
            self._meet()
        elif isinstance(s, If):
            self._branch(s)
        elif isinstance(s, While):
            self._loop(s)
        else:
            shared = isinstance(s, CallKernel) and is_shared(self.kernels[s.kernel])
            names = [storage(b) for b in buffers_of(s)]
            self._step(names, shared or not isinstance(s, CallKernel))

    def _branch(self, s: If) -> None:
        """A barrier in one arm is none for the way through the other."""
        self._step(self._loads(s.cond), shared=True)
        stretch, pending = self._stretch, set(self._shared)
        ends: list[tuple[int, set[str]]] = []
        for arm in (s.then, s.other):
            self._stretch, self._shared = stretch, set(pending)
            if arm is not None:
                self._stmt(arm)
            ends.append((self._stretch, self._shared))
        self._stretch, self._shared = min(n for n, _ in ends), ends[0][1] | ends[1][1]

    def _loop(self, s: While) -> None:
        before, start = set(self._roots), self._now + 1
        self._step(self._loads(s.cond), shared=True)
        stretch, pending = self._stretch, set(self._shared)
        self._stmt(s.body)
        self._step(self._loads(s.cond), shared=True)
        for name, span in self.spans.items():
            outlives = name in before and span.last >= start
            if outlives or name in self._shared - pending:  # in use when the next turn starts
                span.first, span.last = min(span.first, start), self._now
        # There may be no turn at all, and with it no barrier.
        self._stretch, self._shared = min(stretch, self._stretch), self._shared | pending

    def _loads(self, cond: Expr) -> list[str]:
        return [storage(n.buffer) for n in walk(cond) if isinstance(n, Load)]

    def _step(self, names: list[str], shared: bool) -> None:
        self._now += 1
        for name in names:
            self._use(name, self._now)
            if shared:
                self._shared.add(name)
                self._use(name, self._stretch)

    def _meet(self) -> None:
        """A barrier: what all threads used is in use up to here."""
        self._now += 1
        for name in self._shared:
            self._use(name, self._now - 1)
        self._shared.clear()
        self._stretch = self._now

    def _use(self, name: str, time: int) -> None:
        root = self._roots.get(name)
        if root is None:
            return
        span = self.spans.setdefault(name, _Span(root, time, time))
        span.first, span.last = min(span.first, time), max(span.last, time)
