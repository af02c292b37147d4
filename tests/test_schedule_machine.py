"""Machine code of random schedules computes what the loops did."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from aisc.codegen.cpu.backend import CpuBackend
from aisc.codegen.llvm.link import Linked
from aisc.driver.api import resolve_target
from aisc.fuzz.nests import Case
from aisc.fuzz.schedules import check
from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Load, Var
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.tensor.stmt import Alloc, Barrier
from aisc.ir.tensor.tree import loops_of, statements
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.tensor.optimize import optimize

SEEDS = range(20000, 20060)


def runs_on_cpu(func: Func) -> bool:
    """No loops of hardware axes, no private storage of a size that only a run knows; no barriers,
    which need the pool of a whole program."""
    found = list(statements(func.body))
    held = [s.buffer for s in found if isinstance(s, Alloc)]
    fixed = all(isinstance(d, int) for b in held for d in b.shape)
    axes = any("." in f.kind for f in loops_of(func.body))
    return fixed and not axes and not any(isinstance(s, Barrier) for s in found)


def run(case: Case, s: Schedule) -> dict[str, np.ndarray]:
    """Outputs of the schedule's machine code, on one thread."""
    func, packers = optimize(s.func), tuple(map(optimize, s.packers))
    backend = CpuBackend(resolve_target("cpu"))
    made = backend.assemble(backend.emit((func, *packers)))
    linked = Linked([backend.runtime, made.object], [f.name for f in (func, *packers)])
    arrays = {k: np.ascontiguousarray(v) for k, v in case.inputs.items()}
    for f in (*packers, func):
        for b in f.params:
            arrays.setdefault(b.name, np.full(case.shape(b), 77, b.dtype.numpy))
        call(linked.addresses[f.name], f, arrays, case.dims)
    return {b.name: arrays[b.name] for b in func.params if b.role == "output"}


def call(address: int, func: Func, arrays: dict[str, np.ndarray], dims: dict[str, int]) -> None:
    status = (ctypes.c_int64 * 1)()
    pointers = [arrays[b.name].ctypes.data for b in func.params]
    sizes = [dims[v.name] for v in func.dims]
    last = [ctypes.addressof(status)] if func.attr("status", False) else []
    kinds = [ctypes.c_void_p] * len(pointers) + [ctypes.c_int64] * (len(sizes) + 2)
    kinds += [ctypes.c_void_p] * (1 + len(last))
    ctypes.CFUNCTYPE(None, *kinds)(address)(*pointers, *sizes, 0, 1, None, *last)
    assert status[0] == 0, "a fault was reported"


@pytest.mark.parametrize("seed", SEEDS)
def test_machine_code_of_random_schedules(seed: int) -> None:
    case, s = check(seed)
    if not runs_on_cpu(optimize(s.func)):
        pytest.skip("it is not for a CPU")
    expected = case.run(case.func)
    for name, array in run(case, s).items():
        assert np.array_equal(array, expected[name]), s.to_python()


def test_lanes_that_stay_in_one_block_are_shuffled() -> None:
    """``y[i] = x[i // 2]``: a load of half as many elements and a shuffle, no gather."""
    x, y = buffer("x", dtypes.f32, (64,), "input"), buffer("y", dtypes.f32, (128,), "output")
    b = ComputeBuilder()
    b.map(y, lambda i: Load(x, (i // 2,)), "m")
    s = Schedule.of(b.func("f", (x, y))).split("m_i0", 16, names=("o", "lane")).vectorize("lane")
    text = CpuBackend(resolve_target("cpu")).emit([optimize(s.func)])
    assert "load <8 x float>" in text and "shufflevector <8 x float>" in text
    assert "gather" not in text


def test_the_last_lanes_of_a_row_are_masked_by_their_number() -> None:
    """The mask of a tail is made of a count, by scalar instructions, not by comparing lanes, where
    masks are bits."""
    n = symbol("n")
    x, y = buffer("x", dtypes.f32, (n,), "input"), buffer("y", dtypes.f32, (n,), "output")
    b = ComputeBuilder()
    b.map(y, lambda i: Load(x, (i,)) + 1.0, "m")
    s = Schedule.of(b.func("f", (x, y), (Var("n"),)))
    s = s.split("m_i0", 16, names=("o", "lane")).vectorize("lane")
    text = CpuBackend(resolve_target("x86-64-v4")).emit([optimize(s.func)])
    assert "bitcast i16" in text and "to <16 x i1>" in text
    assert "icmp slt <16 x i64>" not in text
