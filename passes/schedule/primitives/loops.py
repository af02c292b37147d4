"""Primitives on loops: split, fuse, reorder, unroll, vectorize, parallel, annotate."""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.arith.linear import Indexer
from aisc.ir.diagnostics import error
from aisc.ir.tensor.expr import ZERO, Const, Expr, Var, binary, logical_and
from aisc.ir.tensor.func import Attribute, Func
from aisc.ir.tensor.stmt import Block, For, ForKind, If, Seq, Stmt
from aisc.ir.tensor.visitor import substitute
from aisc.passes.schedule.legality import require_independent, require_reorderable
from aisc.passes.schedule.motion import private_allocs
from aisc.passes.schedule.schedule import primitive
from aisc.passes.schedule.tree import (
    extent_of,
    find_loop,
    fresh,
    loops_of,
    nest,
    places,
    replace_stmt,
)

MAX_UNROLL = 64
MAX_LANES = 64


@primitive()
def split(func: Func, loop: str, factor: int, names: tuple[str, str] = ("", "")) -> Func:
    """Split a loop into an outer and an inner one of `factor` iterations.

    before: ``for i in 0..N: S(i)``
    after:  ``for io in 0..ceil(N/factor): for ii in 0..factor: if io*factor+ii < N: S(…)``
    (the guard stands only where `factor` does not divide N). Always legal.
    """
    old = find_loop(func, loop)
    if factor < 1:
        raise error("E302", f"split({loop}): the factor must be positive", f"got {factor}")
    outer = Var(names[0] or fresh(func, f"{loop}_o"))
    inner = Var(names[1] or fresh(func, f"{loop}_i"))
    form = Indexer().linear(old.extent)
    whole = all(c % factor == 0 for c in (form.const, *(c for _, c in form.terms)))
    count = Indexer().simplify(_ceildiv(old.extent, factor))
    body = substitute(old.body, {old.var: old.low + outer * factor + inner})
    if not whole:
        body = push_guard(body, binary("lt", outer * factor + inner, old.extent))
    inside = For(inner, ZERO, Const(factor), old.kind, body)
    return replace_stmt(func, old, For(outer, ZERO, count, old.kind, inside, old.annotations))


def _ceildiv(a: Expr, b: int) -> Expr:
    return binary("floordiv", a + (b - 1), b)


def push_guard(stmt: Stmt, cond: Expr) -> Stmt:
    """Conjoin `cond` to the predicate of every block below."""
    if isinstance(stmt, Block):
        return If(cond, stmt)
    if isinstance(stmt, If):
        return replace(stmt, cond=logical_and(stmt.cond, cond))
    if isinstance(stmt, For):
        return replace(stmt, body=push_guard(stmt.body, cond))
    if isinstance(stmt, Seq):
        return Seq(tuple(push_guard(s, cond) for s in stmt.stmts))
    return stmt


@primitive()
def fuse(func: Func, outer: str, inner: str, name: str = "") -> Func:
    """Fuse two perfectly nested loops into one.

    before: ``for i in 0..N: for j in 0..M: S(i, j)``
    after:  ``for f in 0..N*M: S(f // M, f % M)``. Always legal.
    """
    first, second = find_loop(func, outer), find_loop(func, inner)
    if first.body is not second:
        raise error("E302", f"fuse: loop '{inner}' is not directly inside '{outer}'")
    if first.low != ZERO or second.low != ZERO:
        raise error("E302", "fuse: both loops must start at 0")
    var = Var(name or fresh(func, f"{outer}_{inner}"))
    values: dict[Var, Expr] = {
        first.var: binary("floordiv", var, second.extent),
        second.var: binary("mod", var, second.extent),
    }
    if extent_of(second) == 1:
        values = {first.var: var, second.var: ZERO}
    elif extent_of(first) == 1:
        values = {first.var: ZERO, second.var: var}
    body = substitute(second.body, values)
    fused = For(var, ZERO, first.extent * second.extent, first.kind, body)
    return replace_stmt(func, first, fused)


