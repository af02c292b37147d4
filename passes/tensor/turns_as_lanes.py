"""Turns of a loop over numbers that do not need each other are done side by side, as lanes.

before: ``for i in 0 .. n { s[] = 0.0; for j in 0 .. m { s[] = s[] + x[i + j] }; y[i] = s[] }``
after:  ``for o in 0 .. n // 8 { vectorize l in 0 .. 8 { t[l] = 0.0; for j in 0 .. m {
t[l] = t[l] + x[8 * o + l + j] }; y[8 * o + l] = t[l] } }; for i in n // 8 * 8 .. n { … }``

Each number is computed by the same operations in the same order as before, so results are the
same. That turns do not need each other is seen from three things: a register is set in a turn
before it is read there, and nothing outside reads it; what a turn writes of an array lies in the
turn's own row, column or element, and no turn reads what another writes; nothing in a turn can
fail, since the first fault ends a run. A condition that differs from turn to turn selects what
registers become and which elements are written; a number of turns that does is the greatest, and
such a condition. Among loops of a nest that are independent that one is
taken whose neighbouring turns read and write neighbouring elements (the vectors of outer loops of
Allen and Kennedy, *Optimizing Compilers for Modern Architectures*, chapter 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.node import Node, distinct, map_children
from aisc.ir.target import Target
from aisc.ir.tensor.expr import (
    ZERO,
    Const,
    Expr,
    Load,
    Select,
    Unary,
    Var,
    binary,
    loaded,
    logical_and,
    variables,
)
from aisc.ir.tensor.func import Buffer, Func, buffer
from aisc.ir.tensor.linear import Indexer, Linear
from aisc.ir.tensor.stmt import Alloc, For, If, Seq, Stmt, Store, seq
from aisc.ir.tensor.tree import expressions, extent_of, indexer, linear_address, statements
from aisc.ir.tensor.visitor import substitute, touched, transform
from aisc.passes.analysis.faults import can_fail
from aisc.passes.schedule.copies import Names, copied

# How many times as often an access counts that is one loop further inside.
DEEPER = 16
# The share of accesses that must be to neighbours, or to one element for all turns.
NEAR = 0.5


@dataclass(frozen=True, slots=True)
class TurnsAsLanes:
    """The pass; see the module's docstring."""

    target: Target
    name: str = "turns-as-lanes"

    def run(self, func: Func) -> Func:
        """Apply to one function."""
        own = _Lanes(func, self.target)
        body = own.stmt(func.body, ())
        return func if body is func.body else replace(func, body=body)


