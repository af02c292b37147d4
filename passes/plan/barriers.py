"""Barriers of an entry: before whatever depends on what other threads may still be doing.

Kernels with parallel loops are run by all threads, other kernels and copies by thread 0. Every
thread evaluates conditions and sizes itself, so what they read is read by all. What precedes a
branch precedes both arms. Turns of a loop in which all threads take part end with a barrier, since
memory of a turn's end may serve again at the start of the next; in other loops what is pending at
the end of a turn is pending at its start, and the loop is looked at until nothing is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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

_STEPS = (CallKernel, Copy, HostCall, Bind, Require)


@dataclass(slots=True)
class Pending:
    """Storages written and read since the last barrier -> whether by all threads."""

    writes: dict[str, bool] = field(default_factory=dict)
    reads: dict[str, bool] = field(default_factory=dict)

    def copy(self) -> Pending:
        """The same, to be changed apart."""
        return Pending(dict(self.writes), dict(self.reads))

    def join(self, other: Pending) -> bool:
        """Add what another path leaves pending; whether that changed anything."""
        changed = False
        for mine, theirs in ((self.writes, other.writes), (self.reads, other.reads)):
            for name, everyone in theirs.items():
                if name not in mine or (everyone and not mine[name]):
                    mine[name] = mine.get(name, False) or everyone
                    changed = True
        return changed


@dataclass(frozen=True, slots=True)
class Effects:
    """Storages that one step reads and writes, and whether all threads take part."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]
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
            pending.writes, pending.reads = {}, {}
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
            pending.writes, pending.reads = {}, {}
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
        steps = [self._effects(n) for n in walk(s.body) if isinstance(n, _STEPS)]
        for found in steps:
            for n in (*found.reads, *found.writes):
                if n in pending.writes and (pending.writes[n] or found.shared):
                    return True
            if any(n in pending.reads and (pending.reads[n] or found.shared) for n in found.writes):
                return True
        return False

    def _is_shared(self, n: Node) -> bool:
        return isinstance(n, CallKernel) and is_shared(self.kernels[n.kernel])

    def _step(self, found: Effects, pending: Pending) -> Stmt | None:
        """The barrier that a step needs, if any; then the step is pending itself."""
        shared, touched = found.shared, (*found.reads, *found.writes)
        clash = any(n in pending.writes and (pending.writes[n] or shared) for n in touched)
        clash = clash or any(
            n in pending.reads and (pending.reads[n] or shared) for n in found.writes
        )
        if clash:
            pending.writes, pending.reads = {}, {}
        for table, names in ((pending.writes, found.writes), (pending.reads, found.reads)):
            for n in names:
                table[n] = table.get(n, False) or shared
        return Barrier("threads") if clash else None

    def _effects(self, s: Stmt) -> Effects:
        if isinstance(s, CallKernel):
            func = self.kernels[s.kernel]
            pairs = list(zip(s.args, func.params, strict=True))
            reads = tuple(storage(a) for a, p in pairs if p.role in ("input", "weight"))
            writes = tuple(storage(a) for a, p in pairs if p.role not in ("input", "weight"))
            return Effects(reads, writes, is_shared(func))
        if isinstance(s, Copy):
            return Effects((storage(s.src),), (storage(s.dst),), False)
        if isinstance(s, HostCall):
            reads = tuple(storage(b) for b in s.inputs if b is not None)
            return Effects(reads, () if s.binds else tuple(map(storage, s.outputs)), bool(s.binds))
        loads = {storage(n.buffer): None for n in walk(s) if isinstance(n, Load)}
        return Effects(tuple(loads), (), True)


def _condition(cond: Expr) -> Effects:
    loads = {storage(n.buffer): None for n in walk(cond) if isinstance(n, Load)}
    return Effects(tuple(loads), (), True)


def is_shared(func: Func) -> bool:
    """Whether all threads take part in a kernel; others are run by thread 0 alone."""
    return bool(func.attr("parallel", False))


def storage(b: Buffer) -> str:
    """The name of the storage that a buffer lies in."""
    return b.base or b.name
