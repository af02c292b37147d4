"""The primitive that factors a reduction along one of its loops: rfactor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.node import Node, walk
from aisc.ir.tensor.combiner import COMBINERS, Combiner
from aisc.ir.tensor.expr import ZERO, Expr, Load, Var, logical_and
from aisc.ir.tensor.func import Buffer, Func, buffer
from aisc.ir.tensor.linear import mentions
from aisc.ir.tensor.stmt import Alloc, Block, For, If, Iter, Let, Seq, Stmt, Store, seq
from aisc.ir.tensor.tree import (
    Place,
    conjuncts,
    find_loop,
    find_place,
    guarded,
    places,
    replace_stmt,
    with_regions,
)
from aisc.ir.tensor.visitor import substitute, transform
from aisc.passes.schedule.copies import Names
from aisc.passes.schedule.region import dim_of
from aisc.passes.schedule.schedule import primitive


@primitive(reassociating=True)
def rfactor(func: Func, block: str, loop: str) -> Func:
    """Factor a reduction along one of its loops: a partial result for each iteration of it, then
    their combination in index order.

    before: ``for i: for ko: for ki: acc[i] += f(i, ko*4 + ki)``
    after ``rfactor("b", "ki")``: ``for i: { for ko: for ki: part[i, ki] += f(i, ko*4 + ki);
    for r in 0..4: acc[i] += part[i, r] }``
    The partial block keeps its name, and its iterator over `loop` is spatial: that loop may then
    run in parallel or as lanes. The final one is ``<block>_combine``; it starts as the reduction
    did. For any registered combiner, several results included. Legal for a reduction alone in its
    reduce loops, whose reduce iterators use loops that its spatial ones do not use.
    """
    place, over = find_place(func, block), find_loop(func, loop)
    plan = _plan(func, place, over)
    partial, final = _partial(plan), _final(plan)
    first = plan.outermost
    at = [f is first for f in place.loops].index(True)
    nest: Stmt = partial
    for f in reversed(place.loops[at:]):
        nest = replace(f, body=nest)
    result = replace_stmt(func, first, seq(nest, final))
    return replace(result, body=seq(*map(Alloc, plan.parts), result.body))


@dataclass(frozen=True, slots=True)
class _Plan:
    """A reduction to be factored.

    outs, at: where it accumulates; parts: its partial results. outermost: the outermost loop of
    its reduce iterators; turns: those loops but `over`, each an iterator of the partial block.
    kept, moved: conditions of the predicate on spatial loops, and on reduce loops.
    """

    place: Place
    over: For
    combiner: Combiner
    names: Names
    outs: tuple[Buffer, ...]
    at: tuple[Expr, ...]
    parts: tuple[Buffer, ...]
    outermost: For
    turns: tuple[tuple[For, Iter], ...]
    kept: tuple[Expr, ...]
    moved: tuple[Expr, ...]

    def spatial(self) -> list[tuple[Iter, Expr]]:
        """The spatial iterators with their bindings."""
        b = self.place.block
        return [(i, v) for i, v in zip(b.iters, b.bindings, strict=True) if i.kind == "spatial"]


def _plan(func: Func, place: Place, over: For) -> _Plan:
    b = place.block
    step = f"rfactor({b.name}, {over.var.name})"
    pairs = list(zip(b.iters, b.bindings, strict=True))
    reduce_ = [v for it, v in pairs if it.kind == "reduce"]
    used = [f for f in place.loops if any(mentions(v, f.var) for v in reduce_)]
    others = [v for it, v in pairs if it.kind != "reduce"]
    if over not in used or any(it.kind == "ordered" for it in b.iters):
        raise error("E302", f"{step}: the loop belongs to no reduce iterator of the block")
    if any(mentions(v, f.var) for v in others for f in used):
        raise error("E302", f"{step}: spatial iterators use the loops of the reduction too")
    if len(list(places(used[0]))) != 1 or any(f.low != ZERO or f.kind != "serial" for f in used):
        raise error("E302", f"{step}: its reduce loops are not serial loops from 0 around it alone")
    kept, moved = _divided(place, used, step)
    outs, at = _results(b, step)
    names = Names(func)
    shape = tuple(dim_of(it.extent, func) for it, _ in pairs if it.kind == "spatial")
    size = dim_of(over.extent, func)
    parts = tuple(buffer(names.fresh(f"{o.name}_part"), o.dtype, (*shape, size)) for o in outs)
    turns = tuple(
        (f, Iter(Var(names.fresh(f"{f.var.name}_v")), f.extent, "reduce"))
        for f in used
        if f is not over
    )
    combiner = COMBINERS[b.combiner]
    return _Plan(
        place, over, combiner, names, outs, at, parts, used[0], turns, tuple(kept), tuple(moved)
    )


def _divided(place: Place, used: list[For], step: str) -> tuple[list[Expr], list[Expr]]:
    """Conditions that speak of spatial loops only, and of reduce loops only."""
    kept, moved = [], []
    for cond in conjuncts(place.predicate):
        inside = [f for f in used if mentions(cond, f.var)]
        if not inside:
            kept.append(cond)
            continue
        if any(mentions(cond, f.var) for f in place.loops if f not in used):
            raise error("E302", f"{step}: a guard joins spatial and reduce loops")
        moved.append(cond)
    return kept, moved


def _results(b: Block, step: str) -> tuple[tuple[Buffer, ...], tuple[Expr, ...]]:
    """What the block accumulates into, in the order of its combiner's results."""
    stores = [n for n in walk(b.body) if isinstance(n, Store)]
    outs = tuple(s.buffer for s in stores)
    reduce_ = {it.var for it in b.iters if it.kind == "reduce"}
    places_ = {s.indices for s in stores}
    places_ |= {n.indices for n in walk(b.body) if isinstance(n, Load) and n.buffer in outs}
    form = len(set(outs)) == len(outs) == COMBINERS[b.combiner].results if b.combiner else False
    if not form or len(places_) != 1:
        raise error("E302", f"{step}: the block has another form than its combiner's")
    at = stores[0].indices
    if any(mentions(i, v) for i in at for v in reduce_) or not _stays(b.init, at):
        raise error("E302", f"{step}: the result's place depends on a reduce iterator")
    return outs, at


