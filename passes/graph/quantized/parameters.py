"""What rules on quantized values ask: the parameters of a node, and integers less a zero point."""

from __future__ import annotations

import numpy as np

from aisc.ir import dtypes
from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import GraphNode, Value
from aisc.ir.rewrite.rules import Match

# Scales with which small integers survive being scaled and back.
LEAST, MOST = 2.0**-100, 2.0**100


@dataclass(frozen=True, slots=True)
class Quantized:
    """A node ``dequantize`` of a pattern."""

    node: GraphNode

    @property
    def integers(self) -> Value:
        """What is stored."""
        return self.node.input_values[0]

    @property
    def scale(self) -> Value:
        """Its scale."""
        return self.node.input_values[1]

    @property
    def zero(self) -> Value | None:
        """Its zero point, if there is one."""
        return self.node.inputs[2] if len(self.node.inputs) > 2 else None

    @property
    def dtype(self) -> DType:
        """The type that is stored."""
        return self.integers.type.dtype

    @property
    def axis(self) -> int | None:
        """The axis of the parameters, counted from the front; ``None`` for those of the tensor."""
        axis = self.node.attr("axis")
        assert isinstance(axis, int), "an axis is a number"
        return axis % self.integers.type.rank if self.scale.type.rank else None


def dequantized(m: Match, value: Value | None) -> Quantized | None:
    """The node that makes `value` from integers of 8 bits."""
    node = m.producer(value, "dequantize")
    found = None if node is None else Quantized(node)
    return found if found is not None and found.dtype.bits == 8 else None


def zero_of(m: Match, q: Quantized) -> np.ndarray | None:
    """The zero points as i64, 0 where none is given; ``None`` for those that the run gives."""
    if q.zero is None:
        return np.zeros((), np.int64)
    blob = m.constant(q.zero)
    return None if blob is None else blob.array.astype(np.int64)


def plain_scale(m: Match, scale: Value | None) -> np.ndarray | None:
    """A constant scale that keeps order and loses no small integer; ``None`` for others."""
    blob = m.constant(scale)
    if blob is None:
        return None
    wide = blob.array.astype(np.float64)
    return blob.array if ((wide >= LEAST) & (wide <= MOST)).all() else None


def same_parameters(m: Match, a: GraphNode, b: GraphNode) -> bool:
    """Whether two nodes have equal constant scales and zero points, for the whole tensor."""
    pairs = [(x.input_values[1], x.inputs[2] if len(x.inputs) > 2 else None) for x in (a, b)]
    (scale, zero), (other, zero2) = pairs
    if scale.type.rank or plain_scale(m, scale) is None or not _same(m, scale, other):
        return False
    if zero is None or zero2 is None:
        given = m.constant(zero if zero2 is None else zero2)
        return zero is zero2 or (given is not None and not given.array.any())
    return _same(m, zero, zero2)


def _same(m: Match, a: Value, b: Value) -> bool:
    if a is b:
        return True
    x, y = m.constant(a), m.constant(b)
    if x is None or y is None or a.type != b.type:
        return False
    return x.array.tobytes() == y.array.tobytes()


def centred(m: Match, q: Quantized) -> Value:
    """The integers less their zero point, in i16 where it is not 0."""
    zero = zero_of(m, q)
    if q.zero is None or (zero is not None and not zero.any()):
        return q.integers
    wide = m.add("cast", (q.integers,), {"to": dtypes.i16}, (q.node,))
    point = m.add("cast", (q.zero,), {"to": dtypes.i16}, (q.node,))
    return m.add("sub", (wide, along(m, point, q.axis, wide.type.rank)), None, (q.node,))


def along(m: Match, v: Value, axis: int | None, rank: int) -> Value:
    """A vector as it broadcasts along `axis` of a tensor."""
    if axis is None:
        return v
    return m.add("reshape", (v,), {"shape": (*v.type.shape, *[1] * (rank - 1 - axis))})
