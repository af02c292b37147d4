"""Loops whose conditions only count become counted loops, and places that are known are said.

before: ``turn[] = 0; while turn[] < max(n, 0) { let i = turn[] in { p[] = i;
y[within(select(p[] < 0, p[] + n, p[]), n)] = x[i]; turn[] = turn[] + 1 } }``
after:  ``for i in 0 .. max(n, 0) { y[i] = x[i] }``

This is how loops over numbers leave :mod:`aisc.passes.lower.sequential`: as what the run does, one
register for each value. Here a register that is stored once gives way to what it holds, if that is
an index or lies somewhere else as it is; tests that a proof makes needless are left out
(:mod:`aisc.ir.tensor.inside`). Arithmetic with floats stays in its statements, since an expression
decides which of it is rounded once.

Where all tests would be needless if sizes fitted, as those of two arrays that are indexed by one
number, sizes are compared once: ``if x_0 <= w_0 { … w[i] … } else { … w[within(i, w_0)] … }``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import field, replace

from aisc.ir import dtypes
from aisc.ir.dataclass import dataclass
from aisc.ir.node import Node, distinct, map_children
from aisc.ir.tensor.expr import (
    FALSE,
    TRUE,
    WITHIN,
    ZERO,
    Binary,
    Call,
    Const,
    Expr,
    Load,
    Select,
    Var,
    binary,
    loaded,
    logical_and,
    maximum,
    of_dim,
)
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.inside import Known, known_of
from aisc.ir.tensor.stmt import Alloc, For, If, Let, Seq, Stmt, Store, While, seq
from aisc.ir.tensor.tree import expressions, statements
from aisc.ir.tensor.visitor import size, transform
from aisc.passes.analysis.faults import can_fail
from aisc.passes.schedule.copies import Names, copied

# Nodes of an index that is worked out again where it is used.
SMALL = 24


@dataclass(frozen=True, slots=True)
class CountTurns:
    """The pass; see the module's docstring. Functions without such loops stay the same object."""

    name: str = "count-turns"

    def run(self, func: Func) -> Func:
        """Apply to one function."""
        if not any(isinstance(n, While) for n in statements(func.body)):
            return func
        counting, known = _Counting(func), known_of(func)
        body = counting.stmt(func.body, known, {})
        if counting.wanted:
            fits = logical_and(*counting.wanted)
            fitting = _Counting(func).stmt(func.body, known.when(fits), {})
            if not can_fail(fitting):
                body = If(fits, fitting, copied(body, counting.names))  # each with its registers
        return replace(func, body=_without_unread(body))


Held = Mapping[Buffer, Expr]


@dataclass(slots=True, eq=False)
class _Counting:
    """Rewrites statements in order; `held` says what registers hold where a statement begins.
    wanted: what sizes would have to be so that no place needs a test."""

    func: Func
    wanted: dict[Expr, None] = field(default_factory=dict)
    names: Names = field(init=False)
    stored: Counter[Buffer] = field(init=False)
    loads: Counter[Buffer] = field(init=False)

    def __post_init__(self) -> None:
        self.names = Names(self.func)
        self.stored = Counter(n.buffer for n in statements(self.func.body) if isinstance(n, Store))
        self.loads = _loads(self.func.body)

    # --- statements ---------------------------------------------------------------------------
    def stmt(self, s: Stmt, known: Known, held: Held) -> Stmt:
        """One statement."""
        if isinstance(s, Seq):
            return self.in_order(s.stmts, known, dict(held))
        if isinstance(s, Store):
            at = tuple(self.value(i, known, held) for i in s.indices)
            return replace(s, indices=at, value=self.value(s.value, known, held))
        if isinstance(s, If):
            return self.branch(s, known, held)
        if isinstance(s, Let):
            value = self.value(s.value, known, held)
            return Let(s.var, value, self.stmt(s.body, known.let(s.var, value), held))
        if isinstance(s, For):
            extent = self.value(s.extent, known, held)
            inside = known.bind(s.var, s.low, _at_least_one(extent))
            return replace(s, extent=extent, body=self.stmt(s.body, inside, _kept(held, s.body)))
        if isinstance(s, While):
            held = _kept(held, s.body)
            return While(self.value(s.cond, known, held), self.stmt(s.body, known, held))
        return s

    def in_order(self, stmts: tuple[Stmt, ...], known: Known, held: dict[Buffer, Expr]) -> Stmt:
        """Statements one after the other."""
        done: list[Stmt] = []
        for s in stmts:
            if isinstance(s, While):
                s = self.counted(s, done, known) or s
            s = self.stmt(s, known, held)
            for b in _written(s):
                for register in [r for r, e in held.items() if r is b or b in loaded(e)]:
                    del held[register]
            if isinstance(s, Store) and self.is_moved(s):
                held[s.buffer] = s.value
            done.append(s)
        return seq(*done)

    def branch(self, s: If, known: Known, held: Held) -> Stmt:
        """A branch, or the way that is taken."""
        cond = self.value(s.cond, known, held)
        if cond in (TRUE, FALSE):
            way = s.then if cond == TRUE else s.other
            return seq() if way is None else self.stmt(way, known, held)
        then = self.stmt(s.then, known.when(cond), held)
        other = None
        if s.other is not None:
            other = self.stmt(s.other, known.when(cond, holds=False), held)
        return If(cond, then, other)

    # --- loops --------------------------------------------------------------------------------
    def counted(self, loop: While, before: list[Stmt], known: Known) -> For | None:
        """The loop if all that its condition does is count; its counter was set `before`."""
        test, body, var = loop.cond, loop.body, None
        if not (isinstance(test, Binary) and test.op == "lt" and isinstance(test.a, Load)):
            return None
        turn = test.a.buffer
        if isinstance(body, Let) and body.value == test.a:
            var, body = body.var, body.body
        steps = body.stmts if isinstance(body, Seq) else (body,)
        starts = Store(turn, (), ZERO) in before
        if not (starts and steps[-1] == Store(turn, (), test.a + 1) and self.stored[turn] == 2):
            return None
        reads = 2 + (var is not None)  # by the test, by the step, and by the name of the number
        if self.loads[turn] != reads or _written(body) & loaded(test.b):
            return None
        if var is None:
            var = Var(self.names.fresh(turn.name))
        extent = test.b
        if not any(map(known.holds, known.range(extent)[0])):
            extent = maximum(extent, ZERO)
        return For(var, ZERO, extent, "serial", seq(*steps[:-1]))

    # --- values -------------------------------------------------------------------------------
    def is_moved(self, s: Store) -> bool:
        """Whether what a register holds is worked out where it is used."""
        b, value = s.buffer, s.value
        if b.space != "register" or b.rank or self.stored[b] != 1 or b in loaded(value):
            return False
        if isinstance(value, Var | Const):
            return True
        if any(isinstance(n, Call) and n.name == WITHIN for n in distinct(value)):
            return False
        if self.loads[b] > 1 and any(x.space != "register" for x in loaded(value)):
            return False
        return isinstance(value, Load) or (size(value) <= SMALL and not _computes_floats(value))

    def value(self, e: Expr, known: Known, held: Held) -> Expr:
        """An expression with what registers hold, without tests that always hold."""

        def go(n: Node) -> Node:
            if isinstance(n, Load) and n.buffer in held:
                return held[n.buffer]
            if isinstance(n, Call) and n.name == WITHIN:
                return self.tested(n, known)
            return _settled(n, known) if isinstance(n, Expr) else n

        return transform(e, go)

    def tested(self, e: Call, known: Known) -> Expr:
        """A place, with its test where that is needed."""
        place, most = e.args[0], known.dim(e.args[1])
        low, high = known.range(place)
        if most is None or not low or not high:
            return e
        ends = (low, [most - 1 - h for h in high])  # none of which may be negative
        missing = [end[0] for end in ends if not any(map(known.holds, end))]
        if not any(known.holds(-1 - d) for d in missing):  # it may be so for other sizes
            self.wanted.update({binary("le", ZERO, of_dim(d)): None for d in missing})
        return e if missing else place


