"""Whole models on a SIMT machine, its kernels as loops over threads: what the host computes, and
every kernel divided among blocks."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import zoo
from test_zoo import NAMES, check, model, shapes

import aisc
from aisc.codegen.backend import backend_of
from aisc.codegen.simt.module import module_of, ptx_of
from aisc.codegen.simt.ptxas import find_ptxas, run_ptxas
from aisc.driver import api
from aisc.ir.target import Target, resolve
from aisc.ir.tensor.func import Func, Program
from aisc.passes.analysis.simt_kernel import Kernel, launches
from aisc.passes.plan.bind import ScheduledKernel
from aisc.passes.schedule.rules.chooser import NONE
from aisc.passes.schedule.rules.simt import FORM

GPU = resolve("nvidia_sm90")
# A machine that nobody builds: half of a warp, little shared memory, narrow accesses.
SMALL = """
[target]
name = "small_warps"
kind = "simt"
triple = "nvptx64-nvidia-cuda"
arch = "sm_90"
features = ["+ptx80"]
vector_bits = 64
vector_registers = 255
cores = 4
[memory.global]
bytes = 1073741824
[memory.shared]
bytes = 8192
[memory.register]
bytes = 65536
[limits]
threads_per_block = 128
threads_x = 128
threads_y = 128
threads_z = 64
shared_bytes = 8192
registers_per_thread = 255
warp = 16
"""


def scheduled(name: str, target: Target) -> list[tuple[Func, ScheduledKernel]]:
    _, products = api.products(model(name), target, stop_after="lower")
    program = products["lower"]
    assert isinstance(program, Program)
    assert {k.target for k in program.kernels} == {target.name}
    backend = backend_of(target)
    return [(k, backend.schedule(k, NONE)[0]) for k in program.kernels]


@cache
def on_gpu(name: str) -> list[tuple[Func, ScheduledKernel]]:
    return scheduled(name, GPU)


@pytest.mark.parametrize("name", NAMES)
def test_models_agree_at_every_size(name: str) -> None:
    exe = aisc.compile(model(name), target=GPU.name, cache=False)
    for dims in shapes(name, 3):
        feeds = zoo.feeds(model(name), dims, seed=sum(dims.values()))
        check(name, exe.run(None, feeds), feeds)


@pytest.mark.parametrize("name", ["mobilenet_v2", "gpt2_decode"])
def test_models_agree_on_small_warps(name: str, tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    exe = aisc.compile(model(name), target=str(path), cache=False)
    for dims in shapes(name, 2):
        feeds = zoo.feeds(model(name), dims, seed=sum(dims.values()))
        check(name, exe.run(None, feeds), feeds)


def is_divided(func: Func) -> bool:
    """Whether each launch of a kernel is divided among threads, if not blocks."""
    return all(Kernel.of(f).threads for f in launches(func))


@pytest.mark.parametrize("name", NAMES)
def test_every_kernel_is_divided_by_its_structure(name: str) -> None:
    for lowered, made in on_gpu(name):
        form = next(p.choice for p in made.picks if p.name == FORM)
        assert form == "structure", lowered.name
        single = all(b.type.size == 1 for b in lowered.params if b.role == "output")
        assert is_divided(made.func) or single, lowered.name


@pytest.mark.skipif(find_ptxas() is None, reason="ptxas is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_every_kernel_assembles_without_spills(name: str) -> None:
    made = [k.func for _, k in on_gpu(name)]
    text, grids = module_of(made, GPU)
    found = run_ptxas(ptx_of(text, GPU), GPU.arch)
    assert set(found) == {name for g in grids for name in g.entries}
    for g in grids:
        usage = found[g.name]
        assert usage.spills == usage.stack == 0, g.name
        threads = g.block[0] * g.block[1] * g.block[2]
        assert usage.registers * threads <= GPU.memory("register").bytes // 4
        assert g.shared_bytes == (usage.shared or g.dynamic)
