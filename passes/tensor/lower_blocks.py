"""Replace blocks by their bodies over loop variables, with simplified indices.

before: ``block mm(i: spatial = io*4+ii, k: reduce = k) init {c[i]=0} {c[i] += a[i,k]}``
after:  ``if k == 0: c[io*4+ii] = 0;  c[io*4+ii] += a[io*4+ii, k]``
Precondition: a scheduled Func. Postcondition: no blocks; conditions that the loop ranges decide are
gone; indices are in linear normal form.
"""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.dataclass import dataclass
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
    Seq,
    Stmt,
    Store,
    While,
    region,
    seq,
)
from aisc.ir.tensor.visitor import once, substitute


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
    return _Simplifier(index).stmt(stmt)


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
    return _Simplifier(index).value(expr)


class _Simplifier:
    """Simplifies what stands in the same loops; values that statements share once."""

    def __init__(self, index: Indexer) -> None:
        self.index = index
        self.sources: list[Node] = []  # values are known by identity as long as these live
        self._kept = once(self._value)

    def stmt(self, s: Stmt) -> Stmt:
        """A statement, simplified."""
        self.sources.append(s)
        if isinstance(s, Seq):
            return seq(*(self.stmt(x) for x in s.stmts))
        if isinstance(s, For):
            return self._loop(s)
        if isinstance(s, Block):
            return self.stmt(unblock(s))
        if isinstance(s, If):
            return self._if(s)
        if isinstance(s, Store):
            return replace(s, indices=self._all(s.indices), value=self.value(s.value))
        if isinstance(s, Prefetch):
            return replace(s, indices=self._all(s.indices))
        if isinstance(s, Let):
            return Let(s.var, self.value(s.value), self.stmt(s.body))
        if isinstance(s, While):
            return While(self.value(s.cond), self.stmt(s.body))
        if isinstance(s, Invoke):
            parts = (
                region(r.buffer, self._all(r.low), self._all(r.extent), r.steps) for r in s.operands
            )
            return replace(s, operands=tuple(parts), args=self._all(s.args))
        return s

    def _all(self, indices: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple(map(self.index.simplify, indices))

    def _loop(self, loop: For) -> Stmt:
        low, extent = self.index.simplify(loop.low), self.index.simplify(loop.extent)
        if extent == Const(1):
            return self.stmt(substitute(loop.body, {loop.var: low}))
        ends = self.index.bounds(low), self.index.bounds(low + extent)
        body = simplified(loop.body, self.index.bind(loop.var, ends[0][0], ends[1][1] - 1))
        return Seq(()) if body == Seq(()) else replace(loop, low=low, extent=extent, body=body)

    def _if(self, s: If) -> Stmt:
        cond = self.value(s.cond)
        if isinstance(cond, Const):
            taken = s.then if cond.value else s.other
            return Seq(()) if taken is None else self.stmt(taken)
        return If(cond, self.stmt(s.then), None if s.other is None else self.stmt(s.other))

    def value(self, expr: Expr) -> Expr:
        """A value, simplified."""
        self.sources.append(expr)
        result = self._kept(expr)
        assert isinstance(result, Expr), "a value is an expression"
        return result

    def _value(self, e: Node) -> Node:
        if isinstance(e, Load):
            return Load(e.buffer, self._all(e.indices))
        if isinstance(e, Select):
            cond = self._kept(e.cond)
            assert isinstance(cond, Expr), "a condition is an expression"
            if isinstance(cond, Const):
                return self._kept(e.then if cond.value else e.other)
            return map_children(replace(e, cond=cond), lambda c: c if c is cond else self._kept(c))
        mapped = map_children(e, self._kept)
        return self.index.simplify(mapped) if isinstance(mapped, Binary) else mapped
