"""llvmlite: parsing, verifying, SROA, code generation to objects, and linking them for running.

Only this package and the back ends import llvmlite. Objects are bytes: they can be cached on disk
and linked in another process. llvmlite serialises its calls by one lock, so nothing here is
parallel.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from aisc.ir.diagnostics import InternalError
from aisc.ir.target import Target, with_machine

_library = itertools.count()


@cache
def _initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()


def version() -> str:
    """Versions of llvmlite and LLVM, part of every cache key."""
    numbers = ".".join(map(str, llvm.llvm_version_info))
    return f"llvmlite-{llvmlite.__version__}-llvm-{numbers}"


def machine_name() -> str:
    """``x86_64`` or ``aarch64``."""
    return platform.machine()


def complete(target: Target) -> Target:
    """`target` with LLVM's names of the host, where it leaves them open."""
    if target.triple:
        return target
    _initialize()
    features = llvm.get_host_cpu_features()
    names = tuple(f"{'+' if on else '-'}{name}" for name, on in sorted(features.items()))
    return with_machine(target, llvm.get_default_triple(), llvm.get_host_cpu_name(), names)


@cache
def _target_machine(triple: str, arch: str, features: str, jit: bool) -> Any:
    _initialize()
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=arch, features=features, opt=3, reloc="pic", codemodel="jitdefault" if jit else "small",
        jit=jit,
    )  # fmt: skip


def machine_of(target: Target, jit: bool = True) -> Any:
    """The LLVM target machine of a completed target; made once per process."""
    return _target_machine(target.triple, target.arch, ",".join(target.features), jit)


def module_text(
    target: Target, functions: Sequence[str], declarations: Sequence[str], globals_: Sequence[str]
) -> str:
    """A module: functions refer to attribute group ``#0``."""
    attributes = [
        "nounwind",
        f'"target-cpu"="{target.arch}"',
        f'"target-features"="{",".join(target.features)}"',
        f'"prefer-vector-width"="{target.vector_bits}"',
        '"no-trapping-math"="true"',
    ]
    return "\n\n".join(
        [
            f'target triple = "{target.triple}"',
            *globals_,
            *declarations,
            *functions,
            f"attributes #0 = {{ {' '.join(attributes)} }}",
            "",
        ]
    )


@dataclass(frozen=True, slots=True)
class Assembled:
    """Machine code of one module; `assembly` only if it was asked for."""

    object: bytes
    assembly: str = ""


def assemble(text: str, target: Target, want_assembly: bool = False) -> Assembled:
    """Verify a module, promote its stack slots (SROA) and generate an object."""
    machine = machine_of(target)
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as fault:
        raise InternalError(f"LLVM rejects the code: {fault}\n{text}") from None
    options = llvm.create_pipeline_tuning_options(speed_level=0)
    builder = llvm.create_pass_builder(machine, options)
    manager = llvm.create_new_module_pass_manager()
    manager.add_sroa_pass()
    manager.run(module, builder)
    assembly = machine.emit_assembly(module) if want_assembly else ""
    return Assembled(machine.emit_object(module), assembly)


class Linked:
    """Objects linked into this process; addresses stay valid as long as this lives."""

    def __init__(self, target: Target, objects: Sequence[bytes], symbols: Sequence[str]) -> None:
        self._jit = llvm.create_lljit_compiler(machine_of(target))
        library = llvm.JITLibraryBuilder().add_current_process()
        for o in objects:
            library = library.add_object_img(o)
        for s in symbols:
            library = library.export_symbol(s)
        self._tracker = library.link(self._jit, f"aisc{next(_library)}")
        self.addresses: Mapping[str, int] = {s: self._tracker[s] for s in symbols}
