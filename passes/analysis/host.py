"""Which operators of a graph have no native code and run on the host, through their reference."""

from __future__ import annotations

from collections.abc import Iterator

from aisc.ir.diagnostics import Diagnostics
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode


def host_nodes(graph: Graph) -> Iterator[GraphNode]:
    """Nodes that no kernel computes, regions included, in order."""
    for node in graph.nodes:
        op = opdef.get(node.op)
        native = op.scalar is not None or bool(op.variants) or op.decompose is not None
        native = native or "view" in op.traits
        if not native and op.kind not in ("constant", "control") and node.op != "fused":
            yield node
        for region in node.regions:
            yield from host_nodes(region)


def require_native(graph: Graph) -> None:
    """One report (E102) of every operator that would run on the host."""
    problems = Diagnostics()
    for node in host_nodes(graph):
        message = f"{node.op}: there is no native code for this operator"
        problems.add(
            "E102", message, "it can run on the host unless that is forbidden", loc=node.loc
        )
    problems.raise_if_errors()
