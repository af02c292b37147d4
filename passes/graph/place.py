"""Which machine runs each group of a partitioned graph.

before: ``%y = fused(%x, %w) {…}``
after:  ``%y = fused(%x, %w) target=npu {…}`` where the device takes the group

A group runs on the first device that does not refuse it; the others are the host's, and are not
marked. What crosses from one memory to another is found when the entry is made
(:mod:`aisc.passes.lower.program`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Graph, GraphNode
from aisc.passes.analysis.placement import target_of
from aisc.passes.base import map_regions
from aisc.passes.policy import Machines


def place(graph: Graph, machines: Machines) -> Graph:
    """The graph, each of its groups marked with the target that runs it."""
    if not machines.devices:
        return graph
    graph = map_regions(graph, lambda region: place(region, machines))
    return replace(graph, nodes=tuple(_placed(n, machines) for n in graph.nodes))


def _placed(node: GraphNode, machines: Machines) -> GraphNode:
    if node.op != "fused":
        return node
    home = machines.home(node.regions[0].nodes)
    if home is machines.host:
        return node
    return replace(node, attrs=(*node.attrs, ("target", home.name)))


@dataclass(frozen=True, slots=True)
class Placed:
    """A group, or an operator that is none, with the target that runs it, and why the devices do
    not, by their names."""

    node: GraphNode
    target: str
    reasons: dict[str, str]


def placements(graph: Graph, machines: Machines) -> Iterator[Placed]:
    """Every node that computes something, in order, with those of regions before their owners."""
    for node in graph.nodes:
        if node.op == "fused":
            inside = node.regions[0].nodes
            target = target_of(node) or machines.host.name
            reasons = {d.name: d.refuses(inside) for d in machines.devices}
            yield Placed(node, target, {k: v for k, v in reasons.items() if v})
            continue
        for region in node.regions:
            yield from placements(region, machines)
