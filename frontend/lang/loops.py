"""Loops of the run: ``while`` and ``scan`` become the operator ``loop``.

The body changes the variables of outside that it assigns, and collects values of all turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from aisc.frontend.building.regions import Region, element, loop
from aisc.frontend.lang import operators
from aisc.frontend.lang import syntax as s
from aisc.frontend.lang.parameters import Parameters
from aisc.frontend.lang.scope import Item, Poisoned, Scope, Turn, misfit, require_alike, shown
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, Poly
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Value
from aisc.ir.graph.shapes.checks import decide
from aisc.ir.location import Loc
from aisc.ir.types import TensorType


class Builder(Protocol):
    """What builds statements and expressions."""

    parameters: Parameters

    def block(self, scope: Scope, statements: Sequence[s.Statement]) -> None:
        """Run statements."""

    def bind(self, scope: Scope, names: Iterable[str], items: Iterable[Item]) -> None:
        """Variables stand for values."""

    def expr(self, scope: Scope, x: s.Expr) -> Item:
        """The value of an expression."""

    def values(self, scope: Scope, names: Sequence[str], at: Loc) -> list[Value]:
        """Variables as tensors."""


@dataclass(frozen=True, slots=True)
class _Range:
    """The turns of a scan: at most `trip`, or else `limit`. `rows`: tensors of which each turn has
    one place of the first axis; `counts`: names of the turn's number, with what is added to it."""

    trip: Dim | None
    limit: Value | None
    rows: dict[str, Value]
    counts: dict[str, int]


def repeat(builder: Builder, scope: Scope, x: s.While | s.Scan) -> None:
    """Run a loop; the variables it changes, and what it collects, are known in `scope` then."""
    over = x.over if isinstance(x, s.Scan) else ()
    span = _span(builder, scope, over)
    own = {*span.rows, *span.counts}
    names = [n for n in s.assigned(x.body) if n not in own and scope.find(n) is not None]
    first = _first(builder, scope, x)
    stacked: dict[str, None] = {}
    ends = span.trip is not None or span.limit is not None
    first_try = builder.parameters.state(), dict(scope.blocks)

    def step(
        region: Region, turn: Dim, carried: list[Value]
    ) -> tuple[Value | None, Sequence[Value], Sequence[Value]]:
        builder.parameters.reset(first_try[0])  # the body may be built more than once
        scope.blocks.clear()
        scope.blocks.update(first_try[1])
        inner = scope.inside(region)
        inner.turn = Turn()
        inner.names.update({n: turn + low for n, low in span.counts.items()})
        rows = {n: element(region.em, region.capture(v), 0, turn) for n, v in span.rows.items()}
        builder.bind(inner, rows, rows.values())
        builder.bind(inner, names, carried)
        builder.block(inner, x.body)
        after = builder.values(inner, names, x.at)
        if inner.poisoned:
            raise Poisoned
        require_alike(names, carried, after, "where a turn begins and {} where it ends", x.at)
        stacked.clear()
        stacked.update(dict.fromkeys(inner.turn.collected))
        return _goes_on(builder, inner, x, ends), after, list(inner.turn.collected.values())

    initial = builder.values(scope, names, x.at)
    found = loop(scope.em, step, initial, trip=span.trip, limit=span.limit, cond=first)
    builder.bind(scope, (*names, *stacked), found)


def collect(builder: Builder, scope: Scope, x: s.Collect) -> None:
    """A value of this turn, to be stacked with those of the others."""
    turn = _turn(scope, "collect", x.at)
    if x.name in turn.collected:
        raise misfit(f"'{x.name}' is collected twice in a turn", at=x.at)
    value = builder.expr(scope, x.value)
    turn.collected[x.name] = operators.as_tensor(scope.em, value, None, x.at)


def again(builder: Builder, scope: Scope, x: s.Again) -> None:
    """Whether another turn follows, instead of what the loop's head asks."""
    turn = _turn(scope, "again", x.at)
    if turn.again is not None:
        raise misfit("a turn says twice whether another one follows", at=x.at)
    found = builder.expr(scope, x.cond)
    turn.again = found if found is True else operators.flag(scope.em, found, x.at)


