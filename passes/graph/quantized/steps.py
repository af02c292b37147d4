"""Rules after which a quantized value may be the next one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aisc.ir import dtypes
from aisc.ir.graph.core import Value
from aisc.ir.rewrite.rules import Match, Rule, rule
from aisc.passes.graph.quantized.parameters import LEAST, MOST, plain_scale


@rule("quantize")
def scale_by_reciprocal(m: Match) -> Sequence[Value] | None:
    """``quantize(x, s, z) -> quantize(x * (1 / s), 1, z)`` for a constant scale: a product instead
    of a quotient, at most one step away."""
    x, scale = m.input(0), plain_scale(m, m.input(1))
    if x is None or scale is None or scale.ndim or scale.dtype != np.float32 or scale == 1:
        return None
    if x.type.dtype is not dtypes.f32:
        return None
    factor = m.make_constant(np.float32(1) / scale, "factor")
    one = m.make_constant(np.ones((), np.float32), "one")
    scaled = m.add("mul", (x, factor))
    return (m.add("quantize", (scaled, one, *m.node.inputs[2:]), m.node.attr_map),)


@rule("quantize")
def scales_joined(m: Match) -> Sequence[Value] | None:
    """``quantize(cast(sums, f32) * s * t, 1, z) -> quantize(cast(sums, f32) * (s * t), 1, z)`` for
    constants `s` and `t`: one rounding less, at most one step away."""
    outer = m.producer(m.input(0), "mul")
    inner = None if outer is None else m.producer(outer.inputs[0], "mul")
    wide = None if inner is None else m.producer(inner.inputs[0], "cast")
    if outer is None or inner is None or wide is None:
        return None
    if not wide.input_values[0].type.dtype.is_integer or inner.output.type != outer.output.type:
        return None
    scales = [plain_scale(m, v) for v in (inner.inputs[1], outer.inputs[1])]
    s, t = scales
    if s is None or t is None or t.size != 1 or s.dtype != np.float32 or t.dtype != np.float32:
        return None
    both = np.asarray(s * t.reshape(()), np.float32)
    if not ((both >= LEAST) & (both <= MOST)).all():
        return None
    scaled = m.add("mul", (inner.inputs[0], m.make_constant(both, "scale")), None, (inner, outer))
    return (m.add("quantize", (scaled, *m.node.inputs[1:]), m.node.attr_map),)


RULES: tuple[Rule, ...] = (scale_by_reciprocal, scales_joined)
