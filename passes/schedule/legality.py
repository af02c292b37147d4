"""Legality of schedule steps: cheap sufficient tests first, then exact integer sets.

A refusal is E303 with a concrete witness: two executions of blocks, their loop values, and the
element on which they conflict; :class:`Witness` can be replayed by the interpreter. What stays
undecided is refused with E304.
"""

from __future__ import annotations

from aisc.ir.diagnostics import CompileError, Diagnostic, error
from aisc.ir.tensor.expr import ONE, Expr, Var, of_dim
from aisc.ir.tensor.func import Buffer, Func, row_major
from aisc.ir.tensor.linear import Indexer, Linear, mentions
from aisc.ir.tensor.stmt import Block, For, Stmt
from aisc.ir.tensor.tree import indexer, outer_loops, places
from aisc.ir.tensor.visitor import substitute
from aisc.passes.schedule.dependence import (
    Access,
    Names,
    Order,
    Witness,
    accesses_under,
    declared_under,
    meet,
    private_to,
)
from aisc.passes.schedule.digits import axes_of, determined
from aisc.passes.schedule.sets import NotAffine, Undecided, affine


class ScheduleError(CompileError):
    """A refused step; `witness` is set when the refusal is proved by two executions, of `func`."""

    def __init__(self, diagnostic: Diagnostic, func: Func, witness: Witness | None = None) -> None:
        super().__init__(diagnostic)
        self.func = func
        self.witness = witness


def require_reorderable(func: Func, top: For, moved: tuple[Var, ...]) -> None:
    """Loops that *ordered* iterators of blocks below `top` are bound to stay in their order;
    `moved` are the loops in their new one."""
    for place in places(top):
        around = [f.var for f in place.loops]
        for it in place.block.iters:
            used = _ordered(place.block, moved)
            if it.kind == "ordered" and used != sorted(used, key=around.index):
                raise error(
                    "E303",
                    f"reorder: iterator {it.var.name} of block {place.block.name} is ordered",
                    f"{func.name}: its iterations must run in ascending order",
                )


def _ordered(block: Block, loops: tuple[Var, ...]) -> list[Var]:
    """Those of `loops` that a block's ordered iterators are bound to."""
    pairs = zip(block.iters, block.bindings, strict=True)
    values = [value for it, value in pairs if it.kind == "ordered"]
    return [v for v in loops if any(mentions(value, v) for value in values)]


def require_independent(func: Func, loop: For, step: str, apart: bool = False) -> None:
    """Different iterations of `loop` must not conflict on any element (E303, E304): those of one
    iteration of the loops around it, or `apart`, of any two."""
    outer = outer_loops(func, loop)
    shared = () if apart else outer
    if not _open_buffers(func, loop, shared, list(declared_under(loop, outer))):
        return
    found = accesses_under(loop.body, (*outer, loop))
    for buffer in _open_buffers(func, loop, shared, found):
        group = [a for a in found if a.buffer == buffer]
        pairs = [(a, b) for a in group if a.write for b in group]
        name = f"{step}({loop.var.name})"
        require_apart(
            func, pairs, shared, _differ(loop), name, "choose a loop over a spatial iterator"
        )


def _open_buffers(
    func: Func, loop: For, shared: tuple[For, ...], found: list[Access]
) -> list[Buffer]:
    """Written buffers of which the cheap tests do not say that iterations take different parts."""
    private, result = private_to(loop.body), []
    for buffer in dict.fromkeys(a.buffer for a in found if a.write and a.buffer not in private):
        group = [a for a in found if a.buffer == buffer]
        if not _disjoint_by_radix(loop, shared, group, func.dims) and not _disjoint_by_digits(
            loop, shared, group, func.dims
        ):
            result.append(buffer)
    return result


def _differ(loop: For) -> Order:
    return lambda a, b: [f"{a[loop.var]} != {b[loop.var]}"]


def conflicts(first: list[Access], second: list[Access]) -> list[tuple[Access, Access]]:
    """Pairs of accesses of one buffer of which one writes."""
    return [(a, b) for a in first for b in second if a.buffer == b.buffer and (a.write or b.write)]


def require_apart(
    func: Func,
    pairs: list[tuple[Access, Access]],
    shared: tuple[For, ...],
    order: Order,
    step: str,
    remedy: str,
) -> None:
    """No pair may meet in an element in executions related by `order`: E303 with the witness,
    E304 where it is not known."""
    for a, b in pairs:
        try:
            witness = meet(a, b, shared, func.dims, order)
        except (NotAffine, Undecided) as why:
            raise unproved(func, step, f"accesses of {a.buffer.name}", why) from why
        if witness is not None:
            notes = (str(witness), remedy)
            illegal = Diagnostic("E303", f"{step} is illegal in {func.name}", func.loc, notes)
            raise ScheduleError(illegal, func, witness)


