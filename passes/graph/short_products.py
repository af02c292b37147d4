"""Products of floats in 16 bits, on machines that multiply such.

before: ``%y = matmul(%x, %w)``
after:  ``%a = cast(%x, bf16); %b = cast(%w, bf16); %y = matmul(%a, %b, accumulator f32)``

Part of :mod:`.precision`: a device that multiplies the type in which weights are stored
(`Policy.factors`) reads both factors in it and adds up in f32, so each factor is rounded once and
sums are not. Only what the device takes is changed; every other product stays in f32.
"""

from __future__ import annotations

from collections.abc import Sequence

from aisc.ir import dtypes
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import GraphNode, Value
from aisc.ir.rewrite.rules import Match, Rule, rule
from aisc.ir.types import TensorType
from aisc.passes.graph.short_constants import is_kept, shortened
from aisc.passes.policy import Policy


def rules(to: DType, devices: Sequence[Policy], keep: Sequence[str] = ()) -> tuple[Rule, ...]:
    """The rules for one type and the devices that multiply it."""
    able = [d for d in devices if to in d.factors]

    @rule("matmul", "conv")
    def short_factors(m: Match) -> Sequence[Value] | None:
        """``matmul(x, w) -> matmul(cast(x), cast(w), accumulator f32)``: factors in 16 bits."""
        if m.node.attr("accumulator") or is_kept(m.node, keep):
            return None
        if any(v.type.dtype is not dtypes.f32 for v in m.node.input_values):
            return None
        blobs = [m.constant(v) for v in m.node.input_values[:2]]
        short = [shortened(b, to) for b in blobs]
        if any(b is not None and s is None for b, s in zip(blobs, short, strict=True)):
            return None
        if all(d.refuses((_asked(m.node, to),)) for d in able):
            return None
        factors = [
            _rounded(m, v, to) if b is None else m.add("constant", (), {"value": b})
            for v, b in zip(m.node.input_values, short, strict=False)
        ]
        attrs = {**m.node.attr_map, "accumulator": dtypes.f32.name}
        return (m.add(m.node.op, (*factors, *m.node.inputs[2:]), attrs),)

    return (short_factors,) if able else ()


def _rounded(m: Match, value: Value, to: DType) -> Value:
    """A computed factor in 16 bits: rounded where it is made, before what only moves it."""
    before: list[GraphNode] = []
    while (node := m.producer(value)) is not None and _moves_for(m, node):
        before.append(node)
        value = node.input_values[0]
    known = (n.output for n in m.readers(value, "cast") if n.attr("to") is to)
    short = next(known, None) or m.add("cast", (value,), {"to": to})
    for node in reversed(before):
        short = m.add(node.op, (short,), node.attr_map, (node,))
    return short


def _moves_for(m: Match, node: GraphNode) -> bool:
    """Whether a node only gives its operand another shape, or another order for the product."""
    if node.op == "transpose":
        return m.single_use(node) and m.producer(node.inputs[0]) is not None
    return node.op == "reshape"


def _asked(node: GraphNode, to: DType) -> GraphNode:
    """The product as a device would get it."""
    factors = [Value(v.name, TensorType(v.type.shape, to)) for v in node.input_values[:2]]
    attrs = tuple({**node.attr_map, "accumulator": dtypes.f32.name}.items())
    (out,) = node.outputs
    made = (Value(out.name, out.type),)
    return GraphNode(node.op, (*factors, *node.inputs[2:]), made, attrs, (), node.loc)
