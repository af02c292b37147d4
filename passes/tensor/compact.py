"""Shrink buffers outside of global memory to what is live in the scope that declares them.

before: ``for i: { alloc t: f32[64, 64] register;  for j in 0..4: t[i, j] = … }``
after:  ``for i: { alloc t: f32[1, 4] register;    for j in 0..4: t[0, j] = … }``
Precondition: blocks are lowered. Postcondition: such buffers have the extents of the box touched
per execution of their scope, indices shifted; boxes that cannot be bounded stay whole.
"""

from __future__ import annotations

import math
from dataclasses import replace

from aisc.ir.arith.poly import Dim
from aisc.ir.dataclass import dataclass
from aisc.ir.node import Node, children
from aisc.ir.tensor.expr import Binary, Const, Expr, Load, Var, binary, has_loads
from aisc.ir.tensor.func import Buffer, Func, row_major
from aisc.ir.tensor.linear import Indexer, Linear, mentions
from aisc.ir.tensor.stmt import Alloc, For, Invoke, Region, Stmt, Store
from aisc.ir.tensor.visitor import transform_accesses

# Memory that threads share: they stay inside of its buffers, under conditions, while vectors of one
# thread may reach beyond the end of its own.
COMMON = ("shared", "warp")


@dataclass(frozen=True, slots=True)
class Compact:
    """The pass; see the module's docstring."""

    name: str = "compact"

    def run(self, func: Func) -> Func:
        """Apply to one function."""
        uses = _collect(func)
        table = {b: _shrunk(b, found) for b, found in uses.items()}
        changed = {b: t for b, t in table.items() if t is not None}
        return replace(func, body=_rewrite(func, changed)) if changed else func


@dataclass(slots=True)
class _Use:
    """An access: linear indices, and the loops inside the buffer's scope."""

    index: Indexer
    at: tuple[Expr, ...]
    extent: tuple[Expr, ...]
    inner: frozenset[Var]


def _collect(func: Func) -> dict[Buffer, list[_Use]]:
    uses: dict[Buffer, list[_Use]] = {}
    scope: dict[Buffer, tuple[Var, ...]] = {}
    start = Indexer({d.name: (0, math.inf) for d in func.dims})

    def visit(node: Node, index: Indexer, loops: tuple[Var, ...]) -> None:
        if isinstance(node, Expr) and not has_loads(node):
            return
        if isinstance(node, Alloc) and node.buffer.space != "global":
            scope[node.buffer] = loops
        if isinstance(node, For):
            low, high = index.bounds(node.low), index.bounds(node.low + node.extent)
            visit(node.low, index, loops)
            inside = index.bind(node.var, low[0], high[1] - 1)
            visit(node.body, inside, (*loops, node.var))
            return
        if isinstance(node, Load | Store) and node.buffer in scope:
            inner = frozenset(loops[len(scope[node.buffer]) :])
            ones = (Const(1),) * len(node.indices)
            uses.setdefault(node.buffer, []).append(_Use(index, node.indices, ones, inner))
        if isinstance(node, Invoke):
            for r in node.operands:
                if r.buffer in scope:
                    inner = frozenset(loops[len(scope[r.buffer]) :])
                    sizes = tuple(
                        n if k <= 1 else (n - 1) * k + 1
                        for n, k in zip(r.extent, r.steps, strict=True)
                    )
                    uses.setdefault(r.buffer, []).append(_Use(index, r.low, sizes, inner))
        for child in children(node):
            visit(child, index, loops)

    visit(func.body, start, ())
    return uses


def _shrunk(buffer: Buffer, uses: list[_Use]) -> tuple[Buffer, tuple[Expr, ...]] | None:
    """The compact buffer and the low corner that is subtracted from indices."""
    shape: list[Dim] = []
    lows: list[Expr] = []
    for d, whole in enumerate(buffer.shape):
        low, extent = _span(uses, d, whole)
        if buffer.space in COMMON and isinstance(whole, int) and isinstance(extent, int):
            low, extent = (low, extent) if extent <= whole else (Const(0), whole)
        shape.append(extent)
        lows.append(low)
    if tuple(shape) == buffer.shape:
        return None
    new = replace(buffer, shape=tuple(shape), strides=row_major(tuple(shape)))
    return new, tuple(lows)


def _span(uses: list[_Use], d: int, whole: Dim) -> tuple[Expr, Dim]:
    base: Linear | None = None
    low, high = math.inf, -math.inf
    for use in uses:
        at, limit = _unlimited(use.at[d])
        form = use.index.linear(at)
        moving = tuple(
            t for t in form.terms if any(mentions(a, v) for a in t[0] for v in use.inner)
        )
        fixed = tuple(t for t in form.terms if t not in moving)
        if base is not None and base.terms != fixed:
            return Const(0), whole
        base = Linear(fixed, 0)
        lo, hi = use.index.interval(Linear(moving, form.const))
        if limit is not None:  # what is beyond the limit is read at the limit, in another place
            lo = min(lo, limit - use.index.interval(Linear(fixed, 0))[1])
        low, high = min(low, lo), max(high, hi + use.index.bounds(use.extent[d])[1])
    if base is None or not (math.isfinite(low) and math.isfinite(high)):
        return Const(0), whole
    return Indexer().build(Linear(base.terms, int(low))), int(high - low)


def _unlimited(at: Expr) -> tuple[Expr, int | None]:
    """What a limit, as of the rows of a last tile, is set to, and the limit."""
    if isinstance(at, Binary) and at.op == "min":
        for inner, limit in ((at.a, at.b), (at.b, at.a)):
            if isinstance(limit, Const):
                return inner, int(limit.value)
    return at, None


def _rewrite(func: Func, table: dict[Buffer, tuple[Buffer, tuple[Expr, ...]]]) -> Stmt:
    plain = Indexer({d.name: (0, math.inf) for d in func.dims})

    def shift(at: tuple[Expr, ...], lows: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple(plain.simplify(binary("sub", i, low)) for i, low in zip(at, lows, strict=True))

    def swap(n: Node) -> Node:
        if isinstance(n, Alloc) and n.buffer in table:
            return Alloc(table[n.buffer][0])
        if isinstance(n, Load) and n.buffer in table:
            new, lows = table[n.buffer]
            return Load(new, shift(n.indices, lows))
        if isinstance(n, Store) and n.buffer in table:
            new, lows = table[n.buffer]
            return replace(n, buffer=new, indices=shift(n.indices, lows))
        if isinstance(n, Region) and n.buffer in table:
            new, lows = table[n.buffer]
            return Region(new, shift(n.low, lows), n.extent, n.step)
        return n

    return transform_accesses(func.body, swap)
