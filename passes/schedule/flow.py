"""Whether an iteration reads only what it has written itself: what makes a buffer private to it."""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import Diagnostic
from aisc.ir.tensor.expr import TRUE, ZERO, Const, Expr, Var
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.linear import Indexer, Linear, mentions
from aisc.ir.tensor.stmt import For, Stmt
from aisc.ir.tensor.tree import Place, indexer, outer_loops, places
from aisc.passes.schedule.dependence import (
    Access,
    Names,
    Space,
    Witness,
    accesses_of,
    meet,
    started_loops,
)
from aisc.passes.schedule.legality import ScheduleError, unproved
from aisc.passes.schedule.sets import NotAffine, Part, Problem, Undecided


def require_own_values(func: Func, buffer: Buffer, scope: For, step: str) -> None:
    """Each iteration of `scope` writes every element of `buffer` before it reads it: E303 with two
    iterations of which one reads what the other wrote, E304 where it is not known."""
    outer = outer_loops(func, scope)
    require_written_before(func, buffer, scope.body, (*outer, scope), step)


def require_written_before(
    func: Func, buffer: Buffer, root: Stmt, around: tuple[For, ...], step: str
) -> None:
    """Each execution of `root`, in the loops `around`, writes every element of `buffer` before it
    reads it."""
    found = [
        _Numbered(n, replace(a, place=_within(a, around)))
        for n, a in enumerate(x for p in places(root) if _uses(p, buffer) for x in accesses_of(p))
        if a.buffer == buffer
    ]
    writes = [w for w in found if w.access.write]
    started = started_loops(root)
    ranges = indexer(around, func.dims)
    for read in (r for r in found if not r.access.write):
        if any(_covers(w, read, len(around), ranges) for w in writes):
            continue
        try:
            point = _unwritten(func, read, writes, around, started)
        except (NotAffine, Undecided) as why:
            raise unproved(func, step, f"reads of {buffer.name}", why) from why
        if point:
            raise _refusal(func, read.access, [w.access for w in writes], around, step)


@dataclass(frozen=True, slots=True)
class _Numbered:
    """An access with its place in program order."""

    order: int
    access: Access


def _within(access: Access, around: tuple[For, ...]) -> Place:
    return replace(access.place, loops=(*around, *access.place.loops))


def _uses(place: Place, buffer: Buffer) -> bool:
    return any(r.buffer == buffer for r in (*place.block.reads, *place.block.writes))


def _covers(write: _Numbered, read: _Numbered, depth: int, ranges: Indexer) -> bool:
    """Sufficient: an earlier, unconditional nest writes the same box: along each axis both move by
    loops of the same steps and ranges, and no loop of the write moves along two axes."""
    w, r = write.access, read.access
    mine, theirs = w.place.loops[depth:], r.place.loops[depth:]
    if write.order > read.order or w.place.predicate != TRUE or w.extent != r.extent:
        return False
    if w.place.block is r.place.block:
        return w.low == r.low and _starts_within(w.place, mine)
    if w.conds or any(f is g for f in mine for g in theirs):
        return False
    used: list[Var] = []
    for a, b in zip(w.low, r.low, strict=True):
        first, second = _steps(ranges, a, mine), _steps(ranges, b, theirs)
        if first is None or second is None or first[:2] != second[:2]:
            return False
        used += first[2]
    others = [f.extent for f in mine if f.var not in used]
    runs = all(isinstance(e, Const) and int(e.value) > 0 for e in others)
    return runs and len(set(used)) == len(used)


def _starts_within(place: Place, loops: tuple[For, ...]) -> bool:
    """Whether all loops that a reduction runs over are among `loops`, from its first turn on, so
    that its initialisation comes first."""
    inside = {f.var: f for f in loops}
    block = place.block
    if block.init is None:
        return False
    pairs = zip(block.iters, block.bindings, strict=True)
    values = [v for it, v in pairs if it.kind == "reduce"]
    return all(
        f.var in inside and f.low == ZERO
        for f in place.loops
        if any(mentions(v, f.var) for v in values)
    )


