"""Scratch buffers become parameters: whole ones, and one part per iteration of parallel loops."""

from __future__ import annotations

import numpy as np

import aisc
from aisc.ir import dtypes
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Load, const
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.tensor.interpret import run_func
from aisc.ir.types import TensorType
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.tensor.optimize import optimize

N = 48


def func() -> Func:
    """``t = 2 x; y = t + 1``."""
    cb = ComputeBuilder()
    x = buffer("x", dtypes.f32, (N,), role="input")
    y = buffer("y", dtypes.f32, (N,), role="output")
    t = cb.alloc("t", dtypes.f32, (N,))
    cb.map(t, lambda i: Load(x, (i,)) * const(2, dtypes.f32), "double")
    cb.map(y, lambda i: Load(t, (i,)) + const(1, dtypes.f32), "more")
    return cb.func("f", (x, y))


def blocked() -> Schedule:
    """Both maps for 4 elements at a time, 3 such blocks one after the other in each of 4 pieces."""
    s = Schedule.of(func())
    s = s.split("double_i0", 4, names=("a", "a_i")).split("more_i0", 4, names=("b", "b_i"))
    return s.fuse_loops("a", "b").split("a", 3, names=("q", "n"))


def run(f: Func) -> np.ndarray:
    x = np.arange(N, dtype=np.float32)
    arrays = [np.full(p.type.static_shape, np.nan, np.float32) for p in f.params]
    arrays[0][:] = x
    run_func(f, arrays)
    return arrays[1]


def scratch(f: Func) -> list[tuple[int, ...]]:
    return [p.type.static_shape for p in f.params if p.role == "scratch"]


def test_a_global_buffer_is_a_whole_parameter() -> None:
    f = optimize(blocked().parallel("q").func)
    assert scratch(f) == [(N,)]
    assert np.array_equal(run(f), np.arange(N) * 2 + 1)


def test_a_thread_buffer_has_a_part_for_each_parallel_iteration() -> None:
    f = optimize(blocked().set_scope("t", "thread").parallel("q").func)
    assert scratch(f) == [(4, 4)]
    assert np.array_equal(run(f), np.arange(N) * 2 + 1)


def test_iterations_of_serial_loops_share_one_part() -> None:
    f = optimize(blocked().set_scope("t", "thread").func)
    assert scratch(f) == [(4,)]
    assert np.array_equal(run(f), np.arange(N) * 2 + 1)


def test_a_kernel_that_computes_nothing() -> None:
    """No elements are selected, and nobody reads their places: all that is left is scratch."""
    b = GraphBuilder()
    x = b.input("x", TensorType((2, 5), dtypes.f32))
    values = b.add_multi("top_k", (x,), {"k": (0,), "axis": 1})[0]
    run = aisc.compile(b.finish([values]), threads=1, cache=False)
    assert run(np.zeros((2, 5), np.float32)).shape == (2, 0)
