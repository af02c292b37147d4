"""The back end of systolic arrays: matrix products as instruction streams, run by the simulator."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from aisc.codegen.artefact import Artefact
from aisc.codegen.backend import Scheduled, by_rules, operands_of
from aisc.codegen.dsa.assembler import Listing, assemble
from aisc.codegen.dsa.simulator import simulate
from aisc.codegen.image import DeviceCode
from aisc.ir.description import from_toml
from aisc.ir.diagnostics import CompileError, InternalError
from aisc.ir.graph.core import GraphNode
from aisc.ir.target import Target
from aisc.ir.tensor.func import Func
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_func
from aisc.passes.lower.canonical import group_key
from aisc.passes.lower.group import as_func, region_of
from aisc.passes.plan.bind import ScheduledKernel
from aisc.passes.policy import PlainPolicy
from aisc.passes.schedule.picks import Choices
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.dsa_matmul import dsa_matmul
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.tensor.dsa_optimize import dsa_optimize

# What the rule may take as one kernel: a product, and casts of its operands.
OPERATORS = ("matmul", "cast", "constant")
# The part of the work of other units that the busiest one does not hide.
EXPOSED = 0.1


@dataclass(frozen=True, slots=True)
class DsaPolicy(PlainPolicy):
    """The array runs what its rule can schedule and its memories hold; that is tried."""

    narrow_constants: bool = True
    backend: DsaBackend | None = None
    known: dict[object, str] = field(default_factory=dict, compare=False)

    def refuses(self, nodes: Sequence[GraphNode]) -> str:
        """The refusal of the rule, or of the assembler."""
        assert self.backend is not None, "a policy of a back end"
        other = next((n.op for n in nodes if n.op not in OPERATORS), "")
        if other:
            return f"{other} is no product of integers"
        region = region_of(nodes)
        key = group_key(region, frozenset())
        if key not in self.known:
            self.known[key] = self.backend.refusal(as_func(region, self.name))
        return self.known[key]


@dataclass(frozen=True, slots=True)
class DsaBackend:
    """Makes instruction streams for one described array."""

    target: Target
    version: str = "1"

    @property
    def policy(self) -> DsaPolicy:
        """What the passes ask."""
        return DsaPolicy(self.target.name, backend=self)

    def refusal(self, func: Func) -> str:
        """Why a function cannot run on the array; empty when it can."""
        try:
            scheduled = self.optimize(func, dsa_matmul(func, Chooser(self.target)))
            assemble(scheduled.func, self.target)
        except CompileError as fault:
            return fault.diagnostics[0].message
        except KeyError as key:
            return f"the description of {self.target.name} does not give {key}"
        return ""

    def rules(self, lowered: Func, d: Chooser) -> Schedule:
        """The rule for matrix products."""
        return dsa_matmul(lowered, d)

    def schedule(self, lowered: Func, choices: Choices, quick: bool = False) -> Scheduled:
        """The rule; there is no code to look at."""
        return by_rules(self, lowered, choices, quick)

    def optimize(self, lowered: Func, schedule: Schedule) -> ScheduledKernel:
        """A tensorized kernel in the form that the assembler walks."""
        func = dsa_optimize(replace(schedule.func, name=lowered.name))
        return ScheduledKernel(func, picks=schedule.picks)

    def cycles(self, kernel: ScheduledKernel) -> float:
        """What the instruction stream takes: the busiest unit, and a part of what the others do,
        which waits at times for it."""
        listing = assemble(kernel.func, self.target)
        return listing.overlapped + EXPOSED * (listing.serial - listing.overlapped)

    def emit(self, funcs: Sequence[Func]) -> str:
        """The module of one kernel: its text."""
        return "\n".join(map(print_func, funcs))

    def assemble(self, text: str, want_listing: bool = False) -> Artefact:
        """The kernel with the description of the array, which gives its instructions a meaning; the
        stream is the listing."""
        listing = assemble(parse_func(text), self.target).text if want_listing else ""
        data = {"target": self.target.source, "kernel": text}
        return Artefact(json.dumps(data).encode(), listing)

    @staticmethod
    def load(code: DeviceCode) -> Array:
        """The streams of a compiled model on a simulated array."""
        kernels: dict[str, tuple[Func, Listing]] = {}
        target: Target | None = None
        for data in code.objects:
            record = json.loads(data)
            target = target or from_toml(record["target"])
            func = parse_func(record["kernel"])
            kernels[func.name] = func, assemble(func, target)
        if target is None:
            raise InternalError(f"there is no kernel for {code.target}")
        return Array(target, kernels)


@dataclass(frozen=True, slots=True)
class Array:
    """A simulated array and the kernels that it holds."""

    target: Target
    kernels: Mapping[str, tuple[Func, Listing]]

    def launch(self, kernel: str, pointers: Sequence[int], dims: Sequence[int]) -> None:
        """Run a stream on the operands, where they lie."""
        func, listing = self.kernels[kernel]
        simulate(listing, func, self.target, operands_of(func, pointers, dims))
