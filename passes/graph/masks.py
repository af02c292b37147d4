"""Rules on what stands around a softmax of products: factors of both operands, masks that hide
nothing, and rows that are dropped. With them the definition of ONNX's Attention operator is a chain
that becomes one kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import GraphNode, Value
from aisc.ir.rewrite.rules import Match, Rule, rule


@rule("where")
def where_known(m: Match) -> Sequence[Value] | None:
    """``where(false, a, b) -> b``, ``where(true, a, b) -> a`` for a constant that is the same
    everywhere."""
    blob = m.constant(m.input(0))
    if blob is None or blob.size == 0:
        return None
    arms = [m.input(2), m.input(1)]
    for value, arm in zip((False, True), arms, strict=True):
        if arm is not None and arm.type == m.node.output.type and np.all(blob.array == value):
            return (arm,)
    return None


@rule("matmul")
def drop_rows_after(m: Match) -> Sequence[Value] | None:
    """``matmul(where(c, 0, p), v) -> where(c, 0, matmul(p, v))`` where c chooses whole rows; what v
    holds does not matter to rows that are dropped, be it infinite."""
    chosen, v = m.producer(m.input(0), "where"), m.input(1)
    if chosen is None or v is None or not m.single_use(chosen):
        return None
    c, zero, p = chosen.input_values
    blob = m.constant(zero)
    rank, result = chosen.output.type.rank, m.node.output.type
    if blob is None or blob.size != 1 or np.any(blob.array != 0) or p.type.rank != rank:
        return None
    if c.type.rank == 0 or c.type.shape[-1] != 1 or c.type.rank > rank or rank != result.rank:
        return None
    product = m.add("matmul", (p, v), m.node.attr_map, (chosen,))
    if product.type != result:
        return None
    return (m.add("where", (c, zero, product), {}, (chosen,)),)


@rule("matmul")
def join_factors(m: Match) -> Sequence[Value] | None:
    """``matmul(a * x, b * y) -> matmul((a * b) * x, y)`` for numbers a and b; transposes of the
    products stay."""
    left, right = _scaled(m, m.input(0)), _scaled(m, m.input(1))
    if left is None or right is None or not left.x.type.dtype.is_float:
        return None
    both = np.multiply(left.number.array.reshape(()), right.number.array.reshape(()))
    number = m.make_constant(np.asarray(both, left.number.array.dtype))
    scaled = m.add("mul", (left.x, number), {}, (left.product, right.product))
    return (m.add("matmul", (left.moved(m, scaled), right.moved(m, right.x)), m.node.attr_map),)


@dataclass(frozen=True, slots=True)
class _Scaled:
    """A value that is `product`, of `x` and one number, perhaps transposed by `mover`."""

    x: Value
    number: Blob
    product: GraphNode
    mover: GraphNode | None

    def moved(self, m: Match, v: Value) -> Value:
        """`v` in the place of the product."""
        if self.mover is None:
            return v
        return m.add("transpose", (v,), self.mover.attr_map, (self.mover,))


def _scaled(m: Match, v: Value | None) -> _Scaled | None:
    """The parts of a value that is a product of one number; ``None`` where it is none."""
    mover = m.producer(v, "transpose")
    node = m.producer(v if mover is None else mover.inputs[0], "mul")
    if node is None:
        return None
    for x, c in (node.input_values, node.input_values[::-1]):
        blob = m.constant(c)
        if blob is not None and blob.size == 1 and x.type == node.output.type:
            return _Scaled(x, blob, node, mover)
    return None


@rule("softmax")
def no_mask(m: Match) -> Sequence[Value] | None:
    """``softmax(x + 0) -> softmax(x)``: whether a zero is -0 makes no difference to it."""
    total = m.producer(m.input(0), "add")
    if total is None:
        return None
    for x, c in (total.input_values, total.input_values[::-1]):
        blob = m.constant(c)
        if blob is not None and x.type == total.output.type and not np.any(blob.array):
            return (m.add("softmax", (x,), m.node.attr_map, (total,)),)
    return None


RULES: tuple[Rule, ...] = (where_known, drop_rows_after, join_factors, no_mask)
