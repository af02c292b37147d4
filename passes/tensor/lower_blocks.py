"""Replace blocks by their bodies over loop variables, with simplified indices.

before: ``block mm(i: spatial = io*4+ii, k: reduce = k) init {c[i]=0} {c[i] += a[i,k]}``
after:  ``if k == 0: c[io*4+ii] = 0;  c[io*4+ii] += a[io*4+ii, k]``
Precondition: a scheduled Func. Postcondition: no blocks; conditions that the loop ranges decide are
gone; indices are in linear normal form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from aisc.ir.node import Node, map_children
from aisc.ir.tensor.expr import (
    TRUE,
    ZERO,
    Binary,
    Const,
    Expr,
    Load,
    Select,
    Var,
    equal,
    logical_and,
)
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.linear import Indexer
from aisc.ir.tensor.stmt import (
    Block,
    For,
    If,
    Invoke,
    Let,
    Prefetch,
    Region,
    Seq,
    Stmt,
    Store,
    While,
    seq,
)
from aisc.ir.tensor.visitor import substitute


@dataclass(frozen=True, slots=True)
class LowerBlocks:
    """The pass; see the module's docstring."""

    name: str = "lower-blocks"

    def run(self, func: Func) -> Func:
        """Apply to one function."""
        index = Indexer({d.name: (0, float("inf")) for d in func.dims})
        return replace(func, body=simplified(func.body, index))


def simplified(stmt: Stmt, index: Indexer) -> Stmt:
    """A statement with what the ranges of its loops and of `index` decide: indices in normal form,
    conditions dropped or left out with what they guard."""
    if isinstance(stmt, Seq):
        return seq(*(simplified(s, index) for s in stmt.stmts))
    if isinstance(stmt, For):
        return _loop(stmt, index)
    if isinstance(stmt, Block):
        return simplified(unblock(stmt), index)
    if isinstance(stmt, If):
        return _if(stmt, index)
    if isinstance(stmt, Store):
        at = tuple(index.simplify(i) for i in stmt.indices)
        return replace(stmt, indices=at, value=simplify_value(stmt.value, index))
    if isinstance(stmt, Prefetch):
        at = tuple(index.simplify(i) for i in stmt.indices)
        return replace(stmt, indices=at)
    if isinstance(stmt, Let):
        value = simplify_value(stmt.value, index)
        return Let(stmt.var, value, simplified(stmt.body, index))
    if isinstance(stmt, While):
        return While(simplify_value(stmt.cond, index), simplified(stmt.body, index))
    if isinstance(stmt, Invoke):
        operands = tuple(
            Region(
                r.buffer,
                tuple(index.simplify(e) for e in r.low),
                tuple(index.simplify(e) for e in r.extent),
            )
            for r in stmt.operands
        )
        return replace(stmt, operands=operands)
    return stmt


def _loop(loop: For, index: Indexer) -> Stmt:
    low, extent = index.simplify(loop.low), index.simplify(loop.extent)
    if extent == Const(1):
        return simplified(substitute(loop.body, {loop.var: low}), index)
    ends = index.bounds(low), index.bounds(low + extent)
    body = simplified(loop.body, index.bind(loop.var, ends[0][0], ends[1][1] - 1))
    return Seq(()) if body == Seq(()) else replace(loop, low=low, extent=extent, body=body)


def _if(stmt: If, index: Indexer) -> Stmt:
    cond = simplify_value(stmt.cond, index)
    if isinstance(cond, Const):
        taken = stmt.then if cond.value else stmt.other
        return Seq(()) if taken is None else simplified(taken, index)
    then = simplified(stmt.then, index)
    other = None if stmt.other is None else simplified(stmt.other, index)
    return If(cond, then, other)


def unblock(block: Block) -> Stmt:
    """The body of a block over its bindings; the initialisation guarded by the first reduce
    point."""
    values: dict[Var, Expr] = {
        it.var: value for it, value in zip(block.iters, block.bindings, strict=True)
    }
    body = substitute(block.body, values)
    if block.init is None:
        return body
    first = logical_and(
        *(
            equal(value, ZERO)
            for it, value in zip(block.iters, block.bindings, strict=True)
            if it.kind == "reduce"
        )
    )
    init = substitute(block.init, values)
    return seq(init if first == TRUE else If(first, init), body)


def simplify_value(expr: Expr, index: Indexer) -> Expr:
    """`expr` with simplified indices and conditions, and decided selects replaced by their arm."""

    def go(e: Node) -> Node:
        if isinstance(e, Load):
            return Load(e.buffer, tuple(index.simplify(i) for i in e.indices))
        if isinstance(e, Select):
            cond = go(e.cond)
            assert isinstance(cond, Expr), "a condition is an expression"
            if isinstance(cond, Const):
                return go(e.then if cond.value else e.other)
            return map_children(replace(e, cond=cond), lambda c: c if c is cond else go(c))
        if isinstance(e, Binary):
            mapped = map_children(e, go)
            return index.simplify(mapped)
        return map_children(e, go)

    result = go(expr)
    assert isinstance(result, Expr), "a value is an expression"
    return result
