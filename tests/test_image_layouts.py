"""Which layout images get, and that convolutions in either give what the reference gives: few
results over long rows, strides along rows, windows one place wide, taps in the padding."""

from __future__ import annotations

import numpy as np
import pytest

import aisc
from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, Value
from aisc.ir.graph.interpret import interpret
from aisc.ir.node import walk
from aisc.ir.tensor.func import Program
from aisc.ir.tensor.stmt import CallKernel
from aisc.ir.types import TensorType
from aisc.passes.graph.images import ImageLayouts
from aisc.passes.graph.legalize import Legalize

rng = np.random.default_rng(0)
Shape = tuple[int, ...]


def weights(*shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def conv(b: GraphBuilder, x: Value, *shape: int, **attrs: object) -> Value:
    bias = b.constant(rng.standard_normal(shape[0]).astype(np.float32))
    return b.add("conv", (x, b.constant(weights(*shape)), bias), attrs)  # type: ignore[arg-type]


def image(*shape: object) -> tuple[GraphBuilder, Value]:
    b = GraphBuilder()
    return b, b.input("x", TensorType(shape, dtypes.f32))  # type: ignore[arg-type]


def layouts(graph: Graph, lanes: int = 16) -> list[str]:
    after = ImageLayouts(lanes=lanes).run(graph)
    return [str(n.attr("data_layout")) for n in after.nodes if "data_layout" in n.attr_map]


def test_many_channels_are_last() -> None:
    b, x = image(1, 64, 28, 28)
    assert layouts(b.finish([conv(b, x, 64, 64, 3, 3)])) == ["NHWC"]


def test_few_results_over_long_rows_are_first() -> None:
    b, x = image(1, 64, 56, 56)
    graph = b.finish([conv(b, x, 1, 64, 3, 3, pads=(1, 1, 1, 1))])
    assert layouts(graph) == ["NCHW"]
    assert layouts(graph, lanes=0) == ["NHWC"]  # a machine that wants nothing else


def test_what_hangs_together_has_one_layout() -> None:
    """The last convolution alone would have its channels first."""
    b, x = image(1, 32, 56, 56)
    y = b.add("relu", (conv(b, x, 64, 32, 3, 3),))
    y = b.add("relu", (conv(b, y, 64, 64, 3, 3),))
    assert layouts(b.finish([conv(b, y, 1, 64, 3, 3)])) == ["NHWC"] * 3


def test_apart_they_are_chosen_apart() -> None:
    b, x = image(1, 64, 56, 56)
    y = b.add("reduce_mean", (conv(b, x, 64, 64, 3, 3),), {"axes": (1, 2, 3), "keepdims": False})
    graph = b.finish([y, conv(b, x, 1, 64, 3, 3)])
    assert sorted(layouts(graph)) == ["NHWC", "NHWC"]  # both read x
    b, x = image(1, 64, 56, 56)
    other = b.input("other", x.type)
    graph = b.finish([conv(b, x, 64, 64, 3, 3), conv(b, other, 1, 64, 3, 3)])
    assert sorted(layouts(graph)) == ["NCHW", "NHWC"]


def test_sizes_that_only_the_run_knows() -> None:
    b, x = image(symbol("n"), 64, symbol("h"), symbol("w"))
    assert layouts(b.finish([conv(b, x, 64, 64, 3, 3)])) == ["NHWC"]


CASES: tuple[tuple[Shape, Shape, dict[str, object]], ...] = (
    ((1, 3, 9, 70), (1, 3, 3, 3), {"pads": (1, 1, 1, 1)}),
    ((2, 3, 9, 70), (2, 3, 2, 5), {"strides": (1, 3), "pads": (0, 2, 1, 2)}),
    ((1, 4, 5, 67), (5, 4, 1, 3), {"strides": (3, 2), "pads": (0, 1, 0, 1)}),
    ((1, 4, 6, 30), (3, 4, 3, 1), {"dilations": (2, 1), "pads": (2, 0, 2, 0)}),
    ((1, 4, 6, 30), (3, 4, 3, 1), {"strides": (1, 4)}),
    ((1, 8, 20, 6), (8, 1, 3, 3), {"group": 8, "pads": (1, 1, 1, 1)}),
    ((2, 6, 4, 40), (4, 3, 2, 2), {"group": 2, "strides": (1, 2)}),
    ((1, 1, 300), (1, 1, 40), {"strides": (2,)}),
    ((1, 1, 64), (3, 1, 5), {"dilations": (9,), "pads": (18, 18)}),
    ((1, 33, 5, 6), (4, 33, 3, 3), {"dilations": (4, 5), "pads": (4, 5, 4, 5)}),
    ((1, 33, 5, 6), (4, 33, 3, 3), {"dilations": (9, 4), "pads": (9, 4, 9, 4)}),
    ((1, 33, 5, 6), (4, 33, 3, 3), {"dilations": (4, 4), "pads": (8, 0, 4, 8), "strides": (2, 3)}),
)


@pytest.mark.parametrize(("shape", "kernel", "attrs"), CASES)
def test_convolutions_agree_with_the_reference(
    shape: Shape, kernel: Shape, attrs: dict[str, object]
) -> None:
    b, x = image(*shape)
    graph = b.finish([b.add("relu", (conv(b, x, *kernel, **attrs),))])
    feed = rng.standard_normal(shape).astype(np.float32)
    (expected,) = interpret(graph, [feed])
    (legal,) = interpret(Legalize().run(graph), [feed])
    np.testing.assert_allclose(legal, expected, rtol=1e-4, atol=1e-5)
    for threads in (1, 3):
        got = aisc.compile(graph, threads=threads, cache=False)(feed)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_infinite_weights_still_meet_the_padding() -> None:
    """0 * inf is NaN: taps with such weights are not dropped."""
    b, x = image(1, 1, 4)
    w = np.array([[[np.inf, 1, 2]]], np.float32)
    y = b.add("conv", (x, b.constant(w)), {"dilations": (6,), "pads": (6, 6)})
    graph = b.finish([y])
    feed = np.ones((1, 1, 4), np.float32)
    got = aisc.compile(graph, threads=1, cache=False)(feed)
    np.testing.assert_array_equal(got, interpret(graph, [feed])[0])
    assert np.isnan(got).all()


def test_a_sum_with_the_model_input_needs_no_transpose_of_its_own() -> None:
    """The input is there with channels last for the first convolution; blocks after it stay so."""
    b, x = image(symbol("n"), 24, 9, 7)
    y = x
    for _ in range(3):
        inner = b.add("relu", (conv(b, y, 16, 24, 3, 3, pads=(1, 1, 1, 1)),))
        inner = conv(b, inner, 24, 16, 1, 1)
        y = b.add("relu", (b.add("add", (inner, y)),))
    graph = b.finish([y])
    program = aisc.lower(graph)
    assert isinstance(program, Program)
    calls = [s.kernel for s in walk(program.entry.body) if isinstance(s, CallKernel)]
    assert sum("transpose" in name for name in calls) == 2
    data = rng.standard_normal((2, 24, 9, 7)).astype(np.float32)
    (want,) = interpret(graph, [data])
    np.testing.assert_allclose(aisc.compile(graph, cache=False)(data), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("op", "shape", "strides", "layout"),
    [
        ("avg_pool", (1, 64, 56, 56), (1, 1), "NCHW"),  # seven vectors of a row for its sides
        ("max_pool", (1, 64, 112, 112), (2, 2), "NCHW"),
        ("max_pool", (1, 64, 28, 28), (2, 2), "NHWC"),  # one whole vector of a row
        ("avg_pool", (1, 48, 17, 17), (1, 1), "NHWC"),
    ],
)
def test_pools_of_long_rows_are_first(op: str, shape: Shape, strides: Shape, layout: str) -> None:
    b, x = image(*shape)
    attrs = {"kernel_shape": (3, 3), "strides": strides, "pads": (1, 1, 1, 1)}
    assert layouts(b.finish([b.add(op, (x,), attrs)]), lanes=8) == [layout]  # type: ignore[arg-type]


@pytest.mark.parametrize("include", [False, True])
@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize("shape", [(1, 3, 41, 37), (2, 16, 9, 50), (1, 1, 3, 65), (0, 3, 9, 9)])
def test_averages_divide_by_what_is_counted_once(
    shape: Shape, strides: Shape, ceil: bool, include: bool
) -> None:
    """The bits of the reference, NaN and infinity in their own windows included."""
    b, x = image(*shape)
    attrs = {
        "kernel_shape": (3, 4), "strides": strides, "pads": (1, 2, 2, 1), "ceil_mode": ceil,
        "count_include_pad": include,
    }  # fmt: skip
    graph = b.finish([b.add("avg_pool", (x,), attrs)])  # type: ignore[arg-type]
    value = rng.integers(-9, 9, shape).astype(np.float32)
    places = value.reshape(-1)[:60:29]
    places[:] = (np.nan, np.inf, -np.inf)[: places.size]
    (expected,) = interpret(graph, [value])
    found = aisc.compile(graph, threads=1, cache=False)(value)
    np.testing.assert_array_equal(found, expected)
