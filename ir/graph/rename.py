"""Other names for the values of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from aisc.ir.graph.core import Graph, GraphNode, Value


def renamed(graph: Graph, names: Mapping[Value, str]) -> Graph:
    """`graph`, and its regions, with values called as `names` says, or numbered where another one
    has that name. Inputs of the graph itself stay."""
    taken = {v.name for v in graph.inputs}
    return _renamed(graph, names, {v: v for v in graph.inputs}, taken)


def _renamed(
    graph: Graph, names: Mapping[Value, str], table: dict[Value, Value], taken: set[str]
) -> Graph:
    counts: dict[str, int] = {}

    def fresh(v: Value) -> Value:
        hint = names.get(v, v.name)
        name = hint
        while name in taken:
            counts[hint] = counts.get(hint, 0) + 1
            name = f"{hint}_{counts[hint]}"
        taken.add(name)
        table[v] = v if name == v.name else Value(name, v.type)
        return table[v]

    inputs = tuple(table.get(v) or fresh(v) for v in graph.inputs)
    nodes: list[GraphNode] = []
    for node in graph.nodes:
        operands = tuple(None if v is None else table[v] for v in node.inputs)
        regions = tuple(_renamed(r, names, {}, set()) for r in node.regions)
        results = tuple(map(fresh, node.outputs))
        nodes.append(replace(node, inputs=operands, outputs=results, regions=regions))
    outputs = tuple(table[v] for v in graph.outputs)
    return replace(graph, inputs=inputs, nodes=tuple(nodes), outputs=outputs)