def require_sequence(
    func: Func, loops: tuple[For, For], parts: tuple[Stmt, Stmt], step: str
) -> None:
    """No later iteration of the first loop over the first part may conflict with an earlier one of
    the second over the second: then the parts may run one after the other or turn by turn."""
    outer = outer_loops(func, loops[0])
    first, second = (accesses_under(p, (*outer, f)) for p, f in zip(parts, loops, strict=True))
    pairs = conflicts(first, second)
    same = {loops[1].var: loops[0].var + (loops[1].low - loops[0].low)}
    turned = accesses_under(
        substitute(parts[1], same) if loops[0] is not loops[1] else parts[1], (*outer, loops[0])
    )
    for buffer in dict.fromkeys(a.buffer for a, _ in pairs):
        group = [a for a in (*first, *turned) if a.buffer == buffer]
        if not _disjoint_by_digits(loops[0], outer, group, func.dims):
            own = [(a, b) for a, b in pairs if a.buffer == buffer]
            require_apart(func, own, outer, _later(*loops), step, "keep the order of these blocks")


def _later(first: For, second: For) -> Order:
    """The first execution is in a later turn of its loop than the second one of its own."""

    def order(a: Names, b: Names) -> list[str]:
        lows = affine(first.low, dict(a)), affine(second.low, dict(b))
        return [f"{a[first.var]} - {lows[0]} > {b[second.var]} - {lows[1]}"]

    return order


def unproved(func: Func, step: str, what: str, why: Exception) -> ScheduleError:
    """The refusal of a step that may be legal."""
    note = f"{what} are not decidable: {why}"
    unknown = Diagnostic("E304", f"{step} could not be proved legal", func.loc, (note,))
    return ScheduleError(unknown, func)


def _disjoint_by_radix(
    loop: For, outer: tuple[For, ...], group: list[Access], dims: tuple[Var, ...]
) -> bool:
    """Sufficient: all accesses have one index form, and its terms are mixed-radix digits.

    If every coefficient exceeds the sum of what the smaller terms can reach, different values of
    the digits give different addresses; `loop` must be one of the digits.
    """
    forms = {(a.low, a.extent) for a in group}
    if len(forms) != 1 or any(e != ONE for e in group[0].extent):
        return False
    access = group[0]
    index = indexer(access.place.loops, dims)
    strides = row_major(access.buffer.shape)
    address: Expr = of_dim(0)
    for i, s in zip(access.low, strides, strict=True):
        address = address + i * of_dim(s)
    fixed = {f.var for f in outer}
    return _is_radix(index, index.linear(address), loop.var, fixed)


def _disjoint_by_digits(
    loop: For, outer: tuple[For, ...], group: list[Access], dims: tuple[Var, ...]
) -> bool:
    """Sufficient: the element that an access touches determines the value of `loop`."""
    return _determined((loop,), outer, group, dims)


def own_elements(func: Func, loops: tuple[For, ...], group: list[Access]) -> bool:
    """Sufficient: the element that an access of `group` touches says in which iteration of all of
    `loops` it does, so that no two iterations touch one element."""
    return _determined(loops, (), group, func.dims)


def _determined(
    loops: tuple[For, ...], outer: tuple[For, ...], group: list[Access], dims: tuple[Var, ...]
) -> bool:
    """Whether the element of an access determines the value of each of `loops`, given those before
    it and `outer`."""
    around = {id(a.place.loops): a.place.loops for a in group}
    ranges = indexer(tuple({f.var: f for found in around.values() for f in found}.values()), dims)
    axes = axes_of(tuple(zip(a.low, a.extent, strict=True)) for a in group)
    fixed = [*dims, *(f.var for f in outer)]
    for loop in loops:
        if not determined(loop.var, axes, ranges, frozenset(fixed)):
            return False
        fixed.append(loop.var)
    return True


def _is_radix(index: Indexer, form: Linear, var: Var, fixed: set[Var]) -> bool:
    digits: list[tuple[int, float]] = []
    seen = False
    for mono, c in form.terms:
        if all(isinstance(a, Var) and a in fixed for a in mono):
            continue
        if len(mono) != 1 or not isinstance(mono[0], Var):
            return False
        low, high = index.ranges.get(mono[0].name, (0.0, float("inf")))
        digits.append((abs(c), high - low))
        seen = seen or mono[0] == var
    reach = 0.0
    for c, span in sorted(digits):
        if c <= reach:
            return False
        reach += c * span
    return seen
