"""End loops of reductions where nothing more is added: at the diagonal of a triangle.

before: ``for o in 0..64: vectorize l in 0..16: acc[l] += x[i, o*16 + l] if o*16 + l < i else 0``
after:  ``for o in 0..i // 16: … acc[l] += x[i, o*16 + l];  for o in i // 16..(i + 15) // 16: …``
The first turns need no mask, those behind the last add nothing. The order of what is added stays,
and adding what counts for nothing changes nothing: sums begin with +0. Precondition: blocks are
lowered. Only serial loops around one store of a vector are changed, by a limit that a loop around
them sets.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

from aisc.ir.dataclass import dataclass
from aisc.ir.node import Node
from aisc.ir.tensor.combiner import COMBINERS
from aisc.ir.tensor.expr import (
    TRUE,
    ZERO,
    Binary,
    Const,
    Expr,
    Load,
    Select,
    Var,
    maximum,
    minimum,
    variables,
)
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.linear import Indexer, Linear
from aisc.ir.tensor.stmt import For, Stmt, Store, seq
from aisc.ir.tensor.tree import transform_statements
from aisc.ir.tensor.visitor import transform
from aisc.passes.schedule.copies import Names, copied
from aisc.passes.tensor.lower_blocks import simplified


@dataclass(frozen=True, slots=True)
class SkipTurns:
    """The pass; see the module's docstring."""

    name: str = "skip-turns"

    def run(self, func: Func) -> Func:
        """Apply to one function."""
        names, dims = Names(func), {d.name for d in func.dims}
        index = Indexer({d: (0, float("inf")) for d in dims})

        def go(n: Stmt) -> Stmt:
            if not isinstance(n, For) or n.kind != "serial" or n.low != ZERO:
                return n
            limits = _limits(n, index, dims)
            return _divided(n, limits, index, names) if limits else n

        body = transform_statements(func.body, go)
        return func if body is func.body else replace(func, body=body)


@dataclass(frozen=True, slots=True)
class _Limit:
    """A condition under which a turn adds something: the number of turns in which it holds for all
    lanes, and for any; whether a loop around sets it."""

    cond: Binary
    whole: Expr
    every: Expr
    moves: bool


def _limits(loop: For, index: Indexer, dims: set[str]) -> list[_Limit]:
    """The conditions of the one store of a loop's vectors."""
    lanes: dict[Var, int] = {}
    store: Stmt = loop.body
    while isinstance(store, For) and store.low == ZERO and isinstance(store.extent, Const):
        lanes[store.var], store = int(store.extent.value), store.body
    conds = _conditions(store) if isinstance(store, Store) else []
    found = [_limit(c, loop, lanes, index, dims) for c in conds]
    known = [x for x in found if x is not None]
    return known if len(known) == len(found) and any(x.moves for x in known) else []


def _limit(
    cond: Binary, loop: For, lanes: dict[Var, int], index: Indexer, dims: set[str]
) -> _Limit | None:
    form = index.linear(cond.a - cond.b)
    step = form.coeff(loop.var)
    rest = [t for t in form.terms if t[0] != (loop.var,)]
    inner = {t[0][0]: t[1] for t in rest if len(t[0]) == 1 and t[0][0] in lanes}
    fixed = tuple((m, -c) for m, c in rest if m[0] not in inner)
    outside = {v for m, _ in fixed for a in m for v in variables(a)}
    if step is None or step < 1 or outside & {*lanes, loop.var}:
        return None
    limit = index.build(Linear(fixed, -form.const))
    ends = [c * (lanes[v] - 1) for v, c in inner.items() if isinstance(v, Var)]
    most, least = sum(max(0, e) for e in ends), sum(min(0, e) for e in ends)
    whole, every = (_ceildiv(limit - e, step) for e in (most, least))
    return _Limit(cond, whole, every, any(v.name not in dims for v in outside))


def _conditions(store: Store) -> list[Binary]:
    """The conditions of ``acc = acc op (value if condition else nothing)``."""
    value = store.value
    if not isinstance(value, Binary) or value.a != Load(store.buffer, store.indices):
        return []
    name = {"add": "sum", "mul": "prod", "max": "max", "min": "min"}.get(value.op, "")
    if not name:
        return []
    (nothing,) = COMBINERS[name].identity([store.buffer.dtype])
    found, chosen = list[Binary](), value.b
    while isinstance(chosen, Select) and chosen.other == nothing:
        if not isinstance(chosen.cond, Binary) or chosen.cond.op != "lt":
            return []
        found.append(chosen.cond)
        chosen = chosen.then
    return found


def _divided(loop: For, limits: list[_Limit], index: Indexer, names: Names) -> Stmt:
    """The turns without conditions, then those with them."""
    conds = {x.cond for x in limits}

    def settle(n: Node) -> Node:
        return TRUE if n in conds else n

    every = _clamped([x.every for x in limits], loop.extent, index)
    whole = _clamped([x.whole for x in limits], loop.extent, index)
    first = simplified(transform(loop.body, settle), index)
    last = copied(replace(loop, low=whole, extent=index.simplify(every - whole)), names)
    return seq(replace(loop, extent=whole, body=first), last)


def _ceildiv(a: Expr, step: int) -> Expr:
    return (a + (step - 1)) // step


def _clamped(turns: list[Expr], extent: Expr, index: Indexer) -> Expr:
    """The least of some numbers of turns, of those that the loop has."""
    least = reduce(minimum, turns)
    return index.simplify(minimum(maximum(least, ZERO), extent))
