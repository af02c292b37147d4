"""Every level of a small model prints, parses back, verifies and computes the same values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from cpu_machines import CPU

from aisc.ir import dtypes
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.same import same
from aisc.ir.target import resolve
from aisc.ir.tensor.func import Program
from aisc.ir.tensor.interpret import run_program
from aisc.ir.tensor.verify import verify_program
from aisc.ir.tensor.verify_func import LevelName
from aisc.ir.text.parser import blobs_of, parse_func, parse_graph, parse_program
from aisc.ir.text.printer import print_func, print_graph, print_program
from aisc.ir.types import TensorType
from aisc.passes.graph.fuse import Fuse
from aisc.passes.lower.program import lower_graph
from aisc.passes.plan.arena import plan_memory
from aisc.passes.plan.bind import ScheduledKernel, bind_kernels
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.default import default_schedule
from aisc.passes.tensor.optimize import optimize_schedule

f32 = dtypes.f32
RNG = np.random.default_rng(0)


def random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def mlp() -> Graph:
    gb = GraphBuilder()
    x = gb.input("x/0", TensorType((3, 16), f32))
    h = gb.add("relu", [gb.add("matmul", [x, gb.constant(random(16, 32))])])
    y = gb.add("matmul", [h, gb.constant(random(32, 32))])
    return gb.finish([gb.add("softmax", [y], {"axis": -1})])


def convolution() -> Graph:
    gb = GraphBuilder()
    x = gb.input("x", TensorType((1, 5, 5, 4), f32))
    attrs = {"pads": (1, 1, 1, 1), "data_layout": "NHWC"}
    y = gb.add("conv", [x, gb.constant(random(3, 3, 4, 16)), None], attrs)
    y = gb.add("relu", [y])
    return gb.finish([gb.add("reshape", [y], {"shape": (1, 400)})])


def check(p: Program, level: LevelName, x: np.ndarray, expected: np.ndarray) -> None:
    text = print_program(p)
    assert parse_program(text, blobs_of(p)) == p
    verify_program(p, level)
    (got,) = run_program(p, [x], nthreads=2)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [mlp, convolution])
def test_every_level(make: Callable[[], Graph]) -> None:
    graph = Fuse(machines=CPU).run(make())
    assert same(parse_graph(print_graph(graph), blobs_of(graph)), graph)
    shape = graph.inputs[0].type.static_shape
    x = random(*shape)
    (expected,) = interpret(graph, [x])
    program = lower_graph(graph)
    check(program, "lowered", x, expected)
    target, kernels = resolve("cpu"), dict[str, ScheduledKernel]()
    for k in program.kernels:
        s = default_schedule(k, Chooser(target))
        assert parse_func(print_func(s.func)) == s.func
        packers = tuple(default_schedule(p, Chooser(target)).func for p in s.packers)
        kernels[k.name] = optimize_schedule(k, s, packers)
    bound = bind_kernels(program, kernels)
    check(bound, "scheduled", x, expected)
    check(plan_memory(bound).program, "planned", x, expected)
