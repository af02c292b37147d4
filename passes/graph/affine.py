"""Rules that fold per-channel multiplications and additions by constants into contractions.

This is how batch normalization disappears: it decomposes into ``x * scale + shift`` with constant
per-channel operands, and those move into the weights and bias of the convolution before it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aisc.ir.graph.core import GraphNode, Value
from aisc.ir.graph.ops.convolution import channel_axis
from aisc.ir.rewrite.rules import Match, Rule, rule


def _conv_and_constant(m: Match) -> tuple[GraphNode, np.ndarray] | None:
    """``op(conv(x, w, b?), c)`` with constant w, b and a per-channel constant c of any side."""
    for left, right in ((0, 1), (1, 0)):
        conv, blob = m.producer(m.input(left), "conv"), m.constant(m.input(right))
        if conv is None or blob is None or not m.single_use(conv):
            continue
        if conv.output.type != m.node.output.type:
            continue
        constants = [m.constant(v) for v in conv.inputs[1:] if v is not None]
        channel = _per_channel(blob.array, conv)
        if channel is not None and all(c is not None for c in constants):
            return conv, channel
    return None


def _per_channel(c: np.ndarray, conv: GraphNode) -> np.ndarray | None:
    """`c` as one number per output channel, if it varies over channels only."""
    rank, axis = conv.output.type.rank, channel_axis(conv)
    count = conv.output.type.shape[axis]
    shape = (1,) * (rank - c.ndim) + c.shape
    if len(shape) != rank or any(s != 1 for k, s in enumerate(shape) if k != axis):
        return None
    return np.broadcast_to(c.reshape(-1), (count,)) if isinstance(count, int) else None


def _again(m: Match, conv: GraphNode, w: np.ndarray, b: np.ndarray) -> Sequence[Value] | None:
    """The convolution with other weights; ``None`` where they would not be finite, as infinities
    times zero are NaN in one order and not in the other."""
    dtype = conv.output.type.dtype.numpy
    with np.errstate(all="ignore"):
        w, b = w.astype(dtype), b.astype(dtype)
    if not all(np.isfinite(x.astype(np.float64)).all() for x in (w, b)):
        return None
    weight, bias = m.make_constant(w, "w"), m.make_constant(b, "b")
    return (m.add("conv", (conv.inputs[0], weight, bias), conv.attr_map, (conv,)),)


def _weights(m: Match, conv: GraphNode) -> np.ndarray:
    w = m.constant(conv.inputs[1])
    assert w is not None, "checked to be constant"
    return w.array


def _bias(m: Match, conv: GraphNode) -> np.ndarray:
    """The bias of a convolution: floats in double precision, integers as they are, which wrap."""
    bias = m.constant(conv.inputs[2]) if len(conv.inputs) > 2 else None
    count, dtype = conv.output.type.shape[channel_axis(conv)], conv.output.type.dtype
    assert isinstance(count, int), "static number of channels"
    wide = np.dtype(np.float64) if dtype.is_float else dtype.numpy
    return np.zeros(count, wide) if bias is None else bias.array.astype(wide)


@rule("mul")
def scale_into_conv(m: Match) -> Sequence[Value] | None:
    """``conv(x, w, b) * c -> conv(x, w * c, b * c)``; each product is rounded once."""
    found = _conv_and_constant(m)
    if found is None:
        return None
    conv, c = found
    if conv.attr_map.get("accumulator"):  # weights keep their type, which is shorter
        return None
    w, b = _weights(m, conv), _bias(m, conv)
    outer = conv.attr("data_layout") != "NHWC"
    spread = c.reshape(-1, *([1] * (w.ndim - 1))) if outer else c
    with np.errstate(all="ignore"):
        return _again(m, conv, w * spread, b * c)


@rule("add")
def shift_into_conv(m: Match) -> Sequence[Value] | None:
    """``conv(x, w, b) + c -> conv(x, w, b + c)``."""
    found = _conv_and_constant(m)
    if found is None:
        return None
    conv, c = found
    dtype = conv.output.type.dtype.numpy
    total = (_bias(m, conv) + c).astype(dtype)
    if not np.isfinite(total.astype(np.float64)).all():
        return None
    bias = m.make_constant(total, "b")
    return (m.add("conv", (*conv.inputs[:2], bias), conv.attr_map, (conv,)),)


RULES: tuple[Rule, ...] = (scale_into_conv, shift_into_conv)
