"""Which part of a buffer the blocks below a loop touch."""

from __future__ import annotations

import math
from dataclasses import replace

from aisc.ir.arith.poly import (
    Dim,
    of_symbol,
    symbol,
    symbols,
)
from aisc.ir.diagnostics import error
from aisc.ir.node import walk
from aisc.ir.tensor.dims import as_dim
from aisc.ir.tensor.expr import ZERO, Const, Expr, Load, Var, of_dim
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.linear import Indexer, Linear, Monomial, mentions
from aisc.ir.tensor.stmt import For, Region
from aisc.ir.tensor.tree import indexer, outer_loops, places
from aisc.passes.schedule.dependence import Access, declared_under


def region_under(func: Func, loop: For, buffer: Buffer, write: bool) -> Region:
    """The box of `buffer` that one iteration of `loop` writes (or reads).

    Lows are in terms of `loop` and the loops around it; extents are constant (or symbolic). Per
    dimension the inner loops contribute an interval to an affine index; where that is not
    possible the whole dimension is taken.
    """
    outer = outer_loops(func, loop)
    accesses = declared_under(loop, outer)
    found = [a for a in accesses if a.buffer == buffer and a.write == write]
    if not found:
        raise error("E302", f"{buffer.name} is not {'written' if write else 'read'} there")
    boxes = [_box(func, loop, a) for a in found]
    low, extent = (
        zip(*(_hull([b[d] for b in boxes], buffer, d) for d in range(buffer.rank)), strict=True)
        if buffer.rank
        else ((), ())
    )
    return Region(buffer, tuple(low), tuple(extent))


def _box(func: Func, loop: For, access: Access) -> list[tuple[Linear, float]]:
    """Per dimension the low end as a linear form of outer loops, and the constant extent."""
    loops = access.place.loops
    depth = [f is loop for f in loops].index(True) + 1
    index = indexer(loops, func.dims)
    inner = {f.var for f in loops[depth:]}
    result = []
    for low, extent in zip(access.low, access.extent, strict=True):
        form = index.linear(low)
        size = index.bounds(extent)[1]
        result.append(_interval(index, form, inner, size))
    return result


def _interval(index: Indexer, form: Linear, inner: set[Var], size: float) -> tuple[Linear, float]:
    fixed: list[tuple[Monomial, int]] = []
    moving: list[tuple[Monomial, int]] = []
    for mono, c in form.terms:
        (moving if _uses(mono, inner) else fixed).append((mono, c))
    low, high = index.interval(Linear(tuple(moving), 0))
    by_data = any(isinstance(n, Load) for mono, _ in fixed for atom in mono for n in walk(atom))
    if by_data or not (math.isfinite(low) and math.isfinite(high)):
        return Linear((), 0), math.inf
    return Linear(tuple(fixed), form.const + int(low)), high - low + size


def _uses(mono: tuple[Expr, ...], inner: set[Var]) -> bool:

    return any(mentions(atom, v) for atom in mono for v in inner)


def _hull(parts: list[tuple[Linear, float]], buffer: Buffer, d: int) -> tuple[Expr, Expr]:
    whole = (ZERO, of_dim(buffer.shape[d]))
    base = parts[0][0]
    if any(p[0].terms != base.terms or math.isinf(p[1]) for p in parts):
        return whole
    low = min(p[0].const for p in parts)
    high = max(p[0].const + int(p[1]) for p in parts)
    size = buffer.shape[d]
    if isinstance(size, int) and high - low > size:
        return whole
    return Indexer().build(replace(base, const=low)), Const(high - low)


def dim_of(expr: Expr, func: Func) -> Dim:
    """An extent as a dimension: constants, and polynomials of the function's `dims`."""

    def size(v: Var) -> Dim:
        known = (s for p in func.params for d in p.shape for s in symbols(d) if s.name == v.name)
        found = next(known, None)
        return symbol(v.name) if found is None else of_symbol(found)

    found = as_dim(expr, size)
    if found is None:
        raise error("E302", f"{func.name}: an extent is not a dimension")
    return found


def innermost_common_loop(func: Func, buffer: Buffer) -> For | None:
    """The innermost loop that contains every access to `buffer`."""
    chains = [
        p.loops
        for p in places(func.body)
        if buffer in {r.buffer for r in (*p.block.reads, *p.block.writes)}
    ]
    common: For | None = None
    for level in zip(*chains, strict=False):
        if any(f is not level[0] for f in level):
            break
        common = level[0]
    return common
