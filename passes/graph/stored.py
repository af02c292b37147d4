"""Constant weights of products stay in the few bits that a model has for them.

before: ``%w = dequantize(constant i8, s, z); %y = matmul(%x, %w)``
after:  ``%w = widen(constant i8, s, z); %y = matmul(%x, %w)``

Products whose operands are both quantized are products of integers (:mod:`.quantized`) by then.
The kernel of a product computes the floats of its weights itself, so each has a ``widen`` of its
own (:func:`apart`). Other readers get floats that are computed at compile time: see :func:`stays`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from aisc.ir import dtypes
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.names import fresh_name
from aisc.ir.rewrite.rules import Match, Rule, rule
from aisc.passes.base import map_regions
from aisc.passes.graph.quantized.parameters import Quantized, dequantized

# Columns of which a product reads vectors.
LEAST_COLUMNS = 4


def is_product(node: GraphNode, weights: Value) -> bool:
    """Whether a node multiplies by a matrix, its second operand alone."""
    if node.op != "matmul" or node.inputs[1] is not weights or node.inputs[0] is weights:
        return False
    columns, wide = weights.type.shape[-1], node.output.type.dtype is dtypes.f32
    several = isinstance(columns, int) and columns >= LEAST_COLUMNS
    return several and wide and weights.type.rank == 2 and not node.attr("accumulator")


def stays(node: GraphNode, users: Mapping[Value, Sequence[GraphNode]]) -> bool:
    """Whether the floats of a ``widen`` are best computed by its readers: by products, also beyond
    two transposes that undo each other."""

    def reads_codes(user: GraphNode) -> bool:
        if user.op == "transpose":
            return all(u.op == "transpose" for u in users.get(user.output, ()))
        return is_product(user, node.output)

    return all(map(reads_codes, users.get(node.output, ())))


@rule("matmul")
def stored_weights(m: Match) -> Sequence[Value] | None:
    """``matmul(x, dequantize(q, s, z)) -> matmul(x, widen(q, s, z))`` for constants of 8 bits, with
    a scale for all or for each column: the same bits."""
    found = dequantized(m, m.input(1))
    if found is None or not is_product(m.node, found.node.output):
        return None
    operands = _operands(m, found)
    if operands is None:
        return None
    attrs = {"bits": 8, "block": 0, "rows": operands[0].shape[0]}
    wide = m.add("widen", [m.make_constant(a, "w") for a in operands], attrs, (found.node,))
    return (m.add("matmul", (m.input(0), wide), m.node.attr_map, (found.node,)),)


def _operands(m: Match, q: Quantized) -> tuple[np.ndarray, ...] | None:
    """Signed codes, scales and zero points, these where not all of them are 0."""
    blobs = [m.constant(v) for v in (q.integers, q.scale)]
    zero = None if q.zero is None else m.constant(q.zero)
    codes, scale = (None if b is None else b.array for b in blobs)
    if codes is None or scale is None or (q.zero is not None and zero is None):
        return None
    if q.axis not in (None, 1) or scale.dtype != np.float32 or not codes.size:
        return None
    columns = codes.shape[1]
    points = np.zeros((), np.int16) if zero is None else zero.array.astype(np.int16)
    move = 128 if codes.dtype == np.uint8 else 0
    signed = codes.astype(np.int16) - move
    parts = [signed.astype(np.int8), np.broadcast_to(scale.reshape(1, -1), (1, columns))]
    points = np.broadcast_to((points - move).reshape(1, -1), (1, columns)).astype(np.int8)
    return (*parts, points) if points.any() else tuple(parts)


def apart(graph: Graph) -> Graph:
    """Give each product a ``widen`` of its own."""
    graph = map_regions(graph, apart)
    made, users = graph.producers(), graph.users()
    taken = {v.name for v in graph.values()}
    nodes: list[GraphNode] = []
    for node in graph.nodes:
        source = made.get(node.inputs[1]) if node.op == "matmul" and node.inputs[1] else None
        if source is not None and source.op == "widen" and users[source.output][0] is not node:
            own = Value(fresh_name(source.output.name, taken), source.output.type)
            nodes.append(replace(source, outputs=(own,)))
            node = replace(node, inputs=(node.inputs[0], own))
        nodes.append(node)
    same = len(nodes) == len(graph.nodes) and all(
        a is b for a, b in zip(nodes, graph.nodes, strict=True)
    )
    return graph if same else replace(graph, nodes=tuple(nodes))


RULES: tuple[Rule, ...] = (stored_weights,)
