"""The steps of examples/schedule_matmul.py: right at sizes that no tile divides, no step spills."""

from __future__ import annotations

import runpy
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from aisc.codegen.cpu.backend import CpuBackend
from aisc.codegen.llvm.assembly import spills
from aisc.driver.api import resolve_target
from aisc.passes.schedule.schedule import Schedule, trace_from_json, trace_to_json
from aisc.passes.tensor.optimize import optimize

LAB = runpy.run_path(str(Path(__file__).resolve().parent.parent / "examples/schedule_matmul.py"))


@pytest.mark.parametrize("size", [45, 64])
@pytest.mark.parametrize("name", LAB["STEPS"])
def test_steps_compute_the_product(name: str, size: int) -> None:
    start = Schedule.of(LAB["product"](size))
    s = LAB["STEPS"][name](start)
    assert start.replay(trace_from_json(trace_to_json(s.trace))) == s
    LAB["checked"](s, size, 2 if name == "threads" else 1)


@pytest.mark.parametrize("name", ["clamped", "packed", "ahead", "threads"])
def test_hot_loops_stay_in_registers(name: str) -> None:
    size, target = 512, resolve_target("cpu")
    if target.vector_bits < 512:
        pytest.skip("the tile is one for 32 registers of 512 bits")
    func = optimize(LAB["STEPS"][name](Schedule.of(LAB["product"](size))).func)
    backend = CpuBackend(target)
    assert spills(backend.assemble(backend.emit([func]), want_listing=True).listing) == 0


@pytest.mark.parametrize("name", LAB["STEPS"])
def test_the_code_is_what_the_assembly_says(name: str) -> None:
    func = optimize(LAB["STEPS"][name](Schedule.of(LAB["product"](64))).func)
    backend = CpuBackend(resolve_target("cpu"))
    text = backend.emit([func])
    assert code_of(backend.assemble(text).object) == code_of(backend.assemble(text, True).object)


def code_of(image: bytes) -> dict[bytes, bytes]:
    """The sections of an object that hold code and constants."""
    held = llvm.ObjectFileRef.from_data(image)
    found = {s.name() or b"": s.data() for s in held.sections()}
    return {k: v for k, v in found.items() if k.startswith((b".ltext", b".text", b".rodata"))}