def _settled(e: Expr, known: Known) -> Expr:
    """An expression that is decided, or the same."""
    if isinstance(e, Select) and e.cond in (TRUE, FALSE):
        return e.then if e.cond == TRUE else e.other
    if isinstance(e, Binary) and e.op in _DECIDED and e.a.dtype is dtypes.i64:
        a, b = known.range(e.a), known.range(e.b)
        below = any(known.holds(y - x - 1) for x in a[1] for y in b[0])
        if below or any(known.holds(x - y) for x in a[0] for y in b[1]):
            return _DECIDED[e.op](e, below)
    return e


# What operators give where the first operand is below the second, or is not.
_DECIDED: Mapping[str, Callable[[Binary, bool], Expr]] = {
    "lt": lambda _, below: TRUE if below else FALSE,
    "ge": lambda _, below: FALSE if below else TRUE,
    "min": lambda e, below: e.a if below else e.b,
    "max": lambda e, below: e.b if below else e.a,
}


def _at_least_one(extent: Expr) -> Expr:
    """What the number of turns is where there is a turn."""
    if isinstance(extent, Binary) and extent.op == "max" and ZERO in (extent.a, extent.b):
        return extent.a if extent.b == ZERO else extent.b
    return extent


def _kept(held: Held, body: Stmt) -> dict[Buffer, Expr]:
    """What registers hold in every turn of a loop."""
    written = _written(body)
    return {r: e for r, e in held.items() if r not in written and not loaded(e) & written}


def _written(s: Stmt) -> set[Buffer]:
    return {n.buffer for n in statements(s) if isinstance(n, Store)}


def _loads(s: Stmt) -> Counter[Buffer]:
    """How many expressions load from each buffer; an expression that several share counts once for
    each statement that holds it."""
    found: Counter[Buffer] = Counter()
    for n in statements(s):
        for e in expressions(n):
            found.update(x.buffer for x in distinct(e) if isinstance(x, Load))
    return found


def _computes_floats(e: Expr) -> bool:
    return any(
        isinstance(n, Expr) and n.dtype.is_float and not isinstance(n, Load | Const)
        for n in distinct(e)
    )


def _without_unread(s: Stmt) -> Stmt:
    """Without registers that nothing reads, unless what they would hold may be refused."""
    while True:
        loads = _loads(s)
        gone = {
            n.buffer
            for n in statements(s)
            if isinstance(n, Alloc) and n.buffer.space == "register" and not loads[n.buffer]
        }
        gone -= {n.buffer for n in statements(s) if isinstance(n, Store) and can_fail(n)}
        if not gone:
            return s
        s = _dropped(s, gone)


def _dropped(s: Stmt, gone: set[Buffer]) -> Stmt:
    if isinstance(s, Seq):
        kept = (x for x in s.stmts if not (isinstance(x, Store | Alloc) and x.buffer in gone))
        return seq(*(_dropped(x, gone) for x in kept))
    if isinstance(s, Store | Alloc):
        return seq() if s.buffer in gone else s
    return map_children(s, lambda n: _dropped(n, gone) if isinstance(n, Stmt) else n)
