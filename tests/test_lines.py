"""Images whose lanes are places of a line: borders as masks, lanes apart, lines of the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from test_x86_levels import LEVELS

import aisc
from aisc.driver.api import resolve_target
from aisc.ir import dtypes
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.node import walk
from aisc.ir.target import Memory
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Expr, Load
from aisc.ir.tensor.func import Func, Program, buffer
from aisc.ir.tensor.interpret import run_func
from aisc.ir.tensor.stmt import Prefetch
from aisc.ir.types import TensorType
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.default import default_schedule
from aisc.passes.tensor.optimize import optimize

Sizes = tuple[int, ...]


def image(x: Sizes, w: Sizes, groups: int, **attrs: object) -> Graph:
    """A convolution with constant weights, small integers, and a sigmoid behind it."""
    rng, b = np.random.default_rng(0), GraphBuilder()
    given = b.input("x", TensorType(x, dtypes.f32))
    weights = b.constant(rng.integers(-3, 4, w).astype(np.float32))
    y = b.add("conv", [given, weights], {"group": groups, **attrs})
    return b.finish([y, b.add("sigmoid", [y])])


def values(shape: Sizes) -> np.ndarray:
    return np.random.default_rng(1).integers(-4, 5, shape).astype(np.float32)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("x", "w", "groups", "attrs"),
    [
        ((2, 5, 31, 40), (5, 1, 3, 3), 5, {"strides": (3, 2), "pads": (1, 0, 1, 0)}),
        ((1, 3, 9, 37), (3, 1, 3, 5), 3, {"strides": (1, 2), "pads": (1, 2, 1, 2)}),
        ((1, 4, 7, 29), (4, 1, 2, 3), 4, {"strides": (2, 3), "pads": (0, 1, 1, 0)}),
        ((2, 8, 9, 26), (7, 8, 1, 5), 1, {"dilations": (2, 1), "pads": (0, 2, 0, 2)}),
        ((2, 8, 9, 26), (7, 8, 1, 5), 1, {"strides": (1, 2), "pads": (0, 2, 0, 2)}),
    ],
)
def test_lines_with_borders(level: str, x: Sizes, w: Sizes, groups: int, attrs: dict) -> None:
    graph = image(x, w, groups, **attrs)
    run = aisc.compile(graph, target=resolve_target(level), threads=1, cache=False)
    got, want = run.run(None, {"x": values(x)}), interpret(graph, [values(x)])
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_allclose(got[1], want[1], rtol=1e-6)


def test_lanes_apart_are_not_gathered() -> None:
    graph = image((2, 5, 31, 40), (5, 1, 3, 3), 5, strides=(3, 2), pads=(1, 0, 1, 0))
    code = str(aisc.lower(graph, "llvm", target="x86-64-v3"))
    assert "llvm.masked.load.v8f32" in code
    assert "llvm.masked.gather" not in code


@pytest.mark.parametrize("shape", [(3, 5, 4, 7), (2, 3, 9), (4, 6), (0, 3, 4, 5)])
def test_channels_that_are_groups_are_one_nest(shape: Sizes) -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType(shape, dtypes.f32))
    scale, bias = (b.constant(values((shape[1],)) + k) for k in (0.25, 1))
    graph = b.finish([b.add("group_norm", [x, scale, bias], {"groups": shape[1]})])
    given = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    got = aisc.compile(graph, threads=1, cache=False).run(None, {"x": given})
    np.testing.assert_allclose(got[0], interpret(graph, [given])[0], rtol=1e-5, atol=1e-5)
    program = aisc.lower(graph, "program")
    assert isinstance(program, Program)
    assert len(program.kernels) == 1


def product(batch: int, rows: int, depth: int, columns: int) -> Func:
    a, w = (buffer(n, dtypes.f32, s, "input")
            for n, s in (("a", (batch, rows, depth)), ("w", (batch, depth, columns))))  # fmt: skip
    c, b = buffer("c", dtypes.f32, (batch, rows, columns), "output"), ComputeBuilder()

    def term(i: Sequence[Expr], r: Sequence[Expr]) -> Expr:
        return Load(a, (i[0], i[1], r[0])) * Load(w, (i[0], r[0], i[2]))

    b.reduce(c, (depth,), "sum", term, "mm")
    return b.func("product", (a, w, c))


@pytest.mark.parametrize("columns", [24, 50, 71])
@pytest.mark.parametrize("depth", [32, 30, 7])
def test_lines_are_read_on_while_they_are_packed(depth: int, columns: int) -> None:
    caches = (Memory("L1", 1 << 9), Memory("L2", 1 << 10))
    target = replace(resolve_target("x86-64-v3"), memories=caches)
    func = product(2, 33, depth, columns)
    s = default_schedule(func, Chooser(target))
    lines = [p.choice for p in s.picks if p.name.endswith(".lines")]
    assert len(lines) == (depth != 7)
    a, w = values((2, 33, depth)), values((2, depth, columns))
    own = {"a": a, "w": w}
    made = optimize(s.func)
    arrays = [own.get(p.name, np.zeros(p.type.static_shape, np.float32)) for p in made.params]
    run_func(made, arrays)
    np.testing.assert_array_equal(arrays[2], a @ w)


@pytest.mark.parametrize(("channels", "asked"), [(2, False), (200, True)])
def test_lines_of_a_far_image_are_asked_for(channels: int, asked: bool) -> None:
    graph = image((1, channels, 31, 80), (channels, 1, 3, 3), channels, strides=(3, 2))
    program = aisc.lower(graph, "program", target="x86-64-v3")
    assert isinstance(program, Program)
    hints = [n for k in program.kernels for n in walk(k.body) if isinstance(n, Prefetch)]
    assert any(not n.write for n in hints) == asked
