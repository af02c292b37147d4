"""End loops of reductions where nothing more is added: at the diagonal of a triangle.

before: ``for o in 0..64: vectorize l in 0..16: acc[l] += x[i, o*16 + l] if o*16 + l < i else 0``
after:  ``for o in 0..i // 16: … acc[l] += x[i, o*16 + l];  for o in i // 16..(i + 15) // 16: …``
The first turns need no mask, those behind the last add nothing. The order of what is added stays,
and adding what counts for nothing changes nothing: sums begin with +0. Precondition: blocks are
lowered. Only serial loops around one store of a vector are changed, by a limit that a loop around
them sets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from aisc.ir.node import Node
from aisc.ir.tensor.combiner import COMBINERS
from aisc.ir.tensor.expr import TRUE, ZERO, Binary, Const, Expr, Load, Select, Var, variables
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.linear import Indexer, Linear
from aisc.ir.tensor.stmt import For, Stmt, Store, seq
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

        def go(n: Node) -> Node:
            if not isinstance(n, For) or n.kind != "serial" or n.low != ZERO:
                return n
            found = _limit(n, index, dims)
            return n if found is None else _divided(n, *found, index, names)

        body = transform(func.body, go)
        return func if body is func.body else replace(func, body=body)


def _limit(loop: For, index: Indexer, dims: set[str]) -> tuple[Binary, Expr, Expr] | None:
    """The condition under which a turn adds anything, the number of turns in which it holds for
    all lanes, and the number of those in which it holds for any."""
    lanes: dict[Var, int] = {}
    store: Stmt = loop.body
    while isinstance(store, For) and store.low == ZERO and isinstance(store.extent, Const):
        lanes[store.var], store = int(store.extent.value), store.body
    cond = _condition(store) if isinstance(store, Store) else None
    if cond is None:
        return None
    form = index.linear(cond.a - cond.b)
    step = form.coeff(loop.var)
    rest = [t for t in form.terms if t[0] != (loop.var,)]
    inner = {t[0][0]: t[1] for t in rest if len(t[0]) == 1 and t[0][0] in lanes}
    fixed = tuple((m, -c) for m, c in rest if m[0] not in inner)
    outside = {v for m, _ in fixed for a in m for v in variables(a)}
    if step is None or step < 1 or outside & {*lanes, loop.var}:
        return None
    if not any(v.name not in dims for v in outside):
        return None  # sizes alone: the last turns are divided off elsewhere
    limit = index.build(Linear(fixed, -form.const))
    most = sum(max(0, c * (lanes[v] - 1)) for v, c in inner.items() if isinstance(v, Var))
    least = sum(min(0, c * (lanes[v] - 1)) for v, c in inner.items() if isinstance(v, Var))
    whole = _clamped(_ceildiv(limit - most, step), loop.extent)
    every = _clamped(_ceildiv(limit - least, step), loop.extent)
    return cond, index.simplify(whole), index.simplify(every)


def _ceildiv(a: Expr, step: int) -> Expr:
    return (a + (step - 1)) // step


def _clamped(turns: Expr, extent: Expr) -> Expr:
    return Binary("min", Binary("max", turns, ZERO), extent)


def _condition(store: Store) -> Binary | None:
    """The condition of ``acc = acc op (value if condition else nothing)``."""
    value = store.value
    if not isinstance(value, Binary) or value.a != Load(store.buffer, store.indices):
        return None
    chosen = value.b
    if not isinstance(chosen, Select) or not isinstance(chosen.cond, Binary):
        return None
    known = {"add": "sum", "mul": "prod", "max": "max", "min": "min"}.get(value.op, "")
    if not known or chosen.cond.op != "lt":
        return None
    (nothing,) = COMBINERS[known].identity([store.buffer.dtype])
    return chosen.cond if chosen.other == nothing else None


def _divided(
    loop: For, cond: Binary, whole: Expr, every: Expr, index: Indexer, names: Names
) -> Stmt:
    """The turns without a condition, then those with it."""

    def settle(n: Node) -> Node:
        return TRUE if n == cond else n

    first = simplified(transform(loop.body, settle), index)
    last = copied(replace(loop, low=whole, extent=index.simplify(every - whole)), names)
    return seq(replace(loop, extent=whole, body=first), last)
