"""Groups that differ in scalars alone share a kernel, which then reads the scalars.

before: ``%y = fused(%x) {mul(%x, 0.5)};  %z = fused(%y) {mul(%y, 0.25)}``
after:  ``%y = fused(%x, 0.5) {mul(%x, %s)};  %z = fused(%y, 0.25) {mul(%y, %s)}``

A constant of one element is a literal of the code else. A quantized model has scales and zero
points of its own for each tensor: with literals hardly two of its layers have the same code. What
all groups of a kind have in common stays a literal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from aisc.ir import dtypes
from aisc.ir.blob import Blob
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.names import fresh_name
from aisc.passes.analysis.placement import target_of
from aisc.passes.lower.canonical import group_key


def scalars_apart(graph: Graph) -> Graph:
    """`graph` with scalars as inputs of groups where that makes groups equal; the same object where
    it makes none. Groups of devices keep theirs, of which instructions may depend."""
    kinds: dict[object, list[GraphNode]] = {}
    for node, given in _groups(graph):
        kinds.setdefault(_kind(node, given), []).append(node)
    moved: dict[GraphNode, tuple[int, ...]] = {}
    for nodes in kinds.values():
        found = [_scalars(n.regions[0]) for n in nodes]
        places = range(len(found[0]))
        own = tuple(p for p in places if len({_contents(x[p]) for x in found}) > 1)
        moved.update(dict.fromkeys(nodes, own) if own else {})
    return _with_inputs(graph, moved) if moved else graph


def _groups(graph: Graph) -> Iterator[tuple[GraphNode, frozenset[Value]]]:
    """The groups of the host, in regions too, with the constants around them."""
    given = frozenset(graph.constants())
    for node in graph.nodes:
        if node.op == "fused":
            if not target_of(node):
                yield node, given
        else:
            for region in node.regions:
                yield from _groups(region)


def _scalars(region: Graph) -> list[GraphNode]:
    """The constants that elementwise operators alone read; not of i64, of which indices are made:
    of a literal it is known whether it is inside."""
    readers = region.users()
    return [
        n
        for n in region.nodes
        if n.op == "constant"
        and n.output.type.dtype is not dtypes.i64
        and all(opdef.get(r.op).scalar is not None for r in readers.get(n.output, ()))
    ]


def _contents(constant: GraphNode) -> Blob:
    blob = constant.attr("value")
    assert isinstance(blob, Blob), "a constant has contents"
    return blob


def _kind(node: GraphNode, given: frozenset[Value]) -> object:
    """What groups have in common that differ in scalars alone."""
    region = node.regions[0]
    scalars = set(_scalars(region))
    blank = tuple(replace(n, attrs=()) if n in scalars else n for n in region.nodes)
    weights = frozenset(k for k, v in enumerate(node.input_values) if v in given)
    return node.attrs, group_key(replace(region, nodes=blank), weights) if scalars else node


def _with_inputs(graph: Graph, moved: Mapping[GraphNode, tuple[int, ...]]) -> Graph:
    """`graph` in which groups take the scalars at these places from outside; equal ones once."""
    made: dict[Blob, Value] = {}
    names = {v.name for v in graph.values()}
    nodes: list[GraphNode] = []
    for node in graph.nodes:
        if node in moved:
            taken = [_scalars(node.regions[0])[p] for p in moved[node]]
            for c in taken:
                if _contents(c) not in made:
                    value = made[_contents(c)] = Value(
                        fresh_name(c.output.name, names), c.output.type
                    )
                    nodes.append(replace(c, outputs=(value,)))
            nodes.append(_reading(node, taken, [made[_contents(c)] for c in taken]))
        elif node.op != "fused" and node.regions:
            inside = tuple(_with_inputs(r, moved) for r in node.regions)
            nodes.append(replace(node, regions=inside))
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes))


def _reading(node: GraphNode, taken: list[GraphNode], values: list[Value]) -> GraphNode:
    """A group with inputs instead of constants."""
    region, gone = node.regions[0], set(taken)
    inner = replace(
        region,
        inputs=(*region.inputs, *(c.output for c in taken)),
        nodes=tuple(n for n in region.nodes if n not in gone),
    )
    return replace(node, inputs=(*node.inputs, *values), regions=(inner,))
