"""Constant folding: nodes whose inputs are all constants are evaluated by their reference.

before: ``%c = add(constant 1, constant 2)``   after: ``%c = constant 3``
Results above :attr:`Fold.limit` bytes stay as they are, unless they are no larger than the inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from aisc.ir.blob import Blob
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value, attribute_symbols
from aisc.ir.graph.opdef import run_reference
from aisc.ir.rewrite.driver import eliminate_dead


@dataclass(frozen=True, slots=True)
class Fold:
    """The pass; `limit` bounds the bytes of one folded result."""

    name: str = "fold"
    limit: int = 1 << 26

    def run(self, graph: Graph) -> Graph:
        """Apply to one graph."""
        known: dict[Value, Blob] = {}
        nodes: list[GraphNode] = []
        for node in graph.nodes:
            if node.op == "constant":
                blob = node.attr("value")
                assert isinstance(blob, Blob), "constant without a blob"
                known[node.output] = blob
            elif self._foldable(node, known):
                arrays = [None if v is None else known[v].array for v in node.inputs]
                for value, result in zip(node.outputs, run_reference(node, arrays), strict=True):
                    blob = Blob(np.ascontiguousarray(result).reshape(result.shape))
                    known[value] = blob
                    nodes.append(replace(
                        node, op="constant", inputs=(), outputs=(value,),
                        attrs=(("value", blob),), regions=(),
                    ))  # fmt: skip
                continue
            nodes.append(node)
        if all(a is b for a, b in zip(nodes, graph.nodes, strict=False)) and len(nodes) == len(
            graph.nodes
        ):
            return graph
        return eliminate_dead(replace(graph, nodes=tuple(nodes)))

    def _foldable(self, node: GraphNode, known: dict[Value, Blob]) -> bool:
        if (
            opdef.get(node.op).kind == "control"
            or node.regions
            or any(v not in known for v in node.input_values)
        ):
            return False
        if any(True for _, value in node.attrs for _ in attribute_symbols(value)):
            return False
        size = 0
        for v in node.outputs:
            if not v.type.is_static:
                return False
            size += int(np.prod(v.type.static_shape, dtype=np.int64)) * v.type.dtype.bytes
        source = sum(known[v].array.nbytes for v in node.input_values)
        return size <= max(self.limit, source)
