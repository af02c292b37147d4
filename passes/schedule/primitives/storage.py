"""Primitives on storage: set_scope, cache_read, cache_write, pack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aisc.ir import dtypes
from aisc.ir.arith.poly import ceildiv
from aisc.ir.diagnostics import error
from aisc.ir.dtypes import DType
from aisc.ir.node import Node, walk
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Cast, Const, Expr, Load, binary, cast, of_dim, select
from aisc.ir.tensor.func import Buffer, Func, buffer, row_major
from aisc.ir.tensor.stmt import Alloc, Block, Prefetch, Stmt, Store, seq
from aisc.ir.tensor.tree import (
    claim,
    find_loop,
    find_place,
    fresh,
    loops_of,
    map_blocks,
    outer_loops,
    places,
    replace_stmt,
    statements,
    with_regions,
    without_alloc,
    without_hints,
)
from aisc.ir.tensor.visitor import replace_buffers, transform
from aisc.passes.schedule.dependence import accesses_under, private_to
from aisc.passes.schedule.flow import require_own_values, require_written_before
from aisc.passes.schedule.legality import own_elements
from aisc.passes.schedule.motion import reads_of, writes_of
from aisc.passes.schedule.points import require_all_written
from aisc.passes.schedule.region import innermost_common_loop
from aisc.passes.schedule.schedule import primitive


def find_buffer(func: Func, name: str) -> Buffer:
    """The buffer called `name`; E302 when the function has none."""
    declared = (s.buffer for s in statements(func.body) if isinstance(s, Alloc))
    known = {b.name: b for b in (*func.params, *declared)}
    if name not in known:
        raise error("E302", f"{func.name} has no buffer '{name}'", f"it has {', '.join(known)}")
    return known[name]


@primitive()
def set_scope(func: Func, name: str, space: str, loop: str = "") -> Func:
    """Place a scratch buffer in another memory space, declared in the innermost loop around all
    its uses, or in a `loop` around that, so that each iteration has its own. Storage is compacted
    later.

    Legal when no iteration of that loop reads what another one wrote: it writes each element
    before it reads it. In global memory a buffer is declared at the start of the function.
    """
    old = find_buffer(func, name)
    if old.role != "scratch":
        raise error("E302", f"set_scope({name}): only scratch buffers can be moved")
    new = replace(old, space=space)
    cut = without_alloc(func, old)
    at = innermost_common_loop(cut, old)
    if loop:
        around = find_loop(cut, loop)
        if at is None or all(f is not at for f in loops_of(around)):
            raise error("E302", f"set_scope({name}): it is used outside of loop '{loop}'")
        at = around
    if at is None or space == "global":
        return replace(cut, body=replace_buffers(seq(Alloc(old), cut.body), {old: new}))
    loops = (*outer_loops(cut, at), at)
    found = accesses_under(at.body, loops, old)
    if not own_elements(cut, loops, found):  # else nobody else has written what is read
        require_own_values(cut, old, at, f"set_scope({name})")
    moved = replace_stmt(cut, at, replace(at, body=seq(Alloc(old), at.body)))
    return replace(moved, body=replace_buffers(moved.body, {old: new}))


def _copy_nest(func: Func, name: str, src: Buffer, dst: Buffer) -> tuple[Stmt, ...]:
    builder = ComputeBuilder()
    builder.map(dst, lambda *i: cast(Load(src, i), dst.dtype), name)
    return tuple(builder.stmts)


@primitive()
def cache_write(func: Func, block: str, space: str, name: str = "") -> Func:
    """Let a block write a scratch buffer, and copy that to its result afterwards.

    before: ``for i: c[i] = …``   after: ``for i: c_local[i] = …;  for i: c[i] = c_local[i]``.
    The copy is a map block called ``<block>_copy``. Legal when the block's nest writes the whole
    result, and each element before it reads it.
    """
    place = find_place(func, block)
    if len(place.block.writes) != 1:
        raise error("E302", f"cache_write({block}): the block must have one result")
    if place.block.combiner and place.block.init is None:
        raise error("E303", f"cache_write({block}): its initialisation stands elsewhere")
    out = place.block.writes[0].buffer
    step = f"cache_write({block})"
    chosen = claim(func, name, step) if name else fresh(func, f"{out.name}_local")
    local = replace(buffer(chosen, out.dtype, out.shape), space=space)
    nest = place.loops[0] if place.loops else place.block
    if out in private_to(nest):
        raise error("E302", f"{step}: {out.name} is private to its nest")
    require_all_written(func, out, nest, step)
    require_written_before(func, out, nest, (), step)
    copy = _copy_nest(func, fresh(func, f"{block}_copy"), local, out)
    return replace_stmt(func, nest, seq(Alloc(local), replace_buffers(nest, {out: local}), *copy))


@primitive()
def cache_read(
    func: Func, block: str, name: str, space: str, as_name: str = "", dtype: str = ""
) -> Func:
    """Let a block read a copy of one of its inputs, filled before the block's nest; with `dtype` a
    copy in an integer type that has all values of its own.

    before: ``for i: y[i] = f(x[i])``   after: ``x_c = x;  for i: y[i] = f(x_c[i])``.
    The copy is a map block called ``<copy's name>_fill``. Legal when the block does not write
    the buffer itself, and casts what it reads of it to an integer where the copy is wider.
    """
    place, src = find_place(func, block), find_buffer(func, name)
    if src in {w.buffer for w in place.block.writes}:
        raise error("E303", f"cache_read({block}): it writes {name}")
    chosen = claim(func, as_name, f"cache_read({block})") if as_name else ""
    kind = _wider(place.block, src, dtype) if dtype else src.dtype
    local = buffer(chosen or fresh(func, f"{name}_{space}"), kind, src.shape)
    local = replace(local, space=space)
    nest = place.loops[0] if place.loops else place.block
    if any(src in {w.buffer for w in p.block.writes} for p in places(nest)):
        raise error("E303", f"cache_read({block}): {name} is written in the same nest")
    if src in private_to(nest) or src not in reads_of(place.block):
        raise error("E302", f"cache_read({block}): {name} is private to its nest or not read")
    fill = _copy_nest(func, fresh(func, f"{local.name}_fill"), src, local)
    return replace_stmt(func, nest, seq(Alloc(local), *fill, replace_buffers(nest, {src: local})))


def _wider(block: Block, src: Buffer, name: str) -> DType:
    """The type called `name`; E302 where it does not have all values of the buffer's, E303 where
    the block reads the buffer otherwise than through casts to integers."""
    step, t = f"cache_read({block.name})", src.dtype
    wide = dtypes.dtype(name) if dtypes.exists(name) else None
    if wide is None or not (wide.is_integer and t.is_integer):
        raise error("E302", f"{step}: '{name}' is no wider type of integers than {t}")
    if wide.min_value > t.min_value or wide.max_value < t.max_value:
        raise error("E302", f"{step}: {wide} does not have all values of {t}")
    body = (block.body,) if block.init is None else (block.body, block.init)
    found = [n for part in body for n in walk(part)]
    cast = [n for n in found if isinstance(n, Cast) and n.dtype.is_integer]
    inside = sum(isinstance(n.a, Load) and n.a.buffer == src for n in cast)
    if inside != sum(isinstance(n, Load) and n.buffer == src for n in found):
        raise error("E303", f"{step}: {src.name} is read without a cast to an integer")
    return wide


@primitive()
def permute(func: Func, name: str, order: Sequence[int]) -> Func:
    """Store a private buffer with its axes in another order.

    before: ``t[i, j] = f(i, j);  y[i] += t[i, j]``
    after ``permute("t", (1, 0))``: ``t[j, i] = f(i, j);  y[i] += t[j, i]``.
    Always legal for a scratch buffer: all accesses change alike.
    """
    old = find_buffer(func, name)
    if sorted(order) != list(range(old.rank)):
        raise error("E302", f"permute({name}): order must permute {old.rank} axes")
    if old.role != "scratch":
        raise error("E302", f"permute({name}): only scratch buffers can be stored otherwise")
    shape = tuple(old.shape[k] for k in order)
    new = replace(old, shape=shape, strides=row_major(shape))

    def swap(n: Node) -> Node:
        if isinstance(n, Alloc) and n.buffer == old:
            return Alloc(new)
        if isinstance(n, Load) and n.buffer == old:
            return Load(new, tuple(n.indices[k] for k in order))
        if isinstance(n, Store) and n.buffer == old:
            return Store(new, tuple(n.indices[k] for k in order), n.value)
        if isinstance(n, Prefetch) and n.buffer == old:
            return Prefetch(new, tuple(n.indices[k] for k in order), n.write)
        return n

    body = transform(func.body, swap)
    return replace(func, body=map_blocks(body, with_regions))


@primitive()
def pack(
    func: Func, name: str, axis: int, factor: int, order: Sequence[int]
) -> Func | tuple[Func, Func]:
    """Store a parameter in another layout: `axis` split by `factor`, axes permuted by `order`.

    With axes numbered after the split, ``b[K, N]``, axis 1, factor 32, order (1, 0, 2) becomes
    ``b_packed[ceil(N/32), K, 32]``, zero where the split exceeds N. For a weight the result is
    (new function, packer); the plan runs the packer at compile time. Any other buffer is packed
    by a block ``<name>_pack`` at the start of the function. Always legal for what is only read.
    """
    src = find_buffer(func, name)
    if not 0 <= axis < src.rank or factor < 1:
        raise error("E302", f"pack({name}): it takes one of {src.rank} axes and a factor above 0")
    if any(src in writes_of(p.block) for p in places(func.body)):
        raise error("E303", f"pack({name}): a block writes it")
    split = (*src.shape[:axis], ceildiv(src.shape[axis], factor), factor, *src.shape[axis + 1 :])
    if sorted(order) != list(range(len(split))):
        raise error("E302", f"pack({name}): order must permute {len(split)} axes")
    shape = tuple(split[k] for k in order)
    packed_name = fresh(func, f"{name}_packed")
    is_weight = src.role == "weight"
    if is_weight and not all(isinstance(d, int) for d in src.shape):
        raise error("E302", f"pack({name}): a weight of symbolic size cannot be packed beforehand")
    dst = Buffer(
        packed_name, src.dtype, shape, row_major(shape),
        alias_set=packed_name, role="weight" if is_weight else "scratch",
        most=src.most,
    )  # fmt: skip
    body = map_blocks(func.body, lambda b: _read_packed(b, src, dst, axis, factor, order))
    builder = ComputeBuilder()
    builder.map(dst, lambda *i: _unpacked(src, i, axis, factor, order), fresh(func, f"{name}_pack"))
    if not is_weight:
        return replace(func, body=seq(Alloc(dst), *builder.stmts, body))
    func = without_hints(replace(func, body=body), src)
    params = tuple(dst if p == src else p for p in func.params)
    out = replace(dst, role="output")
    packer = ComputeBuilder()
    packer.map(out, lambda *i: _unpacked(src, i, axis, factor, order), "pack")
    packing = packer.func(f"{func.name}_{packed_name}", (src, out))
    return replace(func, params=params), packing


def _read_packed(
    block: Block, src: Buffer, dst: Buffer, axis: int, factor: int, order: Sequence[int]
) -> Stmt:
    def swap(n: Node) -> Node:
        if isinstance(n, Load) and n.buffer == src:
            at = n.indices
            parts = (
                *at[:axis],
                binary("floordiv", at[axis], Const(factor)),
                binary("mod", at[axis], Const(factor)),
                *at[axis + 1 :],
            )
            return Load(dst, tuple(parts[k] for k in order))
        return n

    if src not in {r.buffer for r in block.reads}:
        return block
    init = None if block.init is None else transform(block.init, swap)
    return with_regions(replace(block, init=init, body=transform(block.body, swap)))


def _unpacked(
    src: Buffer, at: Sequence[Expr], axis: int, factor: int, order: Sequence[int]
) -> Expr:
    parts = [at[list(order).index(k)] for k in range(len(order))]
    position = parts[axis] * factor + parts[axis + 1]
    value = Load(src, (*parts[:axis], position, *parts[axis + 2 :]))
    size = src.shape[axis]
    if isinstance(size, int) and size % factor == 0:
        return value
    zero = Const(0.0 if src.dtype.is_float else 0, src.dtype)
    return select(binary("lt", position, of_dim(size)), value, zero)
