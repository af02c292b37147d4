"""Legality of schedule steps: cheap sufficient tests first, then exact integer sets.

A refusal is E303 with a concrete witness: two executions of blocks, their loop values, and the
element on which they conflict; :class:`Witness` can be replayed by the interpreter. What stays
undecided is refused with E304.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from aisc.ir.arith.linear import Indexer, Linear, mentions
from aisc.ir.diagnostics import CompileError, Diagnostic, error
from aisc.ir.node import walk
from aisc.ir.tensor.expr import ONE, TRUE, Expr, Var, of_dim
from aisc.ir.tensor.func import Buffer, Func, row_major
from aisc.ir.tensor.stmt import Alloc, For
from aisc.ir.tensor.visitor import substitute
from aisc.passes.schedule.digits import determined
from aisc.passes.schedule.sets import NotAffine, Problem, Undecided, affine, condition
from aisc.passes.schedule.tree import Place, indexer, places


@dataclass(frozen=True, slots=True)
class Access:
    """One region touched by one block, in terms of the loops around the block."""

    place: Place
    buffer: Buffer
    low: tuple[Expr, ...]
    extent: tuple[Expr, ...]
    write: bool


@dataclass(frozen=True, slots=True)
class Witness:
    """Two executions that touch the same element, at least one of them writing."""

    first: str
    second: str
    first_loops: tuple[tuple[str, int], ...]
    second_loops: tuple[tuple[str, int], ...]
    buffer: str
    index: tuple[int, ...]
    first_writes: bool
    second_writes: bool

    def __str__(self) -> str:
        def side(block: str, loops: tuple[tuple[str, int], ...], writes: bool) -> str:
            at = ", ".join(f"{k}={v}" for k, v in loops)
            return f"block {block} at {at} {'writes' if writes else 'reads'}"

        element = f"{self.buffer}[{', '.join(map(str, self.index))}]"
        first = side(self.first, self.first_loops, self.first_writes)
        return f"{first} {element}, {side(self.second, self.second_loops, self.second_writes)} it"


class ScheduleError(CompileError):
    """A refused step; `witness` is set when the refusal is proved by two executions."""

    def __init__(self, diagnostic: Diagnostic, witness: Witness | None = None) -> None:
        super().__init__(diagnostic)
        self.witness = witness


def accesses_under(loop: For, outer: tuple[For, ...] = ()) -> Iterator[Access]:
    """Accesses of all blocks below `loop` to buffers that are not allocated below it; `outer` are
    the loops around it."""
    private = {n.buffer for n in walk(loop.body) if isinstance(n, Alloc)}
    for inner in places(loop):
        place = replace(inner, loops=(*outer, *inner.loops))
        bound = {
            it.var: value for it, value in zip(place.block.iters, place.block.bindings, strict=True)
        }
        for regions, write in ((place.block.reads, False), (place.block.writes, True)):
            for r in regions:
                if r.buffer not in private:
                    yield Access(
                        place,
                        r.buffer,
                        tuple(substitute(e, bound) for e in r.low),
                        tuple(substitute(e, bound) for e in r.extent),
                        write,
                    )


def require_reorderable(func: Func, top: For, moved: tuple[Var, ...]) -> None:
    """Blocks below `top` must not bind *ordered* iterators to the moved loops."""
    for place in places(top):
        for it, value in zip(place.block.iters, place.block.bindings, strict=True):
            if it.kind == "ordered" and any(mentions(value, v) for v in moved):
                raise error(
                    "E303",
                    f"reorder: iterator {it.var.name} of block {place.block.name} is ordered",
                    f"{func.name}: its iterations must run in ascending order",
                )


def require_independent(func: Func, loop: For, step: str) -> None:
    """Different iterations of `loop` must not conflict on any element (E303, E304)."""
    outer = outer_loops(func, loop)
    found = list(accesses_under(loop, outer))
    written = dict.fromkeys(a.buffer for a in found if a.write)
    for buffer in written:
        group = [a for a in found if a.buffer == buffer]
        if _disjoint_by_radix(loop, outer, group, func.dims):
            continue
        if not _disjoint_by_digits(loop, outer, group, func.dims):
            _require_disjoint(func, loop, outer, group, step)


def outer_loops(func: Func, loop: For) -> tuple[For, ...]:
    """The loops around `loop`, outermost first."""
    for place in places(func.body):
        if loop in place.loops:
            return place.loops[: [f is loop for f in place.loops].index(True)]
    return ()


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
    fixed = frozenset((*dims, *(f.var for f in outer)))
    ranges = indexer(tuple({f.var: f for a in group for f in a.place.loops}.values()), dims)
    windows = [tuple(zip(a.low, a.extent, strict=True)) for a in group]
    return determined(loop.var, windows, ranges, fixed)


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


def _require_disjoint(
    func: Func, loop: For, outer: tuple[For, ...], group: list[Access], step: str
) -> None:
    for a in (x for x in group if x.write):
        for b in group:
            try:
                witness = conflict(a, b, loop, outer, func.dims)
            except (NotAffine, Undecided) as why:
                name = loop.var.name
                raise ScheduleError(
                    Diagnostic(
                        "E304",
                        f"{step}({name}) could not be proved legal",
                        func.loc,
                        (f"accesses of {a.buffer.name} are not decidable: {why}",),
                    )
                ) from why
            if witness is not None:
                raise ScheduleError(
                    Diagnostic(
                        "E303",
                        f"{step}({loop.var.name}) is illegal in {func.name}",
                        func.loc,
                        (str(witness), "choose a loop over a spatial iterator"),
                    ),
                    witness,
                )


def conflict(
    a: Access, b: Access, loop: For, outer: tuple[For, ...], dims: tuple[Var, ...]
) -> Witness | None:
    """Two iterations of `loop`, equal in the `outer` loops, in which `a` and `b` meet."""
    shared = {f.var: f"o{k}" for k, f in enumerate(outer)}
    names: list[str] = list(shared.values())
    constraints: list[str] = [c for f in outer for c in _range(f, shared)]
    sides: list[dict[Var, str]] = []
    for tag, access in (("a", a), ("b", b)):
        rename = dict(shared)
        for k, f in enumerate(access.place.loops):
            if f.var not in rename:
                rename[f.var] = f"{tag}{k}"
                names.append(f"{tag}{k}")
                constraints.extend(_range(f, rename))
        if access.place.predicate != TRUE:
            constraints.append(condition(access.place.predicate, rename))
        sides.append(rename)
    constraints.append(f"{sides[0][loop.var]} != {sides[1][loop.var]}")
    element = [f"e{k}" for k in range(a.buffer.rank)]
    names.extend(element)
    for access, rename in ((a, sides[0]), (b, sides[1])):
        constraints.extend(_inside(access, rename, element))
    params = tuple(affine(d, {}) for d in dims)
    point = Problem(tuple(names), params, (*constraints, *(f"{p} >= 0" for p in params))).sample()
    if point is None:
        return None
    index = tuple(point[e] for e in element)
    loops = [
        tuple((f.var.name, point[rename[f.var]]) for f in access.place.loops)
        for access, rename in ((a, sides[0]), (b, sides[1]))
    ]
    blocks = (a.place.block, b.place.block)
    return Witness(
        blocks[0].name, blocks[1].name, loops[0], loops[1], a.buffer.name, index,
        a.write, b.write,
    )  # fmt: skip


def _range(loop: For, rename: dict[Var, str]) -> list[str]:
    low = affine(loop.low, rename)
    return [
        f"{low} <= {rename[loop.var]}",
        f"{rename[loop.var]} < {low} + {affine(loop.extent, rename)}",
    ]


def _inside(access: Access, rename: dict[Var, str], element: list[str]) -> list[str]:
    found = []
    for e, low, extent in zip(element, access.low, access.extent, strict=True):
        start = affine(low, rename)
        found.append(f"{start} <= {e} and {e} < {start} + {affine(extent, rename)}")
    return found
