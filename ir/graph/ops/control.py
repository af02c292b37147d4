"""Operators with regions: ``fused``, a group of nodes that becomes one kernel."""

from __future__ import annotations

from aisc.ir.graph.opdef import Array, Arrays, OpCall, OpDef, Operand, register
from aisc.ir.types import TensorType


def _fused_rule(call: OpCall) -> tuple[TensorType, ...]:
    if len(call.regions) != 1:
        raise call.fail(f"needs one region, has {len(call.regions)}", code="E202")
    region = call.regions[0]
    expected = tuple(v.type for v in region.inputs)
    if expected != call.types:
        raise call.fail("operands do not fit the region's inputs")
    return tuple(v.type for v in region.outputs)


def _fused_reference(call: OpCall, xs: Arrays) -> list[Array]:
    from aisc.ir.graph.interpret import interpret

    return list(interpret(call.regions[0], [x for x in xs if x is not None]))


register(
    OpDef(
        "fused",
        "A group of operators that is computed by one kernel: its region over the operands.",
        (Operand("xs", variadic=True),),
        _fused_rule,
        _fused_reference,
        "opaque",
        outputs=1,
    )
)
