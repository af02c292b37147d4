"""Structural equality of graphs: alpha-stable (names of values do not count), blind to Loc."""

from __future__ import annotations

from aisc.ir.blob import Blob
from aisc.ir.graph.core import AttrValue, Graph, GraphNode, Value


def same(a: Graph, b: Graph) -> bool:
    """True when the graphs have the same nodes in the same order over the same types."""
    if (len(a.inputs), len(a.nodes), len(a.outputs)) != (
        len(b.inputs),
        len(b.nodes),
        len(b.outputs),
    ):
        return False
    match: dict[Value, Value] = {}
    for x, y in zip(a.inputs, b.inputs, strict=True):
        if x.type != y.type:
            return False
        match[x] = y
    if not all(_same_node(m, n, match) for m, n in zip(a.nodes, b.nodes, strict=True)):
        return False
    outputs = all(match.get(x) is y for x, y in zip(a.outputs, b.outputs, strict=True))
    return outputs and a.result_names == b.result_names


def _same_node(a: GraphNode, b: GraphNode, match: dict[Value, Value]) -> bool:
    if a.op != b.op or len(a.inputs) != len(b.inputs) or len(a.outputs) != len(b.outputs):
        return False
    for x, y in zip(a.inputs, b.inputs, strict=True):
        if (None if x is None else match.get(x)) is not y:
            return False
    if len(a.regions) != len(b.regions) or not _same_attrs(a.attr_map, b.attr_map):
        return False
    if not all(same(r, s) for r, s in zip(a.regions, b.regions, strict=True)):
        return False
    for x, y in zip(a.outputs, b.outputs, strict=True):
        if x.type != y.type:
            return False
        match[x] = y
    return True


def _same_attrs(a: dict[str, AttrValue], b: dict[str, AttrValue]) -> bool:
    return a.keys() == b.keys() and all(_same_value(a[k], b[k]) for k in a)


def _same_value(a: object, b: object) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, float) and isinstance(b, float):
        return a.hex() == b.hex()  # NaN equals itself, -0.0 differs from 0.0
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same_value, a, b))
    if isinstance(a, Blob):
        return a == b
    return a == b
