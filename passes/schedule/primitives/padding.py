"""The primitive that rounds a reduction up over operands that were filled up with zeros."""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.diagnostics import error
from aisc.ir.tensor.expr import ZERO, Cast, Const, Expr, Load, Select, Var, binary
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.linear import mentions
from aisc.ir.tensor.stmt import Block, Store
from aisc.ir.tensor.tree import (
    find_loop,
    find_place,
    places,
    replace_stmt,
    with_regions,
)
from aisc.passes.schedule.products import factors
from aisc.passes.schedule.region import dim_of
from aisc.passes.schedule.schedule import primitive


@primitive()
def pad_reduction(func: Func, block: str, loop: str, multiple: int) -> Func:
    """Round the loop of a sum of products up to a multiple; what is added is zero.

    before: ``for k in 0..K: c[i] += a[i,k] * b[k]``
    after:  ``for k in 0..ceil(K/m)*m: c[i] += a[i,k] * b[k]``
    Legal when each factor that is read at `k` comes from a map that gives 0 from K on
    (``clamp_tail`` with `zero`); of integers one such factor is enough, the other may be packed.
    """
    place, target = find_place(func, block), find_loop(func, loop)
    if multiple < 1:
        raise error("E302", f"pad_reduction({block}, {loop}): {multiple} is no positive number")
    count = _rounded(target.extent, multiple)
    if count == target.extent:
        return func
    found = [k for k, v in enumerate(place.block.bindings) if v == target.var]
    if len(found) != 1 or target.low != ZERO or len(list(places(target))) != 1:
        raise error("E302", f"pad_reduction({block}, {loop}): the loop is no iterator of it alone")
    it = place.block.iters[found[0]]
    if it.extent != target.extent:
        raise error("E302", f"pad_reduction({block}, {loop}): the loop is a part of the iterator")
    if it.kind != "reduce" or place.block.combiner != "sum":
        raise error("E302", f"pad_reduction({block}, {loop}): it is not the loop of a sum")
    _require_zero(func, place.block, it.var, target.extent, count)
    iters = tuple(replace(i, extent=count) if i is it else i for i in place.block.iters)
    new = with_regions(replace(place.block, iters=iters))
    func = replace_stmt(func, place.block, new)
    old = find_loop(func, loop)
    return replace_stmt(func, old, replace(old, extent=count))


def _rounded(extent: Expr, multiple: int) -> Expr:
    if isinstance(extent, Const):
        return Const(-(-int(extent.value) // multiple) * multiple)
    return binary("floordiv", extent + (multiple - 1), Const(multiple)) * multiple


def _require_zero(func: Func, block: Block, var: Var, size: Expr, count: Expr) -> None:
    factors = _factors(block)
    reads = [f for f in factors if any(mentions(i, var) for i in f.indices)]
    enough = len(reads) if any(f.dtype.is_float for f in factors) else 1
    proved = 0
    for load in reads:
        if not (_is_packed(load, var, count) or _is_whole(func, load, var, count)):
            raise error(
                "E303",
                f"pad_reduction({block.name}): {load.buffer.name} would be read beyond its end",
                "enlarge it by clamp_tail on the block that fills it",
            )
        proved += load.indices.count(var) == 1 and _is_zero_from(func, load, var, size)
    if not reads or proved < enough:
        raise error(
            "E303",
            f"pad_reduction({block.name}): the added products are not known to be zero",
            "fill the operands by cache_read and clamp_tail(…, zero=True) first",
        )


def _is_whole(func: Func, load: Load, var: Var, count: Expr) -> bool:
    """Whether one axis is indexed by `var` itself, and so long."""
    sizes = [
        d for i, d in zip(load.indices, load.buffer.shape, strict=True) if mentions(i, var)
    ]  # fmt: skip
    return load.indices.count(var) == 1 and sizes == [dim_of(count, func)]


def _is_packed(load: Load, var: Var, count: Expr) -> bool:
    """Whether two axes are indexed by quotient and remainder of `var`, and so long together."""
    found = [
        (i, d) for i, d in zip(load.indices, load.buffer.shape, strict=True) if mentions(i, var)
    ]
    if len(found) != 2 or not isinstance(count, Const):
        return False
    (high, some), (low, factor) = found
    if not isinstance(some, int) or not isinstance(factor, int):
        return False
    wanted = binary("floordiv", var, Const(factor)), binary("mod", var, Const(factor))
    return (high, low) == wanted and some * factor >= int(count.value)


def _factors(block: Block) -> tuple[Load, ...]:
    """The two loads of ``acc + a*b`` (through casts); E302 for other forms."""
    store = block.body
    pair = factors(store.value) if isinstance(store, Store) else None
    if pair is not None:
        return pair
    raise error("E302", f"pad_reduction({block.name}): it is no sum of products")


def _is_zero_from(func: Func, load: Load, var: Var, size: Expr) -> bool:
    """Whether the buffer's only writer stores 0 where the axis of `var` is not below `size`."""
    writers = [p for p in places(func.body) if load.buffer in {r.buffer for r in p.block.writes}]
    if len(writers) != 1 or not isinstance(writers[0].block.body, Store):
        return False
    block, store = writers[0].block, writers[0].block.body
    axis = load.indices.index(var)
    at = store.indices[axis]
    whole = store.indices == tuple(it.var for it in block.iters)
    return whole and isinstance(at, Var) and _vanishes(store.value, at, size)


def _vanishes(value: Expr, var: Var, size: Expr) -> bool:
    if isinstance(value, Const):
        return value.value == 0
    if isinstance(value, Cast):
        return _vanishes(value.a, var, size)
    if isinstance(value, Select):
        if value.cond == binary("lt", var, size):
            return _vanishes(value.other, var, size)
        return _vanishes(value.then, var, size) and _vanishes(value.other, var, size)
    return False