def _steps(
    ranges: Indexer, index: Expr, loops: tuple[For, ...]
) -> tuple[Linear, list[tuple[int, Expr, Expr]], list[Var]] | None:
    """An index as a fixed part, (step, low, extent) of the loops that move it, and their names;
    ``None`` where it does not move by steps."""
    form = ranges.linear(index)
    by_var = {f.var: f for f in loops}
    fixed, moving, used = [], [], []
    for mono, c in form.terms:
        loop = by_var.get(mono[0]) if len(mono) == 1 and isinstance(mono[0], Var) else None
        if loop is not None:
            moving.append((c, loop.low, loop.extent))
            used.append(loop.var)
        elif any(mentions(atom, v) for atom in mono for v in by_var):
            return None
        else:
            fixed.append((mono, c))
    moving.sort(key=lambda step: (step[0], str(step[1:])))
    return Linear(tuple(fixed), form.const), _joined(moving), used


def _joined(moving: list[tuple[int, Expr, Expr]]) -> list[tuple[int, Expr, Expr]]:
    """Steps in ascending order, with those that go on where the one before ends made one:
    ``16*a + b`` with a < 2, b < 16 takes the values of one loop up to 32."""
    result: list[tuple[int, Expr, Expr]] = []
    for step, low, extent in moving:
        if result and low == ZERO and isinstance(extent, Const):
            c, start, size = result[-1]
            if start == ZERO and isinstance(size, Const) and step == c * int(size.value):
                result[-1] = c, ZERO, Const(int(size.value) * int(extent.value))
                continue
        result.append((step, low, extent))
    return result


def _unwritten(
    func: Func,
    read: _Numbered,
    writes: list[_Numbered],
    around: tuple[For, ...],
    started: list[For],
) -> bool:
    """Whether some execution reads an element that none before it in the same `around` wrote."""
    space = Space(func.dims, frozenset(f.var for f in around))
    common = {f.var: f"o{k}" for k, f in enumerate(around)}
    space.names.extend(common.values())
    for f in around:
        space.range(f, common)
    own = space.side("r", read.access, common)
    element = [f"e{k}" for k in range(read.access.buffer.rank)]
    space.names.extend(element)
    space.inside(read.access, own, element)
    space.started(started, common)
    parts = [p for w in writes if (p := _part(space, w, read, own, common, element)) is not None]
    sizes = tuple(f"{p} >= 0" for p in space.params()[: len(func.dims)])
    names, constraints = tuple(space.names), (*space.constraints, *sizes)
    problem = Problem(names, space.params(), constraints, tuple(parts))
    if problem.sample() is None:
        return False
    if not space.exact or len(parts) < len(writes):
        raise Undecided("an index, a condition or a size is not affine")
    return True


def _part(
    space: Space,
    write: _Numbered,
    read: _Numbered,
    own: Names,
    common: Names,
    element: list[str],
) -> Part | None:
    """The reads that find what `write` wrote; ``None`` when it cannot be said exactly."""
    inner = Space(space.dims, space.fixed, sizes=space.sizes)
    try:
        rename = inner.side("w", write.access, common)
        inner.inside(write.access, rename, element)
    except NotAffine:
        return None
    if inner.dropped:
        return None
    inner.constraints.append(_before(write, read, rename, own, common))
    return Part(tuple(inner.names), tuple(inner.constraints))


def _before(write: _Numbered, read: _Numbered, rename: Names, own: Names, common: Names) -> str:
    """The write comes before the read: in an earlier turn of a loop around both, or in the same
    turns and earlier in the program."""
    shared = []
    for f, g in zip(write.access.place.loops, read.access.place.loops, strict=False):
        if f is not g:
            break
        if f.var not in common:
            shared.append((rename[f.var], own[f.var]))
    ways = []
    for k, (w, r) in enumerate(shared):
        ways.append(" and ".join([*(f"{a} = {b}" for a, b in shared[:k]), f"{w} < {r}"]))
    if write.order < read.order:
        ways.append(" and ".join(f"{a} = {b}" for a, b in shared) or "true")
    return f"({' or '.join(f'({way})' for way in ways) or 'false'})"


def _refusal(
    func: Func, read: Access, writes: list[Access], around: tuple[For, ...], step: str
) -> ScheduleError:
    """E303, with another iteration that writes what is read, where one is found."""
    witness: Witness | None = None
    notes: tuple[str, ...] = (f"block {read.place.block.name} reads it before it is written",)
    if around:
        scope = around[-1].var
        for w in writes:
            try:
                witness = meet(
                    w, read, around[:-1], func.dims, lambda a, b: [f"{a[scope]} != {b[scope]}"]
                )
            except (NotAffine, Undecided):
                continue
            if witness is not None:
                notes = (str(witness), f"an iteration of {scope.name} reads what another one wrote")
                break
    message = f"{step}: {read.buffer.name} is not private to one iteration"
    return ScheduleError(Diagnostic("E303", message, func.loc, notes), func, witness)
