"""What the threads of one block access, in lockstep from barrier to barrier.

The loops and conditions of one thread's body are executed, values are not: a trace needs no data.
Two events of different threads with the same epoch happen in no fixed order. Replaying a proved
race means finding both its accesses in the trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import execution_error
from aisc.ir.node import children
from aisc.ir.tensor.expr import Expr, Load, Select, Var
from aisc.ir.tensor.interpret_expr import Scope, compile_expr
from aisc.ir.tensor.stmt import Alloc, Await, Barrier, For, If, Let, Prefetch, Seq, Stmt, Store

Values = tuple[tuple[str, int], ...]
Environment = dict[str, int]


@dataclass(frozen=True, slots=True)
class Event:
    """An access: the number of barriers before it, its thread, loop values, element, direction."""

    epoch: int
    threads: Values
    loops: Values
    buffer: str
    index: tuple[int, ...]
    write: bool


def index_value(e: Expr, env: Mapping[str, int]) -> int:
    """The value of an index expression or condition under given variables."""
    scope = Scope(env, {}, {})
    return int(compile_expr(e, scope)([]))


def trace_block(body: Stmt, threads: tuple[For, ...], at: Mapping[str, int]) -> tuple[Event, ...]:
    """Events of all threads of the block at `at` (its block numbers and dimensions)."""
    found: list[Event] = []
    for where in _threads(threads):
        tracer = _Tracer(where)
        tracer.run(body, {**at, **dict(where)})
        found.extend(tracer.events)
    return tuple(found)


def _threads(loops: tuple[For, ...]) -> Iterator[Values]:
    if not loops:
        yield ()
        return
    first = loops[0]
    for i in range(index_value(first.extent, {})):
        for rest in _threads(loops[1:]):
            yield ((first.var.name, i), *rest)


class _Tracer:
    """Runs the body of one thread."""

    def __init__(self, where: Values) -> None:
        self.where = where
        self.events: list[Event] = []
        self.epoch = 0
        self.loops: list[Var] = []

    def run(self, s: Stmt, env: Environment) -> None:
        if isinstance(s, Seq):
            for child in s.stmts:
                self.run(child, env)
        elif isinstance(s, For):
            low = index_value(s.low, env)
            self.loops.append(s.var)
            for i in range(low, low + index_value(s.extent, env)):
                self.run(s.body, {**env, s.var.name: i})
            self.loops.pop()
        elif isinstance(s, If):
            self.read(s.cond, env)
            arm = s.then if index_value(s.cond, env) else s.other
            if arm is not None:
                self.run(arm, env)
        elif isinstance(s, Let):
            self.read(s.value, env)
            self.run(s.body, env)
        elif isinstance(s, Store):
            for e in (*s.indices, s.value):
                self.read(e, env)
            self.add(s, True, env)
        elif isinstance(s, Barrier):
            self.epoch += 1
        elif not isinstance(s, Alloc | Prefetch | Await):
            raise execution_error("E502", f"{type(s).__name__} cannot be traced")

    def read(self, e: Expr, env: Environment) -> None:
        """The loads that evaluating `e` does."""
        if isinstance(e, Select):
            self.read(e.cond, env)
            self.read(e.then if index_value(e.cond, env) else e.other, env)
            return
        for child in children(e):
            assert isinstance(child, Expr), "operands of expressions are expressions"
            self.read(child, env)
        if isinstance(e, Load):
            self.add(e, False, env)

    def add(self, access: Load | Store, write: bool, env: Environment) -> None:
        """Record an access."""
        index = tuple(index_value(i, env) for i in access.indices)
        loops = tuple((v.name, env[v.name]) for v in self.loops)
        self.events.append(Event(self.epoch, self.where, loops, access.buffer.name, index, write))
