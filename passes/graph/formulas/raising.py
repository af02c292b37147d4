"""The rules that make operators of the library of formulas that are such ones.

before: ``%y = index(%a, %b) {body = "… sum over k of a[i, k] * b[j, k]"}``
after:  ``%t = transpose(%b); %y = matmul(%a, %t)``

Whatever is known of those operators then holds for the formula: layouts, variants, fusion. What is
not recognised stays a formula, which is scheduled by its structure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aisc.ir.arith.poly import product
from aisc.ir.graph.core import Value
from aisc.ir.graph.opdef import call_of
from aisc.ir.rewrite.rules import Match, Rule, rule
from aisc.passes.graph.formulas.body import Body, body_of
from aisc.passes.graph.formulas.composing import formula_reads_formula, is_enlarged
from aisc.passes.graph.formulas.products import contraction
from aisc.passes.graph.formulas.reductions import reduction
from aisc.passes.graph.formulas.values import Indexed, indexed
from aisc.passes.graph.formulas.windows import convolution, maximum, pool


def elementwise(body: Body) -> Indexed | None:
    """``y[i, j] = f(a[i, j], b[j])``."""
    return None if body.combiner else indexed(body, body.value)


KINDS: tuple[Callable[[Body], Indexed | None], ...] = (
    elementwise, contraction, convolution, maximum, reduction,
)  # fmt: skip


@rule("index")
def formula_is_operator(m: Match) -> Sequence[Value] | None:
    """``index(…) -> matmul, conv, max_pool, reduce_*, elementwise operators``."""
    body = body_of(call_of(m.node), m.node.input_values)
    if body is not None and not body.combiner and is_enlarged(m.node):
        return None  # formulas that read it may compute it themselves
    for kind in KINDS if body is not None else ():
        assert body is not None, "tested"
        found = kind(body)
        if found is not None and set(found.axes) <= set(body.outer):
            return (_whole(m, body, found),)
    return None


@rule("div")
def mean_of_windows(m: Match) -> Sequence[Value] | None:
    """``index(sum over a window of x) / count -> avg_pool(x)``."""
    total, count = m.producer(m.input(0), "index"), m.constant(m.input(1))
    if total is None or count is None or count.size != 1:
        return None
    body = body_of(call_of(total), total.input_values)
    if body is None or body.combiner != "sum":
        return None
    size = product(tuple(body.extents[v] for v in body.inner))
    found = pool(body, "avg_pool", 0.0) if count.array.reshape(-1)[0] == size else None
    return None if found is None else (_whole(m, body, found),)


def _whole(m: Match, body: Body, found: Indexed) -> Value:
    """What was found as the whole result: its axes in order, those that it lacks repeated."""
    value = found.over(body, body.outer)(m)
    shape = m.node.output.type.shape
    return value if value.type.shape == shape else m.add("expand", (value,), {"shape": shape})


RULES: tuple[Rule, ...] = (mean_of_windows, formula_reads_formula, formula_is_operator)
