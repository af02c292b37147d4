"""Products of quantized values are products of integers, with sums of 32 bits.

before: ``%y = conv(dequantize(%q, s, z), dequantize(%w, t))``
after:  ``%y = cast(conv(%q, %w, accumulator i32, fill z) - z * sum(%w), f32) * (s * t)``
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from aisc.ir import dtypes
from aisc.ir.graph.core import GraphNode, Value
from aisc.ir.graph.ops.convolution import channel_axis
from aisc.ir.rewrite.rules import Match, Rule, rule
from aisc.passes.graph.quantized.parameters import (
    Quantized,
    along,
    centred,
    dequantized,
    zero_of,
)

I32 = {"accumulator": "i32"}
# Integers below which every sum stays.
ROOM = 1 << 31


@rule("matmul", "conv")
def integer_product(m: Match) -> Sequence[Value] | None:
    """``matmul(dequantize(a, s, x), dequantize(b, t, y)) -> cast(matmul(a - x, b - y), f32) * (s *
    t)``, a convolution likewise, a scale for each output channel included; sums fit 32 bits."""
    a, b = dequantized(m, m.input(0)), dequantized(m, m.input(1))
    node, rank = m.node, m.node.output.type.rank
    if a is None or b is None or node.attr("accumulator") or a.scale.type.rank:
        return None
    if min(a.integers.type.rank, b.integers.type.rank) < 2 or not _per_output(node, b):
        return None
    if node.output.type.dtype is not dtypes.f32:
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    whole = None if bias is None else _as_integers(m, bias, a, b)
    if _greatest(m, a, b, whole) >= ROOM:
        return None
    inputs = (centred(m, a), centred(m, b), *(() if whole is None else (whole,)))
    sums = m.add(node.op, inputs, {**node.attr_map, **I32}, (a.node, b.node))
    axis = rank - 1 if node.op == "matmul" else channel_axis(node)
    scale = m.add("mul", (a.scale, b.scale))
    scale = along(m, scale, axis if scale.type.rank else None, rank)
    y = m.add("mul", (m.add("cast", (sums,), {"to": dtypes.f32}), scale))
    if bias is not None and whole is None:
        y = m.add("add", (y, along(m, bias, axis, rank)))
    return (y,)


def _per_output(node: GraphNode, b: Quantized) -> bool:
    """Whether the scales of the second operand are those of output channels, or one."""
    last = node.op == "matmul" or node.attr("data_layout") == "NHWC"
    return b.axis in (None, b.integers.type.rank - 1 if last else 0)


def _terms(node: GraphNode) -> int:
    """How many products a result adds up; 0 where only the run knows."""
    w = node.input_values[1].type.shape
    channels = channel_axis(node) if node.op == "conv" else 0
    known = w[-2:-1] if node.op == "matmul" else (w[:-1] if channels > 1 else w[1:])
    return prod(d for d in known if isinstance(d, int)) * all(isinstance(d, int) for d in known)


def _greatest(m: Match, a: Quantized, b: Quantized, bias: Value | None) -> int:
    """What the absolute value of no sum exceeds."""
    terms = _terms(m.node)
    if terms == 0 and not any(d == 0 for d in m.node.input_values[1].type.shape):
        return ROOM
    blob = m.constant(bias)
    more = 0 if blob is None or not blob.array.size else int(np.abs(blob.array.astype("i8")).max())
    return terms * _range(m, a) * _range(m, b) + more


def _range(m: Match, q: Quantized) -> int:
    zero, t = zero_of(m, q), q.dtype
    if zero is None or not zero.size:
        return 255
    low, high = int(zero.min()), int(zero.max())
    return max(int(t.max_value) - low, high - int(t.min_value))


def _as_integers(m: Match, bias: Value, a: Quantized, b: Quantized) -> Value | None:
    """A bias that is quantized with the product of both scales and no zero point, as i32."""
    node = m.producer(bias, "dequantize")
    if node is None or node.input_values[0].type.dtype is not dtypes.i32:
        return None
    blobs = [m.constant(v) for v in (node.inputs[1], a.scale, b.scale, node.inputs[0])]
    own, s, t, values = blobs
    zero = m.constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if own is None or s is None or t is None or values is None:
        return None
    if len(node.inputs) > 2 and node.inputs[2] is not None and (zero is None or zero.array.any()):
        return None
    product = np.multiply(s.array, t.array)
    both = np.broadcast_to(product, own.array.shape or values.array.shape)
    same = np.array_equal(np.broadcast_to(own.array, both.shape), both)
    return node.inputs[0] if same else None


@rule("matmul", "conv")
def zero_point_in_bias(m: Match) -> Sequence[Value] | None:
    """``conv(cast(q, i16) - z, w) -> conv(q, w, fill z) - z * sum(w)`` for constant weights:
    the sum over each output channel is computed once; matmul likewise. Integers wrap alike."""
    node, blob = m.node, m.constant(m.input(1))
    less = m.producer(m.input(0), "sub")
    wide = None if less is None else m.producer(less.inputs[0], "cast")
    if node.attr("accumulator") != "i32" or blob is None or less is None or wide is None:
        return None
    zero, q = m.constant(less.inputs[1]), wide.input_values[0]
    if zero is None or zero.array.size != 1 or q.type.dtype.bits != 8:
        return None
    if q.type.rank < 2 or less.output.type.shape != q.type.shape or blob.array.ndim < 2:
        return None
    z = int(zero.array.reshape(()))
    if not q.type.dtype.min_value <= z <= q.type.dtype.max_value:
        return None
    also = (less, wide)
    if node.op == "matmul":
        shift = m.make_constant(_shift(blob.array, (-2,), z, True), "shift")
        sums = m.add("matmul", (q, node.inputs[1]), node.attr_map, also)
        return (m.add("add", (sums, shift)),)
    last = node.attr("data_layout") == "NHWC"
    axes = tuple(range(blob.array.ndim - 1)) if last else tuple(range(1, blob.array.ndim))
    total: Value = m.make_constant(_shift(blob.array, axes, z, False), "shift")
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        total = m.add("add", (node.inputs[2], total))
    inputs = (q, node.inputs[1], total)
    return (m.add("conv", inputs, {**node.attr_map, "fill": z}, also),)


def _shift(w: np.ndarray, axes: tuple[int, ...], zero: int, keep: bool) -> np.ndarray:
    """``-zero * sum(w)`` as i32, which wraps."""
    total = np.multiply(-zero, w.sum(axis=axes, keepdims=keep, dtype=np.int64))
    return np.asarray(total).astype(np.int32)


@rule("matmul", "conv")
def short_weights(m: Match) -> Sequence[Value] | None:
    """``matmul(a, w: i16) -> matmul(a, w: i8)`` for constant weights that fit, as those of 8 bits
    less a zero point may."""
    w, blob = m.input(1), m.constant(m.input(1))
    if m.node.attr("accumulator") != "i32" or w is None or blob is None:
        return None
    if w.type.dtype is not dtypes.i16 or not blob.array.size:
        return None
    if blob.array.min() < -128 or blob.array.max() > 127:
        return None
    short = m.make_constant(blob.array.astype(np.int8), "w")
    return (m.add(m.node.op, (m.input(0), short, *m.node.inputs[2:]), m.node.attr_map),)


RULES: tuple[Rule, ...] = (integer_product, zero_point_in_bias, short_weights)
