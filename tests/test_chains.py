"""Maps of several elementary functions: one pass each over a part in cache, vectors step by step
together, last vectors stored in pieces."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx_models import F, check_everywhere, const, model, node, value

import aisc
from aisc.codegen.llvm.masks import pieces_of
from aisc.driver.api import resolve_target
from aisc.ir import dtypes
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.tensor.stmt import Alloc, For
from aisc.ir.tensor.tree import statements
from aisc.ir.types import TensorType
from aisc.passes.graph.fuse import Fuse
from aisc.passes.lower.program import lower_graph
from aisc.passes.schedule.picks import Choice
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.default import default_schedule
from aisc.passes.schedule.schedule import Schedule

rng = np.random.default_rng(0)


def chain(shape: tuple[int, ...], *ops: str, **choices: Choice) -> Schedule:
    """The default schedule of maps one after the other, but for choices."""
    b = GraphBuilder()
    x = b.input("x", TensorType(shape, dtypes.f32))
    for op in ops:
        x = b.add(op, (x,))
    (func,) = lower_graph(Fuse().run(b.finish([x]))).kernels
    target = resolve_target("x86-64-v3")
    known = [p.name for p in default_schedule(func, Chooser(target)).picks]
    named = {n: choices[k] for n in known if (k := n.partition(".")[2]) in choices}
    return default_schedule(func, Chooser(target, named))


def parts(s: Schedule) -> int:
    """The number of buffers on the stack."""
    found = [n.buffer for n in statements(s.func.body) if isinstance(n, Alloc)]
    return sum(b.space == "stack" for b in found)


def widths(s: Schedule) -> list[int]:
    """The lanes of each loop over lanes."""
    found = [n for n in statements(s.func.body) if isinstance(n, For) and n.kind == "vectorize"]
    return [int(n.extent.value) for n in found]


@pytest.mark.parametrize(
    ("shape", "ops", "passes"),
    [
        ((64, 512), ("tanh", "sigmoid"), 2),
        ((64, 512), ("tanh", "neg", "exp", "abs", "erf"), 3),
        ((64, 512), ("neg", "tanh", "abs"), 1),
        ((7, 77, 31), ("tanh", "tanh"), 2),
        ((5000,), ("tanh", "tanh"), 2),
    ],
)
def test_each_function_is_a_pass(shape: tuple[int, ...], ops: tuple[str, ...], passes: int) -> None:
    s = chain(shape, *ops)
    assert len(widths(s)) == passes
    assert parts(s) == passes - 1
    assert len(widths(chain(shape, *ops, in_passes=False))) == 1


@pytest.mark.parametrize(
    ("size", "lanes"), [(512, 32), (264, 32), (48, 16), (40, 8), (24, 8), (8, 8), (4091, 32)]
)
def test_vectors_of_functions_go_together(size: int, lanes: int) -> None:
    assert widths(chain((size,), "exp")) == [lanes]
    assert widths(chain((size,), "neg")) == [8]


@pytest.mark.parametrize(
    "shape", [(1,), (3,), (2, 9), (16, 64), (5, 7, 31), (40, 77, 31), (3000,), (1021,), (0, 5)]
)
@pytest.mark.parametrize("ops", ["Tanh Sigmoid", "Exp Neg Tanh Erf", "Sigmoid Softplus"])
def test_chains_agree(shape: tuple[int, ...], ops: str) -> None:
    names = ["x", *(f"t{k}" for k in range(len(ops.split())))]
    nodes = [node(op, names[k], names[k + 1]) for k, op in enumerate(ops.split())]
    made = model(nodes, [value("x", F, shape)], [value(names[-1])])
    check_everywhere(made, [{"x": rng.standard_normal(shape).astype(np.float32) * 3}])


def test_operands_of_fewer_axes_agree() -> None:
    nodes = [
        node("Tanh", "x", "a"), node("Mul", "a b", "c"), node("Sigmoid", "c", "d"),
        node("Add", "d e", "f"), node("Exp", "f", "y"),
    ]  # fmt: skip
    weights = [rng.standard_normal(s).astype(np.float32) for s in ((13, 1, 31), (77, 1))]
    inputs, consts = [value("x", F, (13, 77, 31))], [const("b", weights[0]), const("e", weights[1])]
    made = model(nodes, inputs, [value("y")], *consts)
    check_everywhere(made, [{"x": rng.standard_normal((13, 77, 31)).astype(np.float32)}])


def test_sizes_of_the_run_agree() -> None:
    nodes = [node("Tanh", "x", "a"), node("Exp", "a", "y")]
    made = model(nodes, [value("x", F, ("n", 37))], [value("y")])
    shapes = [(1, 37), (50, 37), (0, 37)]
    check_everywhere(made, [{"x": rng.standard_normal(s).astype(np.float32)} for s in shapes])


def test_what_is_not_finite_passes_through() -> None:
    nodes = [node("Tanh", "x", "a"), node("Sigmoid", "a", "b"), node("Exp", "b", "y")]
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e-40] * 9, np.float32)
    made = model(nodes, [value("x", F, x.shape)], [value("y")])
    (expected,) = ort.InferenceSession(made.SerializeToString()).run(None, {"x": x})
    got = aisc.compile(made, threads=1, cache=False)(x)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6, equal_nan=True)


def test_pieces_cover_the_lanes_that_are_live() -> None:
    for bits in range(1 << 8):
        live = [bool(bits >> k & 1) for k in range(8)]
        found = [k for first, count in pieces_of(live) for k in range(first, first + count)]
        assert found == [k for k in range(8) if live[k]]
        assert all(count & (count - 1) == 0 for _, count in pieces_of(live))


@pytest.mark.parametrize("size", [9, 11, 13, 15, 31, 77])
@pytest.mark.parametrize("op", ["CumSum", "Transpose"])
def test_last_vectors_agree(op: str, size: int) -> None:
    """Parts of vectors at the end of rows, which are stored in pieces."""
    shape = (3, 12, size)
    if op == "CumSum":
        nodes, consts = [node(op, "x k", "y")], [const("k", np.array(1))]
    else:
        nodes, consts = [node(op, "x", "y", perm=[0, 2, 1])], []
    made = model(nodes, [value("x", F, shape)], [value("y")], *consts)
    check_everywhere(made, [{"x": rng.standard_normal(shape).astype(np.float32)}])
