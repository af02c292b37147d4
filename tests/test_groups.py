"""Convolutions of groups of channels, and of results of one vector: where their images lie, what
rows share, and that both agree with the operator's definition."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx_models import const, model, node, value

import aisc
from aisc.driver.api import resolve_target
from aisc.ir import dtypes
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.interpret import run_func
from aisc.ir.types import TensorType
from aisc.passes.graph.fuse import Fuse
from aisc.passes.lower.program import lower_graph
from aisc.passes.schedule.picks import Choice
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.default import default_schedule
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.tensor.optimize import optimize

rng = np.random.default_rng(0)


def grouped(
    group: int, inputs: int, outputs: int, size: tuple[int, int] = (6, 9), stride: int = 1
) -> Graph:
    """A convolution of `group` groups over an image with its channels last, and a map behind it."""
    b = GraphBuilder()
    x = b.input("x", TensorType((1, *size, group * inputs), dtypes.f32))
    w = rng.integers(-3, 4, (3, 3, inputs, group * outputs)).astype(np.float32)
    attrs = {
        "group": group, "strides": (stride, stride), "pads": (1, 1, 1, 1), "data_layout": "NHWC"
    }  # fmt: skip
    y = b.add("conv", (x, b.constant(w)), attrs)
    return b.finish([b.add("relu", (y,))])


def kernel(graph: Graph) -> Func:
    """The one kernel of a graph."""
    (func,) = lower_graph(Fuse().run(graph)).kernels
    return func


def scheduled(machine: str, func: Func, **choices: Choice) -> Schedule:
    """The default schedule on a machine but for choices for the convolution."""
    named = {f"conv_1.{k}": v for k, v in choices.items()}
    return default_schedule(func, Chooser(resolve_target(machine), named))


def picks(s: Schedule) -> dict[str, Choice]:
    """What was picked for the convolution, by subject."""
    return {p.name.partition(".")[2]: p.choice for p in s.picks if p.name.startswith("conv_1.")}


def image_of(s: Schedule) -> tuple[object, ...]:
    """The shape of the copy with a border."""
    return next(p.shape for p in optimize(s.func).params if p.name == "padded")


def result(s: Schedule, graph: Graph, x: np.ndarray) -> np.ndarray:
    """What a scheduled convolution gives under the interpreter."""
    (w,) = (b.array for b in graph.constants().values())
    for packer in s.packers:
        packed = np.zeros(packer.params[1].type.static_shape, np.float32)
        run_func(packer, [w, packed])
        w = packed
    func, y = optimize(s.func), np.zeros(graph.outputs[0].type.static_shape, np.float32)
    private = [p for p in func.params if p.role == "scratch"]
    run_func(func, [x, w, y, *(np.full(p.type.static_shape, np.nan, "f4") for p in private)])
    return y


@pytest.mark.parametrize(
    ("machine", "channels", "image", "taps"),
    [
        ("x86-64-v3", 8, (1, 5, 8, 11, 8), True),
        ("x86-64-v3", 16, (1, 5, 8, 11, 16), None),
        ("x86-64-v3", 4, None, None),  # a vector has two groups, as it has with 512 bits:
        ("x86-64-v4", 8, None, None),
        ("x86-64-v4", 16, (1, 5, 8, 11, 16), True),
    ],
)
def test_images_of_groups_lie_apart(
    machine: str, channels: int, image: tuple[int, ...] | None, taps: bool | None
) -> None:
    s = scheduled(machine, kernel(grouped(5 if image else 6, channels, channels)))
    assert picks(s).get("taps_shared") is taps
    if image is not None:
        assert image_of(s) == image


@pytest.mark.parametrize("machine", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize(
    ("inputs", "outputs", "stride", "choices"),
    [
        (8, 8, 1, {}),
        (8, 8, 2, {}),
        (8, 8, 1, {"taps_shared": False}),
        (8, 8, 1, {"images_apart": False}),
        (8, 8, 1, {"grouped": False}),
        (4, 8, 1, {}),
        (3, 8, 2, {}),
        (16, 16, 1, {"outside": "rows"}),
        (2, 24, 1, {}),
    ],
)
def test_the_meaning_stays(
    machine: str, inputs: int, outputs: int, stride: int, choices: dict[str, Choice]
) -> None:
    graph = grouped(3, inputs, outputs, stride=stride)
    x = rng.integers(-4, 5, graph.inputs[0].type.static_shape).astype(np.float32)
    (expected,) = interpret(graph, [x])
    got = result(scheduled(machine, kernel(graph), **choices), graph, x)
    np.testing.assert_array_equal(got, expected)


def one_layer(
    channels: int, outputs: int, group: int, size: tuple[int | str, ...], **attrs: object
) -> tuple[bytes, tuple[int | str, ...]]:
    """An ONNX model of one convolution between pointwise ones, which leave its layout open."""
    spatial = len(size)
    taps = attrs.pop("kernel", 3)
    w = rng.standard_normal((outputs, channels // group, *(taps,) * spatial)).astype(np.float32)
    a = rng.standard_normal((channels, 4, *(1,) * spatial)).astype(np.float32)
    nodes = [node("Conv", "x a", "h"), node("Conv", "h w", "y", group=group, **attrs)]
    shape = (2, 4, *size)
    made = model(nodes, [value("x", 1, shape)], [value("y")], const("a", a), const("w", w))
    return made.SerializeToString(), shape


def agree(made: bytes, x: np.ndarray) -> None:
    """The results of onnxruntime, with one thread and two to the bit the same."""
    (expected,) = ort.InferenceSession(made).run(None, {"x": x})
    one, two = (aisc.compile(made, threads=t, cache=False)(x) for t in (1, 2))
    assert np.array_equal(one, two, equal_nan=True)
    np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "outputs", "group"),
    [(24, 24, 3), (80, 80, 10), (12, 24, 3), (20, 20, 5), (48, 16, 2), (64, 64, 2), (36, 36, 3),
     (7, 8, 1), (5, 3, 1)],
)  # fmt: skip
@pytest.mark.parametrize(
    ("size", "attrs"),
    [
        ((13, 15), {"pads": [1] * 4}),
        ((12, 31), {"pads": [1] * 4, "strides": [2, 2]}),
        ((3, 2), {"pads": [1] * 4}),
        ((17, 9), {"pads": [4, 0, 1, 2], "kernel": 5}),
        ((11, 19), {"pads": [2] * 4, "dilations": [2, 2]}),
        ((10, 12), {}),
        ((29,), {"pads": [1, 1]}),
    ],
)
def test_layers_agree(
    channels: int, outputs: int, group: int, size: tuple[int, ...], attrs: dict[str, object]
) -> None:
    made, shape = one_layer(channels, outputs, group, size, **dict(attrs))
    agree(made, rng.standard_normal(shape).astype(np.float32))


def test_images_of_any_size_agree() -> None:
    made, _ = one_layer(24, 24, 3, ("h", "w"), pads=[1] * 4)
    for h, w in ((1, 1), (4, 9), (15, 8)):
        agree(made, rng.standard_normal((2, 4, h, w)).astype(np.float32))


def test_what_is_not_finite_stays_in_its_group() -> None:
    made, shape = one_layer(24, 24, 3, (9, 9), pads=[1] * 4)
    x = rng.standard_normal(shape).astype(np.float32)
    x[0, :, 4, 4], x[1, :, 0, 8] = np.nan, np.inf
    (expected,) = ort.InferenceSession(made).run(None, {"x": x})
    got = aisc.compile(made, threads=1, cache=False)(x)
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
