"""Rules over graph nodes: named, indexed by root operator, located where they are written.

A rule is a function from a :class:`Match` to replacement values (one per result of the root), or
``None`` when it does not apply. Its docstring is its equation. Discipline: the right side is never
worse than the left, constants are pushed to the right once, no blanket commutativity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import AttrValue, Graph, GraphNode, Value
from aisc.ir.location import Loc, fuse


class Match:
    """What a rule sees: the root node (its inputs already rewritten) and the graph so far."""

    __slots__ = ("_graph", "_used", "node")

    def __init__(self, graph: RewriteGraph, node: GraphNode, used: dict[Value, int]) -> None:
        self._graph = graph
        self._used = used
        self.node = node

    def input(self, k: int) -> Value | None:
        """The root's k-th input."""
        return self.node.inputs[k] if k < len(self.node.inputs) else None

    def producer(self, value: Value | None, op: str = "") -> GraphNode | None:
        """The node that computes `value`, if there is one (and it is an `op`)."""
        node = None if value is None else self._graph.producers.get(value)
        return node if node is not None and (not op or node.op == op) else None

    def readers(self, value: Value, op: str) -> Sequence[GraphNode]:
        """The nodes of an operator before the root that read `value`."""
        return [n for n in self._graph.readers.get(value, ()) if n.op == op]

    def constant(self, value: Value | None) -> Blob | None:
        """The contents of `value` if it is a constant."""
        return None if value is None else self._graph.constants.get(value)

    def uses(self, value: Value) -> int:
        """How often `value` is read (graph outputs count)."""
        return self._used.get(value, 0)

    def single_use(self, node: GraphNode) -> bool:
        """Whether the only result of `node` is read once (graph outputs count)."""
        return self._used.get(node.output, 0) <= 1

    def add(
        self,
        op: str,
        inputs: Sequence[Value | None],
        attrs: dict[str, AttrValue] | None = None,
        also: Sequence[GraphNode] = (),
    ) -> Value:
        """Append a node located at the nodes in `also`, which come before the root, and at it."""
        loc = fuse([*(n.loc for n in also), self.node.loc])
        name = self.node.outputs[0].name
        return self._graph.add(op, inputs, attrs, (name,), loc)

    def make_constant(self, array: np.ndarray, name: str = "c") -> Value:
        """Append a constant."""
        return self._graph.constant(np.asarray(array, order="C"), name, self.node.loc)


Apply = Callable[[Match], "Sequence[Value] | None"]


class RewriteGraph(GraphBuilder):
    """A builder that also knows who computes and who reads each value, and reuses equal nodes if
    asked."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.producers: dict[Value, GraphNode] = {}
        self.readers: dict[Value, list[GraphNode]] = {}

    def append(self, node: GraphNode) -> None:
        """Append a finished node."""
        super().append(node)
        for v in node.outputs:
            self.producers[v] = node
        for v in node.input_values:
            self.readers.setdefault(v, []).append(node)

    def forget(self, mark: int) -> None:
        """Drop the nodes from number `mark` on."""
        for node in self.nodes[mark:]:
            for v in node.input_values:
                self.readers[v].remove(node)
        del self.nodes[mark:]


@dataclass(frozen=True, slots=True)
class Rule:
    """A named rule on nodes of the operators `ops`."""

    name: str
    ops: tuple[str, ...]
    apply: Apply
    where: Loc


def rule(*ops: str) -> Callable[[Apply], Rule]:
    """Make the decorated function a :class:`Rule` on nodes of `ops`, named after it."""

    def make(fn: Apply) -> Rule:
        code = fn.__code__
        file = code.co_filename.rsplit("/", 1)[-1]
        return Rule(fn.__name__, ops, fn, Loc(file, code.co_firstlineno))

    return make


def replace_nodes(
    graph: Graph, fn: Callable[[RewriteGraph, GraphNode], Sequence[Value] | None]
) -> Graph:
    """`graph` with nodes replaced: `fn` appends nodes to the new graph, and gives the values that
    stand for the results of a node, whose inputs are those of the new graph; or ``None``, to keep
    the node."""
    out = RewriteGraph(graph.name)
    out.inputs = list(graph.inputs)
    for v in graph.values():
        out.fresh(v.name)
    mapped: dict[Value, Value] = {}
    for node in graph.nodes:
        inputs = tuple(None if v is None else mapped.get(v, v) for v in node.inputs)
        out.loc = node.loc
        results = fn(out, replace(node, inputs=inputs))
        if results is None:
            out.append(replace(node, inputs=inputs))
        else:
            mapped.update(zip(node.outputs, results, strict=True))
    outputs = tuple(mapped.get(v, v) for v in graph.outputs)
    return replace(graph, nodes=tuple(out.nodes), outputs=outputs, output_names=graph.result_names)
