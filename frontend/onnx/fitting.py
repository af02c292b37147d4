"""Sizes that an operand of a node must have."""

from __future__ import annotations

from collections.abc import Sequence

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.onnx.node import Node
from aisc.ir.arith.poly import Dim
from aisc.ir.graph.core import Value
from aisc.ir.graph.shapes.checks import decide


def fitted(em: Emitter, node: Node, value: Value, shape: Sequence[Dim], reason: str) -> Value:
    """`value` with sizes that it must have: E103 for `reason` where they differ, a test of the run
    where only that can tell."""
    pairs = list(zip(value.type.shape, shape, strict=False))
    if len(shape) != value.type.rank or any(decide("==", a, b) is False for a, b in pairs):
        raise node.malformed(reason)
    return em.assume(value, shape)


def one_value(em: Emitter, node: Node, value: Value, what: str) -> Value:
    """The one element of a tensor, as a scalar."""
    reason = f"{what} must be one value, got {value.type}"
    return em.reshape(fitted(em, node, value, (1,) * value.type.rank, reason), ())
