"""Sums of a group before its scale: a product by numbers of few bits with a scale for each group.

The groups of a contraction are its outer steps, and their scale is the same for the inner ones, so
it can be taken out of their sum::

    y[n] += x[g, k] * (q[g, k, n] * s[g, n])      part[g, n] += x[g, k] * q[g, k, n]
                                                  y[n]       += part[g, n] * s[g, n]

One multiplication for each number less, and one rounding: the error is at most that of the other
order of sums, and a rounding of each partial sum instead of each product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.tensor.combiner import COMBINERS
from aisc.ir.tensor.expr import TRUE, ZERO, Binary, Expr, Load, Var, variables
from aisc.ir.tensor.func import Buffer, Func, buffer
from aisc.ir.tensor.stmt import Alloc, Block, For, Iter, Stmt, Store, seq
from aisc.ir.tensor.tree import Place, find_place, replace_stmt, with_regions
from aisc.ir.tensor.visitor import substitute
from aisc.passes.schedule.copies import Names
from aisc.passes.schedule.region import dim_of


@dataclass(frozen=True, slots=True)
class _Grouped:
    """A contraction ``acc + product * scale`` whose iterators `outer` choose groups."""

    place: Place
    store: Store
    product: Expr
    scale: Load
    outer: tuple[Iter, ...]

    def iters(self, kind: str) -> list[Iter]:
        """The iterators of a kind."""
        return [it for it in self.place.block.iters if it.kind == kind]


def grouped_sums(func: Func, block: str) -> Func:
    """`func` with partial sums of each group of `block`, and their sum in ``<block>_groups``."""
    found = _match(find_place(func, block))
    if found is None:
        raise error("E302", f"variant({block}): it is no product with scales of groups")
    names = Names(func)
    spatial, inner = found.iters("spatial"), found.iters("reduce")[len(found.outer) :]
    shape = tuple(dim_of(it.extent, func) for it in (*found.outer, *spatial))
    part = buffer(names.fresh(f"{found.store.buffer.name}_part"), found.store.buffer.dtype, shape)
    first = _partial(found, part, spatial, inner)
    last = _final(found, part, spatial, names)
    result = replace_stmt(func, found.place.loops[0], seq(first, last))
    return replace(result, body=seq(Alloc(part), result.body))


def _match(place: Place) -> _Grouped | None:
    b, store = place.block, place.block.body
    plain = all(f.kind == "serial" and f.low == ZERO for f in place.loops)
    if b.combiner != "sum" or not isinstance(store, Store) or not plain or place.predicate != TRUE:
        return None
    if [f.var for f in place.loops] != list(b.bindings) or not place.loops:
        return None
    value = store.value
    if not isinstance(value, Binary) or value.op != "add" or not isinstance(value.b, Binary):
        return None
    product, steps = value.b, [it for it in b.iters if it.kind == "reduce"]
    pairs = ((product.a, product.b), (product.b, product.a)) if product.op == "mul" else ()
    for data, weight in pairs:
        if not isinstance(weight, Binary) or weight.op != "mul" or not isinstance(weight.b, Load):
            continue
        used = variables(weight.b)
        outer = tuple(it for it in steps if it.var in used)
        if 0 < len(outer) < len(steps) and outer == tuple(steps[: len(outer)]):
            return _Grouped(place, store, data * weight.a, weight.b, outer)
    return None


def _partial(found: _Grouped, part: Buffer, spatial: Sequence[Iter], inner: list[Iter]) -> Stmt:
    """The block that adds up each group; it keeps its loops and its name."""
    b = found.place.block
    groups = tuple(replace(it, kind="spatial") for it in found.outer)
    at = (*(it.var for it in groups), *(it.var for it in spatial))
    (zero,) = COMBINERS["sum"].identity([part.dtype])
    iters = (*groups, *spatial, *inner)
    bound = dict(zip((it.var for it in b.iters), b.bindings, strict=True))
    block = replace(
        b, iters=iters, bindings=tuple(bound[it.var] for it in iters), init=Store(part, at, zero),
        body=Store(part, at, Load(part, at) + found.product),
    )  # fmt: skip
    nest: Stmt = with_regions(block)
    for f in reversed(found.place.loops):
        nest = replace(f, body=nest)
    return nest


def _final(found: _Grouped, part: Buffer, spatial: Sequence[Iter], names: Names) -> Stmt:
    """The block that adds up the groups, each by its scale."""
    b, name = found.place.block, names.fresh(f"{found.place.block.name}_groups")
    iters = [replace(it, var=Var(names.fresh(f"{name}_v{k}")))
             for k, it in enumerate((*spatial, *found.outer))]  # fmt: skip
    own: dict[Var, Expr] = {
        old.var: new.var for old, new in zip((*spatial, *found.outer), iters, strict=True)
    }
    groups = iters[len(spatial) :]
    at = tuple(substitute(i, own) for i in found.store.indices)
    sums = Load(part, (*(it.var for it in groups), *(it.var for it in iters[: len(spatial)])))
    scaled = Load(found.store.buffer, at) + sums * substitute(found.scale, own)
    loops = [Var(names.fresh(f"{name}_i{k}")) for k in range(len(iters))]
    init = None if b.init is None else substitute(b.init, own)
    block = Block(name, tuple(iters), tuple(loops), (), (), init,
                  Store(found.store.buffer, at, scaled), "sum", b.loc)  # fmt: skip
    nest: Stmt = with_regions(block)
    for var, it in zip(reversed(loops), reversed(iters), strict=True):
        nest = For(var, ZERO, it.extent, "serial", nest)
    return nest
