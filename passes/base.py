"""What a pass is: a frozen dataclass that takes valid IR and gives valid IR.

Passes have a `name` and a ``run``; their fields are their options. They know nothing of dumping,
timing and verifying: those are instruments of :mod:`aisc.driver.instruments`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from aisc.ir.graph.core import Graph, GraphNode
from aisc.ir.tensor.func import Func


def map_regions(graph: Graph, fn: Callable[[Graph], Graph]) -> Graph:
    """`graph` with `fn` applied to the regions of its control operators (not to fused groups);
    the same object when nothing changes."""
    nodes: list[GraphNode] = []
    for node in graph.nodes:
        if node.regions and node.op != "fused":
            regions = tuple(map(fn, node.regions))
            if any(a is not b for a, b in zip(regions, node.regions, strict=True)):
                node = replace(node, regions=regions)
        nodes.append(node)
    if all(a is b for a, b in zip(nodes, graph.nodes, strict=True)):
        return graph
    return replace(graph, nodes=tuple(nodes))


class GraphPass(Protocol):
    """A transformation of graphs; returning the same object means nothing changed."""

    @property
    def name(self) -> str:
        """Name in dumps, timings and ``--passes``."""

    def run(self, graph: Graph) -> Graph:
        """The transformed graph."""


class FuncPass(Protocol):
    """A transformation of functions."""

    @property
    def name(self) -> str:
        """Name in dumps, timings and ``--passes``."""

    def run(self, func: Func) -> Func:
        """The transformed function."""
