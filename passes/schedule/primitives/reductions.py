"""Primitives on reductions: decompose_reduction, split_chunks."""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.diagnostics import error
from aisc.ir.node import Node, walk
from aisc.ir.tensor.combiner import COMBINERS
from aisc.ir.tensor.expr import (
    ONE,
    TRUE,
    ZERO,
    Binary,
    Const,
    Expr,
    Load,
    Var,
    binary,
    logical_and,
    select,
)
from aisc.ir.tensor.func import Buffer, Func, buffer
from aisc.ir.tensor.linear import Indexer, Linear, mentions
from aisc.ir.tensor.stmt import Alloc, Block, For, Iter, Seq, Stmt, Store, seq
from aisc.ir.tensor.tree import (
    Place,
    conjuncts,
    find_loop,
    find_place,
    fresh,
    guarded,
    places,
    replace_stmt,
    with_regions,
)
from aisc.ir.tensor.visitor import substitute, transform
from aisc.passes.schedule.copies import Names
from aisc.passes.schedule.dependence import Order, accesses_of, private_to
from aisc.passes.schedule.legality import conflicts, require_apart
from aisc.passes.schedule.points import require_whole
from aisc.passes.schedule.region import dim_of
from aisc.passes.schedule.schedule import primitive


@primitive()
def decompose_reduction(func: Func, block: str, loop: str) -> Func:
    """Give the initialisation of a reduction a nest of its own, just before `loop`.

    before: ``for k: for j: { if k == 0: c[j] = 0;  c[j] += … }``
    after:  ``for j: c[j] = 0;  for k: for j: c[j] += …``
    Legal when every loop that the reduce iterators use is `loop` or inside it.
    """
    place, at = find_place(func, block), find_loop(func, loop)
    b = place.block
    if b.init is None:
        raise error("E302", f"decompose_reduction({block}): it has no initialisation")
    if at not in place.loops:
        raise error("E302", f"decompose_reduction({block}): loop {loop} is not around it")
    depth = [f is at for f in place.loops].index(True)
    step = f"decompose_reduction({block}, {loop})"
    _require_start(place, depth, step)
    _require_early_start(func, place, depth, step)
    used = {n for n in walk(b.init) if isinstance(n, Var)}
    spatial = [(it, v) for it, v in zip(b.iters, b.bindings, strict=True) if it.var in used]
    needed = [f for f in place.loops[depth:] if any(mentions(value, f.var) for _, value in spatial)]
    names = Names(func)
    loops = {f.var: Var(names.fresh(f"{f.var.name}_init")) for f in needed}
    iters = tuple(replace(it, var=Var(names.fresh(f"{it.var.name}_init"))) for it, _ in spatial)
    rename: dict[Var, Expr] = {it.var: n.var for (it, _), n in zip(spatial, iters, strict=True)}
    bindings = tuple(substitute(v, dict(loops)) for _, v in spatial)
    init = substitute(b.init, rename)
    start = Block(names.fresh(f"{block}_init"), iters, bindings, (), (), None, init, "", b.loc)
    conds = _kept(place, needed, depth, step)
    body: Stmt = guarded(with_regions(start), substitute(logical_and(*conds), dict(loops)))
    for f in reversed(needed):
        body = replace(f, var=loops[f.var], body=body)
    func = replace_stmt(func, b, replace(b, init=None))
    old = find_loop(func, loop)
    return replace_stmt(func, old, seq(body, old))


def _require_start(place: Place, depth: int, step: str) -> None:
    """The nest below starts the reduction, once for each point."""
    b = place.block
    reduce_ = [(it, v) for it, v in zip(b.iters, b.bindings, strict=True) if it.kind != "spatial"]
    for it, value in reduce_:
        if any(mentions(value, f.var) for f in place.loops[:depth]):
            raise error(
                "E303",
                f"{step} would reset a partial result",
                f"reduce iterator {it.var.name} also depends on a loop outside",
            )
        lows = {f.var: f.low for f in place.loops[depth:]}
        if Indexer().linear(transform(substitute(value, lows), _of_zero)) != Linear((), 0):
            raise error("E303", f"{step}: the reduction starts in another nest")
    for f in place.loops[depth:]:
        if f.extent != ONE and not any(mentions(v, f.var) for v in b.bindings):
            raise error("E303", f"{step}: loop {f.var.name} repeats the reduction")


