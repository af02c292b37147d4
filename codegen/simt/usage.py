"""What kernels take of a multiprocessor: registers, shared memory, and how much of it they fill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, prod

from aisc.codegen.backend import KernelUsage
from aisc.codegen.llvm.function import static_size
from aisc.codegen.simt.isa import isa_of
from aisc.codegen.simt.module import Grid, module_of, ptx_of
from aisc.codegen.simt.ptxas import Usage, find_ptxas, run_ptxas
from aisc.ir.diagnostics import InternalError
from aisc.ir.node import walk
from aisc.ir.target import Target
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import Alloc
from aisc.passes.analysis.simt_estimate import OWN_REGISTERS, RESIDENT
from aisc.passes.analysis.simt_kernel import launches

WORD = 4
REGISTER_UNIT = 8  # registers of a thread are given in groups of so many


def usage_of(funcs: Sequence[Func], target: Target) -> Mapping[str, KernelUsage]:
    """By entry, of which a kernel has one for each launch: what the assembler says where it is
    installed and knows the machine, else what the description lets expect."""
    text, grids = module_of(funcs, target)
    told = _assembled(text, target)
    parts = {part.name: part for func in funcs for part in launches(func)}
    found = {}
    for grid in grids:
        said = told.get(grid.name)
        registers = _expected(parts[grid.name]) if said is None else said.registers
        occupancy, bound = occupancy_of(target, grid, registers)
        found[grid.name] = KernelUsage(
            prod(grid.block), registers, 0 if said is None else said.spills, grid.shared_bytes,
            occupancy, bound, said is not None,
        )  # fmt: skip
    return found


def _assembled(text: str, target: Target) -> Mapping[str, Usage]:
    if find_ptxas() is None or not isa_of(target).ptx:
        return {}
    try:
        return run_ptxas(ptx_of(text, target), target.arch)
    except InternalError:  # an assembler that is older or newer than the machine
        return {}


def _expected(func: Func) -> int:
    held = (n.buffer for n in walk(func.body) if isinstance(n, Alloc))
    sizes = [static_size(b) * b.dtype.bytes for b in held if b.space != "shared"]
    return OWN_REGISTERS + sum(ceil(n / WORD) for n in sizes)


def occupancy_of(target: Target, grid: Grid, registers: int) -> tuple[float, str]:
    """The threads that a multiprocessor holds of those that it could, when there are blocks enough,
    and what allows no more."""
    limits, threads = target.limits, prod(grid.block)
    warp = limits.get("warp", 32)
    held = ceil(threads / warp) * warp
    most = limits.get("threads_per_multiprocessor", RESIDENT)
    blocks = {
        "threads": most // held,
        "blocks": limits.get("blocks_per_multiprocessor", most),
    }
    file = limits.get("registers_per_multiprocessor", target.memory("register").bytes // WORD)
    each = ceil(max(1, registers) / REGISTER_UNIT) * REGISTER_UNIT
    blocks["registers"] = file // (each * held)
    if grid.shared_bytes:
        room = limits.get("shared_per_multiprocessor", target.memory("shared").bytes)
        blocks["shared memory"] = room // grid.shared_bytes
    bound = min(blocks, key=lambda k: blocks[k])
    return min(1.0, blocks[bound] * held / most), bound
