"""What the loops around a map do to the places that it reads and writes.

A map moves through memory by a constant step with each loop, but for where it changes what it does:
``i < 7 ? a[i] : b[i - 7]`` at 7, ``x[min(i, 31)]`` at 32. Between such *edges* it is a plain copy
or formula. Neighbouring loops that all accesses pass through as one are a *stretch*.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import lcm
from typing import Any

import numpy as np

from aisc.ir.dataclass import dataclass
from aisc.ir.node import Node, children, walk
from aisc.ir.tensor.expr import (
    COMPARISONS,
    Binary,
    Const,
    Expr,
    Load,
    Select,
    Var,
    has_loads,
    of_dim,
    variables,
)
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.linear import Indexer, Linear, mentions
from aisc.ir.tensor.stmt import For, Store
from aisc.ir.tensor.tree import Place, indexer
from aisc.passes.tensor.lower_blocks import simplify_value, unblock

# The part of lanes in use that needs no improvement.
ENOUGH = 0.8
# Elements by which an access moves with each loop; nothing where that is not always the same.
Steps = dict[Var, int | None]


@dataclass(frozen=True, slots=True)
class Walk:
    """A map among its loops, outermost first.

    steps: of each access, the store first; edges: iterations of a loop at which the map changes
    what it does, `cuts` those at which a condition does; tangled: loops that conditions or limits
    take together with others; bent: those whose number decides on places by more than a step.
    """

    loops: tuple[For, ...]
    steps: tuple[Steps, ...]
    edges: dict[Var, tuple[int, ...]]
    cuts: dict[Var, tuple[int, ...]]
    tangled: frozenset[Var]
    bent: frozenset[Var]

    def size(self, k: int) -> int | None:
        """Iterations of a loop; nothing where only the run knows."""
        extent = self.loops[k].extent
        return int(extent.value) if isinstance(extent, Const) else None

    def stretch(self, last: int) -> int:
        """The first loop of the stretch that ends with loop `last`: all that it reads and writes
        lies together over them, or does not move."""
        first = inner = last
        while first > 0 and self.loops[first - 1].body is self.loops[first]:
            if self.size(first - 1) != 1:  # loops of one turn are in nobody's way
                if self.size(inner) != 1 and not self._continues(inner, first - 1):
                    break
                inner = first - 1
            first -= 1
        return first

    def _continues(self, inner: int, outer: int) -> bool:
        size, a, b = self.size(inner), self.loops[inner].var, self.loops[outer].var
        if size is None or a in self.tangled or b in self.tangled or self.edges.get(a):
            return False
        return all(_continued(steps, a, b, size) for steps in self.steps)

    def period(self, last: int, lanes: int, most: int, least: float) -> tuple[int, int] | None:
        """(first, count): loops from `first` to `last`, which are no stretch, as vectors whose
        places are the same `count` elements later, but for an offset; a few vectors hold what each
        reads. At most `most` vectors are told apart, more than `least` of their lanes are used;
        ``None`` where there are no such loops."""
        size, found = 1, None
        for k in range(last, -1, -1):
            own, var = self.size(k), self.loops[k].var
            if k < last and self.loops[k].body is not self.loops[k + 1]:
                break
            if own == 1:
                continue
            if own is None or var in self.tangled or self.steps[0].get(var) != size:
                break  # what is written does not go on
            count, size = lcm(lanes, size), own * size
            if size <= most * lanes and (count > size or self.edges.get(var)):
                count = size  # everything is told apart
            elif self.edges.get(var):
                continue
            used = filled(size, lanes)
            if count <= most * lanes and used > least and self._near(k, count, lanes):
                found, least = (k, count), used
            if least >= ENOUGH:
                break
        return found

    def _near(self, first: int, count: int, lanes: int) -> bool:
        """Whether the lanes of each vector read elements that a few vectors can hold."""
        loops = self.loops[first:]
        places = np.arange(-(-count // lanes) * lanes)
        digits: list[tuple[Var, Any]] = []
        for f in reversed(loops):
            extent = int(f.extent.value) if isinstance(f.extent, Const) else 1
            digits.append((f.var, places % extent if f is not loops[0] else places))
            places = places // extent
        for steps in self.steps[1:]:
            if any(steps.get(var, 0) is None for var, _ in digits):
                return False
            at = sum(d * (steps.get(var) or 0) for var, d in digits) + np.zeros_like(places)
            far = at.reshape(-1, lanes) // lanes
            if max(len(set(row)) for row in far.tolist()) > max(3, lanes // 2):
                return False
        return True


def walk_of(func: Func, place: Place) -> Walk | None:
    """How a map among serial loops walks; ``None`` for other blocks."""
    block = place.block
    if block.combiner or not isinstance(block.body, Store) or not place.loops:
        return None
    if any(it.kind != "spatial" for it in block.iters):
        return None
    if any(f.kind != "serial" or f.low != Const(0) for f in place.loops):
        return None
    index = indexer(place.loops, func.dims)
    body = unblock(block)
    assert isinstance(body, Store), "a map is a store"
    value = simplify_value(body.value, index)
    found = _Edges({f.var for f in place.loops})
    accesses: list[tuple[Buffer, tuple[Expr, ...]]] = [(body.buffer, body.indices)]
    accesses += [(n.buffer, n.indices) for n in walk(value) if isinstance(n, Load)]
    steps = tuple(found.steps(index.linear(_flat(b, at)), index) for b, at in accesses)
    limits = _sorted(found.edges, place.loops)
    found.edges = {}
    for cond in _conditions(value):
        found.condition(cond, index)
    cuts = _sorted(found.edges, place.loops)
    edges = {v: tuple(sorted({*limits.get(v, ()), *cuts.get(v, ())})) for v in (*limits, *cuts)}
    return Walk(place.loops, steps, edges, cuts, frozenset(found.tangled), frozenset(found.bent))


def _continued(steps: Steps, inner: Var, outer: Var, size: int) -> bool:
    own = steps.get(inner, 0)
    return own is not None and steps.get(outer, 0) == own * size


def filled(count: int, lanes: int) -> float:
    """The part of lanes that vectors for `count` elements use."""
    return count / max(1, -(-count // lanes) * lanes)


def _sorted(edges: dict[Var, set[int]], loops: tuple[For, ...]) -> dict[Var, tuple[int, ...]]:
    """Those inside of the loops."""
    kept = {f.var: sorted(x for x in edges.get(f.var, ()) if _inside(x, f)) for f in loops}
    return {v: tuple(found) for v, found in kept.items() if found}


def _inside(edge: int, loop: For) -> bool:
    return edge > 0 and (not isinstance(loop.extent, Const) or edge < int(loop.extent.value))


def _flat(b: Buffer, indices: tuple[Expr, ...]) -> Expr:
    place: Expr = Const(0)
    for i, stride in zip(indices, b.strides, strict=True):
        place = place + i * of_dim(stride)
    return place


def _conditions(n: Node) -> Iterator[Expr]:
    """Comparisons by which values are chosen."""
    if isinstance(n, Select):
        yield from _parts(n.cond)
    for child in children(n):
        yield from _conditions(child)


def _parts(cond: Expr) -> Iterator[Expr]:
    if isinstance(cond, Binary) and cond.op in ("and", "or"):
        yield from _parts(cond.a)
        yield from _parts(cond.b)
    else:
        yield cond


class _Edges:
    """Gathers where a map changes what it does."""

    def __init__(self, loops: set[Var]) -> None:
        self.loops = loops
        self.edges: dict[Var, set[int]] = {}
        self.tangled: set[Var] = set()
        self.bent: set[Var] = set()

    def steps(self, form: Linear, index: Indexer) -> Steps:
        """Steps of an access between edges."""
        steps: Steps = {}
        for mono, c in form.terms:
            inner = self._unlimited(mono[0], index) if len(mono) == 1 else None
            if inner is not None:
                for var, step in self.steps(inner, index).items():
                    _add(steps, var, None if step is None else step * c)
            elif len(mono) == 1 and isinstance(mono[0], Var):
                _add(steps, mono[0], c)
            else:
                used = [v for v in self.loops if any(mentions(a, v) for a in mono)]
                steps |= dict.fromkeys(used)
                if len(mono) == 1 and not has_loads(mono[0]) and len(variables(mono[0])) == 1:
                    self.bent |= set(used)
        return steps

    def _unlimited(self, atom: Expr, index: Indexer) -> Linear | None:
        """What is inside of limits, ``max(i - 1, 0)``, whose ends are edges."""
        if not (isinstance(atom, Binary) and atom.op in ("min", "max")):
            return None
        for limit, inner in ((atom.a, atom.b), (atom.b, atom.a)):
            if isinstance(limit, Const):
                gap = _innermost(inner) - limit  # another limit inside changes it elsewhere
                self._edge(index.linear(gap), "le" if atom.op == "min" else "lt")
                return index.linear(inner)
        return None

    def condition(self, cond: Expr, index: Indexer) -> None:
        """Take note of a condition, unless data decide it."""
        if has_loads(cond):
            return
        if isinstance(cond, Binary) and cond.op in COMPARISONS:
            self._edge(index.linear(cond.a - cond.b), cond.op)
        else:
            self.tangled |= {v for v in self.loops if mentions(cond, v)}

    def _edge(self, gap: Linear, op: str) -> None:
        """Where ``gap op 0`` changes, if one loop alone decides it."""
        used = {v for v in self.loops for mono, _ in gap.terms for a in mono if mentions(a, v)}
        single = len(gap.terms) == 1 and len(gap.terms[0][0]) == 1 and gap.terms[0][0][0] in used
        if not single or len(used) > 1:
            self.tangled |= used
            return
        (var,), c = used, gap.terms[0][1]
        zero, after = -(gap.const // c), -gap.const // c + 1
        strict = op in ("lt", "ge") if c > 0 else op in ("le", "gt")
        points = {zero, after} if op in ("eq", "ne") else {zero if strict else after}
        self.edges.setdefault(var, set()).update(points)


def _innermost(e: Expr) -> Expr:
    """What is inside of limits: ``i - 1`` of ``max(i - 1, 0)``."""
    while isinstance(e, Binary) and e.op in ("min", "max"):
        if isinstance(e.b, Const):
            e = e.a
        elif isinstance(e.a, Const):
            e = e.b
        else:
            break
    return e


def _add(steps: Steps, var: Var, step: int | None) -> None:
    known = steps.get(var, 0)
    steps[var] = None if known is None or step is None else known + step
