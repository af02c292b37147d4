"""Axes that are shorter than a vector, or of which few are left: what is done along them is done
with vectors all the same, and means the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aisc
from aisc.frontend.lang.model import graph_of
from aisc.ir.graph.interpret import interpret
from aisc.ir.node import walk
from aisc.ir.tensor.stmt import Alloc, For
from aisc.passes.graph.legalize import Legalize

rng = np.random.default_rng(0)
SHORT = (1, 2, 3, 4, 5, 7, 8, 12, 15, 16, 17, 31, 33)


def check(
    body: str, *shapes: tuple[int, ...], dtype: str = "f32", open_: bool = False
) -> list[str]:
    """Compiled as interpreted; the operators once it is legal. `open_`: the first size is."""
    heads = []
    for k, shape in enumerate(shapes):
        sizes = ["n" if open_ and a == 0 else str(d) for a, d in enumerate(shape)]
        heads.append(f"x{k}: {dtype}[{', '.join(sizes)}]")
    g = graph_of(f"model m({', '.join(heads)}) {{ return {body} }}", "m.aim", Path(), {})
    inputs = [rng.standard_normal(s).astype(g.inputs[0].type.dtype.numpy) for s in shapes]
    places = inputs[0].reshape(-1)[:: max(1, inputs[0].size // 5)]
    places[:] = np.resize([-0.0, 1e-42, 3, -3, 7], places.shape)
    want = interpret(g, inputs)[0]
    got = aisc.compile(g, threads=2, cache=False)(*inputs)
    tolerance = {"f32": 1e-5, "f64": 1e-12, "f16": 2e-3}[dtype]
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * 10)
    return [n.op for n in Legalize().run(g).nodes]


@pytest.mark.parametrize("size", SHORT)
@pytest.mark.parametrize("op", ["reduce_sum(x0, axes=[1])", "reduce_max(x0, axes=[1])",
                                "softmax(x0, axis=1)", "log_softmax(x0, axis=1)",
                                "layer_norm(x0, axis=1)", "argmax(x0, axis=1)"])  # fmt: skip
def test_short_rows(op: str, size: int) -> None:
    check(op, (70, size))
    check(op, (3, size), open_=True)


@pytest.mark.parametrize("dtype", ["f64", "f16"])
def test_short_rows_of_other_elements(dtype: str) -> None:
    for size in (5, 12, 31):
        check(
            "softmax(reduce_sum(x0, axes=[2], keepdims=false), axis=1)", (9, 6, size), dtype=dtype
        )


@pytest.mark.parametrize("shape", [(9, 20, 2), (9, 20, 3, 2), (80, 7), (64, 64, 5), (9, 7, 3)])
def test_axes_move_where_they_make_vectors(shape: tuple[int, ...]) -> None:
    axis = 0 if len(shape) == 1 else 1
    ops = check(f"softmax(x0, axis={axis})", shape)
    moved = (shape[1] >= 8 and len(shape) > 2) or len(shape) == 2
    assert ("transpose" in ops) is moved
    check(f"log_softmax(transpose(x0, perm={[*range(1, len(shape)), 0]}), axis=0)", shape)


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_products_with_few_columns(columns: int) -> None:
    for left, right in (((9, 33), (33, columns)), ((2, 9, 40), (2, 40, columns)),
                        ((2, 1, 5, 8), (3, 8, columns)), ((2, 5, 8), (8, columns))):  # fmt: skip
        ops = check("x0 @ x1", left, right)
        assert ("reduce_sum" in ops) is (columns < 4)
    check("x0 @ x1", (4, 9), (9, columns), dtype="f64")
    check("x0 @ x1", (4, 9), (9, columns), dtype="f16")


def test_products_with_few_columns_of_weights_are_packed() -> None:
    text = "model m(x: f32[n, 8]) { param w: f32[8, 2] = normal()\nreturn x @ w }"
    assert [n.op for n in Legalize().run(graph_of(text, "m.aim", Path(), {})).nodes] == [
        "constant", "matmul",
    ]  # fmt: skip


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_axes_that_are_normed_together_are_one(axis: int) -> None:
    check(f"layer_norm(x0, x1, x2, axis={axis})", (6, 9, 4), *[(6, 9, 4)[axis:]] * 2)
    check(f"rms_norm(x0, x1, axis={axis})", (6, 9, 4), (6, 9, 4)[axis:])
    check(f"layer_norm(x0, axis={axis})", (6, 9, 4))
    check("layer_norm(x0, x1, axis=1)", (6, 9, 4), (4,))


def test_a_short_row_is_a_vector() -> None:
    g = graph_of("model m(x: f32[64, 12]) { return reduce_max(x, axes=[1]) }", "m.aim", Path(), {})
    kernels: Any = aisc.lower(g, "tensor", "x86-64-v4")
    loops = [n for k in kernels.kernels for n in walk(k.body) if isinstance(n, For)]
    assert any(n.kind == "vectorize" for n in loops)


def test_an_axis_of_one_behind_a_row_costs_no_vectors() -> None:
    """A slice that does not begin at the first element leaves the two apart."""
    for size in (16, 24, 40):
        check(f"x0[:, :, {size - 9}:{size}]", (7, 5, size, 1))
        check("x0[:, 3:] + 1.0", (9, size, 1, 1))
    text = "model m(x: f32[100, 32, 31, 1]) { return x[:, :, 15:] }"
    kernels: Any = aisc.lower(graph_of(text, "m.aim", Path(), {}), "tensor", "x86-64-v4")
    loops = [n for k in kernels.kernels for n in walk(k.body) if isinstance(n, For)]
    assert any(n.kind == "vectorize" for n in loops)


@pytest.mark.parametrize("op", ["sum", "mean", "max", "min", "prod"])
@pytest.mark.parametrize(("shape", "axes"), [((5, 31, 3), [1]), ((3, 49, 2), [1]),
                                             ((70, 5), [1]), ((6, 5, 1, 3), [1, 3]),
                                             ((7, 9, 3), [0, 2])])  # fmt: skip
def test_reductions_of_a_few_columns(op: str, shape: tuple[int, ...], axes: list[int]) -> None:
    ops = check(f"reduce_{op}(x0, axes={axes})", shape)
    assert "reshape" in ops
    check(f"reduce_{op}(x0 * x0, axes={axes}, keepdims=false)", shape, dtype="f64")


@pytest.mark.parametrize("shape", [(7, 9), (5, 1, 33), (6, 9, 3), (13, 2, 8), (4, 0)])
def test_running_sums_of_several_rows(shape: tuple[int, ...]) -> None:
    for axis in range(1, len(shape)):
        check(f"cumsum(x0, axis={axis})", shape)
        check(f"cumsum(x0, axis={axis}, exclusive=true, reverse=true)", shape, dtype="f64")


@pytest.mark.parametrize("layout", [(1, 4, 9, 7), (2, 4, 5, 1)])
def test_reductions_without_lanes_are_in_registers(layout: tuple[int, ...]) -> None:
    n, c, h, w = layout
    for axes in ([1, 3], [0, 2]):
        check(f"reduce_sum(transpose(x0, perm=[0, 3, 1, 2]) * x1, axes={axes})",
              (n, c, h, w), (n, w, c, h))  # fmt: skip


def test_groups_of_few_outputs_go_through_their_steps_together() -> None:
    text = """model m(x: f32[2, 12, 6, 8, 2]) {
        param w: f32[4, 6, 1, 3, 1] = normal()
        return conv(x, w, group=2, strides=[1, 3, 1], dilations=[1, 2, 1]) }"""
    g = graph_of(text, "m.aim", Path(), {})
    x = rng.standard_normal((2, 12, 6, 8, 2), np.float32)
    got = aisc.compile(g, threads=2, cache=False)(x)
    np.testing.assert_allclose(got, interpret(g, [x])[0], rtol=1e-4, atol=1e-5)
    kernels: Any = aisc.lower(g, "program", "x86-64-v4")
    spaces = [n.buffer.space for k in kernels.kernels for n in walk(k.body) if isinstance(n, Alloc)]
    assert "register" in spaces


def test_costly_numbers_of_rows_are_of_all_rows() -> None:
    for text in (
        "exp(reduce_sum(x0, axes=[1], keepdims=false))",
        "reduce_log_sum_exp(x0, axes=[1])",
    ):
        check(text, (70, 9))
        check(text, (6, 40), open_=True)