def _of_zero(n: Node) -> Node:
    """Quotient and remainder of 0, by any size, are 0."""
    if isinstance(n, Binary) and n.op in ("floordiv", "mod") and n.a == ZERO:
        return ZERO
    return n


def _require_early_start(func: Func, place: Place, depth: int, step: str) -> None:
    """Nothing that comes before the initialisation within the loop touches what it writes."""
    at = place.loops[depth]
    starts = accesses_of(replace(place, block=replace(place.block, body=Seq(()))))
    before = True
    for p in places(at):
        if p.block is place.block:
            before = False
            continue
        other = replace(p, loops=(*place.loops[:depth], *p.loops))
        pairs = conflicts(starts, accesses_of(other))
        order = _not_before(at, before)
        require_apart(func, pairs, place.loops[:depth], order, step, "choose an inner loop")


def _not_before(loop: For, same: bool) -> Order:
    """The second execution comes before the first: in an earlier turn, or in the same one."""
    sign = ">=" if same else ">"
    return lambda a, b: [f"{a[loop.var]} {sign} {b[loop.var]}"]


def _kept(place: Place, needed: list[For], depth: int, step: str) -> list[Expr]:
    """The conditions of the initialisation: those that speak of its loops."""
    conds = []
    for c in conjuncts(place.predicate):
        if not _uses_reduce(c, needed, place, depth):
            conds.append(c)
        elif any(mentions(c, f.var) for f in needed):
            raise error("E302", f"{step}: a guard joins spatial and reduce loops")
    return conds


def _uses_reduce(cond: Expr, kept: list[For], place: Place, depth: int) -> bool:
    """Whether a condition speaks of loops that the initialisation does not have."""
    dropped = [f.var for f in place.loops[depth:] if f not in kept]
    return any(mentions(cond, v) for v in dropped)


@primitive(reassociating=True)
def split_chunks(func: Func, block: str, loop: str, chunks: int) -> Func:
    """Divide a reduction into a fixed number of interleaved partial ones, combined in index order.

    before: ``for k in 0..K: acc[i] += f(i, k)``
    after:  ``for ko: for c in 0..chunks: part[i, c] += f(i, ko*chunks + c)`` and
            ``for c in 0..chunks: acc[i] += part[i, c]``
    The partial block keeps its name, the final one is ``<block>_combine``. The number of chunks
    does not depend on the number of threads, so results do not either. Legal for a reduction with
    one result, alone in its nest, whose reduce iterator is bound to `loop` itself.
    """
    place, old = find_place(func, block), find_loop(func, loop)
    b, store = place.block, place.block.body
    top = place.loops[0] if place.loops else b
    if not isinstance(store, Store) or b.init is None or place.predicate != TRUE:
        raise error("E302", f"split_chunks({block}): it is no plain reduction with one result")
    private = store.buffer in private_to(top)
    if len(list(places(top))) != 1 or old not in place.loops or chunks < 2 or private:
        raise error("E302", f"split_chunks({block}, {loop}, {chunks}): it does not apply here")
    found = [it for it, v in zip(b.iters, b.bindings, strict=True) if v == old.var]
    whole = len(found) == 1 and old.low == ZERO and found[0].extent == old.extent
    if not whole or found[0].kind != "reduce":
        raise error("E302", f"split_chunks({block}, {loop}): the loop is no reduce iterator")
    if any(it.kind == "ordered" for it in b.iters):
        raise error("E302", f"split_chunks({block}): its iterations run in order")
    require_whole(func, place, f"split_chunks({block}, {loop})")
    value = store.value
    plain = isinstance(value, Binary) and value.a == Load(store.buffer, store.indices)
    if not plain or COMBINERS[b.combiner].results != 1:
        raise error("E302", f"split_chunks({block}): its combination has another form")
    spatial = [it for it in b.iters if it.kind == "spatial"]
    shape = (*(dim_of(it.extent, func) for it in spatial), chunks)
    part = buffer(fresh(func, f"{store.buffer.name}_part"), store.buffer.dtype, shape)
    names = Names(func)
    partial = _partial_nest(names, place, old, found[0], part, chunks)
    final = _final_nest(names, place, part, chunks)
    return replace_stmt(func, top, seq(Alloc(part), partial, final))


