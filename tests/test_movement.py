"""What moves elements, and maps that broadcast, along axes of awkward sizes: the results have the
bits of the interpreter, under guard as well, and nothing is gathered where it lies together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from guarded import both_ends, equal, outcome, survives

import aisc
from aisc.frontend.lang.model import graph_of
from aisc.ir import dtypes
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.node import walk
from aisc.ir.tensor.expr import Binary, Const, Load, Var
from aisc.ir.tensor.func import buffer
from aisc.ir.tensor.linear import Indexer
from aisc.ir.tensor.stmt import For, Store
from aisc.ir.types import TensorType
from aisc.passes.tensor.counters import counted

CASES = (
    ("concat(x0, x1, axis=2)", (3, 4, 7, 3), (3, 4, 1, 3)),
    ("concat(x0, x1, axis=1)", (37, 40), (37, 3)),
    ("concat(x0, x1, x0, axis=0)", (5, 31), (1, 31)),
    ("concat(x0, x1, axis=2)", (9, 2, 2), (9, 2, 3)),
    ("x0[:, 1:, 3:]", (4, 9, 24)),
    ("x0[:, 2:70:2]", (5, 77)),
    ("x0[:, ::-1]", (5, 16)),
    ("x0[:, 1::3]", (5, 98)),
    ("x0[:, ::4]", (3, 130)),
    ("x0[:, ::-2]", (5, 67)),
    ("pad(x0, pads=[1, 2, 1, 0, 2, 0])", (4, 9, 3)),
    ("pad(x0, pads=[0, 1, 2, 1, 0, 70])", (3, 4, 50)),
    ("pad(x0, pads=[1, 0, 2, 2, 1, 1], mode=\"edge\")", (3, 5, 16)),
    ("pad(x0, pads=[0, 20, 1, 3], mode=\"edge\")", (3, 100)),
    ("pad(x0, pads=[0, 3, 0, 3], mode=\"reflect\")", (3, 19)),
    ("tile(x0, repeats=[1, 3, 2])", (4, 5, 8)),
    ("tile(x0, repeats=[2, 1, 2])", (3, 1, 5)),
    ("expand(x0, shape=[5, 40, 7])", (1, 40, 1)),
    ("expand(x0, shape=[6, 33, 2])", (1, 33, 1)),
    ("expand(x0, shape=[3, 5, 77])", (3, 5, 1)),
    ("x0 * x1 + x2", (4, 3, 7, 7), (4, 3, 7, 1), (1, 3, 7, 7)),
    ("relu(sigmoid(sigmoid(x0))) - x1", (51, 7), (51, 1)),
    ("x0 + x1", (9, 5, 12), (1, 5, 1)),
    ("where(x1 > 0.0, x0, x1)", (31, 3), (31, 1)),
    *((f"transpose(x0, perm={list(p)})", s) for s, p in (
        ((3, 8, 50), (0, 2, 1)), ((40, 5, 9), (1, 2, 0)), ((3, 31, 33), (0, 2, 1)),
        ((50, 12), (1, 0)), ((2, 3, 17, 7), (0, 3, 1, 2)))),
)  # fmt: skip
rng = np.random.default_rng(0)


def graph(body: str, *shapes: tuple[int, ...], dtype: str = "f32") -> Graph:
    head = ", ".join(f"x{k}: {dtype}[{', '.join(map(str, s))}]" for k, s in enumerate(shapes))
    return graph_of(f"model m({head}) {{ return {body} }}", "m.aim", Path(), {})


def feeds_of(g: Graph) -> list[np.ndarray]:
    feeds = [(rng.standard_normal(v.type.shape) * 9).astype(v.type.dtype.numpy) for v in g.inputs]
    if feeds[0].dtype.kind == "f":
        places_ = feeds[0].reshape(-1)[:: max(1, feeds[0].size // 4)]
        places_[:] = np.resize([np.nan, np.inf, -0.0, 1e-42], places_.shape)
    return feeds


def test_bits_and_nothing_outside() -> None:
    """Every case, with buffers against a page that must not be touched, at both ends."""
    graphs = [graph(body, *shapes) for body, *shapes in CASES]
    feeds = [feeds_of(g) for g in graphs]
    exes = [both_ends(g) for g in graphs]

    def run(k: int) -> str | None:
        named = dict(zip(exes[k][0].input_names, feeds[k], strict=True))
        want = interpret(graphs[k], feeds[k])
        exact = "sigmoid" not in CASES[k][0] and "* x1 +" not in CASES[k][0]
        for exe in exes[k]:
            status, got = outcome(exe, named)
            if status != "ok" or (exact and not equal(got, want)):
                return f"{CASES[k]}: {status}"
            if not np.allclose(got[0], want[0], rtol=1e-5, atol=1e-6, equal_nan=True):
                return f"{CASES[k]}: not close"
        return None

    wrong, ended = survives(run, len(CASES))
    assert not ended, str(CASES[int(ended.split()[-1])])
    assert wrong == []


@pytest.mark.parametrize("dtype", ["f64", "f16", "i8"])
def test_other_elements_and_threads(dtype: str) -> None:
    for body, shapes in (
        ("expand(x0, shape=[5, 40, 7])", [(1, 40, 1)]),
        ("concat(x0, x1, axis=1)", [(300, 37), (300, 3)]),
        ("transpose(x0, perm=[1, 0])", [(37, 12)]),
        ("x0[:, 1:78:2]", [(64, 79)]),
    ):
        g = graph(body, *shapes, dtype=dtype)
        feeds = feeds_of(g)
        want = interpret(g, feeds)
        assert equal(aisc.compile(g, threads=3, cache=False).run(None, feeds_named(g, feeds)), want)


def feeds_named(g: Graph, feeds: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return dict(zip([v.name for v in g.inputs], feeds, strict=True))


def test_nothing_is_gathered() -> None:
    """But for mirrored axes, and for what tiles leave over."""
    for body, *shapes in CASES:
        if "reflect" not in body and "transpose" not in body:
            text = aisc.lower(graph(body, *shapes), "llvm", "x86-64-v4")
            assert "masked.gather" not in str(text), body


def test_a_loop_over_several_axes_counts_each() -> None:
    """The same iterations in the same order, wherever a thread's share begins and ends."""
    p = Var("p")
    y = buffer("y", dtypes.f32, (4, 3, 5), "output")
    digits = (p // 15, p // 5 % 3, p % 5)
    value = Load(buffer("x", dtypes.f32, (5, 3, 4), "input"), digits[::-1])
    for start, stop in [(0, 60), (7, 8), (4, 31), (29, 60), (15, 30), (5, 5)]:
        loop = For(p, Const(start), Const(stop - start), "parallel", Store(y, digits, value))
        nested = counted(loop, Indexer())
        assert [tuple(x) for x in turns(nested, {})] == [
            (k // 15, k // 5 % 3, k % 5) for k in range(start, stop)
        ]
        body = next(n for n in walk(nested) if isinstance(n, Store))
        assert stop - start < 60 or not any(
            isinstance(n, Binary) and n.op == "floordiv" for n in walk(body)
        )


def turns(loop: For, at: dict[str, int]) -> list[list[int]]:
    """The indices of the store in each turn of nested loops."""
    low, extent = (evaluated(e, at) for e in (loop.low, loop.extent))
    found: list[list[int]] = []
    for k in range(low, low + extent):
        here = {**at, loop.var.name: k}
        if isinstance(loop.body, For):
            found += turns(loop.body, here)
        else:
            assert isinstance(loop.body, Store)
            found.append([evaluated(i, here) for i in loop.body.indices])
    return found


def evaluated(e: object, at: dict[str, int]) -> int:
    if isinstance(e, Const):
        return int(e.value)
    if isinstance(e, Var):
        return at[e.name]
    assert isinstance(e, Binary)
    a, b = evaluated(e.a, at), evaluated(e.b, at)
    return {
        "add": a + b, "sub": a - b, "mul": a * b, "floordiv": a // b if b else 0,
        "mod": a % b if b else 0, "min": min(a, b), "max": max(a, b),
    }[e.op]  # fmt: skip


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("t", dtypes.ALL, ids=str)
def test_borders_of_every_type(t: dtypes.DType, level: int) -> None:
    """With a value that is not zero, of the most bits that a type has."""
    b = GraphBuilder()
    x = b.input("x", TensorType((2, 5), t))
    filled = -3.0 if t.is_float else True if t.kind == "bool" else t.max_value - 1
    value = b.constant(np.array(filled, t.numpy))
    g = b.finish([b.add("pad", (x, value), {"pads": (0, 1, 1, 9)})])
    feed = (rng.standard_normal((2, 5)) * 2).astype(t.numpy)
    (out,) = aisc.compile(g, level=level, threads=1, cache=False).run(None, {"x": feed})
    assert equal(out, interpret(g, [feed])[0])
