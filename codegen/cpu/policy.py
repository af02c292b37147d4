"""What the CPU answers to the questions of the passes."""

from __future__ import annotations

from collections.abc import Sequence

from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType, f32
from aisc.ir.graph.core import GraphNode
from aisc.ir.target import Target
from aisc.ir.tensor.func import Func
from aisc.passes.schedule.rules import attention


@dataclass(frozen=True, slots=True)
class CpuPolicy:
    """Channels or places are lanes; attention is one kernel; everything that has loops runs."""

    target: Target
    channels_last: bool = True
    narrow_constants: bool = False
    factors: tuple[DType, ...] = ()

    @property
    def name(self) -> str:
        """The target's name."""
        return self.target.name

    @property
    def image_lanes(self) -> int:
        """Floats in a vector."""
        return self.target.lanes(f32)

    def refuses(self, nodes: Sequence[GraphNode]) -> str:
        """Nothing is refused."""
        return ""

    def is_attention(self, func: Func) -> bool:
        """What the rule for attention replaces."""
        return attention.is_attention(func, self.target)

    def is_copy(self, func: Func) -> bool:
        """What the rule for attention reads through."""
        return attention.is_copy(func)
