"""A back end for a machine that does not exist: it can do everything but exponentials.

    pip install --no-build-isolation --no-deps ./examples/back_end
    aisc check model.onnx --target abacus

Its kernels are kept as text of the tensor IR and run by the interpreter, one element at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aisc.codegen.artefact import Artefact
from aisc.codegen.backend import Scheduled, by_rules, operands_of
from aisc.codegen.image import DeviceCode
from aisc.ir.graph.core import GraphNode
from aisc.ir.target import Memory, Target
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.interpret import run_func
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_func
from aisc.passes.plan.bind import ScheduledKernel
from aisc.passes.policy import PlainPolicy
from aisc.passes.schedule.picks import Choices
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.tensor.optimize import optimize_schedule

REFUSED = ("exp", "softmax", "log_softmax")


def target() -> Target:
    """The description of the machine."""
    return Target("abacus", "abacus", memories=(Memory("global", 1 << 20),))


@dataclass(frozen=True, slots=True)
class AbacusPolicy(PlainPolicy):
    """What the passes ask."""

    def refuses(self, nodes: Sequence[GraphNode]) -> str:
        """Beads do not know exponentials."""
        found = [n.op for n in nodes if n.op in REFUSED]
        return f"it has no beads for {found[0]}" if found else ""


@dataclass(frozen=True, slots=True)
class AbacusBackend:
    """The back end for one target of kind ``abacus``."""

    target: Target
    version: str = "1"

    @property
    def policy(self) -> AbacusPolicy:
        """The answers to the passes."""
        return AbacusPolicy(self.target.name)

    def rules(self, lowered: Func, d: Chooser) -> Schedule:
        """The loops as they are: there is nothing to decide here."""
        return Schedule.of(lowered)

    def schedule(self, lowered: Func, choices: Choices, quick: bool = False) -> Scheduled:
        """That, whatever a record says."""
        return by_rules(self, lowered, choices, quick)

    def optimize(self, lowered: Func, schedule: Schedule) -> ScheduledKernel:
        """A scheduled kernel in the form that the interpreter takes."""
        return optimize_schedule(lowered, schedule, ())

    def emit(self, funcs: Sequence[Func]) -> str:
        """The module of one kernel is its text."""
        return "\n".join(map(print_func, funcs))

    def assemble(self, text: str, want_listing: bool = False) -> Artefact:
        """The text again, as bytes."""
        return Artefact(text.encode(), text if want_listing else "")

    @staticmethod
    def load(code: DeviceCode) -> Beads:
        """The kernels of a compiled model, read from their text."""
        funcs = [parse_func(text.decode()) for text in code.objects]
        return Beads({f.name: f for f in funcs})


@dataclass(frozen=True, slots=True)
class Beads:
    """The machine itself."""

    kernels: Mapping[str, Func]

    def launch(self, kernel: str, pointers: Sequence[int], dims: Sequence[int]) -> None:
        """Run a kernel on its operands, where they lie."""
        func = self.kernels[kernel]
        run_func(func, operands_of(func, pointers, dims), dims=dict(zip(
            (v.name for v in func.dims), dims, strict=True)))  # fmt: skip
