"""Row kernels: reductions along rows with the maps around them, in one loop over rows."""

from __future__ import annotations

import numpy as np
import pytest
from cpu_machines import CPU

import aisc
from aisc.driver.api import resolve_target
from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.dtypes import DType
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, Value
from aisc.ir.graph.interpret import interpret
from aisc.ir.types import TensorType
from aisc.passes.graph.fuse import Fuse
from aisc.passes.lower.program import lower_graph
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.default import default_schedule, prepared
from aisc.passes.schedule.rules.row import schedule_rows, top_loops

rng = np.random.default_rng(0)


def constant(b: GraphBuilder, n: int, dtype: DType) -> Value:
    return b.constant(rng.standard_normal(n).astype(dtype.numpy))


def softmax(b: GraphBuilder, x: Value) -> Value:
    return b.add("softmax", (x,), {"axis": -1})


def log_softmax(b: GraphBuilder, x: Value) -> Value:
    return b.add("log_softmax", (x,), {"axis": -1})


def layer_norm(b: GraphBuilder, x: Value) -> Value:
    n = x.type.shape[-1]
    inputs = (x, constant(b, n, x.type.dtype), constant(b, n, x.type.dtype))
    return b.add("layer_norm", inputs, {"axis": -1, "epsilon": 1e-5})


def scaled_softmax(b: GraphBuilder, x: Value) -> Value:
    """An epilogue over the row."""
    y = softmax(b, x)
    return b.add("mul", (y, constant(b, x.type.shape[-1], x.type.dtype)))


MAKERS = (softmax, log_softmax, layer_norm, scaled_softmax)


def model(make, rows, columns: int, dtype: DType = dtypes.f32) -> Graph:
    b = GraphBuilder()
    x = b.input("x", TensorType((*rows, columns), dtype))
    return b.finish([make(b, x)])


def check(graph: Graph, x: np.ndarray) -> None:
    """Machine code agrees with the graph, the same for one thread and two."""
    (expected,) = interpret(graph, [x])
    one, two = (aisc.compile(graph, threads=t, cache=False)(x) for t in (1, 2))
    assert np.array_equal(one, two, equal_nan=True)
    tolerance = 1e-5 if x.dtype == np.float32 else 1e-13
    np.testing.assert_allclose(one, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("columns", [32, 33, 100, 255, 256, 300])
def test_rows_of_any_length(make, columns: int) -> None:
    check(model(make, (2, 3), columns), rng.standard_normal((2, 3, columns)).astype(np.float32))


@pytest.mark.parametrize("make", MAKERS)
def test_double_precision(make) -> None:
    check(model(make, (5,), 130, dtypes.f64), rng.standard_normal((5, 130)))


@pytest.mark.parametrize("make", MAKERS)
def test_symbolic_rows(make) -> None:
    graph = model(make, (symbol("n"), 2), 64)
    for n in (0, 1, 7):
        check(graph, rng.standard_normal((n, 2, 64)).astype(np.float32))


@pytest.mark.parametrize("make", [softmax, log_softmax])
def test_rows_of_symbolic_length(make) -> None:
    graph = model(make, (3,), symbol("n"))
    for n in (1, 15, 16, 100, 513):
        check(graph, rng.standard_normal((3, n)).astype(np.float32))


@pytest.mark.parametrize("make", MAKERS)
def test_special_values_stay_in_their_row(make) -> None:
    x = rng.standard_normal((6, 320)).astype(np.float32)
    x[1, 7], x[2, 300], x[3, 5], x[4, :] = np.nan, np.inf, -np.inf, 1e-42
    check(model(make, (6,), 320), x)


@pytest.mark.parametrize("make", MAKERS)
def test_one_loop_over_rows_remains(make) -> None:
    """Nothing but parameters lies in memory, and the rows are divided among threads."""
    (kernel,) = lower_graph(Fuse(machines=CPU).run(model(make, (64, 12), 320))).kernels
    target = resolve_target("cpu")
    assert schedule_rows(prepared(kernel, Chooser(target)), Chooser(target)) is not None
    func = default_schedule(kernel, Chooser(target)).func
    (loop,) = top_loops(func.body)
    assert loop.kind == "parallel"


def test_tiny_rows_and_other_axes_are_left_alone() -> None:
    target = resolve_target("cpu")
    for graph in (model(softmax, (9,), 3), model(axis_zero, (40,), 64)):
        (kernel,) = lower_graph(Fuse(machines=CPU).run(graph)).kernels
        assert schedule_rows(prepared(kernel, Chooser(target)), Chooser(target)) is None


def axis_zero(b: GraphBuilder, x: Value) -> Value:
    return b.add("softmax", (x,), {"axis": 0})
