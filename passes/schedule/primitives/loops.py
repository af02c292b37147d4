"""Primitives on loops: split, tile, fuse, reorder, predicate, unroll, vectorize, parallel,
annotate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite

from aisc.ir.diagnostics import error
from aisc.ir.tensor.expr import ZERO, Const, Expr, Var, binary, variables
from aisc.ir.tensor.func import Attribute, Func
from aisc.ir.tensor.linear import Indexer, mentions
from aisc.ir.tensor.stmt import For, ForKind, Stmt
from aisc.ir.tensor.tree import (
    claim,
    extent_of,
    find_loop,
    fresh,
    indexer,
    loops_of,
    nest,
    places,
    push_guard,
    replace_stmt,
    transform_statements,
)
from aisc.ir.tensor.visitor import substitute
from aisc.passes.schedule.copies import Names
from aisc.passes.schedule.kinds import MAX_LANES, MAX_UNROLL
from aisc.passes.schedule.legality import require_independent, require_reorderable
from aisc.passes.schedule.schedule import primitive


@primitive()
def split(func: Func, loop: str, factor: int, names: tuple[str, str] = ("", "")) -> Func:
    """Split a loop into an outer and an inner one of `factor` iterations.

    before: ``for i in 0..N: S(i)``
    after:  ``for io in 0..ceil(N/factor): for ii in 0..factor: if io*factor+ii < N: S(…)``
    (the guard stands only where `factor` does not divide N). Always legal. Of a parallel loop the
    outer one stays parallel, of a vectorized loop the inner one keeps its lanes.
    """
    old = find_loop(func, loop)
    if factor < 1:
        raise error("E302", f"split({loop}): the factor must be positive", f"got {factor}")
    kinds = _split_kinds(old, factor)
    outer, inner = (Var(n) for n in _split_names(func, loop, names))
    form = Indexer().linear(old.extent)
    whole = all(c % factor == 0 for c in (form.const, *(c for _, c in form.terms)))
    count = Indexer().simplify(_ceildiv(old.extent, factor))
    body = substitute(old.body, {old.var: old.low + outer * factor + inner})
    if not whole:
        body = push_guard(body, binary("lt", outer * factor + inner, old.extent))
    inside = For(inner, ZERO, Const(factor), kinds[1], body)
    return replace_stmt(func, old, For(outer, ZERO, count, kinds[0], inside, old.annotations))


def _split_kinds(old: For, factor: int) -> tuple[ForKind, ForKind]:
    """Kinds of the outer and the inner loop."""
    name = f"split({old.var.name})"
    if "." in old.kind:
        raise error("E302", f"{name}: it is bound to {old.kind}", "split it before bind")
    if old.kind == "vectorize" and factor > MAX_LANES:
        raise error("E302", f"{name}: {factor} lanes are more than {MAX_LANES}")
    if old.kind == "unroll" and factor > MAX_UNROLL:
        raise error("E302", f"{name}: {factor} copies are more than {MAX_UNROLL}")
    kinds: dict[ForKind, tuple[ForKind, ForKind]] = {
        "parallel": ("parallel", "serial"),
        "vectorize": ("serial", "vectorize"),
    }
    return kinds.get(old.kind, (old.kind, old.kind))


def _split_names(func: Func, loop: str, names: tuple[str, str]) -> tuple[str, str]:
    free = Names(func)
    if names[0] and names[0] == names[1]:
        raise error("E302", f"split({loop}): both loops would be called {names[0]}")
    for name in filter(None, names):
        free.claim(name, f"split({loop})")
    outer = names[0] or free.fresh(f"{loop}_o")
    return outer, names[1] or free.fresh(f"{loop}_i")


def _ceildiv(a: Expr, b: int) -> Expr:
    return binary("floordiv", a + (b - 1), b)


@primitive()
def fuse(func: Func, outer: str, inner: str, name: str = "") -> Func:
    """Fuse two perfectly nested loops into one.

    before: ``for i in 0..N: for j in 0..M: S(i, j)``
    after:  ``for f in 0..N*M: S(f // M, f % M)``. Always legal for loops of one kind, serial or
    unrolled: others say that their own iterations are independent, not those of both. A reduce loop
    that may be empty is not fused with a spatial one: nothing would start the reduction.
    """
    first, second = find_loop(func, outer), find_loop(func, inner)
    if first.body is not second:
        raise error("E302", f"fuse: loop '{inner}' is not directly inside '{outer}'")
    if first.low != ZERO or second.low != ZERO:
        raise error("E302", "fuse: both loops must start at 0")
    if first.kind != second.kind or first.kind not in ("serial", "unroll"):
        got = f"got {first.kind} and {second.kind}"
        raise error("E302", f"fuse({outer}, {inner}): the loops are of different kinds", got)
    if any(mentions(e, first.var) for e in (second.low, second.extent)):
        raise error("E302", f"fuse({outer}, {inner}): the range of {inner} depends on {outer}")
    _require_starts(func, first, second)
    var = Var(claim(func, name, "fuse") if name else fresh(func, f"{outer}_{inner}"))
    values: dict[Var, Expr] = {
        first.var: binary("floordiv", var, second.extent),
        second.var: binary("mod", var, second.extent),
    }
    if extent_of(second) == 1:
        values = {first.var: var, second.var: ZERO}
    elif extent_of(first) == 1:
        values = {first.var: ZERO, second.var: var}
    body = substitute(second.body, values)
    extent = first.extent * second.extent
    fused = For(var, ZERO, extent, _fused_kind(first.kind, extent), body)
    return replace_stmt(func, first, fused)


def _require_starts(func: Func, first: For, second: For) -> None:
    index = indexer((), func.dims)
    for b in (p.block for p in places(second)):
        if b.init is None:
            continue
        pairs = list(zip(b.iters, b.bindings, strict=True))
        for f, other in ((first, second), (second, first)):
            over = any(it.kind == "reduce" and mentions(v, f.var) for it, v in pairs)
            kept = any(it.kind != "reduce" and mentions(v, other.var) for it, v in pairs)
            if over and kept and not index.proves(binary("ge", f.extent, 1)):
                raise error(
                    "E303",
                    f"fuse({first.var.name}, {second.var.name}): where {f.var.name} is empty, "
                    f"nothing would start the reduction {b.name}",
                    "decompose_reduction first",
                )


def _fused_kind(kind: ForKind, extent: Expr) -> ForKind:
    """An unrolled loop stays so while its copies are few."""
    few = isinstance(extent, Const) and int(extent.value) <= MAX_UNROLL
    return kind if few else "serial"


@primitive(reassociating=True)
def reorder(func: Func, *loops: str) -> Func:
    """Permute loops of one perfect nest; the named loops take the given order.

    before: ``for i: for j: S``   after ``reorder("j", "i")``: ``for j: for i: S``.
    Legal when every block inside declares its iterators over these loops spatial or reduce;
    float reductions may round differently.
    """
    found = [find_loop(func, name) for name in loops]
    top = next((f for f in found if all(_contains(f, g) for g in found)), None)
    if top is None:
        raise error("E302", f"reorder: loops {', '.join(loops)} are not nested in one another")
    if len(set(loops)) != len(loops):
        raise error("E302", f"reorder({', '.join(loops)}): a loop is named twice")
    chain = _perfect_chain(top, {f.var for f in found})
    _require_fixed_ranges(chain)
    require_reorderable(func, top, tuple(f.var for f in found))
    if len(list(places(top))) > 1:  # several blocks: their order per iteration changes
        for f in found:
            require_independent(func, f, "reorder")
    slots = iter(found)
    order = tuple(next(slots) if f in found else f for f in chain)
    return replace_stmt(func, top, nest(order, chain[-1].body))


@primitive(reassociating=True)
def tile(
    func: Func,
    loops: Sequence[str],
    factors: Sequence[int],
    names: Sequence[tuple[str, str]] = (),
) -> Func:
    """Split several loops of one perfect nest, and move the inner ones inside.

    before: ``for i in 0..N: for j in 0..M: S(i, j)``
    after ``tile(("i", "j"), (4, 8))``:
    ``for io: for jo: for ii in 0..4: for ji in 0..8: S(io*4+ii, jo*8+ji)``
    with the guards of ``split``. `names` are pairs of an outer and an inner name. Legal where
    ``reorder`` is.
    """
    step = f"tile({', '.join(loops)})"
    if len(loops) < 1 or len(factors) != len(loops) or len(names) not in (0, len(loops)):
        raise error("E302", f"{step}: each loop takes one factor and one pair of names, or none")
    outer, inner = [], []
    for k, (loop, factor) in enumerate(zip(loops, factors, strict=True)):
        at = find_loop(func, loop)
        pair = _split_names(func, loop, names[k] if names else ("", ""))
        func = split(func, at.var.name, factor, pair)  # type: ignore[assignment]
        outer.append(pair[0])
        inner.append(pair[1])
    return reorder(func, *outer, *inner)  # type: ignore[return-value]


@primitive()
def predicate(func: Func, loop: str, multiple: int) -> Func:
    """Round a loop up to a multiple, with its body guarded, so that later steps find full tiles.

    before: ``for i in 0..N: S(i)``
    after:  ``for i in 0..ceil(N/m)*m: if i < N: S(i)``
    The guard becomes a mask where the loop becomes lanes. Always legal. Where the excess may run
    unguarded, ``clamp_tail`` is the faster one.
    """
    old = find_loop(func, loop)
    if multiple < 1 or "." in old.kind:
        raise error(
            "E302", f"predicate({loop}, {multiple}): it does not apply to a {old.kind} loop"
        )
    count = Indexer().simplify(_ceildiv(old.extent, multiple) * multiple)
    if count == old.extent:
        return func
    limit = {"unroll": MAX_UNROLL, "vectorize": MAX_LANES}.get(old.kind)
    if limit is not None and not (isinstance(count, Const) and int(count.value) <= limit):
        raise error("E302", f"predicate({loop}, {multiple}): more than {limit} iterations")
    body = push_guard(old.body, binary("lt", old.var, old.low + old.extent))
    return replace_stmt(func, old, replace(old, extent=count, body=body))


def _require_fixed_ranges(chain: tuple[For, ...]) -> None:
    for k, outer in enumerate(chain):
        for inner in chain[k + 1 :]:
            if any(mentions(e, outer.var) for e in (inner.low, inner.extent)):
                name = f"the range of {inner.var.name} depends on {outer.var.name}"
                raise error("E302", f"reorder: {name}")


def _contains(outer: For, loop: For) -> bool:
    node: Stmt = outer
    while isinstance(node, For):
        if node is loop:
            return True
        node = node.body
    return False


def _perfect_chain(top: For, wanted: set[Var]) -> tuple[For, ...]:
    chain: list[For] = []
    node: Stmt = top
    missing = set(wanted)
    while missing:
        assert isinstance(node, For), "the loops form a perfect nest"
        chain.append(node)
        missing.discard(node.var)
        node = node.body
    return tuple(chain)


@primitive()
def unroll(func: Func, loop: str) -> Func:
    """Mark a loop to be unrolled when code is printed: one of constant extent, or of an extent that
    is constant in each copy of unrolled loops around it. Always legal."""
    old = find_loop(func, loop)
    n = extent_of(old)
    if n is None:
        n = _most_turns(func, old)
    if n is None or n > MAX_UNROLL:
        notes = (f"expected a constant extent of at most {MAX_UNROLL}", f"got {n}")
        raise error("E302", f"unroll({loop}): the extent does not fit", *notes)
    done = _set_kind(func, old, "unroll")
    if all(f is not old for f in loops_of(done.body)):
        return done
    marked = replace(old, kind="unroll")  # it stands inside of a block
    body = transform_statements(func.body, lambda n: marked if n is old else n)
    return replace(func, body=body)


def _most_turns(func: Func, loop: For) -> int | None:
    """The greatest extent of a loop where unrolled loops around it decide on it."""
    around = [f for f in loops_of(func.body) if f.kind == "unroll" and _holds(f, loop)]
    if not variables(loop.extent) <= {f.var for f in around}:
        return None
    most = indexer(tuple(around)).bounds(loop.extent)[1]
    return int(most) if isfinite(most) else None


def _holds(outer: For, loop: For) -> bool:
    return any(f is loop for f in loops_of(outer.body))


@primitive()
def vectorize(func: Func, loop: str) -> Func:
    """Execute all iterations of an innermost loop at once, as lanes of a vector.

    Legal when the iterations are independent of each other.
    """
    old = find_loop(func, loop)
    n = extent_of(old)
    if n is None or n > MAX_LANES:
        notes = (f"expected a constant extent of at most {MAX_LANES}", f"got {n}")
        raise error("E302", f"vectorize({loop}): the extent does not fit", *notes)
    require_independent(func, old, "vectorize")
    return _set_kind(func, old, "vectorize")


@primitive()
def parallel(func: Func, loop: str) -> Func:
    """Divide the iterations of a loop among the SPMD threads.

    Legal when the iterations are independent of each other, and the loop stands alone in its
    outermost nest: threads meet between outermost statements only, so different iterations must
    not conflict in any iterations of the loops around.
    """
    old = find_loop(func, loop)
    require_independent(func, old, "parallel", apart=True)
    return _set_kind(func, old, "parallel")


def _set_kind(func: Func, old: For, kind: ForKind) -> Func:
    return replace_stmt(func, old, replace(old, kind=kind))


@primitive(with_instructions=True)
def annotate(func: Func, loop: str, key: str, value: Attribute) -> Func:
    """Attach a hint to a loop; hints never change meaning."""
    old = find_loop(func, loop)
    notes = tuple({**dict(old.annotations), key: value}.items())
    return replace_stmt(func, old, replace(old, annotations=notes))
