"""Convolutions over images that come with their channels first, and `permute`."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import aisc
from aisc.driver.api import resolve_target
from aisc.ir import dtypes
from aisc.ir.diagnostics import CompileError
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Load
from aisc.ir.tensor.func import Func, Program, buffer
from aisc.ir.tensor.interpret import run_func
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.default import prepared
from aisc.passes.schedule.schedule import Schedule, trace_from_json, trace_to_json

rng = np.random.default_rng(0)


def stem(channels: int, size: tuple, kernel: int, stride: int, pads: list[int], outputs: int = 20):
    """An ONNX model: convolution, bias, relu over N C H W."""
    w = rng.standard_normal((outputs, channels, kernel, kernel)).astype(np.float32)
    bias = rng.standard_normal(outputs).astype(np.float32)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, channels, *size))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=[stride] * 2, pads=pads),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    constants = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph(nodes, "stem", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def agree(model, x: np.ndarray) -> None:
    session = ort.InferenceSession(model.SerializeToString())
    (expected,) = session.run(None, {"x": x})
    one, two = (aisc.compile(model, threads=t, cache=False)(x) for t in (1, 2))
    assert np.array_equal(one, two)
    np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
@pytest.mark.parametrize(("kernel", "stride", "pads"), [
    (3, 2, [1, 1, 1, 1]), (7, 2, [3, 3, 3, 3]), (3, 1, [0, 0, 0, 0]), (2, 2, [0, 1, 1, 0]),
])  # fmt: skip
def test_images_agree(channels: int, kernel: int, stride: int, pads: list[int]) -> None:
    x = rng.standard_normal((2, channels, 19, 37)).astype(np.float32)
    agree(stem(channels, (19, 37), kernel, stride, pads), x)


def test_images_of_any_size_agree() -> None:
    model = stem(3, ("h", "w"), 3, 2, [1, 1, 1, 1])
    for h, w in ((1, 1), (8, 33), (21, 16)):
        agree(model, rng.standard_normal((2, 3, h, w)).astype(np.float32))


def kernels(channels: int) -> list[Func]:
    program = aisc.lower(stem(channels, (19, 37), 3, 2, [1, 1, 1, 1], 64), to="program")
    assert isinstance(program, Program)
    return [k for k in program.kernels if "conv" in k.name and "pack" not in k.name]


def test_the_transpose_of_few_channels_joins_the_convolution() -> None:
    assert "transpose" in kernels(3)[0].name
    assert "transpose" not in kernels(8)[0].name


def copied() -> Func:
    """``y[i] = sum over j of t[i, j] * t[i, j]`` with ``t = x + 1``."""
    x = buffer("x", dtypes.i32, (5, 7), "input")
    y = buffer("y", dtypes.i32, (5,), "output")
    cb = ComputeBuilder()
    t = cb.alloc("t", dtypes.i32, (5, 7))
    cb.map(t, lambda i, j: Load(x, (i, j)) + 1, "plus")
    cb.reduce(y, (7,), "sum", lambda i, r: Load(t, (*i, *r)) * Load(t, (*i, *r)), "squares")
    return cb.func("f", (x, y))


def test_permute_keeps_the_result_and_replays() -> None:
    s = Schedule.of(copied()).permute("t", (1, 0))
    x = rng.integers(-9, 9, (5, 7)).astype(np.int32)
    y = np.zeros(5, np.int32)
    run_func(s.func, [x, y])
    assert np.array_equal(y, ((x + 1) ** 2).sum(axis=1))
    assert Schedule.of(copied()).replay(trace_from_json(trace_to_json(s.trace))) == s


@pytest.mark.parametrize(
    ("name", "order"), [("t", (0,)), ("t", (0, 0)), ("x", (1, 0)), ("z", (0,))]
)
def test_permute_is_refused(name: str, order: tuple[int, ...]) -> None:
    with pytest.raises(CompileError) as refused:
        Schedule.of(copied()).permute(name, order)
    assert refused.value.codes == ("E302",)


def test_the_rule_leaves_other_copies_alone() -> None:
    """A copy that is reduced by vectors keeps its order."""
    steps = prepared(copied(), Chooser(resolve_target("cpu"))).trace
    assert all(step.primitive != "permute" for step in steps)
