"""llvmlite: parsing, verifying, SROA, code generation to objects.

Only this package and the back ends import llvmlite. Objects are bytes: they can be cached on disk
and linked in another process (:mod:`aisc.codegen.llvm.link`). llvmlite serialises its calls by one
lock, so nothing here is parallel.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm

from aisc.codegen.llvm.function import NONTEMPORAL, NONTEMPORAL_NODE
from aisc.codegen.llvm.link import target_machine
from aisc.ir.diagnostics import InternalError
from aisc.ir.target import Target


def machine_name() -> str:
    """``x86_64`` or ``aarch64``."""
    return platform.machine()


def machine_of(target: Target, jit: bool = True) -> Any:
    """The LLVM target machine of a completed target; made once per process."""
    return target_machine(target.triple, target.arch, ",".join(target.features), jit)


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
            *([NONTEMPORAL_NODE] if any(NONTEMPORAL in f for f in functions) else []),
            "",
        ]
    )


@dataclass(frozen=True, slots=True)
class Assembled:
    """Machine code of one module; `assembly` only if it was asked for."""

    object: bytes
    assembly: str = ""


def assemble(text: str, target: Target, want_assembly: bool = False) -> Assembled:
    """Verify a module, promote its stack slots (SROA) and generate an object.

    Code is generated once: with `want_assembly` the object is assembled from that text, which has
    the same instructions and costs a tenth of generating them again. A second generation would
    also differ from the first, since it starts from a module that the first has changed."""
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
    if not want_assembly:
        return Assembled(machine.emit_object(module))
    assembly: str = machine.emit_assembly(module)
    return Assembled(machine.emit_object(_holding(assembly, target)), assembly)


def _holding(assembly: str, target: Target) -> Any:
    """A module that consists of assembly text."""
    lines = assembly.replace("\\", "\\5C").replace('"', "\\22").splitlines()
    asm = (f'module asm "{line}"' for line in lines)
    return llvm.parse_assembly("\n".join([f'target triple = "{target.triple}"', *asm, ""]))
