"""What passes ask of the machines that a graph is compiled for.

A back end answers as a :class:`Policy`, so that passes depend on questions and not on anybody's
rules. :class:`Machines` are the host and the devices of one compilation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import GraphNode
from aisc.ir.tensor.func import Func


class Policy(Protocol):
    """The answers for one target."""

    @property
    def name(self) -> str:
        """The name of the target: kernels and memory are marked with it."""

    @property
    def channels_last(self) -> bool:
        """Whether image operators may have their channels on the last axis."""

    @property
    def image_lanes(self) -> int:
        """Elements of a vector, for which there must be enough channels or places in a row; 0 where
        channels are last whatever there is."""

    @property
    def narrow_constants(self) -> bool:
        """Whether products of integers shall read constants in the narrowest type that holds
        them."""

    @property
    def factors(self) -> tuple[DType, ...]:
        """Floats of 16 bits that it multiplies, with sums in f32: where the user stores weights in
        one of them, products read both factors so."""

    def refuses(self, nodes: Sequence[GraphNode]) -> str:
        """Why a group of operators cannot be one kernel of this target; empty when it can."""

    def is_attention(self, func: Func) -> bool:
        """Whether the rules make one kernel without intermediate results of a chain of products
        and a softmax, lowered to `func`."""

    def is_copy(self, func: Func) -> bool:
        """Whether such a kernel reads through a copy in another order, lowered to `func`."""


@dataclass(frozen=True, slots=True)
class PlainPolicy:
    """A machine without wishes: every operator that has loops, as the model has it. Back ends may
    derive theirs from it."""

    name: str = "cpu"
    channels_last: bool = False
    image_lanes: int = 0
    narrow_constants: bool = False
    factors: tuple[DType, ...] = ()

    def refuses(self, nodes: Sequence[GraphNode]) -> str:
        """Nothing is refused."""
        return ""

    def is_attention(self, func: Func) -> bool:
        """No chain is taken for an attention."""
        return False

    def is_copy(self, func: Func) -> bool:
        """No copy is joined to anything."""
        return False


@dataclass(frozen=True, slots=True)
class Machines:
    """The host, which runs what no device takes, and the devices in the order in which they are
    asked."""

    host: Policy = PlainPolicy()
    devices: tuple[Policy, ...] = ()

    @property
    def main(self) -> Policy:
        """The machine that most of a graph shall run on: the first device, or else the host."""
        return self.devices[0] if self.devices else self.host

    @property
    def narrow_constants(self) -> bool:
        """Whether one of the devices wants integer constants narrow."""
        return any(d.narrow_constants for d in self.devices)

    def home(self, nodes: Sequence[GraphNode]) -> Policy:
        """Where a group of operators runs: on the first device that does not refuse it, or else on
        the host."""
        return next((d for d in self.devices if not d.refuses(nodes)), self.host)


HOST_ALONE = Machines()
