"""What the code of products must look like, from PTX and the machine's own instructions, for which
no device is needed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from ptx.counters import Counters
from ptx.machine import Machine
from ptx.memory import Space
from ptx.syntax import Instruction, Kernel, parse
from test_simt_models import scheduled
from test_simt_rules import batched, narrow_product
from test_zoo import NAMES

from aisc.codegen.backend import backend_of
from aisc.codegen.simt.module import Grid, module_of, ptx_of
from aisc.codegen.simt.ptxas import find_ptxas, run_ptxas
from aisc.codegen.simt.sass import find_nvdisasm, sass_of
from aisc.codegen.simt.usage import usage_of
from aisc.ir import dtypes
from aisc.ir.dtypes import DType
from aisc.ir.target import resolve
from aisc.ir.tensor.func import Func

needs_ptxas = pytest.mark.skipif(find_ptxas() is None, reason="ptxas is not installed")
TARGETS = ("nvidia_sm80", "nvidia_sm90")
NARROW = (dtypes.f16, dtypes.bf16, dtypes.i8)
SIZE = (512, 512, 512)


def product(dtype: DType) -> Func:
    """A product of matrices, as large as small tests allow; weights as linear layers have them."""
    m, k, n = SIZE
    return narrow_product(m, k, n, dtype, True) if dtype in NARROW else batched(1, m, k, n, "")


@cache
def made(dtype: DType, target: str) -> tuple[Func, dict[str, object]]:
    kernel = backend_of(resolve(target)).schedule(product(dtype), {"mm.parts": 1})[0]
    return kernel.func, {p.name: p.choice for p in kernel.picks}


@cache
def code(dtype: DType, target: str) -> tuple[str, Grid]:
    text, (grid,) = module_of([made(dtype, target)[0]], resolve(target))
    return ptx_of(text, resolve(target)), grid


def main_loop(kernel: Kernel) -> list[Instruction]:
    """The instructions from where the last loop that multiplies begins to where it ends."""
    every = [(k, i) for k, b in enumerate(kernel.blocks) for i in b.body]
    works = [k for k, i in every if i.parts[0] in ("mma", "fma")]
    back = [
        (kernel.labels[i.operands[0].name], k)  # type: ignore[union-attr]
        for k, i in every if i.parts[0] == "bra" and kernel.labels[i.operands[0].name] <= k  # type: ignore[union-attr]
    ]  # fmt: skip
    low, high = max(r for r in back if any(r[0] <= k <= r[1] for k in works))
    return [i for k, i in every if low <= k <= high]


def accesses(body: Sequence[Instruction]) -> set[str]:
    """The accesses of memory in a loop."""
    return {i.opcode for i in body if i.parts[0] in ("ld", "st", "cp", "ldmatrix") and
            not i.opcode.startswith(("ld.param", "cp.async.commit", "cp.async.wait"))}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", NARROW)
def test_the_main_loop_copies_loads_and_multiplies(dtype: DType, target: str) -> None:
    ptx, grid = code(dtype, target)
    body = main_loop(parse(ptx).kernels[grid.name])
    picks = made(dtype, target)[1]
    (wm, wn, hm, hn), (steps, stages) = picks["mm.warps"], picks["mm.steps"]  # type: ignore[misc]
    count = {n: sum(i.parts[0] == n for i in body) for n in ("mma", "ldmatrix", "bar")}
    assert count == {"mma": hm * hn * steps, "ldmatrix": (hm + hn // 2) * steps, "bar": 1}
    assert accesses(body) == {
        "cp.async.cg.shared.global", "ldmatrix.sync.aligned.m8n8.x4.shared.b16"
    }  # fmt: skip
    pieces = 16 * (32 if dtype is dtypes.i8 else 16) * steps // 16 // (16 // dtype.bytes)
    copies = (wm * hm * pieces + wn * hn * pieces // 2) * 16 // (32 * wm * wn)
    assert sum(i.opcode.startswith("cp.async.cg") for i in body) == copies
    assert stages > 1
    wide = [i for i in body if i.parts[0] in ("div", "rem") or i.opcode == "mul.lo.s64"]
    assert not wide, "nothing is divided, and nothing multiplied in 64 bits"


@pytest.mark.parametrize("target", TARGETS)
def test_the_main_loop_of_plain_floats_is_wide(target: str) -> None:
    ptx, grid = code(dtypes.f32, target)
    body = main_loop(parse(ptx).kernels[grid.name])
    found = accesses(body)
    assert {n for n in found if "global" in n} == {"ld.global.v4.b32"}
    assert {n for n in found if n.startswith("ld.shared")} == {"ld.shared.v4.b32"}
    assert sum(i.parts[0] == "fma" for i in body) >= 64


@needs_ptxas
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [dtypes.f32, *NARROW])
def test_products_spill_nothing_and_fill_the_machine(dtype: DType, target: str) -> None:
    machine = resolve(target)
    (usage,) = usage_of([made(dtype, target)[0]], machine).values()
    assert usage.assembled and usage.spills == 0
    blocks = usage.occupancy * machine.limits["threads_per_multiprocessor"] / usage.threads
    assert blocks >= 2, usage.bound


@pytest.mark.skipif(
    find_ptxas() is None or find_nvdisasm() is None, reason="the tools are not installed"
)
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("dtype", NARROW)
def test_the_machine_multiplies_matrices(dtype: DType, arch: str) -> None:
    """Instructions of tensor cores are whole turns of the loop, and nothing lies on a stack."""
    ptx, grid = code(dtype, "nvidia_sm80")
    found = sass_of(ptx, arch)[grid.name]
    wanted = ptx.count("mma.sync")
    assert found.tensor_core >= wanted and found.tensor_core % wanted == 0
    assert found.count("LDSM") % ptx.count("ldmatrix") == 0
    assert found.local == found.count("LDG") == found.count("LDS") == 0
    assert found.wide_global >= ptx.count("cp.async.cg")


def run(dtype: DType, target: str) -> tuple[Counters, list[Instruction]]:
    """Some blocks of a product as PTX: what its accesses take."""
    ptx, grid = code(dtype, target)
    func = made(dtype, target)[0]
    memory = Space()
    args = []
    for b in func.params:
        shape = tuple(int(n) for n in b.shape)
        args.append(memory.add(np.zeros(shape, b.dtype.numpy), b.name, b.role != "output"))
    module = parse(ptx)
    counters = Machine(module, memory).launch(grid.name, (1, 1, 1), args, grid.block, grid.dynamic)
    return counters, main_loop(module.kernels[grid.name])


@pytest.mark.parametrize("dtype", [dtypes.f32, dtypes.f16, dtypes.i8])
def test_nothing_in_the_main_loop_waits_for_a_bank(dtype: DType) -> None:
    counters, body = run(dtype, "nvidia_sm80")
    lines = {i.line for i in body}
    inside = [x for k, x in counters.lines.items() if k in lines and x.space == "shared"]
    assert inside
    reads = [x for x in inside if not x.write]
    assert all(x.taken == x.needed and x.bits == 128 for x in reads)
    if dtype in NARROW:
        assert all(x.taken == x.needed and x.bits == 128 for x in inside)
    far = [x for k, x in counters.lines.items() if k in lines and x.space == "global"]
    assert all(x.taken == x.needed and x.bits == 128 for x in far), "whole sectors"


@needs_ptxas
@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("name", NAMES)
def test_kernels_of_the_zoo_assemble(name: str, arch: str) -> None:
    machine = resolve("nvidia_sm80" if arch == "sm_80" else "nvidia_sm90")
    text, grids = module_of([k.func for _, k in scheduled(name, machine)], machine)
    found = run_ptxas(ptx_of(text, machine), arch)
    assert set(found) == {n for g in grids for n in g.entries}
    # An entry for sizes that 32 bits do not count may call the assembler's division of 64 bits.
    assert all(found[g.name].spills == found[g.name].stack == 0 for g in grids)
    assert not re.search(r"\.local\b", ptx_of(text, machine))
