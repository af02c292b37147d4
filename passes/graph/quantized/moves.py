"""Integers stay integers through what only moves or compares them: all give the same bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aisc.ir.graph.core import GraphNode, Value
from aisc.ir.graph.opdef import call_of
from aisc.ir.graph.ops.window import pool_window
from aisc.ir.rewrite.rules import Match, Rule, rule
from aisc.passes.graph.quantized.parameters import plain_scale, same_parameters


def _whole(m: Match, value: Value | None) -> GraphNode | None:
    """A ``dequantize`` with one scale that keeps order."""
    node = m.producer(value, "dequantize")
    if node is None or node.input_values[1].type.rank or plain_scale(m, node.inputs[1]) is None:
        return None
    return node


def _again(m: Match, node: GraphNode, integers: Value) -> Sequence[Value]:
    inputs = (integers, *node.inputs[1:])
    return (m.add("dequantize", inputs, {"axis": 0}, (node,)),)


@rule("quantize")
def quantize_undone(m: Match) -> Sequence[Value] | None:
    """``quantize(dequantize(q, s, z), s, z) -> q``: two roundings move an integer of 16 bits by
    less than a half."""
    inner = m.producer(m.input(0), "dequantize")
    if inner is None or inner.input_values[0].type != m.node.output.type:
        return None
    if m.node.output.type.dtype.bits > 16 or inner.output.type.dtype.bits < 32:
        return None
    return (inner.input_values[0],) if same_parameters(m, inner, m.node) else None


@rule("transpose")
def later_transpose(m: Match) -> Sequence[Value] | None:
    """``transpose(dequantize(q, s, z)) -> dequantize(transpose(q), s, z)``, whose axis moves."""
    node = m.producer(m.input(0), "dequantize")
    if node is None:
        return None
    moved = m.add("transpose", node.input_values[:1], m.node.attr_map)
    perm, axis = m.node.attr("perm"), node.attr("axis")
    assert isinstance(perm, tuple) and isinstance(axis, int), "attributes of these operators"
    place = perm.index(axis % len(perm)) if node.input_values[1].type.rank else 0
    return (m.add("dequantize", (moved, *node.inputs[1:]), {"axis": place}, (node,)),)


@rule("reshape", "slice", "expand")
def later_movement(m: Match) -> Sequence[Value] | None:
    """``reshape(dequantize(q, s, z)) -> dequantize(reshape(q), s, z)``; movements likewise."""
    node = _whole(m, m.input(0))
    if node is None or len(m.node.inputs) != 1:
        return None
    return _again(m, node, m.add(m.node.op, node.input_values[:1], m.node.attr_map))


@rule("concat")
def later_concat(m: Match) -> Sequence[Value] | None:
    """``concat(dequantize(q, s, z), dequantize(r, s, z)) -> dequantize(concat(q, r), s, z)``."""
    found = [_whole(m, v) for v in m.node.inputs]
    parts = [n for n in found if n is not None]
    if len(parts) != len(found) or len({n.input_values[0].type.dtype for n in parts}) != 1:
        return None
    if not all(same_parameters(m, parts[0], n) for n in parts[1:]):
        return None
    joined = m.add("concat", [n.input_values[0] for n in parts], m.node.attr_map, parts)
    return _again(m, parts[0], joined)


@rule("max_pool")
def later_max_pool(m: Match) -> Sequence[Value] | None:
    """``max_pool(dequantize(q, s, z)) -> dequantize(max_pool(q), s, z)``: scales above zero keep
    the order; each window has a place inside the image."""
    node, window = _whole(m, m.input(0)), pool_window(call_of(m.node))
    pads = zip(window.begins, window.ends, strict=True)
    inside = all(max(p) < window.kernel[a] for a, p in enumerate(pads))
    if node is None or not inside or max(window.dilations) > 1:
        return None
    return _again(m, node, m.add("max_pool", node.input_values[:1], m.node.attr_map))


@rule("relu")
def later_relu(m: Match) -> Sequence[Value] | None:
    """``relu(dequantize(q, s, z)) -> dequantize(max(q, z), s, z)``; -0 becomes 0 nowhere, for
    ``(z - z) * s`` is 0."""
    node = _whole(m, m.input(0))
    if node is None:
        return None
    q, zero = node.input_values[0], node.inputs[2] if len(node.inputs) > 2 else None
    if zero is None:
        zero = m.make_constant(np.zeros((), q.type.dtype.numpy), "zero")
    return _again(m, node, m.add("max", (q, zero), None, (node,)))


@rule("quantize")
def relu_of_lowest(m: Match) -> Sequence[Value] | None:
    """``quantize(relu(x), s, z) -> quantize(x, s, z)`` where `z` is the lowest integer, to which
    all below zero saturates; NaN stays what it was."""
    inner, scale = m.producer(m.input(0), "relu"), plain_scale(m, m.input(1))
    to = m.node.output.type.dtype
    zero = m.constant(m.node.inputs[2]) if len(m.node.inputs) > 2 else None
    if inner is None or scale is None or (zero is None and to.min_value != 0):
        return None
    if zero is not None and (zero.array != to.min_value).any():
        return None
    return (m.add("quantize", (inner.inputs[0], *m.node.inputs[1:]), m.node.attr_map, (inner,)),)


RULES: tuple[Rule, ...] = (
    quantize_undone, later_transpose, later_movement, later_concat, later_max_pool, later_relu,
    relu_of_lowest,
)  # fmt: skip
