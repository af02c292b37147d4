"""Machine code of LLVM IR text, by llvmlite alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from aisc.codegen.artefact import Artefact

# How floats are passed, where a triple leaves that open (RISC-V ELF psABI, chapter 2).
_ABI = {"riscv64": "lp64d"}
# A block with so many addresses does much for each turn of its loop: few of its instructions would
# be saved by other induction variables, and the time to find them grows with the square of their
# number (half the time of LLVM for transforms of 6 x 6 tiles).
_MANY_ADDRESSES = 32
# Processors whose accesses add a base, a scaled index and a number.
_ADDING = ("x86_64",)
_options = Lock()  # options of LLVM belong to the process


@cache
def initialize(everything: bool = False) -> None:
    """Make the host's code generator known to LLVM, or those of all machines; once per process."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    if everything:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()


@cache
def is_native(triple: str) -> bool:
    """Whether code for a machine is code for the architecture of this process."""
    host: str = llvm.get_default_triple()
    return triple.split("-")[0] == host.split("-")[0]


@cache
def target_machine(
    triple: str, arch: str, features: str, jit: bool = True, quick: bool = False
) -> Any:
    """An LLVM target machine; made once per process."""
    native = is_native(triple)
    initialize(everything=not native)
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=arch, features=features, opt=0 if quick else 3, reloc="pic",
        codemodel="jitdefault" if jit and native else "small", jit=jit and native,
        abiname=_ABI.get(triple.split("-")[0], ""),
    )  # fmt: skip


def version() -> str:
    """Versions of llvmlite and LLVM."""
    numbers = ".".join(map(str, llvm.llvm_version_info))
    return f"llvmlite-{llvmlite.__version__}-llvm-{numbers}"


def generate(
    text: str,
    triple: str,
    arch: str,
    features: str,
    want_listing: bool = False,
    quick: bool = False,
) -> Artefact:
    """Verify a module, promote its stack slots (SROA) and generate an object; ``RuntimeError``
    when LLVM rejects the text. `quick`: a quarter of the time, for code that is slower by far.

    Code is generated once: with `want_listing` the object is assembled from that text, which has
    the same instructions and costs a tenth of generating them again. A second generation would
    also differ from the first, since it starts from a module that the first has changed."""
    machine = target_machine(triple, arch, features, quick=quick)
    module = _promoted(text, machine)
    as_written = triple.split("-")[0] in _ADDING and _most_addresses(text) >= _MANY_ADDRESSES
    with _loop_strength_reduction(not as_written):
        if not want_listing:
            return Artefact(machine.emit_object(module))
        assembly: str = machine.emit_assembly(module)
    if not is_native(triple):  # only the host's assembler is there
        return Artefact(machine.emit_object(_promoted(text, machine)), assembly)
    return Artefact(machine.emit_object(_holding(assembly, triple)), assembly)


def _most_addresses(text: str) -> int:
    """The greatest number of addresses that a basic block of a module computes."""
    most = count = 0
    for line in text.splitlines():
        if line.endswith(":"):
            count = 0
        elif " = getelementptr " in line:
            count += 1
            most = max(most, count)
    return most


@contextmanager
def _loop_strength_reduction(wanted: bool) -> Iterator[None]:
    """Generate code with or without LLVM's search for cheaper induction variables, which is how it
    generates again afterwards: others in the process may use LLVM, too."""
    with _options:
        if not wanted:
            llvm.set_option("aisc", "-disable-lsr=true")
        try:
            yield
        finally:
            if not wanted:
                llvm.set_option("aisc", "-disable-lsr=false")


def _promoted(text: str, machine: Any) -> Any:
    """A verified module whose stack slots are registers."""
    module = llvm.parse_assembly(text)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=0)
    builder = llvm.create_pass_builder(machine, options)
    manager = llvm.create_new_module_pass_manager()
    manager.add_sroa_pass()
    manager.run(module, builder)
    return module


def _holding(assembly: str, triple: str) -> Any:
    """A module that consists of assembly text."""
    lines = assembly.replace("\\", "\\5C").replace('"', "\\22").splitlines()
    asm = (f'module asm "{line}"' for line in lines)
    return llvm.parse_assembly("\n".join([f'target triple = "{triple}"', *asm, ""]))
