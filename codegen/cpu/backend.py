"""The CPU back end: kernels and entries to objects, objects to an executable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from aisc.codegen.cpu.entry import entry_text
from aisc.codegen.cpu.memory_runtime import guarded_text
from aisc.codegen.cpu.runtime import runtime_text
from aisc.codegen.llvm import engine, generate, link
from aisc.codegen.llvm.function import FunctionEmitter, zeros_global
from aisc.ir import target as targets
from aisc.ir.target import Target
from aisc.ir.tensor.func import Func, Program

_RUNTIME_SYMBOLS = (
    "@aisc_barrier(",
    "@aisc_pool_begin(",
    "@aisc_pool_end(",
    "@aisc_pool_run(",
    "@aisc_pool_start(",
    "@aisc_reserve(",
    "@aisc_place(",
    "@llvm.memcpy.p0.p0.i64(",
    "@llvm.memset.p0.i64(",
)


@dataclass(frozen=True, slots=True)
class CpuBackend:
    """Emits and assembles for one completed CPU target."""

    target: Target

    @property
    def version(self) -> str:
        """What of the tools affects the code."""
        return generate.version()

    def emit(self, funcs: Sequence[Func]) -> str:
        """LLVM IR of kernels, as one module."""
        texts, declarations = _functions(funcs, self.target)
        return engine.module_text(self.target, texts, list(declarations), [zeros_global()])

    def emit_entry(self, program: Program, profile: bool = False) -> str:
        """LLVM IR of a Program's entry; `profile`: one that times its statements."""
        text, declarations, globals_ = entry_text(program, profile)
        return engine.module_text(self.target, [text], list(declarations), globals_)

    def emit_all(self, program: Program) -> str:
        """LLVM IR of a whole planned Program as one module: kernels, entry and run time."""
        texts, declarations = _functions(program.kernels, self.target)
        entry, more, globals_ = entry_text(program)
        declarations.update(more)
        defined = [f"@{f.name}(" for f in program.kernels] + list(_RUNTIME_SYMBOLS)
        kept = [d for d in declarations if not any(name in d for name in defined)]
        runtime = runtime_text(engine.machine_name())
        globals_.append(zeros_global())
        return engine.module_text(self.target, [*texts, entry, runtime], kept, globals_)

    def assemble(self, text: str, want_assembly: bool = False) -> generate.Assembled:
        """Machine code of a module."""
        return engine.assemble(text, self.target, want_assembly)


def _functions(funcs: Sequence[Func], target: Target) -> tuple[list[str], dict[str, None]]:
    """Definitions of kernels, and the declarations they need."""
    texts: list[str] = []
    declarations: dict[str, None] = {}
    for func in funcs:
        emitter = FunctionEmitter(func, target.features)
        texts.append(emitter.emit())
        declarations.update(emitter.w.declarations)
    return texts, declarations


@cache
def guarded_runtime(at_end: bool) -> bytes:
    """The run time's object for runs under guard on this machine."""
    text = guarded_text(runtime_text(engine.machine_name()), at_end)
    target = link.complete(targets.resolve("cpu"))
    return engine.assemble(f'target triple = "{target.triple}"\n{text}', target).object


@cache
def runtime_object(target: Target) -> bytes:
    """The run time's object, made once per process."""
    text = runtime_text(engine.machine_name())
    return engine.assemble(f'target triple = "{target.triple}"\n{text}', target).object
