"""Partition a graph into groups, each of which becomes one kernel.

before: ``%a = conv(%x, %w, %b); %y = relu(%a)``
after:  ``%y = fused(%x, %w, %b) { %a = conv(…); return relu(%a) }``

A group is an anchor (contraction, window, reduction, movement or map) and the elementwise operators
that follow it, one after another or in ways that part and meet (``x * sigmoid(x)``). A group gives
what is read outside of it, which may be several values where an operator has several results. An
attention is a group of its own (:mod:`aisc.passes.graph.attention`). The transpose of an image of
few channels joins the convolution that reads it.
Constants with one element move into the groups that read them; other constants and views stay
outside, as do operators of kind control (whose regions are partitioned in turn) and those that
only the host can compute. A group that a device runs takes no operator that would keep it from
there. Concats and slices that only say where values lie stay outside, too
(:mod:`aisc.passes.graph.parts`). Postcondition: every other node is a ``fused`` one.
"""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.location import fuse
from aisc.ir.rewrite.driver import eliminate_dead
from aisc.passes.base import map_regions
from aisc.passes.graph.partition import Group, partition
from aisc.passes.graph.parts import nested_concats
from aisc.passes.graph.sequential import sequential_loops
from aisc.passes.policy import HOST_ALONE, Machines


@dataclass(frozen=True, slots=True)
class Fuse:
    """The pass; without `join` every operator is a group of its own."""

    name: str = "fuse"
    join: bool = True
    machines: Machines = HOST_ALONE

    def run(self, graph: Graph) -> Graph:
        """Apply to one graph and the regions of its control operators."""
        if self.join:
            graph = sequential_loops(graph)
        graph = map_regions(graph, self.run)
        if self.join and not self.machines.devices:
            graph = eliminate_dead(nested_concats(graph))
        groups = partition(graph, self.machines, self.join)
        last = {g.nodes[-1]: g for g in groups.values()}
        read = _read_outside(graph, groups)
        scalars = {
            n.output: n for n in graph.nodes if n.op == "constant" and n.output.type.size == 1
        }
        nodes: list[GraphNode] = []
        for node in graph.nodes:
            if node in last:
                nodes.append(_fused(last[node], scalars, read))
            elif node not in groups:
                nodes.append(node)
        return replace(graph, nodes=tuple(nodes))


def _read_outside(graph: Graph, groups: dict[GraphNode, Group]) -> set[Value]:
    """The values that something else than the group which computes them reads."""
    made = {v: g for n, g in groups.items() for v in n.outputs}
    found = set(graph.outputs)
    for n in graph.nodes:
        found.update(v for v in n.input_values if v in made and made[v] is not groups.get(n))
    return found


def _fused(group: Group, scalars: dict[Value, GraphNode], read: set[Value]) -> GraphNode:
    """The node of a group: its region takes what the group reads from outside, and gives what is
    read there."""
    inside = {v for n in group.nodes for v in n.outputs}
    inputs: dict[Value, Value] = {}
    body: dict[GraphNode, None] = {}
    for node in group.nodes:
        for v in node.input_values:
            if v in scalars:
                body[scalars[v]] = None
            elif v not in inside and v not in inputs:
                inputs[v] = Value(v.name, v.type)
    inner: dict[Value, Value] = dict(inputs)
    nodes = [*body, *(_inside(n, inner) for n in group.nodes)]
    results = tuple(v for n in group.nodes for v in n.outputs if v in read)
    region = Graph("group", tuple(inputs.values()), tuple(nodes), tuple(inner[v] for v in results))
    loc = fuse(n.loc for n in group.nodes)
    return GraphNode("fused", tuple(inputs), results, (), (region,), loc)


def _inside(node: GraphNode, inner: dict[Value, Value]) -> GraphNode:
    """A copy of a node over the region's own values."""
    inputs = tuple(None if v is None else inner.get(v, v) for v in node.inputs)
    outputs = tuple(Value(v.name, v.type) for v in node.outputs)
    inner.update(zip(node.outputs, outputs, strict=True))
    return replace(node, inputs=inputs, outputs=outputs)
