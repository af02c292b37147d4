"""Which accesses of two units of an accelerator nothing separates but a few handovers.

Units work side by side, each on its instructions in order. A handover from one to another lets what
the second does after it wait for what the first did before it; where the second may run some
handovers ahead, one of these binds it no more. So pairs of accesses are listed with how many
handovers stand between them in program order, as an expression over the loops around them: in the
same iteration of the loops around both, or the second in a later iteration of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace

from aisc.ir.dataclass import dataclass
from aisc.ir.tensor.expr import ZERO, Expr, Var
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.intrinsic import Intrinsic
from aisc.ir.tensor.linear import Indexer
from aisc.ir.tensor.stmt import For, Handover, If, Invoke, Region, Seq, Stmt
from aisc.ir.tensor.tree import indexer
from aisc.passes.tensor.intervals import Touch


@dataclass(frozen=True, slots=True)
class Seen:
    """An access by a unit, and at least how many handovers stand between it and the point from
    which it is seen."""

    touch: Touch
    unit: str
    instruction: str
    passed: Expr = ZERO

    def beyond(self, more: Expr) -> Seen:
        """The same from farther away."""
        return replace(self, passed=self.passed + more)


@dataclass(frozen=True, slots=True)
class Meeting:
    """Accesses to one memory, the first before the second. same: loops around both, in one
    iteration; step: the loop in whose later iteration the second one is, in which a whole turn has
    at least `turn` handovers. place: where a handover between them would stand: before a child of a
    ``Seq`` (by position), or at the end of the body of `step`."""

    first: Seen
    second: Seen
    same: tuple[For, ...]
    step: For | None = None
    turn: int = 0
    place: tuple[Seq, int] | None = None


@dataclass(frozen=True, slots=True)
class _Span:
    """Accesses seen from the start and from the end of a statement, and the least number of
    handovers on a way through."""

    head: tuple[Seen, ...] = ()
    tail: tuple[Seen, ...] = ()
    through: int = 0


@dataclass(slots=True)
class _Walk:
    giver: str
    taker: str
    instructions: Mapping[str, Intrinsic]
    index: Indexer
    loops: tuple[For, ...] = ()
    found: list[Meeting] = field(default_factory=list)

    def stmt(self, s: Stmt) -> _Span:
        if isinstance(s, Handover):
            return _Span(through=int((s.giver, s.taker) == (self.giver, self.taker)))
        if isinstance(s, Seq):
            return self._seq(s)
        if isinstance(s, For):
            return self._loop(s)
        if isinstance(s, If):
            then = self.stmt(s.then)
            other = _Span() if s.other is None else self.stmt(s.other)
            least = min(then.through, other.through)
            return _Span(then.head + other.head, then.tail + other.tail, least)
        if isinstance(s, Invoke):
            found = self._accesses(s)
            return _Span(found, found)
        return _Span()

    def _accesses(self, s: Invoke) -> tuple[Seen, ...]:
        """The tiles that an instruction of either unit reads and writes."""
        meaning = self.instructions[s.intrinsic]
        if meaning.unit not in (self.giver, self.taker):
            return ()
        pairs = zip(s.operands, meaning.semantics.params, strict=True)
        return tuple(
            Seen(_box(r, p.role == "output", self.loops), meaning.unit, s.intrinsic)
            for r, p in pairs
            if r.buffer.space != "global"
        )

    def _add(
        self,
        first: tuple[Seen, ...],
        second: tuple[Seen, ...],
        step: For | None = None,
        turn: int = 0,
        place: tuple[Seq, int] | None = None,
    ) -> None:
        for a in first:
            for b in second:
                units = (a.unit, b.unit) == (self.giver, self.taker)
                written = a.touch.write or b.touch.write
                if units and written and a.touch.buffer == b.touch.buffer:
                    self.found.append(Meeting(a, b, self.loops, step, turn, place))

    def _seq(self, s: Seq) -> _Span:
        head: tuple[Seen, ...] = ()
        tail: tuple[Seen, ...] = ()
        through = 0
        for k, child in enumerate(s.stmts):
            span = self.stmt(child)
            self._add(tail, span.head, place=(s, k))
            head += tuple(x.beyond(ZERO + through) for x in span.head)
            tail = tuple(x.beyond(ZERO + span.through) for x in tail) + span.tail
            through += span.through
        return _Span(head, tail, through)

    def _loop(self, s: For) -> _Span:
        outer, loops = self.index, self.loops
        low, high = outer.bounds(s.low), outer.bounds(s.low + s.extent)
        self.index, self.loops = outer.bind(s.var, low[0], high[1] - 1), (*loops, s)
        span = self.stmt(s.body)
        self.index, self.loops = outer, loops
        turn = span.through
        self._add(span.tail, span.head, s, turn)
        if not turn:
            return span
        head = tuple(x.beyond((s.var - s.low) * turn) for x in span.head)
        tail = tuple(x.beyond((s.low + s.extent - 1 - s.var) * turn) for x in span.tail)
        return _Span(head, tail, turn * max(0, int(outer.bounds(s.extent)[0])))


def _box(r: Region, write: bool, loops: tuple[For, ...]) -> Touch:
    """All elements of an operand: those of each dimension are the turns of a loop."""
    index, own = [], []
    for d, (low, extent, step) in enumerate(zip(r.low, r.extent, r.steps, strict=True)):
        if step == 0:
            index.append(low)
            continue
        turn = For(Var(f"element {d}"), ZERO, extent, "serial", Seq(()))
        own.append(turn)
        index.append(low + turn.var * step)
    return Touch(r.buffer, tuple(index), write, (*loops, *own))


def meetings(
    func: Func, instructions: Mapping[str, Intrinsic], giver: str, taker: str
) -> tuple[Meeting, ...]:
    """Pairs of accesses to tiles, the first by `giver` and the second by `taker`, in program
    order."""
    walker = _Walk(giver, taker, instructions, indexer((), func.dims))
    walker.stmt(func.body)
    return tuple(walker.found)


__all__ = ["Meeting", "Seen", "meetings"]
