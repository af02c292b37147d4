"""Primitives on reductions: decompose_reduction, split_chunks."""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.arith.linear import mentions
from aisc.ir.diagnostics import error
from aisc.ir.tensor.combiner import COMBINERS
from aisc.ir.tensor.expr import (
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
from aisc.ir.tensor.stmt import Alloc, Block, For, Iter, Stmt, Store, seq
from aisc.ir.tensor.visitor import substitute
from aisc.passes.schedule.region import dim_of
from aisc.passes.schedule.schedule import primitive
from aisc.passes.schedule.tree import (
    Place,
    find_loop,
    find_place,
    fresh,
    guarded,
    places,
    replace_stmt,
    with_regions,
)


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
    outside = {f.var for f in place.loops[:depth]}
    spatial = [(it, v) for it, v in zip(b.iters, b.bindings, strict=True) if it.kind == "spatial"]
    for it, value in zip(b.iters, b.bindings, strict=True):
        if it.kind != "spatial" and any(mentions(value, v) for v in outside):
            raise error(
                "E303",
                f"decompose_reduction({block}, {loop}) would reset a partial result",
                f"reduce iterator {it.var.name} also depends on a loop outside of {loop}",
            )
    needed = [f for f in place.loops[depth:] if any(mentions(value, f.var) for _, value in spatial)]
    names = {f.var: Var(fresh(func, f"{f.var.name}_init")) for f in needed}
    iters = tuple(replace(it, var=Var(f"{it.var.name}_init")) for it, _ in spatial)
    rename: dict[Var, Expr] = {it.var: n.var for (it, _), n in zip(spatial, iters, strict=True)}
    loops_rename: dict[Var, Expr] = dict(names)
    start = Block(
        fresh(func, f"{block}_init"),
        iters,
        tuple(substitute(v, loops_rename) for _, v in spatial),
        (),
        (),
        None,
        substitute(b.init, rename),
        "",
        b.loc,
    )
    conds = [c for c in _conjuncts(place.predicate) if not _uses_reduce(c, needed, place, depth)]
    body: Stmt = guarded(with_regions(start), substitute(logical_and(*conds), loops_rename))
    for f in reversed(needed):
        body = replace(f, var=names[f.var], body=body)
    func = replace_stmt(func, b, replace(b, init=None))
    old = find_loop(func, loop)
    return replace_stmt(func, old, seq(body, old))


def _conjuncts(cond: Expr) -> list[Expr]:
    if isinstance(cond, Binary) and cond.op == "and":
        return _conjuncts(cond.a) + _conjuncts(cond.b)
    return [] if cond == TRUE else [cond]


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
    if len(list(places(top))) != 1 or old not in place.loops or chunks < 2:
        raise error("E302", f"split_chunks({block}, {loop}, {chunks}): it does not apply here")
    found = [it for it, v in zip(b.iters, b.bindings, strict=True) if v == old.var]
    if len(found) != 1 or found[0].kind != "reduce" or old.low != ZERO:
        raise error("E302", f"split_chunks({block}, {loop}): the loop is no reduce iterator")
    value = store.value
    plain = isinstance(value, Binary) and value.a == Load(store.buffer, store.indices)
    if not plain or COMBINERS[b.combiner].results != 1:
        raise error("E302", f"split_chunks({block}): its combination has another form")
    spatial = [it for it in b.iters if it.kind == "spatial"]
    shape = (*(dim_of(it.extent, func) for it in spatial), chunks)
    part = buffer(fresh(func, f"{store.buffer.name}_part"), store.buffer.dtype, shape)
    partial = _partial_nest(func, place, old, found[0], part, chunks)
    final = _final_nest(func, place, part, chunks)
    return replace_stmt(func, top, seq(Alloc(part), partial, final))


def _partial_nest(func: Func, place: Place, old: For, r: Iter, part: Buffer, chunks: int) -> Stmt:
    """The reduction into `part`, with the chunk as an innermost spatial iterator."""
    b, store = place.block, place.block.body
    assert isinstance(store, Store)
    assert isinstance(store.value, Binary)
    c, ko = Var(fresh(func, f"{old.var.name}_c")), Var(fresh(func, f"{old.var.name}_o"))
    vc, vo = Var(f"{r.var.name}_c"), Var(f"{r.var.name}_o")
    count = binary("floordiv", r.extent + (chunks - 1), Const(chunks))
    at = (*store.indices, vc)
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


def _final_nest(func: Func, place: Place, part: Buffer, chunks: int) -> Stmt:
    """The combination of the chunks, in index order."""
    b, store = place.block, place.block.body
    assert isinstance(store, Store)
    assert isinstance(store.value, Binary)
    name = fresh(func, f"{b.name}_combine")
    spatial = [it for it in b.iters if it.kind == "spatial"]
    iters = [Iter(Var(f"{name}_v{k}"), it.extent, it.kind) for k, it in enumerate(spatial)]
    loops = [Var(f"{name}_i{k}") for k in range(len(spatial) + 1)]
    vc = Var(f"{name}_r")
    at = substitute(
        Load(store.buffer, store.indices),
        {old.var: new.var for old, new in zip(spatial, iters, strict=True)},
    ).indices
    (identity,) = COMBINERS[b.combiner].identity([part.dtype])
    term = Load(part, (*at, vc))
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
