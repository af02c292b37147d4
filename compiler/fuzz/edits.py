"""Changes to a graph that leave it well formed: what reduction tries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from aisc.fuzz.case import live
from aisc.ir.arith.poly import Dim, Poly, evaluate, symbols
from aisc.ir.blob import Blob
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import DEFINITIONS, AttrValue, Graph, GraphNode, Value
from aisc.ir.graph.opdef import Array
from aisc.ir.names import fresh_name
from aisc.ir.types import TensorType

Table = Mapping[Value, Value]


def mapped(graph: Graph, table: Table) -> Graph:
    """`graph` reading other values instead of some; no regions are changed."""

    def of(v: Value | None) -> Value | None:
        return None if v is None else table.get(v, v)

    nodes = tuple(replace(n, inputs=tuple(map(of, n.inputs))) for n in graph.nodes)
    outputs = tuple(table.get(v, v) for v in graph.outputs)
    return replace(graph, nodes=nodes, outputs=outputs, output_names=())


def tidy(graph: Graph) -> Graph:
    """`graph` without what nobody needs: nodes, results of regions, captures."""
    while True:
        graph = live(graph)
        smaller = _without_results(graph)
        smaller = replace(smaller, nodes=tuple(map(_without_captures, smaller.nodes)))
        if _weight(smaller) == _weight(graph):
            return graph
        graph = smaller


def _weight(graph: Graph) -> int:
    """How much there is: nodes, results and operands, also of regions."""
    own = sum(1 + len(n.inputs) + len(n.outputs) for n in graph.nodes)
    return own + sum(_weight(r) for n in graph.nodes for r in n.regions)


def _without_results(graph: Graph) -> Graph:
    """Results of ``if`` and stacked results of ``loop`` that nobody reads are left out."""
    read = {v for n in graph.nodes for v in n.input_values} | set(graph.outputs)
    nodes = [n if all(v in read for v in n.outputs) else _fewer(n, read) for n in graph.nodes]
    return replace(graph, nodes=tuple(nodes))


def _fewer(node: GraphNode, read: set[Value]) -> GraphNode:
    if node.op not in ("if", "loop"):
        return node
    kept_always = node.attr("carried") if node.op == "loop" else 0
    assert isinstance(kept_always, int), "a count"
    flags = int(bool(node.attr_map.get("conditional")))
    kept = [k for k, v in enumerate(node.outputs) if v in read or k < kept_always]
    if len(kept) == len(node.outputs) or (node.op == "if" and not kept):
        return node
    if any(isinstance(d, Poly) for k in set(range(len(node.outputs))) - set(kept)
           for d in node.outputs[k].type.shape[1:] if _is_data(d)):  # fmt: skip
        return node  # its size is one of those that the node binds
    regions = tuple(
        replace(r, outputs=(*r.outputs[:flags], *(r.outputs[flags + k] for k in kept)),
                output_names=())
        for r in node.regions
    )  # fmt: skip
    return replace(node, outputs=tuple(node.outputs[k] for k in kept), regions=regions)


def _is_data(d: Dim) -> bool:
    return any(s.kind == "data" for s in symbols(d))


def _without_captures(node: GraphNode) -> GraphNode:
    if node.op not in ("if", "loop"):
        return node
    carried = node.attr("carried") if node.op == "loop" else 0
    assert isinstance(carried, int), "a count"
    lead = len(node.inputs) - len(node.regions[0].inputs)
    used = [{v for n in r.nodes for v in n.input_values} | set(r.outputs) for r in node.regions]
    kept = [
        k for k in range(len(node.regions[0].inputs))
        if k < carried or any(r.inputs[k] in u for r, u in zip(node.regions, used, strict=True))
    ]  # fmt: skip
    regions = tuple(replace(r, inputs=tuple(r.inputs[k] for k in kept)) for r in node.regions)
    inputs = (*node.inputs[:lead], *(node.inputs[lead + k] for k in kept))
    return replace(node, inputs=inputs, regions=regions)


# -- smaller graphs --------------------------------------------------------------------------------
def simpler(graph: Graph) -> Iterator[Graph]:
    """Graphs with the same inputs and results in which something is left out, also in regions."""
    for place in reversed(range(len(graph.nodes))):
        node = graph.nodes[place]
        if node.op == "constant":
            continue
        yield from _bypassed(graph, node)
        if node.op == "if":
            for arm in (0, 1):
                yield _inlined(graph, place, node.regions[arm], node.inputs[1:], arm)
        if node.op == "loop":
            yield from _unrolled(graph, place)
        for k, region in enumerate(node.regions):
            for inner in simpler(region):
                yield with_region(graph, place, k, tidy(inner))


def with_region(graph: Graph, place: int, k: int, region: Graph) -> Graph:
    """`graph` with another k-th region of a node."""
    node = graph.nodes[place]
    regions = (*node.regions[:k], region, *node.regions[k + 1 :])
    new = replace(node, regions=regions)
    return replace(graph, nodes=(*graph.nodes[:place], new, *graph.nodes[place + 1 :]))


def _bypassed(graph: Graph, node: GraphNode) -> Iterator[Graph]:
    """An operand of the type of the result takes its place; else a constant."""
    if len(node.outputs) != 1:
        return
    for v in dict.fromkeys(node.input_values):
        if v.type == node.output.type:
            yield mapped(graph, {node.output: v})
    if not node.output.type.is_static:
        return
    for number in (0, 1):
        array = np.full(node.output.type.static_shape, number).astype(node.output.type.dtype.numpy)
        new = replace(node, op="constant", inputs=(), attrs=(("value", Blob(array)),), regions=())
        if node.inputs or node.regions:
            yield replace(graph, nodes=tuple(new if n is node else n for n in graph.nodes))


def _inlined(
    graph: Graph, place: int, region: Graph, operands: Sequence[Value | None], tag: int
) -> Graph:
    """A region's nodes in the place of its node."""
    node, names = graph.nodes[place], {v.name for v in graph.values()}
    table: dict[Value, Value] = {}
    for inner, outer in zip(region.inputs, operands, strict=True):
        assert outer is not None, "captures are there"
        table[inner] = outer
    nodes: list[GraphNode] = []
    for n in region.nodes:
        outputs = tuple(Value(fresh_name(v.name, names), v.type) for v in n.outputs)
        inputs = tuple(None if v is None else table[v] for v in n.inputs)
        table.update(zip(n.outputs, outputs, strict=True))
        nodes.append(replace(n, inputs=inputs, outputs=outputs))
    results = {a: table[b] for a, b in zip(node.outputs, region.outputs, strict=True)}
    rest = replace(graph, nodes=(*graph.nodes[:place], *nodes, *graph.nodes[place + 1 :]))
    return mapped(rest, results)