def _partial_nest(names: Names, place: Place, old: For, r: Iter, part: Buffer, chunks: int) -> Stmt:
    """The reduction into `part`, with the chunk as an innermost spatial iterator."""
    b, store = place.block, place.block.body
    assert isinstance(store, Store)
    assert isinstance(store.value, Binary)
    stems = (f"{old.var.name}_c", f"{old.var.name}_o", f"{r.var.name}_c", f"{r.var.name}_o")
    c, ko, vc, vo = (Var(names.fresh(stem)) for stem in stems)
    count = binary("floordiv", r.extent + (chunks - 1), Const(chunks))
    # The result may be stored in another order than that of its iterators.
    at = (*(it.var for it in b.iters if it.kind == "spatial"), vc)
    (identity,) = COMBINERS[b.combiner].identity([part.dtype])
    term = substitute(store.value.b, {r.var: vo * chunks + vc})
    if not (isinstance(r.extent, Const) and int(r.extent.value) % chunks == 0):
        # Chunks beyond the end combine the identity: every partial result is initialised.
        term = select(binary("lt", vo * chunks + vc, r.extent), term, identity)
    body = Store(part, at, Binary(store.value.op, Load(part, at), term))
    iters, bindings = [], []
    for it, v in zip(b.iters, b.bindings, strict=True):
        iters.append(Iter(vo, count, "reduce") if it is r else it)
        bindings.append(ko if it is r else v)
    position = sum(it.kind == "spatial" for it in b.iters)
    iters.insert(position, Iter(vc, Const(chunks), "spatial"))
    bindings.insert(position, c)
    new = Block(
        b.name, tuple(iters), tuple(bindings), (), (), Store(part, at, identity), body,
        b.combiner, b.loc,
    )  # fmt: skip
    nest: Stmt = For(c, ZERO, Const(chunks), "serial", with_regions(new))
    for f in reversed(place.loops):
        outer = replace(f, var=ko, extent=count) if f is old else f
        nest = replace(outer, body=nest)
    return nest


def _final_nest(names: Names, place: Place, part: Buffer, chunks: int) -> Stmt:
    """The combination of the chunks, in index order."""
    b, store = place.block, place.block.body
    assert isinstance(store, Store)
    assert isinstance(store.value, Binary)
    name = names.fresh(f"{b.name}_combine")
    spatial = [it for it in b.iters if it.kind == "spatial"]
    own = [Var(names.fresh(f"{name}_v{k}")) for k in range(len(spatial))]
    iters = [Iter(var, it.extent, it.kind) for var, it in zip(own, spatial, strict=True)]
    loops = [Var(names.fresh(f"{name}_i{k}")) for k in range(len(spatial) + 1)]
    vc = Var(names.fresh(f"{name}_r"))
    at = substitute(
        Load(store.buffer, store.indices),
        {old.var: new.var for old, new in zip(spatial, iters, strict=True)},
    ).indices
    (identity,) = COMBINERS[b.combiner].identity([part.dtype])
    term = Load(part, (*own, vc))
    body = Store(store.buffer, at, Binary(store.value.op, Load(store.buffer, at), term))
    iters.append(Iter(vc, Const(chunks), "reduce"))
    block = Block(
        name, tuple(iters), tuple(loops), (), (), Store(store.buffer, at, identity), body,
        b.combiner, b.loc,
    )  # fmt: skip
    nest: Stmt = with_regions(block)
    for var, it in zip(reversed(loops), reversed(iters), strict=True):
        nest = For(var, ZERO, it.extent, "serial", nest)
    return nest
