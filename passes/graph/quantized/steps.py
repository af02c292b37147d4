"""Rules after which a quantized value may be the next one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aisc.ir import dtypes
from aisc.ir.graph.core import Value
from aisc.ir.rewrite.rules import Match, Rule, rule
from aisc.passes.graph.quantized.parameters import plain_scale


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


RULES: tuple[Rule, ...] = (scale_by_reciprocal,)
