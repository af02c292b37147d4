"""What SIMT machines answer to the questions of the passes."""

from __future__ import annotations

from collections.abc import Sequence

from aisc.ir import dtypes
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import GraphNode
from aisc.passes.policy import PlainPolicy

TYPES = frozenset({
    dtypes.f16, dtypes.bf16, dtypes.f32, dtypes.f64, dtypes.boolean, dtypes.i8, dtypes.i16,
    dtypes.i32, dtypes.i64, dtypes.u8, dtypes.u16, dtypes.u32, dtypes.u64,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class SimtPolicy(PlainPolicy):
    """Everything that has loops, in the types that kernels are emitted for."""

    channels_last: bool = True

    def refuses(self, nodes: Sequence[GraphNode]) -> str:
        """The first type that no kernel is emitted for."""
        values = (v for n in nodes for v in (*n.input_values, *n.outputs))
        other = next((v.type.dtype for v in values if v.type.dtype not in TYPES), None)
        return "" if other is None else f"no kernels for {other.name}"
