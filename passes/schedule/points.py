"""Which points of its domain a block executes, and which elements of a buffer a nest writes."""

from __future__ import annotations

from aisc.ir.diagnostics import error
from aisc.ir.tensor.expr import TRUE, Binary, Const, Expr, Var, of_dim
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.linear import Indexer, Linear
from aisc.ir.tensor.stmt import For, Stmt
from aisc.ir.tensor.tree import Place, conjuncts, indexer, places
from aisc.passes.schedule.dependence import Space, accesses_of, started_loops
from aisc.passes.schedule.legality import unproved
from aisc.passes.schedule.sets import NotAffine, Part, Problem, Undecided

# Points as values of a block's spatial iterators; how they are reached, by the loops around.


def require_whole(func: Func, place: Place, step: str) -> None:
    """The block executes every point of its spatial domain (E303, E304)."""
    if _is_plain(func, place) or fills_domain(func, place):
        return
    space = Space(func.dims)
    for k, it in enumerate(_spatial(place)):
        space.names.append(f"v{k}")
        space.constraints.append(f"0 <= v{k} < {space.text(it, {})}")
    if _missing(func, space, [place], step):
        raise error("E303", f"{step}: block {place.block.name} executes a part of its domain only")


def require_same_points(func: Func, old: Place, new: Place, step: str) -> None:
    """Both places of a block execute the same points (E303, E304)."""
    plain = _is_plain(func, old)
    for first, second, what in ((old, new, "miss"), (new, old, "add")):
        if plain and (second is old or fills_domain(func, new)):
            continue  # the other one is guarded by the extents
        space = Space(func.dims)
        for k in range(len(_spatial(first))):
            space.names.append(f"v{k}")
        try:
            part = _reached(space, first)
        except NotAffine as why:
            raise unproved(func, step, "its points", why) from why
        if part is None:
            raise unproved(func, step, "its points", NotAffine("a condition"))
        space.names.extend(part.names)
        space.constraints.extend(part.constraints)
        if _missing(func, space, [second], step):
            raise error("E303", f"{step} would {what} iterations of block {old.block.name}")


def require_all_written(func: Func, buffer: Buffer, root: Stmt, step: str) -> None:
    """The nest `root` writes every element of a buffer (E303, E304)."""
    space = Space(func.dims)
    element = [f"e{k}" for k in range(buffer.rank)]
    space.names.extend(element)
    parts, certain = [], True
    try:
        for e, size in zip(element, buffer.shape, strict=True):
            space.constraints.append(f"0 <= {e} < {space.text(of_dim(size), {})}")
        space.started(started_loops(root), {})
        for a in (a for p in places(root) for a in accesses_of(p)):
            if a.write and a.buffer == buffer:
                inner = Space(func.dims, sizes=space.sizes)
                inner.inside(a, inner.side("w", a, {}), element)
                certain = certain and not inner.dropped
                if not inner.dropped:
                    parts.append(Part(tuple(inner.names), tuple(inner.constraints)))
        missing = _any_left(space, parts, certain)
    except (NotAffine, Undecided) as why:
        raise unproved(func, step, f"writes of {buffer.name}", why) from why
    if missing:
        raise error("E303", f"{step}: the nest does not write all of {buffer.name}")


def _spatial(place: Place) -> list[Expr]:
    return [it.extent for it in place.block.iters if it.kind == "spatial"]


def _is_plain(func: Func, place: Place) -> bool:
    """Whether each spatial iterator is a loop of its own with the iterator's range."""
    if place.predicate != TRUE:
        return False
    loops = {f.var: f for f in place.loops}
    index = indexer((), func.dims)
    seen: list[Var] = []
    for it, value in zip(place.block.iters, place.block.bindings, strict=True):
        if it.kind != "spatial":
            continue
        loop = loops.get(value) if isinstance(value, Var) else None
        if loop is None or loop.var in seen or index.linear(loop.low).terms:
            return False
        if index.linear(loop.extent) != index.linear(it.extent) or index.linear(loop.low).const:
            return False
        seen.append(loop.var)
    return True


