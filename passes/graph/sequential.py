"""Loops over numbers become one kernel each.

before: ``%s = loop(%a) { %t = mul(%a, %a) … }``
after:  ``%s = fused(%a) { %s = loop(%a) { … } }``

Whether a loop is one of these is found by lowering it (:mod:`aisc.passes.lower.sequential`): every
node computes a number, looks at an array or writes elements of one that the loop carries. Constants
that are arrays are lifted out of the body, to be weights of the kernel.
"""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value, bound_symbols
from aisc.ir.names import fresh_name
from aisc.ir.tensor.verify_func import verify_func
from aisc.passes.base import map_regions
from aisc.passes.lower.elements import NotSequential
from aisc.passes.lower.group import as_func


def sequential_loops(graph: Graph) -> Graph:
    """`graph` with such loops, at any depth, as groups; the outermost ones that can be."""
    nodes: list[GraphNode] = []
    taken = {v.name for v in graph.values()}
    for node in graph.nodes:
        made = _grouped(node, taken) if node.op == "loop" else None
        nodes += made or [node]
    if len(nodes) != len(graph.nodes) or any(
        a is not b for a, b in zip(nodes, graph.nodes, strict=True)
    ):
        graph = replace(graph, nodes=tuple(nodes))
    return map_regions(graph, sequential_loops)


def _grouped(node: GraphNode, taken: set[str]) -> list[GraphNode] | None:
    """A loop as a group, after the constants that it reads; nothing where it is of another kind."""
    if any(s.name in bound_symbols(node.regions[0]) for v in node.outputs for s in v.type.symbols):
        return None
    if _tests_sizes(node):
        return None
    constants: list[GraphNode] = []
    lifted = _lifted(node, constants, taken)
    inputs = dict.fromkeys(v for v in lifted.inputs if v is not None)
    inner = {v: Value(v.name, v.type) for v in inputs}
    outputs = tuple(Value(v.name, v.type) for v in node.outputs)
    body = replace(
        lifted,
        inputs=tuple(None if v is None else inner[v] for v in lifted.inputs),
        outputs=outputs,
    )
    region = Graph("group", tuple(inner.values()), (body,), outputs)
    try:
        verify_func(as_func(region))
    except NotSequential:
        return None
    return [*constants, GraphNode("fused", tuple(inputs), node.outputs, (), (region,), node.loc)]


def _tests_sizes(node: GraphNode) -> bool:
    """Whether a node of a body asks of sizes what only a turn can tell. Places of a slice are
    tested where an element is read."""
    nodes = (n for region in node.regions for n in region.nodes)
    return any((n.op != "slice" and opdef.size_checks(n)) or _tests_sizes(n) for n in nodes)


def _lifted(node: GraphNode, constants: list[GraphNode], taken: set[str]) -> GraphNode:
    """A node whose regions hold no arrays of constants: they are captures."""
    extra: list[Value] = []
    regions = []
    found: list[list[Value]] = []
    for region in node.regions:
        nodes, own = [], list[Value]()
        for n in region.nodes:
            if n.op == "constant" and n.output.type.size != 1:
                outside = Value(fresh_name(n.output.name, taken), n.output.type)
                constants.append(replace(n, outputs=(outside,)))
                extra.append(outside)
                own.append(n.output)
            elif n.regions:
                before = len(constants)
                inner = _lifted(n, constants, taken)
                passed = [c.output for c in constants[before:]]
                extra += passed
                own += passed
                nodes.append(inner)
            else:
                nodes.append(n)
        regions.append(replace(region, nodes=tuple(nodes)))
        found.append(own)
    if not extra:
        return node
    finished = []
    for k, region in enumerate(regions):
        more = [v for j, own in enumerate(found) for v in (own if j == k else _unread(own, taken))]
        finished.append(replace(region, inputs=(*region.inputs, *more)))
    return replace(node, inputs=(*node.inputs, *extra), regions=tuple(finished))


def _unread(values: list[Value], taken: set[str]) -> list[Value]:
    """Inputs of an arm that the other arm reads."""
    return [Value(fresh_name(v.name, taken), v.type) for v in values]
