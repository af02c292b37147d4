"""Sums of products: matrix products, over whichever axes they are, and convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import prod

from aisc.ir.arith.poly import product
from aisc.ir.graph.core import Value
from aisc.ir.rewrite.rules import Match
from aisc.ir.tensor.expr import Binary, Expr, Var
from aisc.passes.graph.formulas.body import Body
from aisc.passes.graph.formulas.values import (
    Indexed,
    indexed,
    joined,
    reshaped,
    transposed,
)


def factors(x: Expr) -> list[Expr]:
    """The factors of a product."""
    if isinstance(x, Binary) and x.op == "mul":
        return [*factors(x.a), *factors(x.b)]
    return [x]


def contraction(body: Body) -> Indexed | None:
    """``sum[k](a[i, k] * b[k, j] * …)`` as matrix products, two factors at a time."""
    found = [indexed(body, f) for f in factors(body.value)]
    known = [f for f in found if f is not None]
    scalars, rest = [f for f in known if not f.axes], [f for f in known if f.axes]
    if body.combiner != "sum" or len(known) < len(found) or len(rest) < 2:
        return None
    result = _reduced(body, rest)
    return None if result is None else _scaled(result, scalars)


def _scaled(x: Indexed, scalars: Sequence[Indexed]) -> Indexed:
    for s in scalars:
        x = Indexed(x.axes, lambda m, x=x, s=s: m.add("mul", (x.emit(m), s.emit(m))))  # type: ignore[misc]
    return x


def _reduced(body: Body, rest: list[Indexed]) -> Indexed | None:
    """Factors contracted until one is left; those that lie along another one are multiplied."""
    while len(rest) > 1:
        pairs = [(a, b) for a in rest for b in rest if a is not b and set(a.axes) <= set(b.axes)]
        along = pairs[0] if pairs and len(rest) > 2 else None
        if along is not None:
            a, b = along
            made: Indexed | None = _times(body, a, b)
        else:
            a, b, made = _cheapest(body, rest)
        if made is None:
            return None
        rest = [made if r is b else r for r in rest if r is not a]
    return rest[0] if set(rest[0].axes) == set(body.outer) else None


def _times(body: Body, a: Indexed, b: Indexed) -> Indexed:
    return Indexed(b.axes, lambda m: m.add("mul", (a.over(body, b.axes)(m), b.emit(m))))


def _cheapest(body: Body, rest: Sequence[Indexed]) -> tuple[Indexed, Indexed, Indexed | None]:
    """The two factors whose product takes the fewest multiplications."""

    def cost(pair: tuple[Indexed, Indexed]) -> float:
        size = product(tuple(body.extents[v] for v in {*pair[0].axes, *pair[1].axes}))
        return float(size) if isinstance(size, int) else float("inf")

    pairs = sorted(combinations(rest, 2), key=cost)
    for a, b in pairs:
        needed = {*body.outer, *(v for r in rest if r is not a and r is not b for v in r.axes)}
        made = _product(body, a, b, needed)
        if made is not None:
            return a, b, made
    return *pairs[0], None


def _product(body: Body, a: Indexed, b: Indexed, needed: set[Var]) -> Indexed | None:
    """A matrix product: axes of both that are needed are its batch, others are summed over."""
    shared = [v for v in a.axes if v in b.axes]
    batch = [v for v in shared if v in needed]
    inner = [v for v in shared if v not in needed]
    rows = [v for v in a.axes if v not in b.axes]
    columns = [v for v in b.axes if v not in a.axes]
    first = next((v for v in body.outer if v in rows or v in columns), None)
    if first in columns:  # so that the result has its axes in order
        return _product(body, b, a, needed)
    if not inner or not (rows or columns) or not needed >= {*rows, *columns}:
        return None
    result = [*batch, *rows, *columns]
    rows = _in_order(body, rows, a.axes, result)
    columns = _in_order(body, columns, b.axes, result)

    apart = rows[:-1] if batch else []  # so that what follows sees the axes of an attention

    def emit(m: Match) -> Value:
        around = [[v] for v in batch]
        x = _matrix(m, a, *around, *([v] for v in apart), rows[len(apart) :], inner)
        y = _matrix(m, b, *around, *([] for _ in apart), inner, columns)
        made = m.add("matmul", (x, y))
        return reshaped(m, made, tuple(body.extents[v] for v in (*batch, *rows, *columns)))

    return Indexed((*batch, *rows, *columns), emit)


def _in_order(
    body: Body, axes: list[Var], operand: Sequence[Var], result: Sequence[Var]
) -> list[Var]:
    """Axes in the order of the formula's result, where the operand is what is moved more cheaply
    than the product, or else as the operand has them."""

    def cost(indices: Sequence[Var]) -> tuple[int, int]:
        """Open sizes are large ones."""
        sizes = [body.extents[v] for v in indices]
        known = [d for d in sizes if isinstance(d, int)]
        return len(sizes) - len(known), prod(known)

    wanted = [v for v in body.outer if v in axes]
    return wanted if len(wanted) == len(axes) and cost(operand) < cost(result) else axes


def _matrix(m: Match, x: Indexed, *groups: Sequence[Var]) -> Value:
    """`x` with an axis for each group, which joins the axes of it."""
    order = [x.axes.index(v) for group in groups for v in group]
    return joined(m, transposed(m, x.emit(m), order), [len(g) for g in groups])
