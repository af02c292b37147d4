"""The back end of SIMT machines.

A kernel is emitted twice: for the device, as PTX, and as a model of it for the host, in which the
threads of a block are loops between barriers (:mod:`aisc.passes.tensor.thread_loops`). Where there
is no device, the model is what runs.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from aisc.codegen.artefact import Artefact
from aisc.codegen.backend import Backend, Scheduled, backend_of, host_of
from aisc.codegen.faults import error_of
from aisc.codegen.image import DeviceCode
from aisc.codegen.llvm import generate
from aisc.codegen.llvm.link import Linked
from aisc.codegen.simt.emitter import require_limits
from aisc.codegen.simt.module import Grid, module_of, ptx_of
from aisc.codegen.simt.policy import SimtPolicy
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.target import Target, host
from aisc.ir.tensor.func import Func
from aisc.ir.text.printer_tensor import expr_text
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
        func = simt_optimize(schedule.func)
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
        heads = [
            {"name": f.name, "operands": len(f.params), "dims": [v.name for v in f.dims],
             "reports": bool(f.attr("status", False)),
             "launches": [_launch(g) for g in grids if g.kernel == f.name]}
            for f in funcs
        ]  # fmt: skip
        return f"{text}; {json.dumps(heads)}{_MODEL}{self._host.emit(models)}"

    def assemble(self, text: str, want_listing: bool = False) -> Artefact:
        """PTX, and the object of the model, behind a line that says what they hold."""
        device, model = text.split(_MODEL)
        module, _, heads = device.rpartition("; ")
        ptx = ptx_of(module, self.target)
        head = json.dumps({"kernels": json.loads(heads), "ptx": ptx}).encode()
        return Artefact(head + b"\n" + self._host.assemble(model).object, ptx)

    @staticmethod
    def load(code: DeviceCode) -> Model:
        """The kernels of a compiled model, on the host."""
        signatures: dict[str, Signature] = {}
        objects = []
        for data in code.objects:
            head, _, native = data.partition(b"\n")
            objects.append(native)
            for k in json.loads(head)["kernels"]:
                signatures[k["name"]] = Signature(k["operands"], len(k["dims"]), k["reports"])
        runtime = host_of(host()).runtime  # gives loops over blocks their shares
        return Model(signatures, Linked([runtime, *objects], list(signatures)))


def _launch(g: Grid) -> dict[str, object]:
    """A launch as data; the blocks along an axis are an expression of the kernel's dimensions."""
    grid = ["1" if e is None else expr_text(e) for e in g.grid]
    return {"entry": g.name, "grid": grid, "block": g.block, "shared": g.shared_bytes}


@dataclass(frozen=True, slots=True)
class Signature:
    """How many pointers and dimensions a kernel takes, and whether it may report an error."""

    operands: int
    dims: int
    reports: bool


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """Kernels whose threads are loops on the host."""

    signatures: Mapping[str, Signature]
    code: Linked

    def launch(self, kernel: str, pointers: Sequence[int], dims: Sequence[int]) -> None:
        """Run all blocks of a kernel, one after the other."""
        about = self.signatures[kernel]
        words = (ctypes.c_int64 * 4)()
        kinds: list[type[ctypes.c_void_p] | type[ctypes.c_int64]] = [
            ctypes.c_void_p
        ] * about.operands
        kinds += [ctypes.c_int64] * (about.dims + 2) + [ctypes.c_void_p]
        given = [*pointers, *dims, 0, 1, None]
        if about.reports:
            kinds += [ctypes.c_void_p, ctypes.c_int64]
            given += [ctypes.addressof(words), 0]
        ctypes.CFUNCTYPE(None, *kinds)(self.code.addresses[kernel])(*given)
        if words[0]:
            raise error_of(words[0], words[1:], ())
