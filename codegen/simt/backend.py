"""The back end of SIMT machines.

A kernel is emitted twice: for the device, as PTX, and as a model of it for the host, in which the
threads of a block are loops between barriers (:mod:`aisc.passes.tensor.thread_loops`). Where there
is no device, the model is what runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from aisc.codegen.artefact import Artefact
from aisc.codegen.backend import Backend, Device, KernelUsage, Scheduled, backend_of
from aisc.codegen.image import DeviceCode
from aisc.codegen.llvm import generate
from aisc.codegen.simt.choice import device_here, gpu_of
from aisc.codegen.simt.emitter import require_limits
from aisc.codegen.simt.launches import DeviceKernel, modules_of
from aisc.codegen.simt.model import Model
from aisc.codegen.simt.module import module_of, ptx_of
from aisc.codegen.simt.policy import SimtPolicy
from aisc.codegen.simt.usage import usage_of
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.target import Target, host
from aisc.ir.tensor.func import Func
from aisc.passes.analysis.faults import can_fail
from aisc.passes.analysis.simt_estimate import simt_estimate
from aisc.passes.analysis.simt_kernel import launches
from aisc.passes.plan.bind import ScheduledKernel
from aisc.passes.schedule.picks import Choices
from aisc.passes.schedule.rules.chooser import NONE, Chooser
from aisc.passes.schedule.rules.simt import FORM, FORMS, simt_schedule
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.tensor.simt_optimize import simt_optimize
from aisc.passes.tensor.thread_loops import ThreadLoops

_MODEL = "\n; ---- the model of these kernels for the host\n"


@dataclass(frozen=True, slots=True)
class SimtBackend:
    """Makes code for one SIMT target."""

    target: Target

    @property
    def version(self) -> str:
        """What of the tools affects the code."""
        return generate.version()

    @property
    def policy(self) -> SimtPolicy:
        """What the passes ask."""
        return SimtPolicy(self.target.name)

    @property
    def _host(self) -> Backend:
        """What makes code of the model."""
        return backend_of(host())

    def rules(self, lowered: Func, d: Chooser) -> Schedule:
        """The first of the rules that is legal; whether it fits the machine shows when it is
        lowered."""
        return simt_schedule(lowered, d)

    def schedule(self, lowered: Func, choices: Choices, quick: bool = False) -> Scheduled:
        """The first schedule of the rules that is legal and fits the machine: what is among the
        choices first."""
        refused: CompileError | None = None
        for given, form in [(choices, {}), *((NONE, {FORM: form}) for form in FORMS)]:
            try:
                schedule = simt_schedule(lowered, Chooser(self.target, given, form, quick))
                kernel = self.optimize(lowered, schedule)
                self.require_fit(kernel.func)
            except CompileError as fault:
                refused = fault
                continue
            return kernel, None
        raise refused or error("E402", f"no schedule of {lowered.name} fits {self.target.name}")

    def optimize(self, lowered: Func, schedule: Schedule) -> ScheduledKernel:
        """A scheduled kernel in kernel form."""
        func = simt_optimize(schedule.func, self.target)
        if can_fail(func.body):
            func = func.with_attrs(status=True)
        return ScheduledKernel(replace(func, name=lowered.name), picks=schedule.picks)

    def cycles(self, kernel: ScheduledKernel) -> float:
        """What the analytical model of the machine expects."""
        self.require_fit(kernel.func)
        return simt_estimate(kernel.func, self.target).cycles

    def require_fit(self, func: Func) -> None:
        """E402 where a launch of a kernel exceeds the machine."""
        for part in launches(func):
            require_limits(part, self.target)

    def emit(self, funcs: Sequence[Func]) -> str:
        """A module for the device, and one of the model; between them what a launch must know."""
        text, grids = module_of(funcs, self.target)
        models = [ThreadLoops(self.target).run(f) for f in funcs]
        heads = [DeviceKernel.of(f, grids).to_json() for f in funcs]
        return f"{text}; {json.dumps(heads)}{_MODEL}{self._host.emit(models)}"

    def assemble(self, text: str, want_listing: bool = False) -> Artefact:
        """PTX, and the object of the model, behind a line that says what they hold."""
        device, model = text.split(_MODEL)
        module, _, heads = device.rpartition("; ")
        ptx = ptx_of(module, self.target)
        head = json.dumps({"kernels": json.loads(heads), "ptx": ptx}).encode()
        return Artefact(head + b"\n" + self._host.assemble(model).object, ptx)

    def here(self) -> str:
        """The device that runs kernels, or why none does."""
        return device_here(self.target)

    def usage(self, funcs: Sequence[Func]) -> Mapping[str, KernelUsage]:
        """What kernels take of a multiprocessor."""
        return usage_of(funcs, self.target)

    @staticmethod
    def ptx(code: DeviceCode) -> str:
        """The modules of a compiled model, one behind the other; E402 for a machine whose code is
        something else."""
        texts = [m.code for m in modules_of(code)]
        if any(".address_size" not in t for t in texts):
            raise error("E402", f"the code of {code.target} is no PTX", "see --emit asm")
        return "\n".join(texts)

    @staticmethod
    def load(code: DeviceCode) -> Device:
        """The kernels of a compiled model: on a device that can run them, else on the host."""
        modules = modules_of(code)
        return gpu_of(modules) or Model.of(modules)