def fills_domain(func: Func, place: Place) -> bool:
    """Sufficient: the block executes every point of its domain, since tiles fill it. Each spatial
    iterator is a number whose digits are loops of its own, the first of which goes far enough, and
    all conditions hold inside of the domain."""
    index, loops = indexer((), func.dims), {f.var: f for f in place.loops}
    bounds, used = set[Linear](), set[Var]()
    for it, value in zip(place.block.iters, place.block.bindings, strict=True):
        if it.kind != "spatial":
            continue
        form = index.linear(value)
        digits = [(c, loops[m[0]]) for m, c in form.terms if len(m) == 1 and m[0] in loops]
        own = {f.var for _, f in digits}
        if form.const or len(own) != len(form.terms) or own & used:
            return False
        if not _reach(digits, it.extent, index):
            return False
        used |= own
        bounds.add(index.linear(value - it.extent))
    others = (f for v, f in loops.items() if v not in used)
    return all(_count(f) > 0 for f in others) and all(
        isinstance(c, Binary) and c.op == "lt" and index.linear(c.a - c.b) in bounds
        for c in conjuncts(place.predicate)
    )


def _reach(digits: list[tuple[int, For]], extent: Expr, index: Indexer) -> bool:
    """Whether numbers of these digits, with their weights, are all those below `extent`."""
    weight, last = 1, None
    for c, loop in sorted(digits, key=lambda d: d[0]):
        if index.linear(loop.low) != Linear((), 0):
            return False
        if _count(loop) == 1:
            continue
        if last is not None:
            weight *= _count(last)
        if c != weight:
            return False
        last = loop
    if last is None:
        left = index.linear(of_dim(1) - extent)
        return not left.terms and left.const >= 0
    e = last.extent
    if isinstance(e, Binary) and e.op == "floordiv" and e.b == Const(weight):
        more = index.linear(e.a - extent)  # (extent + weight - 1) // weight of them
        return not more.terms and more.const >= weight - 1
    more = index.linear(e * weight - extent)
    return not more.terms and more.const >= 0


def _count(loop: For) -> int:
    """How many turns a loop has; 0 where that is not known."""
    return int(loop.extent.value) if isinstance(loop.extent, Const) else 0


def _missing(func: Func, space: Space, reached: list[Place], step: str) -> bool:
    try:
        parts = [p for place in reached if (p := _reached(space, place)) is not None]
        return _any_left(space, parts, len(parts) == len(reached))
    except (NotAffine, Undecided) as why:
        raise unproved(func, step, "its points", why) from why


def _reached(space: Space, place: Place) -> Part | None:
    """The points ``v0, v1, ...`` that the loops reach; ``None`` if a condition is not affine."""
    inner = Space(space.dims, sizes=space.sizes)
    rename: dict[Var, str] = {}
    for k, f in enumerate(place.loops):
        rename[f.var] = f"l{len(space.names)}_{k}"
        inner.names.append(rename[f.var])
        inner.range(f, rename)
    inner.condition(place.predicate, rename)
    k = 0
    for it, value in zip(place.block.iters, place.block.bindings, strict=True):
        if it.kind == "spatial":
            inner.constraints.append(f"v{k} = {inner.text(value, rename)}")
            k += 1
    return None if inner.dropped else Part(tuple(inner.names), tuple(inner.constraints))


def _any_left(space: Space, parts: list[Part], certain: bool) -> bool:
    """Whether a point is in none of the parts; :class:`Undecided` where that is not certain."""
    sizes = tuple(f"{p} >= 0" for p in space.params()[: len(space.dims)])
    constraints = (*space.constraints, *sizes)
    problem = Problem(tuple(space.names), space.params(), constraints, tuple(parts))
    if problem.sample() is None:
        return False
    if not (space.exact and certain):
        raise Undecided("an index, a condition or a size is not affine")
    return True
