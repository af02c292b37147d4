"""Threads of a hardware block, run in lockstep from barrier to barrier.

Statements that hold a ``Barrier("block")`` inside a thread loop become generators, which yield
at each barrier: a thread loop advances all its threads to their next barrier in turn. Nested
thread loops pass the barrier on to the one around them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from aisc.ir.diagnostics import execution_error
from aisc.ir.node import walk
from aisc.ir.tensor.interpret_expr import Frame
from aisc.ir.tensor.stmt import Barrier, For, If, Let, Seq, Stmt, While

if TYPE_CHECKING:
    from aisc.ir.tensor.interpret_stmt import StmtCompiler

Threads = Callable[[Frame], Iterator[Stmt]]


def is_thread_loop(s: Stmt) -> bool:
    """Whether iterations of `s` are threads of a block."""
    return isinstance(s, For) and s.kind.startswith("thread.")


def holds_barrier(s: Stmt) -> bool:
    """Whether threads of a block wait for each other in `s`."""
    return any(isinstance(n, Barrier) and n.scope != "threads" for n in walk(s))


class Lockstep:
    """Compiles statements with barriers to generators; others are left to `owner`."""

    def __init__(self, owner: StmtCompiler) -> None:
        self.owner = owner
        self.scope = owner.scope

    def run(self, s: For) -> Callable[[Frame], None]:
        """The closure of an outermost thread loop."""
        threads = self._thread_loop(s)

        def run(f: Frame) -> None:
            for _ in threads(f):
                pass

        return run

    def stmt(self, s: Stmt) -> Threads:
        """`s` as a generator that yields at each block barrier."""
        if isinstance(s, Barrier) and s.scope != "threads":
            return lambda f: iter((s,))
        if not holds_barrier(s):
            plain = self.owner.stmt(s)

            def once(f: Frame) -> Iterator[Stmt]:
                plain(f)
                return iter(())

            return once
        if isinstance(s, Seq):
            items = [self.stmt(x) for x in s.stmts]

            def in_order(f: Frame) -> Iterator[Stmt]:
                for item in items:
                    yield from item(f)

            return in_order
        if isinstance(s, For):
            return self._thread_loop(s) if is_thread_loop(s) else self._serial_loop(s)
        return self._control(s)

    def _control(self, s: Stmt) -> Threads:
        if isinstance(s, If):
            cond, then = self.owner.expr(s.cond), self.stmt(s.then)
            other = self.stmt(s.other or Seq(()))
            return lambda f: then(f) if cond(f) else other(f)
        if isinstance(s, Let):
            slot, value = self.scope.slot(s.var.name), self.owner.expr(s.value)
            inside = self.stmt(s.body)

            def bind(f: Frame) -> Iterator[Stmt]:
                f[slot] = value(f)
                yield from inside(f)

            return bind
        if isinstance(s, While):
            test, turn = self.owner.expr(s.cond), self.stmt(s.body)

            def repeat(f: Frame) -> Iterator[Stmt]:
                while test(f):
                    yield from turn(f)

            return repeat
        raise execution_error("E502", f"a block barrier inside {type(s).__name__}")

    def _serial_loop(self, s: For) -> Threads:
        slot, turns = self.scope.slot(s.var.name), self.owner.turns(s)
        body = self.stmt(s.body)

        def run(f: Frame) -> Iterator[Stmt]:
            for i in turns(f):
                f[slot] = i
                yield from body(f)

        return run

    def _thread_loop(self, s: For) -> Threads:
        slot, turns = self.scope.slot(s.var.name), self.owner.turns(s)
        body, name = self.stmt(s.body), s.var.name

        def run(f: Frame) -> Iterator[Stmt]:
            threads = []
            for i in turns(f):
                own = list(f)  # buffers outside are shared, scalars and registers are not
                own[slot] = i
                threads.append(body(own))
            while True:
                stop = _meet([next(t, None) for t in threads], name)
                if stop is None:
                    return
                yield stop

        return run


def _meet(stops: list[Stmt | None], name: str) -> Stmt | None:
    """The barrier at which all threads wait, ``None`` when all have ended."""
    first = stops[0] if stops else None
    for n, stop in enumerate(stops):
        if stop is not first:
            raise execution_error(
                "E502",
                "a block barrier is not reached by all threads",
                f"threads {name}=0 and {name}={n} do not wait at the same place",
            )
    return first
