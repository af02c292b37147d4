"""Conditions that the loops around them decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from aisc.ir.node import map_children
from aisc.ir.tensor.expr import (
    FALSE,
    TRUE,
    ZERO,
    Binary,
    Const,
    Expr,
    Unary,
    equal,
    logical_and,
)
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.linear import Indexer
from aisc.ir.tensor.stmt import Block, For, If, Seq, Stmt, seq
from aisc.ir.tensor.tree import conjuncts, indexer
from aisc.passes.schedule.dependence import Space
from aisc.passes.schedule.sets import NotAffine, Undecided


def simplify_guards(func: Func, stmt: Stmt, outer: tuple[For, ...]) -> Stmt:
    """`stmt` under the loops `outer` without conditions that always hold, without what never
    runs, and without initialisations that never run."""
    if isinstance(stmt, For):
        return replace(stmt, body=simplify_guards(func, stmt.body, (*outer, stmt)))
    if isinstance(stmt, Seq):
        return seq(*(simplify_guards(func, s, outer) for s in stmt.stmts))
    if isinstance(stmt, If):
        return _guarded(func, stmt, outer)
    if isinstance(stmt, Block):
        return _started(func, stmt, outer)
    return stmt


def _guarded(func: Func, stmt: If, outer: tuple[For, ...]) -> Stmt:
    kept = []
    for cond in conjuncts(stmt.cond):
        if never(func, outer, cond):
            return Seq(()) if stmt.other is None else simplify_guards(func, stmt.other, outer)
        if not never(func, outer, Unary("not", cond)):
            kept.append(cond)
    then = simplify_guards(func, stmt.then, outer)
    if not kept:
        return then
    inside = map_children(stmt, lambda c: then if c is stmt.then else c)
    return replace(inside, cond=logical_and(*kept))


def _started(func: Func, block: Block, outer: tuple[For, ...]) -> Block:
    pairs = zip(block.iters, block.bindings, strict=True)
    first = logical_and(*(equal(v, ZERO) for it, v in pairs if it.kind == "reduce"))
    starts = block.init is None or first == TRUE or not never(func, outer, first)
    return block if starts else replace(block, init=None)


def never(func: Func, loops: tuple[For, ...], cond: Expr) -> bool:
    """Whether a condition holds in no iteration of the loops; undecided counts as no."""
    index = indexer(loops, func.dims)
    inner = cond.a if isinstance(cond, Unary) else cond
    if index.simplify(inner) == (TRUE if isinstance(cond, Unary) else FALSE):
        return True
    if _sometimes(index, cond, loops):
        return False
    space = Space(func.dims)
    rename = {f.var: f"i{k}" for k, f in enumerate(loops)}
    space.names.extend(rename.values())
    try:
        for f in loops:
            space.range(f, rename)
        space.condition(cond, rename)
        return space.point() is None
    except (NotAffine, Undecided):
        return False


# Whether a comparison holds for a difference somewhere between two.
_HOLDS: dict[str, Callable[[float, float], bool]] = {
    "lt": lambda low, high: low < 0, "le": lambda low, high: low <= 0,
    "gt": lambda low, high: high > 0, "ge": lambda low, high: high >= 0,
}  # fmt: skip
_OPPOSITE = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt"}


def _sometimes(index: Indexer, cond: Expr, loops: tuple[For, ...]) -> bool:
    """Whether ranges alone tell that a condition holds in some iteration: it compares a sum of
    loops of known length, which takes its extremes."""
    inner = cond.a if isinstance(cond, Unary) else cond
    if not isinstance(inner, Binary) or inner.op not in _HOLDS:
        return False
    free = {f.var for f in loops if f.low == ZERO and isinstance(f.extent, Const)}
    form = index.linear(inner.a - inner.b)
    if not all(len(mono) == 1 and mono[0] in free for mono, _ in form.terms):
        return False
    op = _OPPOSITE[inner.op] if isinstance(cond, Unary) else inner.op
    return _HOLDS[op](*index.interval(form))
