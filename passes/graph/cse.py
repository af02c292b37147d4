"""Common sub-expressions: equal nodes over equal inputs are computed once.

before: ``%a = neg(%x); %b = neg(%x)``   after: ``%a = neg(%x)``, with %b replaced by %a.
All operators are pure; constants are merged by content.
"""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Graph, GraphNode, Value


@dataclass(frozen=True, slots=True)
class CommonSubexpressions:
    """The pass; see the module's docstring."""

    name: str = "cse"

    def run(self, graph: Graph) -> Graph:
        """Apply to one graph."""
        seen: dict[object, GraphNode] = {}
        mapped: dict[Value, Value] = {}
        nodes: list[GraphNode] = []
        for node in graph.nodes:
            inputs = tuple(None if v is None else mapped.get(v, v) for v in node.inputs)
            if any(a is not b for a, b in zip(inputs, node.inputs, strict=True)):
                node = replace(node, inputs=inputs)
            key = _key(node)
            first = seen.setdefault(key, node) if key is not None else node
            if first is node:
                nodes.append(node)
            else:
                mapped.update(zip(node.outputs, first.outputs, strict=True))
        if len(nodes) == len(graph.nodes):
            return graph
        outputs = tuple(mapped.get(v, v) for v in graph.outputs)
        return replace(graph, nodes=tuple(nodes), outputs=outputs, output_names=graph.result_names)


def _key(node: GraphNode) -> object:
    if node.regions:
        return None
    attrs = tuple((k, type(v).__name__, _frozen(v)) for k, v in node.attrs)
    return node.op, tuple(None if v is None else id(v) for v in node.inputs), attrs


def _frozen(value: object) -> object:
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, tuple):
        return tuple(map(_frozen, value))
    return value
