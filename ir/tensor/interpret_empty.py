"""Loops without turns under the interpreter: what a reduction over nothing leaves behind.

before: ``for k in 0..n { block (reduce vk = k) init { s = 0 } { s += x[vk] } }`` with ``n`` = 0
after:  ``block { s = 0 }``
"""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.node import walk
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
            used = body is not None and any(x == n.var for x in walk(body))
            return None if body is None else replace(n, body=body) if used else body
        return None

    return go(s.body)


def _start_of(b: Block, s: For) -> Stmt | None:
    """The initialisation alone of a block that reduces over a loop."""
    pairs = list(zip(b.iters, b.bindings, strict=True))
    over = any(it.kind == "reduce" and any(x == s.var for x in walk(v)) for it, v in pairs)
    if b.init is None or not over:
        return None
    kept = [(it, v) for it, v in pairs if it.kind != "reduce"]
    iters, bindings = tuple(it for it, _ in kept), tuple(v for _, v in kept)
    return replace(b, iters=iters, bindings=bindings, reads=(), init=None, body=b.init)
