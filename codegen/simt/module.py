"""Modules of SIMT kernels: LLVM IR, PTX or assembly of it, and what a launch needs to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import llvmlite.binding as llvm

from aisc.codegen.simt.emitter import SimtEmitter, zeros_global
from aisc.codegen.simt.isa import isa_of
from aisc.codegen.simt.narrow import TooWide
from aisc.ir.arith.poly import Dim
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import InternalError
from aisc.ir.target import Target
from aisc.ir.tensor.expr import Expr
from aisc.ir.tensor.func import Func
from aisc.passes.analysis.simt_kernel import launches

GENERAL = "__any"  # what the name of an entry for any sizes ends in, where another one is faster


@dataclass(frozen=True, slots=True)
class Grid:
    """A launch of a kernel: its entry, blocks along x, y, z as expressions of the kernel's dims,
    threads, and shared memory in bytes. A launch over no blocks is left out. most: blocks that
    there may be along x, y, z, 0 where nothing bounds them; dynamic: of the shared memory, what the
    launch asks for; short: what dimensions must not exceed
    for this entry; general: the entry for others, if there are any."""

    kernel: str
    name: str
    grid: tuple[Expr | None, Expr | None, Expr | None]
    block: tuple[int, int, int]
    shared_bytes: int
    most: tuple[int, int, int] = (0, 0, 0)
    dynamic: int = 0
    short: tuple[tuple[Dim, int], ...] = ()
    general: str = ""

    @property
    def entries(self) -> tuple[str, ...]:
        """All entries."""
        return (self.name, self.general) if self.general else (self.name,)


def module_of(funcs: Sequence[Func], target: Target) -> tuple[str, tuple[Grid, ...]]:
    """LLVM IR of kernels as one module, and their launches in the order of both."""
    texts: list[str] = []
    globals_ = [zeros_global()]
    declarations: dict[str, None] = {}
    grids: list[Grid] = []
    for kernel, func in ((f.name, part) for f in funcs for part in launches(f)):
        made = _entries(func, target)
        for emitter, text in made:
            texts.append(text)
            globals_.extend(emitter.globals)
            declarations.update(emitter.w.declarations)
        grids.append(_grid(kernel, [emitter for emitter, _ in made]))
    head = f'target triple = "{target.triple}"'
    if not isa_of(target).ptx:  # its address spaces have pointers of their own sizes
        layout = _machine(target.triple, target.arch, ",".join(target.features)).target_data
        head = f'target datalayout = "{layout}"\n{head}'
    attributes = "attributes #0 = { nounwind }"
    return "\n\n".join([head, *globals_, *declarations, *texts, attributes, ""]), tuple(grids)


def ptx_of(text: str, target: Target) -> str:
    """PTX of a module, or the assembly of a target that has none: stack slots become registers,
    then code generation."""
    machine = _machine(target.triple, target.arch, ",".join(target.features))
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as fault:
        raise InternalError(f"LLVM rejects the code: {fault}\n{text}") from None
    options = llvm.create_pipeline_tuning_options(speed_level=0)
    manager = llvm.create_new_module_pass_manager()
    manager.add_sroa_pass()
    manager.run(module, llvm.create_pass_builder(machine, options))
    return str(machine.emit_assembly(module))


def _entries(func: Func, target: Target) -> list[tuple[SimtEmitter, str]]:
    """A launch as one entry that counts in 32 bits, with a second one for sizes for which that is
    too little; or as one for all sizes."""
    short = SimtEmitter(func, target, short=True)
    try:
        made = [(short, short.emit())]
    except TooWide:
        made = []
    if made and not short.sizes.assumed:
        return made
    name = f"{func.name}{GENERAL}" if made else func.name
    general = SimtEmitter(replace(func, name=name), target)
    return [*made, (general, general.emit())]


def _grid(kernel: str, emitters: Sequence[SimtEmitter]) -> Grid:
    first, limits = emitters[0], emitters[0].target.limits
    sizes: dict[str, Expr] = {f.kind: f.extent for f in first.kernel.grid}
    grid = (sizes.get("block.x"), sizes.get("block.y"), sizes.get("block.z"))
    x, y, z = (limits.get(f"blocks_{axis}", 0) for axis in "xyz")
    return Grid(
        kernel, first.func.name, grid, first.kernel.block_size, first.shared_bytes, (x, y, z),
        first.dynamic_bytes, first.sizes.conditions(),
        emitters[1].func.name if len(emitters) > 1 else "",
    )  # fmt: skip


@cache
def _machine(triple: str, arch: str, features: str) -> Any:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple(triple)
    return target.create_target_machine(cpu=arch, features=features, opt=3)
