"""Formulas that are operators of the library, those that are computed where they are read, and
random ones: all keep their meaning."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from test_formulas import X, Y, graph

import aisc
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.node import walk
from aisc.ir.tensor.expr import Const
from aisc.ir.tensor.stmt import For
from aisc.passes.graph.canonicalize import Canonicalize

rng = np.random.default_rng(1)

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
