"""The CPU back end: kernels and entries to objects, objects to an executable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aisc.codegen.llvm import generate, link
from aisc.ir.dataclass import dataclass
from aisc.ir.target import Target, host

if TYPE_CHECKING:
    from aisc.codegen.artefact import Artefact
    from aisc.codegen.backend import Scheduled
    from aisc.codegen.cpu.packing import Packing
    from aisc.codegen.cpu.policy import CpuPolicy
    from aisc.codegen.image import DeviceCode, Image, Machine
    from aisc.ir.tensor.func import Func, Program
    from aisc.passes.plan.bind import ScheduledKernel
    from aisc.passes.schedule.picks import Choices
    from aisc.passes.schedule.rules.chooser import Chooser
    from aisc.passes.schedule.schedule import Schedule

# LLVM's name of vectors whose length code need not know.
SCALABLE = "+sve"

_RUNTIME_SYMBOLS = (
    "@aisc_barrier(",
    "@aisc_pool_begin(",
    "@aisc_pool_end(",
    "@aisc_pool_run(",
    "@aisc_pool_start(",
    "@aisc_passed(",
    "@aisc_share(",
    "@aisc_reserve(",
    "@aisc_place(",
    "@llvm.memcpy.p0.p0.i64(",
    "@llvm.memset.p0.i64(",
)


@dataclass(frozen=True, slots=True)
class CpuBackend:
    """Makes code for one CPU; what its description leaves open is that of this machine. Rules and
    emitters are imported where they are called: what is compiled already opens without them."""

    target: Target

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", link.complete(self.target))

    @property
    def version(self) -> str:
        """What of the tools affects the code."""
        return generate.version()

    @property
    def policy(self) -> CpuPolicy:
        """What the passes ask."""
        from aisc.codegen.cpu.policy import CpuPolicy

        return CpuPolicy(self.target)

    @property
    def runtime(self) -> bytes:
        """Barriers, threads and memory."""
        from aisc.codegen.cpu.runtime_object import runtime_object

        return runtime_object(self.target)

    def rules(self, lowered: Func, d: Chooser) -> Schedule:
        """The default rules."""
        from aisc.passes.schedule.rules.default import default_schedule

        return default_schedule(lowered, d)

    def schedule(self, lowered: Func, choices: Choices, quick: bool = False) -> Scheduled:
        """The default rules, gated by the assembly; `quick`: without a look at it."""
        from aisc.codegen.cpu.schedule import gated

        return gated(lowered, self, choices, quick)

    def optimize(self, lowered: Func, schedule: Schedule) -> ScheduledKernel:
        """A kernel and its packers as they are scheduled, ready to be emitted."""
        from aisc.codegen.cpu.schedule import optimized

        return optimized(lowered, schedule, self.target)

    def emit(self, funcs: Sequence[Func]) -> str:
        """LLVM IR of kernels, as one module."""
        from aisc.codegen.llvm.function import zeros_global

        texts, declarations = _functions(funcs, self.target)
        return self._module(texts, list(declarations), [zeros_global()])

    def emit_entry(self, program: Program, profile: bool = False) -> str:
        """LLVM IR of a Program's entry; `profile`: one that times its statements."""
        from aisc.codegen.cpu.entry_module import entry_text

        text, declarations, globals_ = entry_text(program, self.target.costs, profile)
        return self._module([text], list(declarations), globals_)

    def emit_all(self, program: Program) -> str:
        """LLVM IR of a whole planned Program as one module: kernels, entry and run time."""
        from aisc.codegen.cpu.entry_module import entry_text
        from aisc.codegen.cpu.runtime import runtime_text
        from aisc.codegen.llvm.engine import machine_name
        from aisc.codegen.llvm.function import zeros_global

        texts, declarations = _functions(program.kernels, self.target)
        entry, more, globals_ = entry_text(program, self.target.costs)
        declarations.update(more)
        defined = [f"@{f.name}(" for f in program.kernels] + list(_RUNTIME_SYMBOLS)
        kept = [d for d in declarations if not any(name in d for name in defined)]
        runtime = runtime_text(machine_name(self.target))
        globals_.append(zeros_global())
        return self._module([*texts, entry, runtime], kept, globals_)

    def _module(
        self, functions: Sequence[str], declarations: Sequence[str], globals_: Sequence[str]
    ) -> str:
        from aisc.codegen.llvm.engine import module_text

        more = []
        if SCALABLE in self.target.features:  # the length of vectors is that of the description
            units = self.target.vector_bits // 128
            more.append(f"vscale_range({units},{units})")
        return module_text(self.target, functions, declarations, globals_, more)

    def assemble(self, text: str, want_listing: bool = False, quick: bool = False) -> Artefact:
        """Machine code of a module, and its assembly."""
        from aisc.codegen.llvm.engine import assemble

        return assemble(text, self.target, want_listing, quick)

    def image(
        self,
        program: Program,
        objects: Sequence[bytes],
        devices: Sequence[DeviceCode],
        names: tuple[Sequence[str], Sequence[str]],
        profile: bool = False,
    ) -> Image:
        """The image of a planned Program, but for its weights."""
        from aisc.codegen.cpu.image import image_of

        return image_of(program, objects, devices, self.target, names, profile)

    def packing(self, program: Program, objects: Sequence[bytes]) -> Packing:
        """The weights of a planned Program, packed by its own code, or where that does not run
        here by code for this machine."""
        from aisc.codegen.cpu.packing import Packing, packer_calls

        fits = self._machine.unfit(link.host_machine()) is None
        if fits or program.prepare is None:
            return Packing(program, [self.runtime, *objects])
        home = CpuBackend(host())
        called = {call.kernel for call in packer_calls(program)}
        packers = home.emit([k for k in program.kernels if k.name in called])
        return Packing(program, [home.runtime, home.assemble(packers).object])

    @property
    def _machine(self) -> Machine:
        from aisc.codegen.image import Machine

        t = self.target
        return Machine(t.kind, t.triple, t.arch, t.features)


def _functions(funcs: Sequence[Func], target: Target) -> tuple[list[str], dict[str, None]]:
    """Definitions of kernels, and the declarations they need."""
    from aisc.codegen.cpu.function import CpuFunction

    texts: list[str] = []
    declarations: dict[str, None] = {}
    for func in funcs:
        emitter = CpuFunction(func, target)
        texts.append(emitter.emit())
        declarations.update(emitter.w.declarations)
    return texts, declarations
