"""Making a failing case small: fewer nodes, inputs, sizes and attributes, as long as it fails.

Delta debugging over what :mod:`aisc.fuzz.edits` can leave out: values become inputs, with what the
interpreter gives for them; nodes are bypassed; regions are put in the place of their node; sizes
shrink; attributes become their defaults; numbers become simple ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from aisc.fuzz.case import Case, Feed, frozen_feed, size_of
from aisc.fuzz.edits import bound, mapped, rebuilt, resized, simpler, tidy
from aisc.ir.arith.poly import Dim
from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import AiscError
from aisc.ir.graph import opdef
from aisc.ir.graph.core import AttrValue, Graph, GraphNode, Value
from aisc.ir.graph.interpret import bind_dims, interpret
from aisc.ir.graph.opdef import Array
from aisc.ir.graph.verify import verify
from aisc.ir.types import TensorType

Fails = Callable[[Case], bool]


@dataclass
class Reducer:
    """Tries smaller cases until none fails, or the time is over."""

    fails: Fails
    seconds: float = 60.0
    tried: int = 0
    _deadline: float = 0.0

    def run(self, case: Case, feed: int = 0) -> Case:
        """A small case that fails."""
        self._deadline = time.monotonic() + self.seconds
        case = self._try(case, replace(case, feeds=(case.feeds[feed],)))
        if len(case.feeds) > 1:
            return case
        while not self._over():
            before = _measure(case)
            case = self._results(case)
            for step in (_cuts, _fixed, _simpler, _attributes, _smaller, _plainer):
                case = self._greedily(case, step)
            if _measure(case) >= before:
                break
        return case

    def _over(self) -> bool:
        return time.monotonic() > self._deadline

    def _greedily(self, case: Case, step: Callable[[Case], Iterator[Case]]) -> Case:
        """Take each candidate that still fails, and go on from it."""
        progress = True
        while progress and not self._over():
            progress = False
            for candidate in step(case):
                smaller = self._try(case, candidate)
                if smaller is not case:
                    case, progress = smaller, True
                    break
                if self._over():
                    break
        return case

    def _try(self, case: Case, candidate: Case) -> Case:
        """The candidate if it is well formed and fails, else the case."""
        try:
            verify(candidate.graph)
        except (AiscError, AssertionError):
            return case
        self.tried += 1
        return candidate if self.fails(candidate) else case

    def _results(self, case: Case) -> Case:
        """One result alone: of the graph, else any value, the first that fails."""
        graph = case.graph
        if len(graph.outputs) > 1:
            for v in graph.outputs:
                smaller = self._try(case, with_results(case, (v,)))
                if smaller is not case:
                    return self._results(smaller)
            for v in reversed(graph.outputs):
                kept = tuple(w for w in case.graph.outputs if w is not v)
                case = self._try(case, with_results(case, kept)) if kept else case
        graph = case.graph
        made = [v for n in graph.nodes if n.op != "constant" for v in n.outputs]
        for v in made[:-1]:
            if v not in graph.outputs and not self._over():
                smaller = self._try(case, with_results(case, (v,)))
                if smaller is not case:
                    return smaller
        return case


def _measure(case: Case) -> tuple[int, int, int]:
    elements = sum(x.size for x in case.feeds[0].values())
    elements += sum(b.array.size for b in case.graph.constants().values())
    return size_of(case.graph), len(case.graph.nodes) + len(case.graph.inputs), elements


def with_graph(case: Case, graph: Graph, feed: Feed | None = None) -> Case:
    """A case of another graph, tidied, whose inputs are those that it reads."""
    feed = case.feeds[0] if feed is None else feed
    graph = tidy(graph)
    read = {v for n in graph.nodes for v in n.input_values} | set(graph.outputs)
    sizes = {s for n in graph.nodes for v in n.outputs for s in v.type.symbols}
    kept = tuple(v for v in graph.inputs if v in read or v.type.symbols & sizes)
    return Case(case.seed, replace(graph, inputs=kept), ({v.name: feed[v.name] for v in kept},))


def with_results(case: Case, results: tuple[Value, ...]) -> Case:
    """The case with other results."""
    return with_graph(case, replace(case.graph, outputs=results, output_names=()))


# -- candidates ------------------------------------------------------------------------------------
def _values(case: Case) -> dict[Value, Array]:
    """What every value of the graph holds."""
    found: dict[Value, Array] = {}
    try:
        with np.errstate(all="ignore"):
            interpret(case.graph, frozen_feed(case.feeds[0]), keep=found.__setitem__)
    except AiscError:
        pass
    return found


def _cuts(case: Case) -> Iterator[Case]:
    """Values become inputs: those of the first half of the nodes, of a quarter, of one node."""
    held = _values(case)
    nodes = [
        n for n in case.graph.nodes
        if n.op not in ("constant", "bind_dims") and all(v in held for v in n.outputs)
        and not any(v in case.graph.outputs for v in n.outputs)
        and not n.attr_map.get("binds")
    ]  # fmt: skip
    count = len(nodes)
    while count > 1:
        count = (count + 1) // 2
        for start in range(0, len(nodes), count):
            yield _cut(case, nodes[start : start + count], held)
    if len(nodes) == 1:
        yield _cut(case, nodes, held)


def _cut(case: Case, nodes: list[GraphNode], held: dict[Value, Array]) -> Case:
    names = {v.name for v in case.graph.values()}
    table, feed = dict[Value, Value](), dict(case.feeds[0])
    for n in nodes:
        for v in n.outputs:
            name = next(f"in{k}" for k in range(10**6) if f"in{k}" not in names)
            names.add(name)
            table[v] = Value(name, v.type)
            feed[name] = np.array(held[v])
    gone = set(nodes)
    graph = replace(case.graph, nodes=tuple(n for n in case.graph.nodes if n not in gone))
    graph = mapped(graph, table)
    return with_graph(case, replace(graph, inputs=(*graph.inputs, *table.values())), feed)


def _fixed(case: Case) -> Iterator[Case]:
    """Symbolic sizes fixed."""
    graph, feed = case.graph, case.feeds[0]
    types = [v.type for v in graph.inputs]
    if not any(t.symbols for t in types):
        return
    arrays = [feed[v.name] for v in graph.inputs]
    try:
        dims = bind_dims(types, arrays, [v.name for v in graph.inputs], {})
        yield _renamed(case, bound(graph, dims), feed)
    except (AiscError, KeyError, AssertionError):
        return


def _renamed(case: Case, graph: Graph, feed: Feed) -> Case:
    """A case of a graph that was built again from that of `case`: inputs by their order."""
    pairs = zip(graph.inputs, case.graph.inputs, strict=True)
    return with_graph(case, graph, {a.name: feed[b.name] for a, b in pairs})


def _simpler(case: Case) -> Iterator[Case]:
    for graph in simpler(case.graph):
        yield with_graph(case, graph)


def _attributes(case: Case) -> Iterator[Case]:
    """One attribute becomes its default."""
    for node in case.graph.nodes:
        for a in opdef.get(node.op).attrs if node.op not in ("if", "loop") else ():
            if a.default is None or node.attr_map.get(a.name, a.default) == a.default:
                continue

            def attr(
                n: GraphNode, k: str, x: AttrValue, node: GraphNode = node, name: str = a.name,
                default: AttrValue = a.default,
            ) -> AttrValue:  # fmt: skip
                return default if n is node and k == name else x

            yield from _again(case, lambda d: d, attr)


def _smaller(case: Case) -> Iterator[Case]:
    """Every axis of one size becomes shorter."""
    shapes = [v.type.shape for v in case.graph.inputs]
    shapes += [b.array.shape for b in case.graph.constants().values()]
    for old in sorted({d for s in shapes for d in s if isinstance(d, int) and d > 1}, reverse=True):
        for new in dict.fromkeys((1, 2, old // 2, old - 1)):
            if new < old:
                yield from _again(case, lambda d, a=old, b=new: b if d == a else d)  # type: ignore[misc]


def _again(
    case: Case,
    size: Callable[[Dim], Dim],
    attr: Callable[[GraphNode, str, AttrValue], AttrValue] | None = None,
) -> Iterator[Case]:
    feed = case.feeds[0]
    types = [TensorType(tuple(map(size, v.type.shape)), v.type.dtype) for v in case.graph.inputs]
    try:
        graph = rebuilt(case.graph, types, size, attr)
        sizes = {
            v.name: resized(
                feed[v.name],
                [
                    size(d) if isinstance(d, int) else n
                    for d, n in zip(v.type.shape, feed[v.name].shape, strict=True)
                ],
            )
            for v in case.graph.inputs
        }
        yield _renamed(case, graph, sizes)
    except (AiscError, KeyError, AssertionError, ValueError):
        return


def _plainer(case: Case) -> Iterator[Case]:
    """Constants and inputs become whole numbers, or all the same."""
    feed = case.feeds[0]
    for v in case.graph.inputs:
        for array in _plain(feed[v.name]):
            yield replace(case, feeds=({**feed, v.name: array},))
    for place, node in enumerate(case.graph.nodes):
        if node.op == "constant":
            blob = node.attr("value")
            assert isinstance(blob, Blob), "constant without a blob"
            for array in _plain(np.asarray(blob.array)):
                new = replace(node, attrs=(("value", Blob(array)),))
                nodes = (*case.graph.nodes[:place], new, *case.graph.nodes[place + 1 :])
                yield replace(case, graph=replace(case.graph, nodes=nodes))


def _plain(array: Array) -> Iterator[Array]:
    with np.errstate(all="ignore"):
        for plain in (np.zeros_like(array), np.ones_like(array)):
            if not np.array_equal(array, plain):
                if array.size and bool(np.all(array == array.reshape(-1)[0])):
                    continue
                yield plain
        if array.dtype.kind not in "iub":
            wide = array.astype(np.float64)
            whole = np.asarray(np.rint(wide)).astype(array.dtype)
            if np.isfinite(wide).all() and not np.array_equal(whole, array):
                yield whole