class _Lanes:
    """What is known of one function while its loops are looked at."""

    def __init__(self, func: Func, target: Target) -> None:
        self.func, self.target = func, target
        self.names = Names(func)

    def stmt(self, s: Stmt, around: tuple[For, ...]) -> Stmt:
        """A statement, with the loops in it that are worth it as lanes."""
        if isinstance(s, For):
            share, best = max(self.candidates(s, around), key=lambda c: c[0], default=(0.0, None))
            if best is s and share >= NEAR:
                return self.as_lanes(s)
            around = (*around, s)

        def inside(n: Node) -> Node:
            return self.stmt(n, around) if isinstance(n, Stmt) else n

        return map_children(s, inside)

    def candidates(self, loop: For, around: tuple[For, ...]) -> Iterator[tuple[float, For]]:
        """Loops of a nest whose turns are independent, the outermost first, with the share of
        their accesses that are to neighbours."""
        if self.lanes(loop) > 1 and self.is_independent(loop, around):
            yield _nearness(loop), loop
        for n in _next_loops(loop.body):
            yield from self.candidates(n, (*around, loop))

    def lanes(self, loop: For) -> int:
        """How many turns a vector holds; 1 where there are not as many."""
        types = [b.dtype for b in touched(loop.body)]
        if not types or any(t.bits < 8 or (t.is_float and t.bits < 32) for t in types):
            return 1
        lanes = min(map(self.target.lanes, types))
        turns = extent_of(loop)
        return lanes if turns is None or turns >= lanes else 1

    # --- independence -------------------------------------------------------------------------
    def is_independent(self, loop: For, around: tuple[For, ...]) -> bool:
        """Whether the turns of a loop may be done in any order, and side by side."""
        if loop.kind != "serial" or can_fail(loop.body):
            return False
        inside = statements(loop.body)
        if not all(isinstance(n, Seq | Store | If | For) for n in inside):
            return False
        stores = [n for n in inside if isinstance(n, Store)]
        registers = {n.buffer for n in stores if not n.buffer.rank}
        turn = _Turn(loop, frozenset(registers))
        if not all(turn.can_steer(n) for n in inside):
            return False
        if not all(self.is_private(r, loop) for r in registers):
            return False
        index = indexer((*around, loop, *(n for n in inside if isinstance(n, For))), self.func.dims)
        written = {n.buffer for n in stores} - registers
        return all(_is_apart(b, loop, index) for b in written)

    def is_private(self, register: Buffer, loop: For) -> bool:
        """Whether a turn sets a register before it reads it, and nothing outside reads it."""
        here = sum(n.buffer is register for n in _loads(loop.body))
        everywhere = sum(n.buffer is register for n in _loads(self.func.body))
        return (
            register.space == "register"
            and here == everywhere
            and _sets_first(loop.body, register) is not False
        )

    # --- rewriting ----------------------------------------------------------------------------
    def as_lanes(self, loop: For) -> Stmt:
        """Whole vectors of turns, and the turns that are left."""
        lanes = self.lanes(loop)
        outer, lane = (Var(self.names.fresh(f"{loop.var.name}_{x}")) for x in ("o", "l"))
        whole = loop.extent // lanes
        registers = [b for b in touched(loop.body) if not b.rank and _is_stored(b, loop.body)]
        wide = {
            b: buffer(self.names.fresh(b.name), b.dtype, (lanes,), space="register")
            for b in sorted(registers, key=lambda b: b.name)
        }

        def widened(n: Node) -> Node:
            if isinstance(n, Load) and n.buffer in wide:
                return Load(wide[n.buffer], (lane,))
            if isinstance(n, Store) and n.buffer in wide:
                return replace(n, buffer=wide[n.buffer], indices=(lane,))
            return n

        body = _Turn(loop, frozenset(registers)).together(loop.body, lanes, ())
        body = substitute(body, {loop.var: outer * lanes + lane + loop.low})
        vector = For(lane, ZERO, Const(lanes), "vectorize", transform(body, widened))
        allocs = map(Alloc, wide.values())
        main = For(outer, ZERO, whole, "serial", seq(*allocs, vector))
        rest = replace(loop, low=whole * lanes + loop.low, extent=loop.extent - whole * lanes)
        turns = extent_of(loop)
        is_whole = turns is not None and turns % lanes == 0
        return seq(main, None if is_whole else copied(rest, self.names))


@dataclass(frozen=True, slots=True)
class _Turn:
    """One turn of a loop, and the registers that differ from turn to turn."""

    loop: For
    registers: frozenset[Buffer]

    def varies(self, e: Expr) -> bool:
        """Whether an expression has other values in other turns."""
        return self.loop.var in variables(e) or not self.registers.isdisjoint(loaded(e))

    def can_steer(self, s: Stmt) -> bool:
        """Whether what decides about the way of a statement can do so for several turns: it is the
        same in all; or a condition, that selects what numbers become and which elements are
        written; or a number of turns that grows or falls with the turn."""
        if isinstance(s, If) and self.varies(s.cond):
            inside = [n for way in (s.then, s.other) if way is not None for n in statements(way)]
            changed = {n.buffer for n in inside if isinstance(n, Store)}
            return not any(isinstance(n, For) for n in inside) and not loaded(s.cond) & changed
        if isinstance(s, For):
            slope = Indexer().linear(s.extent).coeff(self.loop.var)
            straight = slope is not None and self.registers.isdisjoint(loaded(s.extent))
            return s.kind == "serial" and straight and not self.varies(s.low)
        return True

    def together(self, s: Stmt, lanes: int, where: tuple[Expr, ...]) -> Stmt:
        """A statement for several turns at a time, done by those in which the conditions hold."""
        if isinstance(s, Seq):
            return seq(*(self.together(x, lanes, where) for x in s.stmts))
        if isinstance(s, If) and self.varies(s.cond):
            other = None
            if s.other is not None:
                other = self.together(s.other, lanes, (*where, Unary("not", s.cond)))
            return seq(self.together(s.then, lanes, (*where, s.cond)), other)
        if isinstance(s, If):
            other = None if s.other is None else self.together(s.other, lanes, where)
            return If(s.cond, self.together(s.then, lanes, where), other)
        if isinstance(s, For):
            return self.longest(s, lanes, where)
        if isinstance(s, Store) and where:
            cond = logical_and(*where)
            if s.buffer.rank:
                return If(cond, s)
            return replace(s, value=Select(cond, s.value, Load(s.buffer, ())))
        return s

    def longest(self, s: For, lanes: int, where: tuple[Expr, ...]) -> For:
        """A loop with as many turns as it has in one of the turns around it."""
        slope = Indexer().linear(s.extent).coeff(self.loop.var) or 0
        if not slope:
            return replace(s, body=self.together(s.body, lanes, where))
        number = self.loop.var - self.loop.low
        first = number // lanes * lanes + self.loop.low
        extreme = first + (lanes - 1) if slope > 0 else first
        most = substitute(s.extent, {self.loop.var: extreme})
        inner = (*where, binary("lt", s.var, s.extent + s.low))
        return replace(s, extent=most, body=self.together(s.body, lanes, inner))


