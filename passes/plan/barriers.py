"""Barriers of an entry: before whatever depends on what other threads may still be doing.

Kernels with parallel loops are run by all threads, other kernels and copies by thread 0. Every
thread evaluates conditions and sizes itself, so what they read is read by all. What precedes a
branch precedes both arms. Views of one storage that have no element in common do not meet. Turns of
a loop in which all threads take part end with a barrier, since memory of a turn's end may serve
again at the start of the next; in other loops what is pending at the end of a turn is pending at
its start, and the loop is looked at until nothing is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from aisc.ir.dataclass import dataclass
from aisc.ir.node import Node, walk
from aisc.ir.tensor.expr import Expr, Load
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import (
    Alloc,
    Barrier,
    Bind,
    CallKernel,
    Copy,
    HostCall,
    If,
    Require,
    Reserve,
    Seq,
    Stmt,
    While,
    seq,
)
from aisc.passes.plan.overlap import may_overlap, storage

_STEPS = (CallKernel, Copy, HostCall, Bind, Require)


@dataclass(slots=True)
class Pending:
    """Buffers written and read since the last barrier, by their storage -> whether by all
    threads."""

    writes: dict[str, dict[Buffer, bool]] = field(default_factory=dict)
    reads: dict[str, dict[Buffer, bool]] = field(default_factory=dict)

    def copy(self) -> Pending:
        """The same, to be changed apart."""
        return Pending(*({n: dict(t) for n, t in x.items()} for x in (self.writes, self.reads)))

    def clear(self) -> None:
        """All threads have met."""
        self.writes, self.reads = {}, {}

    def join(self, other: Pending) -> bool:
        """Add what another path leaves pending; whether that changed anything."""
        changed = False
        for mine, theirs in ((self.writes, other.writes), (self.reads, other.reads)):
            for name, found in theirs.items():
                own = mine.setdefault(name, {})
                for b, everyone in found.items():
                    if b not in own or (everyone and not own[b]):
                        own[b] = own.get(b, False) or everyone
                        changed = True
        return changed

    def clashes(self, found: Effects) -> bool:
        """Whether a step has to wait for something."""
        if any(_is_pending(self.writes, b, found.shared) for b in (*found.reads, *found.writes)):
            return True
        return any(_is_pending(self.reads, b, found.shared) for b in found.writes)

    def add(self, found: Effects) -> None:
        """A step is pending itself."""
        for table, buffers in ((self.writes, found.writes), (self.reads, found.reads)):
            for b in buffers:
                own = table.setdefault(storage(b), {})
                own[b] = own.get(b, False) or found.shared


def _is_pending(table: Mapping[str, Mapping[Buffer, bool]], b: Buffer, shared: bool) -> bool:
    """Whether other threads may still do something with elements of a buffer."""
    found = table.get(storage(b), {})
    return any((everyone or shared) and may_overlap(x, b) for x, everyone in found.items())


@dataclass(frozen=True, slots=True)
class Effects:
    """What one step reads and writes, and whether all threads take part."""

    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    shared: bool


def with_barriers(body: Stmt, kernels: Mapping[str, Func]) -> Stmt:
    """`body` with barriers; `kernels` gives the scheduled function of each kernel."""
    return _Placer(kernels).stmt(body, Pending())


class _Placer:
    """Walks statements in order of execution."""

    def __init__(self, kernels: Mapping[str, Func]) -> None:
        self.kernels = kernels

    def stmt(self, s: Stmt, pending: Pending) -> Stmt:
        """`s` with barriers; `pending` is updated to what it leaves."""
        if isinstance(s, Seq):
            return seq(*(self.stmt(x, pending) for x in s.stmts))
        if isinstance(s, If):
            return self._branch(s, pending)
        if isinstance(s, While):
            return self._loop(s, pending)
        if isinstance(s, Reserve):  # its code lets all threads meet
            pending.clear()
            return s
        if isinstance(s, Alloc | Barrier):
            return s
        before = self._step(self._effects(s), pending)
        return seq(before, s)

    def _branch(self, s: If, pending: Pending) -> Stmt:
        before = self._step(_condition(s.cond), pending)
        other = pending.copy()
        then = self.stmt(s.then, pending)
        els = None if s.other is None else self.stmt(s.other, other)
        pending.join(other)
        return seq(before, If(s.cond, then, els))

    def _loop(self, s: While, pending: Pending) -> Stmt:
        test = _condition(s.cond)
        before = self._step(test, pending)
        if self._meets(s, pending):  # once before the loop instead of in each turn
            before = seq(before, Barrier("threads"))
            pending.clear()
        end = Barrier("threads") if any(map(self._is_shared, walk(s.body))) else None
        while True:
            state = pending.copy()
            body = self.stmt(s.body, state)
            if end is not None:
                state = Pending()
            last = self._step(test, state)
            if not pending.join(state):
                return seq(before, While(s.cond, seq(body, end, last)))

    def _meets(self, s: While, pending: Pending) -> bool:
        """Whether something in a loop depends on what is pending before it."""
        steps = (self._effects(n) for n in walk(s.body) if isinstance(n, _STEPS))
        return any(map(pending.clashes, steps))

    def _is_shared(self, n: Node) -> bool:
        return isinstance(n, CallKernel) and is_shared(self.kernels[n.kernel])

    def _step(self, found: Effects, pending: Pending) -> Stmt | None:
        """The barrier that a step needs, if any; then the step is pending itself."""
        clash = pending.clashes(found)
        if clash:
            pending.clear()
        pending.add(found)
        return Barrier("threads") if clash else None

    def _effects(self, s: Stmt) -> Effects:
        if isinstance(s, CallKernel):
            func = self.kernels[s.kernel]
            pairs = list(zip(s.args, func.params, strict=True))
            reads = tuple(a for a, p in pairs if p.role in ("input", "weight"))
            writes = tuple(a for a, p in pairs if p.role not in ("input", "weight"))
            return Effects(reads, writes, is_shared(func))
        if isinstance(s, Copy):
            return Effects((s.src,), (s.dst,), False)
        if isinstance(s, HostCall):
            reads = tuple(b for b in s.inputs if b is not None)
            return Effects(reads, () if s.binds else s.outputs, bool(s.binds))
        loads = {n.buffer: None for n in walk(s) if isinstance(n, Load)}
        return Effects(tuple(loads), (), True)


def _condition(cond: Expr) -> Effects:
    loads = {n.buffer: None for n in walk(cond) if isinstance(n, Load)}
    return Effects(tuple(loads), (), True)


def is_shared(func: Func) -> bool:
    """Whether all threads take part in a kernel; others are run by thread 0 alone."""
    return bool(func.attr("parallel", False))