def _stays(init: Stmt | None, at: tuple[Expr, ...]) -> bool:
    return init is None or all(n.indices == at for n in walk(init) if isinstance(n, Store))


def _partial(plan: _Plan) -> Stmt:
    """The block that accumulates into the partial results."""
    b, spatial = plan.place.block, plan.spatial()
    lane = Iter(Var(plan.names.fresh(f"{plan.over.var.name}_v")), plan.over.extent, "spatial")
    values: dict[Var, Expr] = {f.var: it.var for f, it in plan.turns}
    values[plan.over.var] = lane.var
    reduce_ = {
        it.var: substitute(v, values)
        for it, v in zip(b.iters, b.bindings, strict=True)
        if it.kind == "reduce"
    }
    at = (*(it.var for it, _ in spatial), lane.var)
    into = dict(zip(plan.outs, plan.parts, strict=True))
    body = transform(substitute(b.body, reduce_), lambda n: _moved(n, into, at))
    if plan.moved:  # inside of the block, since every partial result is initialised
        body = If(substitute(logical_and(*plan.moved), values), body)
    identity = plan.combiner.identity([p.dtype for p in plan.parts])
    init = seq(*(Store(p, at, v) for p, v in zip(plan.parts, identity, strict=True)))
    iters = (*(it for it, _ in spatial), lane, *(it for _, it in plan.turns))
    bindings = (*(v for _, v in spatial), plan.over.var, *(f.var for f, _ in plan.turns))
    block = Block(b.name, iters, bindings, (), (), init, body, b.combiner, b.loc)
    return guarded(with_regions(block), logical_and(*plan.kept))


def _moved(n: Node, into: dict[Buffer, Buffer], at: tuple[Expr, ...]) -> Node:
    if isinstance(n, Load) and n.buffer in into:
        return Load(into[n.buffer], at)
    if isinstance(n, Store) and n.buffer in into:
        return Store(into[n.buffer], at, n.value)
    return n


def _final(plan: _Plan) -> Stmt:
    """The nest that combines the partial results of each spatial point, in index order."""
    b, names = plan.place.block, plan.names
    name = names.fresh(f"{b.name}_combine")
    depth = [f is plan.outermost for f in plan.place.loops].index(True)
    spatial = plan.spatial()
    inner = [f for f in plan.place.loops[depth:] if any(mentions(v, f.var) for _, v in spatial)]
    loops: dict[Var, Expr] = {f.var: Var(names.fresh(f"{name}_{f.var.name}")) for f in inner}
    iters = tuple(replace(it, var=Var(names.fresh(f"{name}_{it.var.name}"))) for it, _ in spatial)
    own: dict[Var, Expr] = {old.var: new.var for (old, _), new in zip(spatial, iters, strict=True)}
    turn, var = Iter(Var(names.fresh(f"{name}_v")), plan.over.extent, "reduce"), names.fresh(name)
    at = tuple(substitute(i, own) for i in plan.at)
    from_ = (*(it.var for it in iters), turn.var)
    state = [Load(o, at) for o in plan.outs]
    values = plan.combiner.combine(state, [Load(p, from_) for p in plan.parts])
    init = None if b.init is None else substitute(b.init, own)
    bindings = (*(substitute(v, loops) for _, v in spatial), Var(var))
    block = Block(
        name, (*iters, turn), bindings, (), (), init, _stores(plan, at, values), b.combiner, b.loc
    )
    nest: Stmt = guarded(with_regions(block), substitute(logical_and(*plan.kept), loops))
    nest = For(Var(var), ZERO, plan.over.extent, "serial", nest)
    for f in reversed(inner):
        renamed = loops[f.var]
        assert isinstance(renamed, Var), "loops are renamed to variables"
        nest = replace(f, var=renamed, body=nest)
    return nest


def _stores(plan: _Plan, at: tuple[Expr, ...], values: Sequence[Expr]) -> Stmt:
    """Store all results from the old state: several results are named first."""
    if len(plan.outs) == 1:
        return Store(plan.outs[0], at, values[0])
    new = [Var(plan.names.fresh(f"new_{o.name}"), o.dtype) for o in plan.outs]
    stmt: Stmt = Seq(tuple(Store(o, at, v) for o, v in zip(plan.outs, new, strict=True)))
    for var, value in zip(reversed(new), reversed(values), strict=True):
        stmt = Let(var, value, stmt)
    return stmt