def _next_loops(s: Stmt) -> Iterator[For]:
    """The outermost loops in a statement."""
    if isinstance(s, For):
        yield s
    elif isinstance(s, Seq):
        for x in s.stmts:
            yield from _next_loops(x)
    elif isinstance(s, If):
        yield from _next_loops(s.then)
        if s.other is not None:
            yield from _next_loops(s.other)


def _loads(s: Stmt) -> Iterator[Load]:
    for n in statements(s):
        for e in expressions(n):
            yield from (x for x in distinct(e) if isinstance(x, Load))


def _is_stored(b: Buffer, s: Stmt) -> bool:
    return any(isinstance(n, Store) and n.buffer is b for n in statements(s))


def _sets_first(s: Stmt, register: Buffer) -> bool | None:
    """Whether a statement sets a register before it reads it in any case; ``False`` where it may
    read it first, ``None`` where it does neither, or sets it in some cases alone."""
    if any(
        n.buffer is register for e in expressions(s) for n in distinct(e) if isinstance(n, Load)
    ):
        return False
    if isinstance(s, Store):
        return True if s.buffer is register else None
    if isinstance(s, Seq):
        return next((x for x in (_sets_first(n, register) for n in s.stmts) if x is not None), None)
    if isinstance(s, If):
        ways = [_sets_first(s.then, register)]
        ways.append(None if s.other is None else _sets_first(s.other, register))
        if False in ways:
            return False
        return True if all(ways) else None
    if isinstance(s, For):
        return None if _sets_first(s.body, register) is not False else False
    return None


def _is_apart(b: Buffer, loop: For, index: Indexer) -> bool:
    """Whether each turn has elements of a buffer of its own: in one of its axes all accesses are
    at the number of the turn, plus what no turn changes."""
    found = [_forms(n.indices, index) for n in _accesses(loop.body, b)]
    changing = {n.var for n in statements(loop.body) if isinstance(n, For)}
    for axis in range(b.rank):
        forms = {f[axis] for f in found}
        if len(forms) != 1:
            continue
        (form,) = forms
        others = [atom for mono, _ in form.terms if mono != (loop.var,) for atom in mono]
        if form.coeff(loop.var) not in (None, 0) and not any(
            variables(a) & changing or loaded(a) for a in others
        ):
            return True
    return False


def _accesses(s: Stmt, b: Buffer) -> Iterator[Load | Store]:
    yield from (n for n in _loads(s) if n.buffer is b)
    yield from (n for n in statements(s) if isinstance(n, Store) and n.buffer is b)


def _forms(indices: Iterable[Expr], index: Indexer) -> tuple[Linear, ...]:
    return tuple(map(index.linear, indices))


def _nearness(loop: For) -> float:
    """The share of the accesses in a loop that are to neighbours in neighbouring turns, or to the
    same element in all."""
    near = total = 0.0
    for weight, n in _weighted(loop.body, 1.0):
        step = linear_address(n.buffer, n.indices).coeff(loop.var)
        total += weight
        near += weight if step in (0, 1) else 0.0
    return near / total if total else 0.0


def _weighted(s: Stmt, weight: float) -> Iterator[tuple[float, Load | Store]]:
    """The accesses of arrays in a statement, with how often they are made."""
    if isinstance(s, For):
        yield from _weighted(s.body, weight * DEEPER)
        return
    for e in expressions(s):
        yield from ((weight, n) for n in distinct(e) if isinstance(n, Load) and n.buffer.rank)
    if isinstance(s, Store) and s.buffer.rank:
        yield weight, s
    for x in s.stmts if isinstance(s, Seq) else ():
        yield from _weighted(x, weight)
    if isinstance(s, If):
        yield from _weighted(s.then, weight)
        if s.other is not None:
            yield from _weighted(s.other, weight)
