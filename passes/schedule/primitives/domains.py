"""Primitives on domains, of blocks and of private buffers: split_iter, fuse_iters, split_axis,
fuse_axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from aisc.ir.arith.poly import Dim
from aisc.ir.diagnostics import error
from aisc.ir.node import Node
from aisc.ir.tensor.expr import Const, Expr, Load, Var, binary, of_dim
from aisc.ir.tensor.func import Buffer, Func, row_major
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
def fuse_iters(func: Func, block: str, position: int) -> Func:
    """Give a block one iterator in place of that at `position` and the next one, a quotient and a
    remainder of it.

    before: ``block b(h spatial 7 = e, w spatial 7 = f): t[h*7 + w] = x[h, w]``
    after ``fuse_iters("b", 0)``:
    ``block b(h_w spatial 49 = e*7 + f): t[h_w] = x[h_w // 7, h_w % 7]``
    The same points in the same order, under other names. Legal for two of the same kind, the second
    of a fixed extent.
    """
    b, step = find_place(func, block).block, f"fuse_iters({block}, {position})"
    if not 0 <= position < len(b.iters) - 1:
        raise error("E302", f"{step}: it takes two of {len(b.iters)} iterators")
    first, second = b.iters[position : position + 2]
    if first.kind != second.kind or not isinstance(second.extent, Const):
        raise error("E302", f"{step}: it takes two of a kind, the second of a fixed extent")
    around = indexer(find_place(func, block).loops, func.dims)
    name = Names(func).fresh(f"{first.var.name}_{second.var.name}")
    count = second.extent
    both = Iter(Var(name), around.simplify(first.extent * count), first.kind)
    iters = (*b.iters[:position], both, *b.iters[position + 2 :])
    values = b.bindings[position] * count + b.bindings[position + 1]
    ranges = _ranges(func, iters)
    own: dict[Var, Expr] = {
        it.var: binary(op, both.var, count) for it, op in ((first, "floordiv"), (second, "mod"))
    }
    new = replace(
        b,
        iters=iters,
        bindings=(*b.bindings[:position], around.simplify(values), *b.bindings[position + 2 :]),
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
    step = f"split_axis({name}, {axis}, {factor})"
    old = _own_buffer(func, name, step)
    if not 0 <= axis < old.rank or factor < 1:
        raise error("E302", f"{step}: it takes one of {old.rank} axes, a positive factor")
    extent = old.shape[axis]
    if not isinstance(extent, int) or extent % factor:
        raise error("E302", f"{step}: {factor} does not divide the extent {extent}")
    shape = (*old.shape[:axis], extent // factor, factor, *old.shape[axis + 1 :])

    def parts(indices: tuple[Expr, ...], ranges: Indexer) -> tuple[Expr, ...]:
        both = (binary(op, indices[axis], Const(factor)) for op in ("floordiv", "mod"))
        return (*indices[:axis], *map(ranges.simplify, both), *indices[axis + 1 :])

    return _reshaped(func, old, shape, parts)


@primitive()
def fuse_axes(func: Func, name: str, axis: int) -> Func:
    """Give a private buffer one axis in place of `axis` and the next one.

    before: ``t[p // 7, p % 7] = f(p);  y[h, w] = t[h, w]``
    after ``fuse_axes("t", 0)``: ``t[p] = f(p);  y[h, w] = t[h*7 + w]``
    The elements stay where they are. Legal for a scratch buffer in which they lie in order.
    """
    step = f"fuse_axes({name}, {axis})"
    old = _own_buffer(func, name, step)
    if not 0 <= axis < old.rank - 1:
        raise error("E302", f"{step}: it takes two of {old.rank} axes")
    if old.strides != row_major(old.shape):
        raise error("E302", f"{step}: its elements do not lie in order")
    size = old.shape[axis + 1]
    shape = (*old.shape[:axis], old.shape[axis] * size, *old.shape[axis + 2 :])

    def joined(indices: tuple[Expr, ...], ranges: Indexer) -> tuple[Expr, ...]:
        one = ranges.simplify(indices[axis] * of_dim(size) + indices[axis + 1])
        return (*indices[:axis], one, *indices[axis + 2 :])

    return _reshaped(func, old, shape, joined)


def _own_buffer(func: Func, name: str, step: str) -> Buffer:
    found = (n.buffer for n in statements(func.body) if isinstance(n, Alloc))
    old = next((b for b in found if b.name == name), None)
    if old is None or old.role != "scratch":
        raise error("E302", f"{step}: it takes a buffer of the function's own")
    return old


def _reshaped(
    func: Func,
    old: Buffer,
    shape: tuple[Dim, ...],
    parts: Callable[[tuple[Expr, ...], Indexer], tuple[Expr, ...]],
) -> Func:
    """`func` with a buffer in another shape, whose indices follow from those before."""
    new = replace(old, shape=shape, strides=row_major(shape))

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