def _unrolled(graph: Graph, place: int) -> Iterator[Graph]:
    """One turn of a loop without stacked results in its place; fewer turns."""
    node = graph.nodes[place]
    carried, trip = node.attr("carried"), node.attr("trip")
    if len(node.outputs) == carried and not node.attr("conditional"):
        body = node.regions[0]
        yield _inlined(graph, place, body, node.inputs[2:], 0)
    if isinstance(trip, tuple) and trip and trip[0] != 1 and not node.attr("conditional"):
        one = tuple((k, (1,) if k == "trip" else v) for k, v in node.attrs)
        if len(node.outputs) == carried:
            nodes = (*graph.nodes[:place], replace(node, attrs=one), *graph.nodes[place + 1 :])
            yield replace(graph, nodes=nodes)


# -- other sizes and attributes --------------------------------------------------------------------
Edit = Callable[[str, AttrValue], AttrValue]


def rebuilt(
    graph: Graph,
    types: Sequence[TensorType],
    size: Callable[[Dim], Dim],
    attr: Callable[[GraphNode, str, AttrValue], AttrValue] | None = None,
) -> Graph:
    """The graph for inputs of other types, every type inferred again. Sizes in constants and
    attributes go through `size`, attributes through `attr`. ``CompileError`` where that cannot
    be."""
    b = GraphBuilder(graph.name)
    table: dict[Value, Value] = {}
    for v, t in zip(graph.inputs, types, strict=True):
        table[v] = b.input(v.name, t)
    for node in graph.nodes:
        if node.op == "constant":
            blob = node.attr("value")
            assert isinstance(blob, Blob), "constant without a blob"
            shape = tuple(size(d) for d in blob.array.shape)
            table[node.output] = b.constant(resized(np.asarray(blob.array), shape), "c")
            continue
        inputs = [None if v is None else table[v] for v in node.inputs]
        attrs = {
            k: x if k in DEFINITIONS else _sized(x if attr is None else attr(node, k, x), k, size)
            for k, x in node.attrs
        }
        regions = tuple(_region(r, node, inputs, size, attr) for r in node.regions)
        outputs = b.add_multi(node.op, inputs, attrs, [v.name for v in node.outputs], None, regions)
        table.update(zip(node.outputs, outputs, strict=True))
    return b.finish([table[v] for v in graph.outputs])


def _region(
    region: Graph,
    node: GraphNode,
    inputs: Sequence[Value | None],
    size: Callable[[Dim], Dim],
    attr: Callable[[GraphNode, str, AttrValue], AttrValue] | None,
) -> Graph:
    lead = len(node.inputs) - len(region.inputs)
    types = [v.type for v in inputs[lead:] if v is not None]
    return rebuilt(region, types, size, attr)


SIZED = {"shape", "values", "ends", "kernel_shape", "size", "k", "depth", "trip"}


def _sized(x: AttrValue, name: str, size: Callable[[Dim], Dim]) -> AttrValue:
    if name not in SIZED or not isinstance(x, tuple):
        return x
    return tuple(size(d) if isinstance(d, (int, Poly)) else d for d in x)


def resized(array: Array, shape: Sequence[Dim]) -> Array:
    """An array cut, or repeated from its start, to another shape."""
    for axis, d in enumerate(shape):
        assert isinstance(d, int), "arrays have sizes"
        if d != array.shape[axis]:
            places = np.arange(d) % max(1, array.shape[axis])
            array = np.take(array, places, axis=axis)
    return np.ascontiguousarray(array).reshape(array.shape)


def bound(graph: Graph, dims: Mapping[str, int]) -> Graph:
    """The graph with the symbolic sizes of its inputs fixed."""

    def size(d: Dim) -> Dim:
        if isinstance(d, Poly) and all(s.name in dims for s in symbols(d)):
            return evaluate(d, dims)
        return d

    def attr(node: GraphNode, name: str, x: AttrValue) -> AttrValue:
        if not isinstance(x, tuple):
            return x
        return tuple(size(d) if isinstance(d, Poly) else d for d in x)

    types = [TensorType(tuple(map(size, v.type.shape)), v.type.dtype) for v in graph.inputs]
    return rebuilt(graph, types, size, attr)
