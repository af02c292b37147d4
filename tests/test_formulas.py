"""Index notation: what formulas mean, what they are recognised as, what is told about others."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aisc
from aisc.frontend.lang.model import graph_of
from aisc.ir.diagnostics import CompileError, ExecutionError
from aisc.ir.dtypes import f32
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.same import same
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Load
from aisc.ir.tensor.func import buffer
from aisc.ir.text.parser import blobs_of, parse_graph
from aisc.ir.text.printer import print_ir
from aisc.ir.types import TensorType

rng = np.random.default_rng(0)
X = rng.standard_normal((3, 8)).astype(np.float32)
Y = rng.standard_normal((8, 5)).astype(np.float32)


def graph(body: str, head: str = "x: f32[n, 8], y: f32[8, 5]") -> Graph:
    """The graph of a model with a body."""
    return graph_of(f"model m({head}) {{\n{body}\n}}\n", "m.aim", Path(), {})


def run(body: str, *inputs: Any, head: str = "x: f32[n, 8], y: f32[8, 5]") -> list[Any]:
    return interpret(graph(body, head), list(inputs))


E = np.exp(X - X.max(1, keepdims=True))
FORMULAS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "product": ("z[i, j] = sum[k](x[i, k] * y[k, j])", lambda x, y: x @ y),
    "turned": ("z[j, i] = x[i, j]", lambda x, y: x.T),
    "softmax": (
        """m[i] = max[j](x[i, j])
        e[i, j] = exp(x[i, j] - m[i])
        s[i] = sum[j](e[i, j])
        z[i, j] = e[i, j] / s[i]""",
        lambda x, y: E / E.sum(1, keepdims=True),
    ),
    "mean": ("z[i] = mean[j](x[i, j] * 2 + 1)", lambda x, y: (x * 2 + 1).mean(1)),
    "all": ("z[i] = all[j](x[i, j] < 9 and x[i, j] != 3)", lambda x, y: (x < 9).all(1)),
    "shifted": (
        "z[i, j] = (x[i, j - 1] else 7) - x[i, j]",
        lambda x, y: np.pad(x, ((0, 0), (1, 0)), constant_values=7)[:, :8] - x,
    ),
    "windows": (
        "z[i, j in 0..4] = max[r in 0..2](x[i, j*2 + r])", lambda x, y: x.reshape(3, 4, 2).max(2)
    ),
    "from one": ("z[i, j in 1..8] = x[i, j] - x[i, j - 1]", lambda x, y: np.diff(x, axis=1)),
    "chosen": ("z[i, j] = x[i, j] if x[i, j] > 0 else 0", lambda x, y: np.maximum(x, 0)),
    "numbered": ("z[i, j] = x[i, j] * cast(j, to=f32)", lambda x, y: x * np.arange(8)),
    "known parts": (
        "c = 3\nz[i, j] = x[i, j] / c ** 0.5 * (x.shape[1] // 2) + (1 if c > 2 else 0)",
        lambda x, y: x / 3**0.5 * 4 + 1,
    ),
    "inferred": ("z[i, j] = sum[r in 0..3](x[i, 2 * j + r])",
                 lambda x, y: x[:, 0:6:2] + x[:, 1:7:2] + x[:, 2:8:2]),
    "inferred, open": (
        "z[i, j] = x[i + 1, j] - x[i, j] + x[i, 0]", lambda x, y: x[1:] - x[:-1] + x[:-1, :1]
    ),
    "composed": (
        "z[i in 0..x.shape[0] * 2, j] = y[j, 0] * cast(x.shape[0] * 3, to=f32) + (x[i, j] else 1)",
        lambda x, y: y[:, 0] * 9 + np.concatenate([x, np.ones_like(x)]),
    ),
    "as many as no operand has": (
        "z[i in 0..2 * x.shape[0] + 1, j] = y[0, j] + cast(i, to=f32)",
        lambda x, y: y[0] + np.arange(7, dtype=np.float32)[:, None],
    ),
    "up to another index": (
        "z[i, j] = sum[k in 0..j + 1](x[i, k])", lambda x, y: np.cumsum(x, axis=1)
    ),
    "product up to another": (
        "z[i, j in 0..4] = prod[k in 1..2 * j](x[i, k])",
        lambda x, y: np.stack([x[:, 1 : max(1, 2 * j)].prod(1) for j in range(4)], 1),
    ),
    "quotients": (
        "z[i, j in 0..16] = x[i, j // 2] + x[i, j % 3]",
        lambda x, y: x[:, np.arange(16) // 2] + x[:, np.arange(16) % 3],
    ),
    "place of the greatest": ("z[i] = argmax[j](x[i, j] * 2)", lambda x, y: x.argmax(1)),
    "place of the least": (
        "z[j] = argmin[i, k in 0..2](x[i, k] * y[j, k])",
        lambda x, y: (x[None, :, :2] * y[:, None, :2]).reshape(8, 6).argmin(1),
    ),
    "gathered": (
        "p[i] = argmax[j](x[i, j])\nz[i, j] = y[p[i], j]", lambda x, y: y[x.argmax(1)]
    ),
    "gathered, or not there": (
        "p[i] = argmax[j](x[i, j])\nz[i, j] = (y[p[i] + 4 * (i % 2), j] else -1)",
        lambda x, y: np.stack([y[p + 4 * (i % 2)] if p + 4 * (i % 2) < 8 else np.full(5, -1)
                               for i, p in enumerate(x.argmax(1))]),
    ),
    "triangle": (
        "z[i] = sum[j](x[i, j] if j <= i else 0)", lambda x, y: np.tril(x).sum(1)
    ),
    "reductions inside": (
        "z[i] = x[i, 0] + 2 * sum[j](exp(x[i, j] - max[k](x[i, k])))",
        lambda x, y: x[:, 0] + 2 * E.sum(1),
    ),
    "bilinear": (
        "z[i, l] = sum[j, k](x[i, j] * y[j, k] * x[l, j] * y[j, k])",
        lambda x, y: np.einsum("ij,jk,lj,jk->il", x, y, x, y),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_mean_what_numpy_does(name: str) -> None:
    body, expected = FORMULAS[name]
    g = graph(f"{body}\nreturn z")
    want = expected(X, Y)
    assert same(parse_graph(print_ir(g), blobs_of(g)), g)
    for got in (interpret(g, [X, Y])[0], aisc.compile(g, threads=2, cache=False)(X, Y)):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
        assert got.shape == want.shape


def test_sizes_and_places_that_only_the_run_knows_are_tested() -> None:
    short = graph("z[i] = sum[j in 0..9](x[i + j, 0])\nreturn z")
    far = graph("z[i] = y[k[i], 0]\nreturn z", "k: i64[n], y: f32[8, 5]")
    for g, inputs in ((short, [X, Y]), (far, [np.array([3, 8]), Y]), (far, [np.array([-1]), Y])):
        with pytest.raises(ExecutionError):
            interpret(g, inputs)
        with pytest.raises(ExecutionError):
            aisc.compile(g, threads=1, cache=False)(*inputs)


def test_a_formula_of_a_product_is_scheduled_as_a_product() -> None:
    """Found by structure: register tiles over packed weights, the epilogue inside."""
    weights = "param w: f32[8, 64] = normal()\n"
    g = graph(f"{weights}z[i, j] = sum[k](x[i, k] * w[k, j])\nreturn relu(z)", "x: f32[n, 8]")
    program: Any = aisc.lower(g, "tensor")
    products = [k for k in program.kernels if k.name.startswith("k0_matmul_relu")]
    assert any(b.name.endswith("packed") for k in products for b in k.params)


def test_sums_of_narrow_floats_are_rounded_once() -> None:
    x = np.full((2, 4096), 0.1, np.float16)
    (got,) = run("z[i] = sum[j](x[i, j])\nreturn z", x, head="x: f16[n, 4096]")
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, x.astype(np.float64).sum(1).astype(np.float16))


def test_what_is_no_formula_is_refused() -> None:
    one, other = buffer("a", f32, (3,), "input"), buffer("b", f32, (3,), "output")
    cb = ComputeBuilder()
    for _ in range(2):
        cb.map(other, lambda i: Load(one, (i,)))
    two_blocks = print_ir(cb.func("f", (one, other)))
    b = GraphBuilder()
    x = b.input("x", TensorType((3,), f32))
    for text, code in (("func", "E107"), (two_blocks, "E201")):
        with pytest.raises(CompileError) as caught:
            b.add("index", (x,), {"body": text})
        assert caught.value.codes == (code,)


FORMULA_FAULTS = {
    "z[i] = x[i, k]": ("E108", "there is no name 'k'"),
    "z[i, j] = x[i, 0]": ("E109", "the range of 'j' is not known"),
    "z[i] = x[i, i + 1]": ("E109", "may lie outside"),
    "z[i, j] = x[i, j] + x[i, j * x.shape[0]]": ("E109", "whole numbers only"),
    "z[x] = x[x, 0]": ("E109", "'x' is an index here"),
    "z[i, i] = x[i, i]": ("E109", "two indices"),
    "z[i] = summ[j](x[i, j])": ("E108", "did you mean sum?"),
    "z[i] = sum(x[i, j])": ("E109", "names its indices"),
    "z[i, j] = softmax(x[i, j])": ("E109", "no elementwise operator"),
    "z[i, j] = x[i, j] + x[i]": ("E109", "1 indices"),
    "z[i, j] = x[i, j] + x": ("E109", "index it"),
    "z[0] = x[0, 0]": ("E109", "an index is a name"),
    "z = sum[j](x[0, j])": ("E109", "belongs into a formula"),
    "z = x[i in 0..3, 0]": ("E109", "belongs into a formula"),
    "z[i, j] = exp(x[i, j], y[j, 0])": ("E109", "takes 1 values"),
    "z[i, j] = x[i, j] + cast(j, to=i32)": ("E201", "add"),
    "z[i in 0..3] = cast(i, to=f32)": ("E109", "reads a tensor"),
    "z[i] = all[j](x[i, j])": ("E109", "all does not take f32"),
    "z[i, j in 0..i] = x[i, j]": ("E109", "ends at another index"),
    "z[i] = mean[j in 0..i](x[i, j])": ("E109", "ends at an index"),
    "z[i] = x[i, x[i, 0]]": ("E109", "a place is a whole number"),
    "z[j] = sum[k in 0..10](x[0, j + k])": ("E109", "keeps every place inside"),
    "z[i, j in 0..n2] = x[i, j]": ("E108", "no name 'n2'"),
    "z[i] = sum[j](x[i, j] > 0)": ("E109", "sum does not take bool"),
}


@pytest.mark.parametrize("body", FORMULA_FAULTS)
def test_faults_of_formulas_are_told_at_their_place(body: str) -> None:
    code, text = FORMULA_FAULTS[body]
    with pytest.raises(CompileError, match=re.escape(text)) as caught:
        graph(f"{body}\nreturn z")
    assert caught.value.codes == (code,)
    assert caught.value.diagnostics[0].loc.line > 0
