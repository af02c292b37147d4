"""Loops without turns under the interpreter: what a reduction over nothing leaves behind.

before: ``for k in 0..n { block (reduce vk = k) init { s = 0 } { s += x[vk] } }`` with ``n`` = 0
after:  ``block { s = 0 }``
"""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.node import walk
from aisc.ir.tensor.expr import Binary, Expr, Var, logical_and
from aisc.ir.tensor.stmt import Block, For, If, Seq, Stmt


def empty_reductions(s: For) -> Stmt | None:
    """What a loop does when it has no turns: reductions over it give the identity."""

    def go(n: Stmt) -> Stmt | None:
        if isinstance(n, Block):
            return _start_of(n, s)
        if isinstance(n, Seq):
            found = [x for x in map(go, n.stmts) if x is not None]
            return Seq(tuple(found)) if found else None
        if isinstance(n, If):
            then = go(n.then)
            return None if then is None else If(n.cond, then)
        if isinstance(n, For):
            body = go(n.body)
            used = body is not None and any(x == n.var for x in walk(_unguarded(body)))
            return (
                None if body is None else replace(n, body=body) if used else _without(body, n.var)
            )
        return None

    start = go(s.body)
    return None if start is None else _without(start, s.var)


def _without(stmt: Stmt, var: Var) -> Stmt:
    """`stmt` without the conditions that speak of a loop that it does not stand in."""
    if isinstance(stmt, Seq):
        return Seq(tuple(_without(x, var) for x in stmt.stmts))
    if isinstance(stmt, For):
        return replace(stmt, body=_without(stmt.body, var))
    if isinstance(stmt, If):
        kept = [c for c in _parts(stmt.cond) if not any(x == var for x in walk(c))]
        return If(logical_and(*kept), stmt.then) if kept else stmt.then
    return stmt


def _unguarded(stmt: Stmt) -> Stmt:
    """`stmt` without any of its conditions."""
    if isinstance(stmt, Seq):
        return Seq(tuple(map(_unguarded, stmt.stmts)))
    if isinstance(stmt, For):
        return replace(stmt, body=_unguarded(stmt.body))
    return stmt.then if isinstance(stmt, If) else stmt


def _parts(cond: Expr) -> list[Expr]:
    if isinstance(cond, Binary) and cond.op == "and":
        return _parts(cond.a) + _parts(cond.b)
    return [cond]


def _start_of(b: Block, s: For) -> Stmt | None:
    """The initialisation alone of a block that reduces over a loop; none where its spatial points
    use the loop too, since then there are none."""
    pairs = list(zip(b.iters, b.bindings, strict=True))
    over = any(it.kind == "reduce" and any(x == s.var for x in walk(v)) for it, v in pairs)
    kept = [(it, v) for it, v in pairs if it.kind != "reduce"]
    if b.init is None or not over or any(x == s.var for _, v in kept for x in walk(v)):
        return None
    iters, bindings = tuple(it for it, _ in kept), tuple(v for _, v in kept)
    return replace(b, iters=iters, bindings=bindings, reads=(), init=None, body=b.init)
