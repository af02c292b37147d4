"""Reductions along whole axes."""

from __future__ import annotations

from aisc.ir.graph.core import AttrValue
from aisc.ir.node import walk
from aisc.ir.tensor.expr import Expr, Load, Var, variables
from aisc.ir.tensor.linear import operands
from aisc.passes.graph.formulas.body import Body
from aisc.passes.graph.formulas.values import Indexed, indexed

_REDUCTIONS = {
    "sum": "reduce_sum", "prod": "reduce_prod", "max": "reduce_max", "min": "reduce_min",
}  # fmt: skip


def reduction(body: Body) -> Indexed | None:
    """``max[k](f(x[i, k], …))`` as a reduction of a value that is no larger than an operand; one
    that depends on places is computed from the loops' own numbers, not from numbers in memory."""
    op = _REDUCTIONS.get(body.combiner)
    found = indexed(body, body.value)
    if op is None or found is None or not set(found.axes) >= {*body.inner, *body.outer}:
        return None
    loads = [n for n in walk(body.value) if isinstance(n, Load)]
    if not any(variables(x) >= set(found.axes) for x in loads) or _counts(body):
        return None
    axes = sorted(found.axes.index(v) for v in body.inner)
    kept = tuple(v for v in found.axes if v not in body.inner)
    attrs: dict[str, AttrValue] = {"axes": tuple(axes), "keepdims": False}
    return Indexed(kept, lambda m: m.add(op, (found.emit(m),), attrs))


def _counts(body: Body) -> bool:
    """Whether the number of an index is a value itself."""

    def found(x: Expr) -> bool:
        return isinstance(x, Var) or (not isinstance(x, Load) and any(map(found, operands(x))))

    return found(body.value)