@primitive(reassociating=True)
def reorder(func: Func, *loops: str) -> Func:
    """Permute loops of one perfect nest; the named loops take the given order.

    before: ``for i: for j: S``   after ``reorder("j", "i")``: ``for j: for i: S``.
    Legal when every block inside declares its iterators over these loops spatial or reduce;
    float reductions may round differently.
    """
    found = [find_loop(func, name) for name in loops]
    top = next((f for f in found if all(_contains(f, g) for g in found)), None)
    if top is None:
        raise error("E302", f"reorder: loops {', '.join(loops)} are not nested in one another")
    chain = _perfect_chain(top, {f.var for f in found})
    require_reorderable(func, top, tuple(f.var for f in found))
    if len(list(places(top))) > 1:  # several blocks: their order per iteration changes
        for f in found:
            require_independent(func, f, "reorder")
    slots = iter(found)
    order = tuple(next(slots) if f in found else f for f in chain)
    return replace_stmt(func, top, nest(order, chain[-1].body))


def _contains(outer: For, loop: For) -> bool:
    node: Stmt = outer
    while isinstance(node, For):
        if node is loop:
            return True
        node = node.body
    return False


def _perfect_chain(top: For, wanted: set[Var]) -> tuple[For, ...]:
    chain: list[For] = []
    node: Stmt = top
    missing = set(wanted)
    while missing:
        assert isinstance(node, For), "the loops form a perfect nest"
        chain.append(node)
        missing.discard(node.var)
        node = node.body
    return tuple(chain)


@primitive()
def unroll(func: Func, loop: str) -> Func:
    """Mark a loop of constant extent to be unrolled when code is printed. Always legal."""
    old = find_loop(func, loop)
    n = extent_of(old)
    if n is None or n > MAX_UNROLL:
        notes = (f"expected a constant extent of at most {MAX_UNROLL}", f"got {n}")
        raise error("E302", f"unroll({loop}): the extent does not fit", *notes)
    return _set_kind(func, old, "unroll")


@primitive()
def vectorize(func: Func, loop: str) -> Func:
    """Execute all iterations of an innermost loop at once, as lanes of a vector.

    Legal when the iterations are independent of each other.
    """
    old = find_loop(func, loop)
    n = extent_of(old)
    if n is None or n > MAX_LANES:
        notes = (f"expected a constant extent of at most {MAX_LANES}", f"got {n}")
        raise error("E302", f"vectorize({loop}): the extent does not fit", *notes)
    if private_allocs(old) or any(f.kind == "vectorize" for f in loops_of(old) if f is not old):
        raise error("E302", f"vectorize({loop}): it holds private storage or lanes already")
    require_independent(func, old, "vectorize")
    return _set_kind(func, old, "vectorize")


@primitive()
def parallel(func: Func, loop: str) -> Func:
    """Divide the iterations of a loop among the SPMD threads.

    Legal when the iterations are independent of each other and the loop stands in no other
    parallel loop.
    """
    old = find_loop(func, loop)
    around = [p.loops for p in places(func.body) if old in p.loops]
    if any(f.kind == "parallel" and f is not old for loops in around for f in loops):
        raise error("E302", f"parallel({loop}): parallel loops do not nest")
    require_independent(func, old, "parallel")
    return _set_kind(func, old, "parallel")


def _set_kind(func: Func, old: For, kind: ForKind) -> Func:
    return replace_stmt(func, old, replace(old, kind=kind))


@primitive(with_instructions=True)
def annotate(func: Func, loop: str, key: str, value: Attribute) -> Func:
    """Attach a hint to a loop; hints never change meaning."""
    old = find_loop(func, loop)
    notes = tuple({**dict(old.annotations), key: value}.items())
    return replace_stmt(func, old, replace(old, annotations=notes))
