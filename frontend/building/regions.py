"""Regions being built: graphs of their own that capture values of the graph around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from aisc.frontend.building.choices import ArmNeeded
from aisc.frontend.building.emitter import Emitter
from aisc.ir.arith.poly import Dim, Poly, bounds, symbols
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import AttrValue, Graph, Value, bound_symbols
from aisc.ir.graph.shapes.infer import BoundNeeded
from aisc.ir.names import fresh_name
from aisc.ir.rewrite.driver import eliminate_dead
from aisc.ir.types import TensorType

# step(region, number of the turn, carried values) -> (the condition of another turn or ``None``,
# next carried values, values to be stacked)
Stepped = tuple["Value | None", Sequence[Value], Sequence[Value]]
Step = Callable[["Region", Dim, list[Value]], Stepped]
MAX_ATTEMPTS = 8


class Region:
    """A region: `em` emits into it, values from outside enter by :meth:`capture`."""

    def __init__(self, outer: Emitter, name: str) -> None:
        self.outer = outer
        self.em = Emitter(GraphBuilder(name), outer.names)
        self.em.loc = outer.loc
        self.own: list[Value] = []
        self._inside: dict[Value, Value] = {}
        self._captured: dict[Value, Value] = {}

    def input(self, name: str, t: TensorType) -> Value:
        """A value that the region is given in each run."""
        value = Value(self.em.builder.fresh(name), t)
        self.own.append(value)
        return value

    def capture(self, value: Value) -> Value:
        """A value from outside, as the region sees it: what is known stays known."""
        if value in self._inside:
            return self._inside[value]
        blob = self.outer.builder.constants.get(value)
        parts = self.outer.known(value)
        if blob is not None:
            made = self.em.builder.constant(blob, value.name, self.em.loc)
        elif parts is not None:
            made = self.em.dims_value(parts, value.type.dtype)
        else:
            made = Value(self.em.builder.fresh(value.name), value.type)
            self._captured[value] = made
        self._inside[value] = made
        return made

    def finish(self, outputs: Sequence[Value]) -> tuple[Graph, list[Value]]:
        """The region over its own inputs and the captures that it needs, in the order in which it
        reads them, and these."""
        self.em.builder.inputs = [*self.own, *self._captured.values()]
        whole = eliminate_dead(self.em.builder.finish(outputs))
        outside = {inner: outer for outer, inner in self._captured.items()}
        read = dict.fromkeys((*(v for n in whole.nodes for v in n.input_values), *whole.outputs))
        kept = [outside[inner] for inner in read if inner in outside]
        inputs = (*self.own, *(self._captured[v] for v in kept))
        return replace(whole, inputs=inputs), kept


def element(em: Emitter, x: Value, axis: int, at: Dim) -> Value:
    """``x[..., at, ...]`` along one axis, without that axis, in a turn of a loop over it."""
    shape = (*x.type.shape[:axis], *x.type.shape[axis + 1 :])
    if x.type.shape[axis] == 0:  # there is no turn to need it
        return em.filled(shape, np.zeros((), x.type.dtype.numpy))
    return em.reshape(em.slice_axis(x, axis, at, at + 1), shape)


class RanksDiffer(CompileError):
    """E204: the arms of an ``if`` give values of different rank or type."""


def join_captures(
    regions: Sequence[tuple[Graph, list[Value]]],
) -> tuple[tuple[Graph, ...], list[Value]]:
    """Regions with the same inputs: every region takes the captures of all."""
    everything = list(dict.fromkeys(v for _, kept in regions for v in kept))
    joined: list[Graph] = []
    for graph, kept in regions:
        own = graph.inputs[: len(graph.inputs) - len(kept)]
        mine = dict(zip(kept, graph.inputs[len(own) :], strict=True))
        taken = {v.name for v in graph.values()}
        inputs = [*own]
        for v in everything:
            if v not in mine:
                mine[v] = Value(fresh_name(v.name, taken), v.type)
            inputs.append(mine[v])
        joined.append(replace(graph, inputs=tuple(inputs)))
    return tuple(joined), everything


def branch(em: Emitter, cond: Value, arms: Sequence[tuple[Graph, list[Value]]]) -> list[Value]:
    """The results of an ``if``."""
    (then, other), captures = join_captures(arms)
    inner = bound_symbols(then) | bound_symbols(other)
    sizes: list[Dim] = []
    for a, b in zip(then.outputs, other.outputs, strict=True):
        if a.type.rank != b.type.rank or a.type.dtype is not b.type.dtype:
            found = error("E204", f"If: branches give {a.type} and {b.type}", loc=em.loc)
            raise RanksDiffer(found.diagnostics)
        for x, y in zip(a.type.shape, b.type.shape, strict=True):
            if x != y or any(s.name in inner for s in symbols(x)):
                sizes.append(em.names.fresh("d", 0, None))
    attrs: dict[str, AttrValue] = {"binds": tuple(sizes)}
    made = em.builder.add_multi("if", (cond, *captures), attrs, (), em.loc, (then, other))
    return list(made)


Arm = Callable[["Region | Inline", bool], Sequence[Value]]


class Inline:
    """The graph itself in the place of a region: for the one arm of a branch that there is."""

    def __init__(self, em: Emitter) -> None:
        self.em = em

    def capture(self, value: Value) -> Value:
        """A value of the graph."""
        return value


def either(em: Emitter, cond: Value, arm: Arm) -> list[Value]:
    """The results of an ``if`` whose arms `arm` builds (the first where it is told true).

    An arm that does not fit the sizes at hand is an error of the run that would take it: the other
    one becomes part of the graph, once the condition has been tested."""
    arms: list[tuple[Graph, list[Value]]] = []
    faults: list[CompileError] = []
    for here in (True, False):
        region = Region(em, "then" if here else "else")
        try:
            arms.append(region.finish(arm(region, here)))
        except (BoundNeeded, ArmNeeded):
            raise
        except CompileError as fault:
            faults.append(fault)
            missing = here
    if not faults:
        return branch(em, cond, arms)
    if not arms:
        raise faults[0]
    return only_arm(em, cond, arm, not missing, faults[0])


def only_arm(em: Emitter, cond: Value, arm: Arm, here: bool, fault: CompileError) -> list[Value]:
    """The results of one arm, in a run that takes it; another run ends with an error."""
    reason = fault.diagnostics[0].message
    flag = cond if here else em.op("not", cond)
    message = f"the branch that this run takes does not fit: {reason}"
    return [
        em.builder.add("expect", (v, flag), {"message": message}, loc=em.loc)
        for v in arm(Inline(em), here)
    ]


def loop(
    em: Emitter,
    step: Step,
    initial: Sequence[Value],
    *,
    trip: Dim | None = None,
    limit: Value | None = None,
    cond: Value | None = None,
) -> list[Value]:
    """The results of a ``loop``: last carried values, then stacked ones.

    trip, limit: the most turns, known or computed; cond: whether there is a first one. Sizes of
    carried values that change from turn to turn are found by building the body again.
    """
    types = [v.type for v in initial]
    changing: dict[_Place, _Class] = {}
    for _ in range(MAX_ATTEMPTS):
        index = _index(em, trip)
        region = Region(em, "body")
        carried = [region.input(v.name, t) for v, t in zip(initial, types, strict=True)]
        flag, nexts, stacked = step(region, index, carried)
        found = [v.type for v in nexts]
        refined = _refined(em, [v.type for v in initial], types, found, changing)
        if refined == changing:
            break
        changing = refined
        types = _general(em, [v.type for v in initial], changing)
    else:
        raise error("E102", "the shapes of a loop's values do not settle", loc=em.loc)
    conditional = flag is not None or cond is not None
    flags = [flag or region.em.constant(True)] if conditional else []
    body, captures = region.finish([*flags, *nexts, *stacked])
    varying = list(dict.fromkeys(types[k].shape[axis] for k, axis in sorted(changing)))
    sizes: list[Dim] = [em.names.fresh("d", 0, None) for _ in varying]
    if trip is None or conditional:
        sizes.insert(0, em.names.fresh("turns", 0, None))
    inner = bound_symbols(body) | {str(index), *map(str, varying)}
    for v in stacked:
        open_sizes = [d for d in v.type.shape if any(x.name in inner for x in symbols(d))]
        sizes += [em.names.fresh("d", 0, None) for _ in open_sizes]
    attrs: dict[str, AttrValue] = {
        "trip": () if trip is None else (trip,), "index": (index,), "carried": len(nexts),
        "carried_dims": tuple(varying), "conditional": conditional, "binds": tuple(sizes),
    }  # fmt: skip
    operands = (limit, cond, *initial, *captures)
    return list(em.builder.add_multi("loop", operands, attrs, (), em.loc, (body,)))


# The place of a size: (carried value, axis). Sizes of one class start equal and stay equal.
_Place = tuple[int, int]
_Class = tuple[Dim, tuple[Dim, ...]]


def _index(em: Emitter, trip: Dim | None) -> Poly:
    last = bounds(trip)[1] if trip is not None else float("inf")
    return em.names.fresh("turn", 0, max(0, int(last) - 1) if last < 1 << 31 else None)


def _refined(
    em: Emitter,
    initial: Sequence[TensorType],
    inside: Sequence[TensorType],
    after: Sequence[TensorType],
    changing: dict[_Place, _Class],
) -> dict[_Place, _Class]:
    """Classes of the sizes that change, given what a turn makes of them.

    Sizes that start equal are taken to stay equal until a turn gives them different values.
    """
    found: dict[_Place, _Class] = {}
    for k, (first, before, new) in enumerate(zip(initial, inside, after, strict=True)):
        if before.rank != new.rank or before.dtype is not new.dtype:
            message = f"a loop's value starts as {before} and becomes {new}"
            raise error("E102", message, "its rank and type must stay the same", loc=em.loc)
        for axis, (a, b) in enumerate(zip(before.shape, new.shape, strict=True)):
            if (k, axis) in changing:
                found[k, axis] = changing[k, axis]
            elif a != b:
                found[k, axis] = (first.shape[axis], ())
    for name in dict.fromkeys(changing.values()):
        members = [place for place in changing if changing[place] == name]
        results = dict.fromkeys(after[k].shape[axis] for k, axis in members)
        if len(results) > 1:
            for k, axis in members:
                found[k, axis] = (name[0], (*name[1], after[k].shape[axis]))
    return found


def _general(
    em: Emitter, initial: Sequence[TensorType], changing: dict[_Place, _Class]
) -> list[TensorType]:
    """Types of the carried values in the body, one dimension for each class."""
    dims = {name: em.names.fresh("kept", 0, None) for name in dict.fromkeys(changing.values())}
    return [
        TensorType(
            tuple(
                dims[changing[k, axis]] if (k, axis) in changing else d
                for axis, d in enumerate(t.shape)
            ),
            t.dtype,
        )
        for k, t in enumerate(initial)
    ]
