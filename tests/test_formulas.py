"""Index notation: what formulas mean, what they are recognised as, what is told about others."""

from __future__ import annotations

import random
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
from aisc.ir.node import walk
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Const, Load
from aisc.ir.tensor.func import buffer
from aisc.ir.tensor.stmt import For
from aisc.ir.text.parser import blobs_of, parse_graph
from aisc.ir.text.printer import print_ir
from aisc.ir.types import TensorType
from aisc.passes.graph.canonicalize import Canonicalize

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


ATTENTION = {
    "heads": ("g, t", "g, t, d", "g, u, d", "g, u, d", "[2, n, 16]", "[2, n, 16]"),
    "batches of heads": (
        "b, g, t", "b, t, g, d", "b, u, g, d", "b, g, u, d", "[c, n, 2, 16]", "[c, 2, n, 16]"
    ),
    "groups of queries": (
        "g, s, t", "t, g, s, d", "u, g, d", "u, g, d", "[n, 2, 3, 16]", "[n, 2, 16]"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_of_any_layout_is_one_group(name: str) -> None:
    at, q, k, v, _, values = ATTENTION[name]
    keys = {"batches of heads": "[c, n, 2, 16]"}.get(name, values)
    queries = ATTENTION[name][4]
    body = f"""score[{at}, u] = sum[d](q[{q}] * k[{k}]) * 0.25
    m[{at}] = max[u](score[{at}, u])
    e[{at}, u] = exp(score[{at}, u] - m[{at}])
    w[{at}, u] = e[{at}, u] / sum[p](e[{at}, p])
    y[{q}] = sum[u](w[{at}, u] * v[{v}])
    return y"""
    g = graph(body, f"q: f32{queries}, k: f32{keys}, v: f32{values}")
    lowered: Any = aisc.lower(g, "graph")
    inside = [[n.op for n in group.regions[0].nodes] for group in lowered.nodes if group.regions]
    assert [ops for ops in inside if ops.count("matmul") == 2 and "softmax" in ops], inside
    sizes = {"n": 9, "c": 2}
    shapes = [[sizes.get(str(d), d) for d in x.type.shape] for x in g.inputs]
    inputs = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    agree(g, inputs, 1e-4)


def test_attention_in_formulas_is_one_kernel() -> None:
    body = """s[g, t, u] = sum[d](q[t, g, d] * k[u, g, d])
    seen[g, t, u] = s[g, t, u] / 4.0 if u <= t else -inf
    w = softmax(seen, axis=-1)
    y[t, g, d] = sum[u](w[g, t, u] * v[u, g, d])
    return y"""
    g = graph(body, "q: f32[n, 2, 16], k: f32[n, 2, 16], v: f32[n, 2, 16]")
    lowered: Any = aisc.lower(g, "graph")
    inside = [[n.op for n in group.regions[0].nodes] for group in lowered.nodes if group.regions]
    assert [ops for ops in inside if ops.count("matmul") == 2 and "softmax" in ops]
    inputs = [rng.standard_normal((9, 2, 16)).astype(np.float32) for _ in range(3)]
    got = aisc.compile(g, threads=1, cache=False)(*inputs)
    np.testing.assert_allclose(got, interpret(g, inputs)[0], rtol=1e-4, atol=1e-5)


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


# --- recognition -------------------------------------------------------------------------------
# Formulas, the shapes of their operands, and what they become, views and copies aside.
IMAGE, KERNEL = "x: f32[n, 3, 8, 9]", "w: f32[4, 3, 3, 3]"
ROW = "m[i] = max[j](x[i, j])\n"
RECOGNISED: dict[str, tuple[str, str, list[tuple[int, ...]], list[str]]] = {
    "product": (
        "a: f32[n, k], b: f32[k, m]", "z[i, j] = sum[l](a[i, l] * b[l, j])",
        [(3, 4), (4, 5)], ["matmul"],
    ),
    "right operand turned": (
        "a: f32[n, k], b: f32[m, k]", "z[i, j] = 2 * sum[l](b[j, l] * a[i, l])",
        [(3, 4), (5, 4)], ["matmul", "mul"],
    ),
    "batches": (
        "a: f32[b, h, n, d], c: f32[b, m, h, d]",
        "z[q, g, i, j] = sum[l](a[q, g, i, l] * c[q, j, g, l])",
        [(2, 3, 4, 5), (2, 6, 3, 5)], ["matmul"],
    ),
    "two summed axes": (
        "a: f32[3, 4, 5], b: f32[5, 6, 4]", "z[i, j] = sum[k, l](a[i, k, l] * b[l, j, k])",
        [(3, 4, 5), (5, 6, 4)], ["matmul"],
    ),
    "three factors": (
        "a: f32[3, 4], b: f32[4, 5], c: f32[5, 6]",
        "z[i, j] = sum[k, l](a[i, k] * b[k, l] * c[l, j])",
        [(3, 4), (4, 5), (5, 6)], ["matmul", "matmul"],
    ),
    "a factor along another": (
        "a: f32[n, k], s: f32[k], b: f32[k, m]", "z[i, j] = sum[l](a[i, l] * s[l] * b[l, j])",
        [(3, 4), (4,), (4, 5)], ["matmul", "mul"],
    ),
    "matrix and vector": (
        "a: f32[n, k], b: f32[k]", "z[i] = sum[l](a[i, l] * b[l])", [(3, 4), (4,)], ["matmul"],
    ),
    "convolution": (
        f"{IMAGE}, {KERNEL}",
        "z[b, o, h in 0..8, v in 0..9] = "
        "sum[c, r, s]((x[b, c, h + r - 1, v + s - 1] else 0) * w[o, c, r, s])",
        [(2, 3, 8, 9), (4, 3, 3, 3)], ["conv"],
    ),
    "strides, and elements left over": (
        f"{IMAGE}, {KERNEL}",
        "z[b, o, h in 0..3, v in 0..4] = "
        "sum[c, r, s](x[b, c, 2*h + r, 2*v + s] * w[o, c, r, s])",
        [(2, 3, 8, 9), (4, 3, 3, 3)], ["conv"],
    ),
    "dilations, from below zero": (
        f"{IMAGE}, {KERNEL}",
        "z[b, o, h in 0..8, v in 0..5] = sum[c, r in -1..2, s]("
        "w[o, c, r + 1, s] * (x[b, c, h + 2*r, v + 2*s] else 0))",
        [(2, 3, 8, 9), (4, 3, 3, 3)], ["conv"],
    ),
    "depthwise": (
        f"{IMAGE}, w: f32[3, 3, 3]",
        "z[b, c, h in 0..8, v in 0..9] = "
        "sum[r, s]((x[b, c, h + r - 1, v + s - 1] else 0) * w[c, r, s])",
        [(2, 3, 8, 9), (3, 3, 3)], ["conv"],
    ),
    "groups": (
        "x: f32[n, 2, 3, 8], w: f32[2, 4, 3, 3]",
        "z[b, g, o, h in 0..6] = sum[c, r](x[b, g, c, h + r] * w[g, o, c, r])",
        [(2, 2, 3, 8), (2, 4, 3, 3)], ["conv"],
    ),
    "channels last": (
        "x: f32[n, 8, 9, 3], w: f32[3, 3, 3, 4]",
        "z[b, h in 0..6, v in 0..7, o] = sum[c, r, s](x[b, h + r, v + s, c] * w[r, s, c, o])",
        [(2, 8, 9, 3), (3, 3, 3, 4)], ["conv"],
    ),
    "a row of any length": (
        "x: f32[n, 3, l], w: f32[4, 3, 3]",
        "z[b, o, h in 0..l] = sum[c, r]((x[b, c, h + r - 1] else 0) * w[o, c, r])",
        [(2, 3, 8), (4, 3, 3)], ["conv"],
    ),
    "maximum pool": (
        IMAGE, "z[b, c, h in 0..4, v in 0..5] = "
        "max[r in 0..3, s in 0..3]((x[b, c, 2*h + r - 1, 2*v + s - 1] else -inf))",
        [(2, 3, 8, 9)], ["max_pool"],
    ),
    "average pool": (
        IMAGE, "z[b, c, h in 0..4, v in 0..4] = mean[r in 0..2, s in 0..2](x[b, c, 2*h+r, 2*v+s])",
        [(2, 3, 8, 9)], ["avg_pool"],
    ),
    "softmax": (
        "x: f32[n, 8]", f"{ROW}e[i, j] = exp(x[i, j] - m[i])\ns[i] = sum[j](e[i, j])\n"
        "z[i, j] = e[i, j] / s[i]",
        [(3, 8)], ["softmax"],
    ),
    "softmax in one": (
        "x: f32[n, 8]", f"{ROW}z[i, j] = exp(x[i, j] - m[i]) / sum[k](exp(x[i, k] - m[i]))",
        [(3, 8)], ["softmax"],
    ),
    "logarithm of softmax": (
        "x: f32[n, 8]",
        f"{ROW}z[i, j] = x[i, j] - m[i] - log(sum[k](exp(x[i, k] - m[i])))",
        [(3, 8)], ["log_softmax"],
    ),
    "layer norm": (
        "x: f32[n, 8], g: f32[8], b: f32[8]",
        "m[i] = mean[j](x[i, j])\nv[i] = mean[j]((x[i, j] - m[i])**2)\n"
        "z[i, j] = (x[i, j] - m[i]) / sqrt(v[i] + 1e-5) * g[j] + b[j]",
        [(3, 8), (8,), (8,)], ["layer_norm"],
    ),
    "root mean square": (
        "x: f32[n, 8], g: f32[8]",
        "z[i, j] = x[i, j] * (1 / sqrt(mean[k](x[i, k] * x[i, k]) + 1e-5)) * g[j]",
        [(3, 8), (8,)], ["rms_norm"],
    ),
    "causal attention": (
        "q: f32[h, n, 8], k: f32[h, n, 8], v: f32[h, n, 8]",
        """s[g, i, j] = sum[d](q[g, i, d] * k[g, j, d]) * 0.5 if j <= i else -inf
        m[g, i] = max[j](s[g, i, j])
        e[g, i, j] = exp(s[g, i, j] - m[g, i])
        p[g, i, j] = e[g, i, j] / sum[k](e[g, i, k])
        z[g, i, d] = sum[j](p[g, i, j] * v[g, j, d])""",
        [(2, 4, 8)] * 3, ["iota", "less_equal", "matmul", "matmul", "mul", "softmax", "where"],
    ),
    "sum of what two rows differ by": (
        "a: f32[n, k], b: f32[m, k]", "z[i, j] = sum[l](abs(a[i, l] - b[j, l]))",
        [(3, 4), (5, 4)], ["index"],
    ),
    "a window to the left": (
        IMAGE, "z[b, c, h, v in 0..9] = max[r in 0..3]((x[b, c, h, v - r] else -inf))",
        [(2, 3, 8, 9)], ["index"],
    ),
    "another value outside": (
        f"{IMAGE}, {KERNEL}",
        "z[b, o, h in 0..8, v in 0..9] = "
        "sum[c, r, s]((x[b, c, h + r - 1, v + s - 1] else 1) * w[o, c, r, s])",
        [(2, 3, 8, 9), (4, 3, 3, 3)], ["index"],
    ),
}  # fmt: skip
MOVES = {"constant", "reshape", "transpose", "expand", "assume"}


def agree(g: Graph, inputs: list[Any], tolerance: float = 1e-5) -> Graph:
    """`g` simplified, which computes what `g` does, interpreted and compiled."""
    simple, want = Canonicalize().run(g), interpret(g, inputs)[0]
    for got in (interpret(simple, inputs)[0], aisc.compile(g, threads=1, cache=False)(*inputs)):
        scale = max(1.0, float(np.max(np.abs(want[np.isfinite(want)]), initial=0)))
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * scale)
    return simple


@pytest.mark.parametrize("name", RECOGNISED)
def test_formulas_are_recognised(name: str) -> None:
    head, body, shapes, ops = RECOGNISED[name]
    inputs = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    simple = agree(graph(f"{body}\nreturn z", head), inputs)
    assert sorted(n.op for n in simple.nodes if n.op not in MOVES) == ops


@pytest.mark.parametrize(
    "name", ["maximum pool", "softmax in one", "layer norm", "two summed axes"]
)
def test_recognised_formulas_keep_special_values(name: str) -> None:
    head, body, shapes, _ = RECOGNISED[name]
    special = np.float32([np.nan, np.inf, -np.inf, -0.0, 1e-42])
    inputs = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    for value in special:
        inputs[0].flat[7] = value
        agree(graph(f"{body}\nreturn z", head), inputs)


WINDOWS = "v[i, j in 0..8, r in 0..3] = (x[i, j + r - 1] else 0)\n"
COMPOSED: dict[str, tuple[str, list[str]]] = {
    "windows read once": (f"{WINDOWS}z[i, j] = max[r](v[i, j, r] * 2)", ["index"]),
    "windows weighted": (
        f"{WINDOWS}w[i, j, r] = exp(v[i, j, r] - x[i, j])\n"
        "z[i, j] = sum[r](w[i, j, r] * v[i, j, r]) / sum[r](w[i, j, r])",
        ["div", "index", "index"],
    ),
    "windows as a convolution": (
        f"{WINDOWS}z[i, o, j] = sum[r](v[i, j, r] * y[r, o])", ["index"],
    ),
    "all pairs": ("d[i, j, k] = x[i, k] - x[j, k]\nz[i, j] = sum[k](abs(d[i, j, k]))", ["index"]),
    "read by many": (
        f"{WINDOWS}w[i, j, r] = exp(v[i, j, r])\n"
        "z[i, j] = sum[r](w[i, j, r]) + max[r](w[i, j, r]) + min[r](w[i, j, r]) + w[i, j, 0]",
        ["index", "index", "reduce_max", "reduce_min", "reduce_sum"],
    ),
    "work read more than once": (
        f"{WINDOWS}w[i, j, r] = exp(v[i, j, r])\nu = y[0:3]\n"
        "z[i, o, j] = sum[r](w[i, j, r] * u[r, o])",
        ["index", "matmul", "slice"],
    ),
    "no larger than what is read": (
        "d[i, j] = x[i, j] * 2\nz[i, o] = sum[j](d[i, j] * y[j, o])", ["matmul", "mul"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPOSED)
def test_formulas_that_enlarge_are_computed_where_they_are_read(name: str) -> None:
    body, ops = COMPOSED[name]
    for head in ("x: f32[n, 8], y: f32[8, 5]", "x: f32[3, 8], y: f32[8, 5]"):
        simple = agree(graph(f"{body}\nreturn z", head), [X, Y])
        assert sorted(n.op for n in simple.nodes if n.op not in MOVES) == ops


def test_loops_end_where_nothing_more_is_added() -> None:
    """A triangle costs half of a square: turns without masks, then one with them."""
    x = rng.standard_normal((300, 300)).astype(np.float32)
    for name, want in (("sum", np.tril(x).sum(1)), ("max", np.where(np.tri(300), x, -9).max(1))):
        g = graph(f"z[i] = {name}[j in 0..i + 1](x[i, j])\nreturn z", "x: f32[300, 300]")
        got = aisc.compile(g, threads=2, cache=False)(x)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)
        (kernel,) = aisc.lower(g, "tensor").kernels  # type: ignore[union-attr]
        loops = [n for n in walk(kernel.body) if isinstance(n, For) and n.kind == "serial"]
        assert sum(not isinstance(n.extent, Const) for n in loops) == 2


def random_formula(seed: int) -> tuple[Graph, list[Any]]:
    """A formula over two tensors whose axes are read along indices, sums of them or windows."""
    r = random.Random(seed)
    sizes = {n: r.randint(1, 6) for n in "abcdefg"}
    outer = r.sample("abcd", r.randint(1, 4))
    inner = r.sample("efg", r.randint(0, 3))
    every = [*outer, *inner]
    accesses, shapes = list[str](), list[tuple[int, ...]]()
    for k in range(r.randint(1, 3)):
        places, shape, guarded = list[str](), list[int](), False
        for n in r.sample(every, r.randint(1, min(3, len(every)))):
            taps = [m for m in inner if m != n]
            if r.random() < 0.35 and taps:
                tap, stride, shift = r.choice(taps), r.randint(1, 2), r.randint(0, 1)
                places.append(f"{stride}*{n} + {tap} - {shift}")
                shape.append(max(1, stride * (sizes[n] - 1) + sizes[tap] - r.randint(0, 2)))
                guarded = True
            else:
                places.append(n)
                shape.append(sizes[n])
        element = f"t{k}[{', '.join(places)}]"
        accesses.append(f"({element} else {r.choice(['0', '-inf', '2'])})" if guarded else element)
        shapes.append(tuple(shape))
    value = accesses[0]
    for other in accesses[1:]:
        value = f"{value} {r.choice(['*', '*', '*', '+', '-'])} {other}"
    value = r.choice(["{}", "{}", "tanh({})", "abs({}) + 1"]).format(value)
    if inner:
        ranges = ", ".join(f"{n} in 0..{sizes[n]}" for n in inner)
        value = f"{r.choice(['sum', 'sum', 'max', 'mean', 'min'])}[{ranges}]({value})"
    result = ", ".join(f"{n} in 0..{sizes[n]}" for n in outer)
    head = ", ".join(f"t{k}: f32[{', '.join(map(str, s))}]" for k, s in enumerate(shapes))
    inputs = [np.random.default_rng(seed + k).standard_normal(s).astype(np.float32)
              for k, s in enumerate(shapes)]  # fmt: skip
    return graph(f"z[{result}] = {value}\nreturn z", head), inputs


def test_random_formulas_keep_their_meaning() -> None:
    for seed in range(40):
        agree(*random_formula(seed))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_many_random_formulas_keep_their_meaning(part: int) -> None:
    for seed in range(1000 + 100 * part, 1100 + 100 * part):
        agree(*random_formula(seed))
