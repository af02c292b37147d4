"""The back end of systolic arrays: contractions as instruction streams.

A kernel is assembled to its text, which the description gives a meaning, and to a model of it in
machine code of the host, made of what its instructions mean. The model is what runs; the stream is
what the simulators look at (:mod:`aisc.codegen.dsa.simulator`, :mod:`aisc.codegen.dsa.timing`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aisc.codegen.artefact import Artefact
from aisc.codegen.backend import Backend, KernelTime, Scheduled, Watch, backend_of, by_rules
from aisc.codegen.dsa.assembler import listing
from aisc.codegen.dsa.banks import conflicts
from aisc.codegen.dsa.binary import decode, encode
from aisc.codegen.dsa.model import Model, ModelKernel
from aisc.codegen.dsa.queues import run_queues
from aisc.codegen.dsa.recorded import read_text, recorded, text_of
from aisc.codegen.dsa.stream import Stream
from aisc.codegen.dsa.timing import timing
from aisc.codegen.image import DeviceCode
from aisc.codegen.llvm import generate
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError
from aisc.ir.dtypes import f32
from aisc.ir.graph import opdef
from aisc.ir.graph.core import GraphNode
from aisc.ir.target import Target, host
from aisc.ir.tensor.func import Func
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_func
from aisc.passes.lower.canonical import group_key
from aisc.passes.lower.group import as_func, region_of
from aisc.passes.plan.bind import ScheduledKernel
from aisc.passes.policy import PlainPolicy
from aisc.passes.schedule.picks import Choices
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.dsa import dsa_schedule
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.tensor.dsa_optimize import dsa_optimize
from aisc.passes.tensor.handovers import check_handovers
from aisc.passes.tensor.inline_instructions import InlineInstructions, memories_of

_MODEL = "\n; ---- the model of these kernels for the host\n"


@dataclass(frozen=True, slots=True)
class DsaPolicy(PlainPolicy):
    """The array runs what its rule can schedule, its instructions compute and its memories hold;
    that is tried."""

    channels_last: bool = True
    narrow_constants: bool = True
    backend: DsaBackend | None = None
    known: dict[object, str] = field(default_factory=dict, compare=False)

    def refuses(self, nodes: Sequence[GraphNode]) -> str:
        """The refusal of the rule, or of the instructions."""
        assert self.backend is not None, "a policy of a back end"
        kinds = [opdef.get(n.op).kind for n in nodes]
        if kinds.count("contraction") != 1:
            other = next(n.op for n in nodes if n.op != "constant")
            return f"{other} is no product"
        region = region_of(nodes)
        key = group_key(region, frozenset())
        if key not in self.known:
            why = self.backend.refusal(as_func(region, self.name))
            product = nodes[kinds.index("contraction")]
            self.known[key] = (why and self.backend.stranger(product, nodes)) or why
        return self.known[key]


@dataclass(frozen=True, slots=True)
class DsaBackend:
    """Makes instruction streams for one described array."""

    target: Target

    @property
    def version(self) -> str:
        """What of the tools affects the code: that of the model."""
        return generate.version()

    @property
    def policy(self) -> DsaPolicy:
        """What the passes ask."""
        chip = self.target.chip
        factors = chip.array.short_floats if chip else ()
        return DsaPolicy(self.target.name, factors=factors, backend=self)

    @property
    def _host(self) -> Backend:
        """What makes code of the model."""
        return backend_of(host())

    def stranger(self, product: GraphNode, nodes: Sequence[GraphNode]) -> str:
        """Why the array cannot multiply the types of a product's factors, as casts among `nodes`
        read them; empty when it can."""
        casts = {n.output: n.input_values[0] for n in nodes if n.op == "cast"}
        chip = self.target.chip
        types = (chip.array.inputs, chip.array.weights) if chip else ()
        for value, known in zip(product.input_values, types, strict=False):
            own = casts.get(value, value).type.dtype
            if chip is not None and own not in known:
                short = chip.array.short_floats if own is f32 else ()
                remedy = "".join(f" (--precision {t} makes such)" for t in short[:1])
                return f"the array multiplies {', '.join(map(str, known))}, not {own}{remedy}"
        return ""

    def refusal(self, func: Func) -> str:
        """Why a function cannot run on the array; empty when it can."""
        try:
            kernel = self.optimize(func, dsa_schedule(func, Chooser(self.target)))
            Stream(kernel.func, self.target)  # it must fit
        except CompileError as fault:
            first = fault.diagnostics[0]
            return ": ".join((first.message, *first.notes[:1]))
        return ""

    def rules(self, lowered: Func, d: Chooser) -> Schedule:
        """The rule for contractions."""
        return dsa_schedule(lowered, d)

    def schedule(self, lowered: Func, choices: Choices, quick: bool = False) -> Scheduled:
        """The rule; there is no code to look at."""
        return by_rules(self, lowered, choices, quick)

    def optimize(self, lowered: Func, schedule: Schedule) -> ScheduledKernel:
        """A kernel of instructions in the form that the assembler walks."""
        func = dsa_optimize(replace(schedule.func, name=lowered.name), self.target)
        return ScheduledKernel(func, picks=schedule.picks)

    def cycles(self, kernel: ScheduledKernel) -> float:
        """What the instruction stream takes."""
        return timing(Stream(kernel.func, self.target), self.target).cycles

    def time(self, func: Func, watch: Watch | None = None) -> KernelTime:
        """What its stream takes."""
        found = timing(Stream(func, self.target), self.target, watch=watch)
        array = self.target.chip.array if self.target.chip else None
        peak = array.rows * array.columns if array else 0
        return KernelTime(
            found.cycles, found.busy, found.macs, peak, found.loaded, found.stored, found.waits
        )

    def examine(self, func: Func) -> list[str]:
        """Prove its tokens, run it by the queues of its units, and look for conflicts of banks."""
        check_handovers(func, self.target)
        stream = Stream(func, self.target)
        run_queues(stream, self.target, _operands(func))
        return list(map(str, conflicts(stream, self.target)))

    def written(self, funcs: Sequence[Func]) -> str:
        """Their instructions in program order, loops written out."""
        codes = [recorded(Stream(f, self.target), self.target) for f in funcs]
        return text_of(codes, self.target)

    def encoded(self, text: str, file: str = "") -> bytes:
        """The text as a file with a header."""
        return encode(read_text(text, self.target, file), self.target)

    def decoded(self, data: bytes, file: str = "") -> str:
        """The text of such a file."""
        return text_of(decode(data, self.target, file), self.target)

    def emit(self, funcs: Sequence[Func]) -> str:
        """The kernels' text, and a module of their models."""
        inline = InlineInstructions(self.target)
        models = [inline.run(f) for f in funcs]
        return _MODEL.join(("\n".join(map(print_func, funcs)), self._host.emit(models)))

    def assemble(self, text: str, want_listing: bool = False) -> Artefact:
        """The kernel with the description of the array, and the object of its model behind a line
        that says what it takes; the stream is the listing."""
        kernel, model = text.split(_MODEL)
        func = parse_func(kernel)
        shown = listing(Stream(func, self.target), self.target) if want_listing else ""
        tiles = [b.bytes for b in memories_of(func)]
        head = {
            "target": self.target.source, "name": func.name, "operands": len(func.params),
            "tiles": tiles, "kernel": kernel,
        }  # fmt: skip
        data = json.dumps(head).encode()
        return Artefact(data + b"\n" + self._host.assemble(model).object, shown)

    @staticmethod
    def load(code: DeviceCode) -> Model:
        """The kernels of a compiled model, on a model of the array."""
        kernels: dict[str, ModelKernel] = {}
        objects = []
        for data in code.objects:
            head, _, native = data.partition(b"\n")
            record = json.loads(head)
            objects.append(native)
            kernels[record["name"]] = ModelKernel(record["operands"], tuple(record["tiles"]))
        return Model(kernels, objects)


def _operands(func: Func) -> list[NDArray[Any]]:
    """Arrays for the parameters of a kernel: small numbers, the same each time."""
    rng = np.random.default_rng(0)
    return [
        rng.integers(0, 100, p.type.static_shape).astype(p.dtype.numpy, order="C")
        for p in func.params
    ]
