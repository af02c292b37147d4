"""Primitives on domains, of blocks and of private buffers: split_iter, split_axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from aisc.ir.diagnostics import error
from aisc.ir.node import Node
from aisc.ir.tensor.expr import Const, Expr, Load, Var, binary
from aisc.ir.tensor.func import Func, row_major
from aisc.ir.tensor.linear import Indexer
from aisc.ir.tensor.stmt import Alloc, Block, Iter, Prefetch, Stmt, Store
from aisc.ir.tensor.tree import (
    find_place,
    indexer,
    map_blocks,
    replace_stmt,
    statements,
    with_regions,
)
from aisc.ir.tensor.visitor import substitute, transform
from aisc.passes.schedule.copies import Names
from aisc.passes.schedule.schedule import primitive


@primitive()
def split_iter(func: Func, block: str, position: int, factor: int) -> Func:
    """Give a block two iterators, a quotient and a remainder, in place of the one at `position`.

    before: ``block b(c spatial 96 = e): y[c] = t[c // 48, c % 48]``
    after ``split_iter("b", 0, 48)``:
    ``block b(g spatial 2 = e // 48, o spatial 48 = e % 48): y[g*48 + o] = t[g, o]``
    The same points in the same order, under other names: what was made of quotients is read at the
    block's own iterators. Legal where the factor divides the extent.
    """
    place = find_place(func, block)
    b, step = place.block, f"split_iter({block}, {position}, {factor})"
    if not 0 <= position < len(b.iters) or factor < 1:
        raise error("E302", f"{step}: it takes one of {len(b.iters)} iterators, a positive factor")
    it = b.iters[position]
    if not isinstance(it.extent, Const) or int(it.extent.value) % factor:
        raise error("E302", f"{step}: {factor} does not divide the extent of {it.var.name}")
    names = Names(func)
    count = Const(int(it.extent.value) // factor)
    outer = Iter(Var(names.fresh(f"{it.var.name}_o")), count, it.kind)
    inner = Iter(Var(names.fresh(f"{it.var.name}_i")), Const(factor), it.kind)
    around = indexer(place.loops, func.dims)
    value = b.bindings[position]
    parts = [around.simplify(binary(op, value, Const(factor))) for op in ("floordiv", "mod")]
    iters = (*b.iters[:position], outer, inner, *b.iters[position + 1 :])
    ranges = _ranges(func, iters)
    own: dict[Var, Expr] = {it.var: outer.var * factor + inner.var}
    new = replace(
        b,
        iters=iters,
        bindings=(*b.bindings[:position], *parts, *b.bindings[position + 1 :]),
        init=None if b.init is None else _renamed(b.init, own, ranges),
        body=_renamed(b.body, own, ranges),
    )
    return replace_stmt(func, b, with_regions(new))


@primitive()
def split_axis(func: Func, name: str, axis: int, factor: int) -> Func:
    """Give a private buffer two axes, a quotient and a remainder, in place of `axis`.

    before: ``t[j] = f(j);  y[c] = t[c] * t[c + 48]``
    after ``split_axis("t", 0, 48)``:
    ``t[j // 48, j % 48] = f(j);  y[c] = t[0, c] * t[1, c]``
    The elements stay where they are. Legal for a scratch buffer whose extent the factor divides.
    """
    step, found = f"split_axis({name}, {axis}, {factor})", statements(func.body)
    old = next((n.buffer for n in found if isinstance(n, Alloc) and n.buffer.name == name), None)
    if old is None or old.role != "scratch":
        raise error("E302", f"{step}: it takes a buffer of the function's own")
    if not 0 <= axis < old.rank or factor < 1:
        raise error("E302", f"{step}: it takes one of {old.rank} axes, a positive factor")
    extent = old.shape[axis]
    if not isinstance(extent, int) or extent % factor:
        raise error("E302", f"{step}: {factor} does not divide the extent {extent}")
    shape = (*old.shape[:axis], extent // factor, factor, *old.shape[axis + 1 :])
    new = replace(old, shape=shape, strides=row_major(shape))

    def parts(indices: tuple[Expr, ...], ranges: Indexer) -> tuple[Expr, ...]:
        both = (binary(op, indices[axis], Const(factor)) for op in ("floordiv", "mod"))
        return (*indices[:axis], *map(ranges.simplify, both), *indices[axis + 1 :])

    def swapped(ranges: Indexer) -> Callable[[Node], Node]:
        def swap(n: Node) -> Node:
            if isinstance(n, Load | Store | Prefetch) and n.buffer == old:
                return replace(n, buffer=new, indices=parts(n.indices, ranges))
            return Alloc(new) if isinstance(n, Alloc) and n.buffer == old else n

        return swap

    def block(b: Block) -> Stmt:
        swap = swapped(_ranges(func, b.iters))
        init = None if b.init is None else transform(b.init, swap)
        return with_regions(replace(b, init=init, body=transform(b.body, swap)))

    body = map_blocks(func.body, block)
    return replace(func, body=transform(body, swapped(_ranges(func, ()))))


def _ranges(func: Func, iters: Sequence[Iter]) -> Indexer:
    """What is known of a block's iterators."""
    ranges = Indexer({d.name: (0, float("inf")) for d in func.dims})
    for i in iters:
        ranges = ranges.bind(i.var, 0, ranges.bounds(i.extent)[1] - 1)
    return ranges


def _renamed(s: Stmt, own: dict[Var, Expr], ranges: Indexer) -> Stmt:
    """A statement in terms of the new iterators, its indices simplified."""

    def simpler(n: Node) -> Node:
        if isinstance(n, Load | Store):
            return replace(n, indices=tuple(ranges.simplify(i) for i in n.indices))
        return n

    return transform(substitute(s, own), simpler)