def _turn(scope: Scope, what: str, at: Loc) -> Turn:
    if scope.turn is None:
        hint = "it belongs into the body of while or scan, in no branch of the run"
        raise misfit(f"'{what}' stands outside of a loop", hint, at=at)
    return scope.turn


def _first(builder: Builder, scope: Scope, x: s.While | s.Scan) -> Value | None:
    """Whether there is a first turn; nothing where there is."""
    if x.cond is None:
        return None
    found = builder.expr(scope, x.cond)
    return None if found is True else operators.flag(scope.em, found, x.cond.at)


def _goes_on(builder: Builder, inner: Scope, x: s.While | s.Scan, ends: bool) -> Value | None:
    """Whether another turn follows; nothing where one always does. `ends`: whether the loop has a
    last turn anyway."""
    assert inner.turn is not None, "the scope of a body"
    found = inner.turn.again
    if found is None and x.cond is not None:
        found = builder.expr(inner, x.cond)
    if found in (None, True) and not ends:
        raise misfit("this loop has no end", "say which turn is the last: again x > 0", at=x.at)
    at = x.at if x.cond is None else x.cond.at
    return None if found is None or found is True else operators.flag(inner.em, found, at)


# --- the turns of a scan ----------------------------------------------------------------------
def _span(builder: Builder, scope: Scope, over: Sequence[s.Over | s.Count]) -> _Range:
    span = _Range(None, None, {}, {})
    for o in over:
        if o.name in span.rows or o.name in span.counts:
            raise misfit(f"two parts of a turn are called '{o.name}'", at=o.at)
        way = _row if isinstance(o, s.Over) else _count
        span = way(builder, scope, o, span)  # type: ignore[arg-type]
    return span


def _row(builder: Builder, scope: Scope, o: s.Over, span: _Range) -> _Range:
    value = builder.expr(scope, o.of)
    if not isinstance(value, Value) or not value.type.rank:
        hint = "numbers of turns are a range: t in 0..n"
        raise misfit(f"a tensor with axes is expected, got {shown(value)}", hint, at=o.at)
    size = value.type.shape[0]
    _require_one_length(span, size, o.at)
    if span.trip is not None:
        value = scope.em.assume(value, (span.trip, *value.type.shape[1:]))
    trip = size if span.trip is None else span.trip
    return _Range(trip, None, {**span.rows, o.name: value}, span.counts)


def _count(builder: Builder, scope: Scope, o: s.Count, span: _Range) -> _Range:
    low = builder.expr(scope, o.low)
    high = None if o.high is None else builder.expr(scope, o.high)
    if not isinstance(low, int) or isinstance(low, bool):
        raise misfit(f"a range begins with a whole number, got {shown(low)}", at=o.at)
    counts = {**span.counts, o.name: low}
    if high is None:
        return _Range(span.trip, span.limit, span.rows, counts)
    if isinstance(high, Value):
        return _limited(scope, high, low, _Range(span.trip, span.limit, span.rows, counts), o.at)
    if not isinstance(high, int | Poly) or isinstance(high, bool):
        raise misfit(f"a range ends with a whole number, got {shown(high)}", at=o.at)
    size = high - low  # below 0 there are no turns, as in a repetition that is unrolled
    _require_one_length(span, size, o.at)
    return _Range(size if span.trip is None else span.trip, None, span.rows, counts)


def _limited(scope: Scope, high: Value, low: int, span: _Range, at: Loc) -> _Range:
    """A number of turns that the run computes."""
    if high.type != TensorType((), dtypes.i64):
        raise misfit(f"a number of turns must be i64[], got {high.type}", at=at)
    if span.trip is not None or span.limit is not None or span.rows:
        raise misfit("a computed number of turns stands alone", at=at)
    limit = high if low == 0 else operators.binary(scope.em, "sub", high, low, at)
    return _Range(None, limit, span.rows, span.counts)


def _require_one_length(span: _Range, size: Dim, at: Loc) -> None:
    if span.limit is not None:
        raise misfit("a computed number of turns stands alone", at=at)
    if span.trip is not None and decide("==", span.trip, size) is False:
        raise misfit(f"there are {span.trip} turns, but {size} of these", at=at)
