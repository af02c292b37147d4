"""Regions being built: graphs of their own that capture values of the graph around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from aisc.frontend.onnx.emitter import Emitter
from aisc.ir.arith.poly import Dim, Poly, bounds, sole_symbol, symbols
from aisc.ir.diagnostics import error
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import AttrValue, Graph, Value, bound_symbols
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
        """The region over its own inputs and the captures that it needs, and these."""
        self.em.builder.inputs = [*self.own, *self._captured.values()]
        whole = eliminate_dead(self.em.builder.finish(outputs))
        read = {v for n in whole.nodes for v in n.input_values} | set(whole.outputs)
        kept = [outer for outer, inner in self._captured.items() if inner in read]
        inputs = (*self.own, *(self._captured[v] for v in kept))
        return replace(whole, inputs=inputs), kept


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
                mine[v] = Value(_fresh(v.name, taken), v.type)
            inputs.append(mine[v])
        joined.append(replace(graph, inputs=tuple(inputs)))
    return tuple(joined), everything


def _fresh(hint: str, taken: set[str]) -> str:
    name, count = hint, 0
    while name in taken:
        count += 1
        name = f"{hint}_{count}"
    taken.add(name)
    return name


def branch(em: Emitter, cond: Value, arms: Sequence[tuple[Graph, list[Value]]]) -> list[Value]:
    """The results of an ``if``."""
    (then, other), captures = join_captures(arms)
    inner = bound_symbols(then) | bound_symbols(other)
    sizes: list[Dim] = []
    for a, b in zip(then.outputs, other.outputs, strict=True):
        if a.type.rank != b.type.rank or a.type.dtype is not b.type.dtype:
            note = "give both branches results of one rank and type"
            raise error("E204", f"If: branches give {a.type} and {b.type}", note, loc=em.loc)
        for x, y in zip(a.type.shape, b.type.shape, strict=True):
            if x != y or any(s.name in inner for s in symbols(x)):
                sizes.append(em.names.fresh("d", 0, None))
    attrs: dict[str, AttrValue] = {"binds": tuple(sizes)}
    made = em.builder.add_multi("if", (cond, *captures), attrs, (), em.loc, (then, other))
    return list(made)


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
    for _ in range(MAX_ATTEMPTS):
        last = bounds(trip)[1] if trip is not None else float("inf")
        upper = max(0, int(last) - 1) if last < 1 << 31 else None
        index = em.names.fresh("turn", 0, upper)
        region = Region(em, "body")
        carried = [region.input(v.name, t) for v, t in zip(initial, types, strict=True)]
        flag, nexts, stacked = step(region, index, carried)
        found = [v.type for v in nexts]
        changed = [_general(em, a, b) for a, b in zip(types, found, strict=True)]
        if all(a == b for a, b in zip(types, changed, strict=True)):
            break
        types = changed
    else:
        raise error("E102", "the shapes of a loop's values do not settle", loc=em.loc)
    conditional = flag is not None or cond is not None
    flags = [flag or region.em.constant(True)] if conditional else []
    body, captures = region.finish([*flags, *nexts, *stacked])
    varying = _varying(types, initial)
    sizes = [em.names.fresh("d", 0, None) for t in types for d in t.shape if d in varying]
    if trip is None or conditional:
        sizes.insert(0, em.names.fresh("turns", 0, None))
    attrs: dict[str, AttrValue] = {
        "trip": () if trip is None else (trip,), "index": (index,), "carried": len(nexts),
        "carried_dims": tuple(varying), "conditional": conditional, "binds": tuple(sizes),
    }  # fmt: skip
    operands = (limit, cond, *initial, *captures)
    return list(em.builder.add_multi("loop", operands, attrs, (), em.loc, (body,)))


def _general(em: Emitter, before: TensorType, after: TensorType) -> TensorType:
    """A type that fits a carried value before and after a turn."""
    if before.rank != after.rank or before.dtype is not after.dtype:
        message = f"a loop's value starts as {before} and becomes {after}"
        raise error("E102", message, "its rank and type must stay the same", loc=em.loc)
    shape = tuple(
        a if a == b or _is_kept(a) else em.names.fresh("kept", 0, None)
        for a, b in zip(before.shape, after.shape, strict=True)
    )
    return TensorType(shape, before.dtype)


def _is_kept(d: Dim) -> bool:
    s = sole_symbol(d)
    return s is not None and s.name.startswith("kept") and s.kind == "data"


def _varying(types: Sequence[TensorType], initial: Sequence[Value]) -> list[Poly]:
    """Sizes that the body is given anew in each turn."""
    found: dict[Poly, None] = {}
    for t, v in zip(types, initial, strict=True):
        for d, first in zip(t.shape, v.type.shape, strict=True):
            if d != first and isinstance(d, Poly):
                found[d] = None
    return list(found)
