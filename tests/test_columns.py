"""Products of which maps read several parts of the columns, and loops that go to and fro."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_source_order import copied

import aisc
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, symbol
from aisc.ir.diagnostics import CompileError
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, Value
from aisc.ir.graph.interpret import interpret
from aisc.ir.tensor.func import Program
from aisc.ir.text.printer import print_ir
from aisc.ir.types import TensorType
from aisc.passes.schedule.schedule import Schedule

rng = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def part(b: GraphBuilder, x: Value, start: int, size: int) -> Value:
    rows = x.type.shape[0]
    cut = {"starts": (0, start), "ends": (rows, start + size), "steps": (1, 1)}
    return b.add("slice", (x,), cut)


def gated(rows: Dim, size: int, parts: int = 2, also: int = 0) -> Graph:
    """``tanh(tanh(a) * b) * c …`` of the parts of ``x @ w + c``, `also` more results."""
    b = GraphBuilder()
    x = b.input("x", TensorType((rows, 24), dtypes.f32))
    sums = b.add("matmul", (x, b.constant(normal(24, parts * size))))
    sums = b.add("add", (sums, b.constant(normal(parts * size))))
    found = [part(b, sums, k * size, size) for k in range(parts)]
    y = found[0]
    for v in found[1:]:
        y = b.add("mul", (b.add("tanh", (y,)), v))
    return b.finish([y, *(b.add("tanh", (found[k],)) for k in range(also))])


def check(graph: Graph, x: np.ndarray) -> None:
    expected = interpret(graph, [x])
    runs = [aisc.compile(graph, threads=t, cache=False).run(None, {"x": x}) for t in (1, 2)]
    for one, two, y in zip(*runs, expected, strict=True):
        assert np.array_equal(one, two, equal_nan=True)
        np.testing.assert_allclose(one, y, rtol=2e-5, atol=2e-5)


def kernels(graph: Graph) -> int:
    program = aisc.lower(graph)
    assert isinstance(program, Program)
    return sum("pack" not in k.name for k in program.kernels)


@pytest.mark.parametrize("rows", [1, 5, 8, 40])
@pytest.mark.parametrize("size", [1, 3, 17, 32, 100, 200])
def test_gates_of_any_size(rows: int, size: int) -> None:
    graph = gated(rows, size)
    assert kernels(graph) == 1
    check(graph, normal(rows, 24))


@pytest.mark.parametrize(("parts", "also"), [(3, 0), (4, 1), (4, 2), (8, 0), (9, 0)])
def test_several_parts_and_results(parts: int, also: int) -> None:
    for rows in (1, 6):
        check(gated(rows, 20, parts, also), normal(rows, 24))


def test_rows_that_the_run_gives() -> None:
    graph = gated(symbol("n"), 48)
    for n in (0, 1, 19):
        check(graph, normal(n, 24))


def test_special_values_stay_in_their_row() -> None:
    x = normal(6, 24)
    x[1, 3], x[2, 5], x[3, 0] = np.nan, np.inf, -np.inf
    check(gated(6, 33), x)


def test_a_part_that_something_else_reads_is_stored() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType((4, 24), dtypes.f32))
    sums = b.add("matmul", (x, b.constant(normal(24, 64))))
    low, high = part(b, sums, 0, 32), part(b, sums, 32, 32)
    total = b.add("reduce_sum", (low,), {"axes": (1,), "keepdims": True})
    graph = b.finish([b.add("mul", (low, high)), total])
    assert kernels(graph) > 1
    check(graph, normal(4, 24))


def cell(hidden: int, batch: int) -> onnx.ModelProto:
    """A GRU over 5 steps with lengths."""
    shapes = {"w": (1, 3 * hidden, 7), "r": (1, 3 * hidden, hidden), "b": (1, 6 * hidden)}
    weights = [numpy_helper.from_array(normal(*s) / 8, n) for n, s in shapes.items()]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, batch, 7]),
        helper.make_tensor_value_info("n", TensorProto.INT32, [batch]),
    ]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", "h")]
    node = helper.make_node("GRU", ["x", *shapes, "n"], ["y", "h"], hidden_size=hidden,
                            linear_before_reset=1)  # fmt: skip
    graph = helper.make_graph([node], "cell", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 14)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


@pytest.mark.parametrize("batch", [1, 3])
def test_kernels_of_loops_go_to_and_fro(batch: int) -> None:
    """Through weights that the first-level cache does not hold, and with the same results."""
    model = cell(96, batch).SerializeToString()
    feeds = {"x": normal(5, batch, 7), "n": np.arange(3, 3 + batch, dtype=np.int32)}
    program = aisc.lower(model)
    assert isinstance(program, Program)
    assert "to_and_fro" in print_ir(program)
    expected = ort.InferenceSession(model).run(None, feeds)
    for threads in (1, 2):
        found = aisc.compile(model, threads=threads, cache=False).run(None, feeds)
        for a, e in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("args", [("t", 0, 3), ("t", 2, 2), ("t", 0, 0), ("x", 0, 2), ("no", 0, 2)])
def test_split_axis_is_refused(args: tuple[str, int, int]) -> None:
    with pytest.raises(CompileError) as refused:
        Schedule.of(copied()).split_axis(*args)
    assert refused.value.codes == ("E302",)


@pytest.mark.parametrize("args", [("t", 1), ("t", -1), ("x", 0), ("no", 0)])
def test_fuse_axes_is_refused(args: tuple[str, int]) -> None:
    with pytest.raises(CompileError) as refused:
        Schedule.of(copied()).fuse_axes(*args)
    assert refused.value.codes == ("E302",)


def test_a_product_that_is_one_number() -> None:
    """It has no columns."""
    b = GraphBuilder()
    x, y = (b.input(n, TensorType((5,), dtypes.f32)) for n in "xy")
    g = b.finish([b.add("expand", (b.add("matmul", (x, y)),), {"shape": (8,)})])
    feeds = [normal(5), normal(5)]
    (out,) = aisc.compile(g, threads=1, cache=False).run(None, dict(zip("xy", feeds, strict=True)))
    np.testing.assert_allclose(out, interpret(g, feeds)[0], rtol=1e-5)
