"""Which accesses of a thread's body lie in one barrier interval.

All threads of a block meet the same barriers in the same order, so two accesses of different
threads may happen at once exactly when no barrier stands between them in program order. Pairs of
such accesses are listed with how the loops around both are related: in the same iteration, or the
second in the next iteration of a loop (around its back edge), or in any later one where the body
can be passed without meeting a barrier.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, replace
from math import inf

from aisc.ir import dtypes
from aisc.ir.dataclass import dataclass
from aisc.ir.node import Node, children
from aisc.ir.tensor.expr import Expr, Load, Select, Unary, binary, equal
from aisc.ir.tensor.func import Buffer, Func, buffer
from aisc.ir.tensor.linear import Indexer
from aisc.ir.tensor.stmt import Barrier, For, If, Invoke, Let, Seq, Stmt, Store


@dataclass(frozen=True, slots=True)
class Touch:
    """One access: its element, the loops around it, and the conditions under which it happens.

    Conditions speak of the access's own loop variables; some say in which iterations of a loop no
    barrier stands between the access and the point from which it is seen. `late`: it happens some
    time, until it is waited for.
    """

    buffer: Buffer
    index: tuple[Expr, ...]
    write: bool
    loops: tuple[For, ...]
    conds: tuple[Expr, ...] = ()
    late: bool = False

    def under(self, *conds: Expr) -> Touch:
        """The same access under more conditions."""
        return replace(self, conds=(*self.conds, *conds))


@dataclass(frozen=True, slots=True)
class Pair:
    """Accesses that no barrier separates.

    same: loops around both, in the same iteration; step: the loop in whose later iteration the
    second one is; adjacent: how many iterations later that is, 0 where it is any later one. place:
    where a barrier between them would stand: before a child of a ``Seq`` (by position), or at the
    end of the body of `step`.
    """

    first: Touch
    second: Touch
    same: tuple[For, ...]
    step: For | None = None
    adjacent: int = 0
    place: tuple[Seq, int] | None = None


# What an instruction does to memory, as statements, and whether it is late.
Meaning = Callable[[Invoke], tuple[Stmt, bool]]


@dataclass(slots=True)
class _Span:
    """Accesses seen from the start and from the end of a statement without meeting a barrier.

    opaque: every way through meets a barrier; otherwise the way through is free under `passing`.
    """

    head: list[Touch]
    tail: list[Touch]
    opaque: bool = False
    passing: tuple[Expr, ...] = ()


@dataclass(slots=True)
class _Walk:
    watched: frozenset[str]
    index: Indexer
    meaning: Meaning
    scopes: tuple[str, ...]
    loops: tuple[For, ...] = ()
    conds: tuple[Expr, ...] = ()
    pairs: list[Pair] = field(default_factory=list)

    def stmt(self, s: Stmt) -> _Span:
        if isinstance(s, Barrier):
            return _Span([], [], s.scope in self.scopes)
        if isinstance(s, Seq):
            return self._seq(s)
        if isinstance(s, For):
            return self._loop(s)
        if isinstance(s, If):
            return self._branch(s)
        if isinstance(s, Let):
            return self._seq(Seq((Store(NOTHING, (), s.value), s.body)))
        if isinstance(s, Invoke):
            return self._instruction(s)
        return self._leaf(s)

    def _instruction(self, s: Invoke) -> _Span:
        """What an instruction does to memory, if it does."""
        meant, late = self.meaning(s)
        span = self.stmt(meant)
        if not late:
            return span
        head, tail = ([replace(t, late=t.write) for t in part] for part in (span.head, span.tail))
        return _Span(head, tail)

    def _leaf(self, s: Node) -> _Span:
        found = touches(s, self.loops, self.conds)
        kept = [t for t in found if t.buffer.name in self.watched]
        for k, a in enumerate(kept):
            self._add([a], kept[k:])
        return _Span(kept, list(kept))

    def _add(
        self,
        first: list[Touch],
        second: list[Touch],
        step: For | None = None,
        adjacent: int = 0,
        place: tuple[Seq, int] | None = None,
    ) -> None:
        for a in first:
            for b in second:
                if a.buffer == b.buffer and (a.write or b.write):
                    self.pairs.append(Pair(a, b, self.loops, step, adjacent, place))

    def _seq(self, s: Seq) -> _Span:
        head: list[Touch] = []
        carried: list[Touch] = []
        opaque = False
        passing: tuple[Expr, ...] = ()
        for k, child in enumerate(s.stmts):
            span = self.stmt(child)
            self._add(carried, span.head, place=(s, k))
            if not opaque:
                head.extend(t.under(*passing) for t in span.head)
            opaque = opaque or span.opaque
            passing += span.passing
            kept = [] if span.opaque else [t.under(*span.passing) for t in carried]
            carried = kept + span.tail
        return _Span(head, carried, opaque, passing)

    def _loop(self, s: For) -> _Span:
        outer, loops = self.index, self.loops
        low, high = outer.bounds(s.low), outer.bounds(s.low + s.extent)
        self.index, self.loops = outer.bind(s.var, low[0], high[1] - 1), (*loops, s)
        span = self.stmt(s.body)
        self.index, self.loops = outer, loops
        self._add(span.tail, span.head, step=s, adjacent=int(span.opaque))
        if not span.opaque:
            return _Span(span.head, span.tail)
        head = [t.under(equal(s.var, s.low)) for t in span.head]
        tail = [t.under(equal(s.var, s.low + s.extent - 1)) for t in span.tail]
        if outer.bounds(s.extent)[0] >= 1:
            return _Span(head, tail, True)
        return _Span(head, tail, False, (binary("le", s.extent, 0),))

    def _branch(self, s: If) -> _Span:
        before = self._leaf(s.cond)
        conds = self.conds
        self.conds = (*conds, s.cond)
        then = self.stmt(s.then)
        self.conds = (*conds, Unary("not", s.cond))
        other = self.stmt(s.other) if s.other is not None else _Span([], [])
        self.conds = conds
        self._add(before.tail, then.head + other.head)
        opaque = then.opaque and other.opaque
        tail = then.tail + other.tail + ([] if opaque else before.tail)
        return _Span(before.head + then.head + other.head, tail, opaque)


NOTHING = buffer("", dtypes.i64, ())  # stands for the scalar that a Let binds


def touches(node: Node, loops: tuple[For, ...], conds: tuple[Expr, ...]) -> list[Touch]:
    """Accesses of an expression or a store; what a ``Select`` does not take is not accessed."""
    if isinstance(node, Store):
        inside = [t for e in (*node.indices, node.value) for t in touches(e, loops, conds)]
        own = (
            [] if node.buffer is NOTHING else [Touch(node.buffer, node.indices, True, loops, conds)]
        )
        return inside + own
    if isinstance(node, Select):
        arms = (
            (node.cond, ()),
            (node.then, (node.cond,)),
            (node.other, (Unary("not", node.cond),)),
        )
        return [t for arm, extra in arms for t in touches(arm, loops, conds + extra)]
    below = [t for c in children(node) for t in touches(c, loops, conds)]
    if isinstance(node, Load):
        return [*below, Touch(node.buffer, node.indices, False, loops, conds)]
    return below


def no_memory(s: Invoke) -> tuple[Stmt, bool]:
    """Instructions that work on registers."""
    return Seq(()), False


def interval_pairs(
    func: Func, body: Stmt, watched: frozenset[str], meaning: Meaning = no_memory,
    scopes: tuple[str, ...] = ("threads", "block"),
) -> tuple[Pair, ...]:  # fmt: skip
    """Pairs of accesses to the watched buffers that share an interval between barriers of some
    scopes, in program order."""
    walker = _Walk(watched, Indexer({d.name: (0, inf) for d in func.dims}), meaning, scopes)
    walker.stmt(body)
    return tuple(walker.pairs)
