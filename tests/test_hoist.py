"""What a loop repeats without need is computed before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aisc
from aisc.frontend.lang.model import graph_of
from aisc.ir.graph.core import Graph, GraphNode
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.verify import verify
from aisc.passes.graph.canonicalize import Canonicalize
from aisc.passes.graph.hoist import Hoist

rng = np.random.default_rng(0)
X = rng.standard_normal((5, 4)).astype(np.float32)
W = rng.standard_normal((4, 8)).astype(np.float32)


def graph(body: str, before: str = "") -> Graph:
    text = f"model m(x: f32[t, 4], w: f32[4, 8], k: i64[]) {{\n{before}\nh = x[0] * 0.0\n{body}\n}}"
    return graph_of(text, "m.aim", Path(), {})


def loops(g: Graph) -> list[GraphNode]:
    return [n for n in g.nodes if n.op == "loop"]


def inside(g: Graph) -> list[str]:
    """Operators in the bodies of all loops, but for those that read the row of a turn."""
    nodes = [n for loop in loops(g) for n in loop.regions[0].nodes]
    found = [n.op for n in nodes if all(isinstance(d, int) for d in n.attr_map.get("starts", ()))]  # type: ignore[union-attr]
    return found + [op for loop in loops(g) for op in inside(loop.regions[0])]


# Name -> (what the loop does, operators that leave it, operators that stay).
BODIES: dict[str, tuple[str, set[str], set[str]]] = {
    "slices": (
        "scan r in x { h = tanh(r + h @ w[:, 0:4]) * 0.5 }\nreturn h", {"slice"}, {"matmul"},
    ),
    "chains": (
        "scan r in x { h = tanh(r + h @ transpose(exp(w)[:, 4:8], perm=[1, 0])) }\nreturn h",
        {"slice", "exp", "transpose"}, {"matmul", "tanh"},
    ),
    "what is computed of the turn": (
        "scan r in x, t in 0..5 { h = h + r * cast(t, to=f32) }\nreturn h", set(), {"mul"},
    ),
    "what enlarges": (
        "scan r in x { h = h + r + (w[0:1, 0:1] + x)[0] }\nreturn h", set(), {"add"},
    ),
    "loops in loops": (
        "scan r in x { scan q in x { h = tanh(r + q + h @ w[:, 0:4]) } }\nreturn h",
        {"slice"}, {"matmul"},
    ),
    "conditions": (
        "while reduce_max(h, axes=[0], keepdims=false) < 3.0 { h = h + abs(w[0, 0:4]) + 0.1 }\n"
        "return h", {"slice", "abs"}, {"add"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_what_no_turn_changes_is_computed_once(name: str) -> None:
    body, leave, stay = BODIES[name]
    g = graph(body)
    after = Canonicalize().run(g)
    verify(after)
    assert not leave & {*inside(after)}
    assert stay <= {*inside(after)}
    inputs = [X, W, np.array(1)]
    want = interpret(g, inputs)[0]
    for got in (interpret(after, inputs)[0], aisc.compile(g, threads=2, cache=False)(*inputs)):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_weights_of_a_loop_are_folded_and_packed() -> None:
    """A slice of constants, once outside, is a constant."""
    g = graph("scan r in x { h = tanh(r + h @ v[:, 0:4]) }\nreturn h",
              before="param v: f32[4, 8] = normal()")  # fmt: skip
    program: Any = aisc.lower(g, "tensor")
    assert not [k.name for k in program.kernels if "slice" in k.name]
    assert [k.name for k in program.kernels if "_pack" in k.name]


@pytest.mark.parametrize("turns", [0, 3])
def test_what_may_fail_is_not_computed_for_nothing(turns: int) -> None:
    body = (
        f"scan t in 0..{turns} {{ h = h + gather(x, reshape(k, shape=[1]), axis=0)[0] }}\nreturn h"
    )
    g = graph(body)
    if turns:
        assert "gather" in inside(Canonicalize().run(g))
    exe = aisc.compile(g, threads=1, cache=False)
    if turns:
        with pytest.raises(aisc.ExecutionError):
            exe(X, W, np.array(9))
    else:
        np.testing.assert_array_equal(exe(X, W, np.array(9)), X[0] * 0)


def test_nothing_to_move_changes_nothing() -> None:
    g = graph("scan r in x { h = tanh(r + h) }\nreturn h")
    once = Hoist().run(g)
    assert Hoist().run(once) is once
