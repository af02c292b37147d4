"""Branches, loops and scans: machine code, every level under the interpreters, onnxruntime."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto
from onnx_models import BOOL, I64, F, check_everywhere, close, const, graph, model, node, value

import aisc
from aisc.driver import api
from aisc.ir.diagnostics import ExecutionError
from aisc.ir.graph.core import Graph
from aisc.ir.graph.same import same
from aisc.ir.tensor.func import Program
from aisc.ir.text.parser import parse
from aisc.ir.text.printer import print_ir

rng = np.random.default_rng(3)
X = rng.standard_normal((4, 3)).astype(np.float32)


def integer(n: int) -> np.ndarray:
    return np.array(n, np.int64)


def loop_body(
    nodes: Sequence[Any],
    carried: Sequence[str],
    results: Sequence[str],
    test: str = "",
    names: tuple[str, str, str] = ("i", "go", "flag"),
) -> Any:
    """A body that takes (turn, go on, carried) and gives (test, results)."""
    turn, going, flag = names
    more = [] if test else [node("Identity", going, flag)]
    inputs = [value(turn, I64, []), value(going, BOOL, []), *map(value, carried)]
    return graph([*nodes, *more], inputs, [value(test or flag, BOOL, []), *map(value, results)])


def branch(op: str, inputs: str, output: str, **attrs: Any) -> Any:
    return graph([node(op, inputs, output, **attrs)], [], [value(output)])


def _branches() -> tuple[Any, list[dict[str, Any]]]:
    nodes = [
        node("ReduceSum", "x", "s", keepdims=0),
        node("Greater", "s zero", "c"),
        node(
            "If",
            "c",
            "y",
            then_branch=branch("Mul", "x x", "t"),
            else_branch=branch("Neg", "x", "e"),
        ),
    ]
    m = model(nodes, [value("x", F, ["n", 3])], [value("y")], const("zero", np.float32(0)))
    return m, [{"x": X}, {"x": -X}, {"x": X[:0]}]


def _branches_of_different_size() -> tuple[Any, list[dict[str, Any]]]:
    grown = branch("Concat", "x x", "t", axis=0)
    nodes = [
        node("ReduceSum", "x", "s", keepdims=0),
        node("Greater", "s zero", "c"),
        node("If", "c", "y", then_branch=grown, else_branch=branch("Identity", "x", "e")),
        node("Exp", "y", "z"),
    ]
    m = model(
        nodes, [value("x", F, ["n", 3])], [value("y"), value("z")], const("zero", np.float32(0))
    )
    return m, [{"x": abs(X)}, {"x": -abs(X)}]


def _counted() -> tuple[Any, list[dict[str, Any]]]:
    body = loop_body(
        [node("MatMul", "h w", "t"), node("Tanh", "t", "h2"),
         node("ReduceSum", "h2", "r", keepdims=0)],
        ["h"], ["h2", "r"],
    )  # fmt: skip
    m = model(
        [node("Loop", "m _ x", "y s", body=body)], [value("x", F, ["n", 3])],
        [value("y"), value("s")], const("m", integer(5)), const("w", X[:3] * np.float32(0.5)),
    )  # fmt: skip
    return m, [{"x": X}, {"x": X[:1]}]


def _while() -> tuple[Any, list[dict[str, Any]]]:
    body = loop_body(
        [node("Add", "h one", "h2"), node("ReduceMax", "h2", "top", keepdims=0),
         node("Less", "top limit", "less"), node("Identity", "h2", "row")],
        ["h"], ["h2", "row"], "less",
    )  # fmt: skip
    inputs = [value("x", F, ["n", 3]), value("m", I64, []), value("c", BOOL, [])]
    m = model(
        [node("Loop", "m c x", "y s", body=body)], inputs, [value("y"), value("s")],
        const("limit", np.float32(6)), const("one", np.float32(1)),
    )  # fmt: skip
    return m, [
        {"x": X, "m": integer(4), "c": np.array(True)},
        {"x": X, "m": integer(1 << 62), "c": np.array(True)},
    ]


def _growing() -> tuple[Any, list[dict[str, Any]]]:
    body = loop_body([node("Concat", "h x", "h2", axis=0), node("Concat", "k x", "k2", axis=0),
                      node("Add", "h2 k2", "sum"), node("ReduceSum", "sum", "r", keepdims=0)],
                     ["h", "k"], ["h2", "k2", "r"])  # fmt: skip
    nodes = [node("Loop", "m _ x x", "y k s", body=body), node("Add", "y k", "z")]
    inputs = [value("x", F, ["n", 3]), value("m", I64, [])]
    m = model(nodes, inputs, [value("z"), value("s")])
    return m, [{"x": X, "m": integer(n)} for n in (4, 1, 0)]


def _exchanged() -> tuple[Any, list[dict[str, Any]]]:
    body = loop_body(
        [node("Add", "a b", "s"), node("Identity", "b", "a2")], ["a", "b"], ["a2", "s"]
    )
    inputs = [value("x", F, ["n", 3]), value("m", I64, [])]
    m = model([node("Loop", "m _ x x", "y z", body=body)], inputs, [value("y"), value("z")])
    return m, [{"x": X, "m": integer(n)} for n in (0, 1, 2, 7)]


def _nested() -> tuple[Any, list[dict[str, Any]]]:
    inner = loop_body([node("Add", "t x", "t2")], ["t"], ["t2"], "", ("j", "going", "flags"))
    then = graph([node("Loop", "two _ h", "u", body=inner)], [], [value("u")])
    body = loop_body(
        [node("Mod", "i two", "r"), node("Equal", "r nothing", "even"),
         node("If", "even", "h2", then_branch=then, else_branch=branch("Sub", "h x", "e"))],
        ["h"], ["h2"],
    )  # fmt: skip
    inputs = [value("x", F, ["n", 3]), value("m", I64, [])]
    m = model(
        [node("Loop", "m _ x", "y", body=body)], inputs, [value("y")],
        const("two", integer(2)), const("nothing", integer(0)),
    )  # fmt: skip
    return m, [{"x": X, "m": integer(n)} for n in (0, 1, 2, 7)]


def _sizes_of_a_turn() -> tuple[Any, list[dict[str, Any]]]:
    """How many elements are not zero decides a size in each turn."""
    body = loop_body(
        [node("NonZero", "h", "p"), node("Shape", "p", "sh"),
         node("Gather", "sh one", "n1", axis=0),
         node("Cast", "n1", "n2", to=F), node("Sub", "h n2", "h1"), node("Relu", "h1", "h2")],
        ["h"], ["h2", "n2"],
    )  # fmt: skip
    inputs = [value("x", F, ["n", 3]), value("m", I64, [])]
    m = model([node("Loop", "m _ x", "y s", body=body)], inputs, [value("y"), value("s")],
              const("one", integer(1)))  # fmt: skip
    return m, [{"x": abs(X) * 10, "m": integer(n)} for n in (0, 3)]


def _scan(direction: int) -> tuple[Any, list[dict[str, Any]]]:
    body = graph([node("Add", "h r", "h2"), node("Mul", "h2 r", "o")], [value("h"), value("r")],
                 [value("h2"), value("o")])  # fmt: skip
    scan = node("Scan", "h0 x", "y o2", body=body, num_scan_inputs=1,
                scan_input_directions=[direction], scan_output_directions=[direction])  # fmt: skip
    inputs = [value("h0", F, [3]), value("x", F, ["n", 3])]
    m = model([scan], inputs, [value("y"), value("o2")])
    return m, [{"h0": X[0], "x": X}, {"h0": X[0], "x": X[:1]}]


CASES = {
    "branches": _branches(), "branches of different size": _branches_of_different_size(),
    "counted": _counted(), "while": _while(), "growing": _growing(), "exchanged": _exchanged(),
    "nested": _nested(), "sizes of a turn": _sizes_of_a_turn(), "scan": _scan(0),
    "scan backwards": _scan(1),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_machine_code_and_levels(name: str) -> None:
    check_everywhere(*CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_products_parse_back(name: str) -> None:
    _, products = api.products(CASES[name][0], use_cache=False)
    for step, product in products.items():
        if isinstance(product, Graph):
            blobs = {b.digest: b for b in _blobs(product)}
            assert same(parse(print_ir(product), blobs), product), step
        elif isinstance(product, Program):
            blobs = {b.digest: b for b in product.weights.values()}
            assert print_ir(parse(print_ir(product), blobs)) == print_ir(product), step


def _blobs(g: Graph) -> list[Any]:
    found = list(g.constants().values())
    for n in g.nodes:
        for region in n.regions:
            found += _blobs(region)
    return found


def _samples() -> Any:
    """benchmarks/control_models.py, which is no package."""
    place = Path(__file__).parents[1] / "benchmarks" / "control_models.py"
    spec = importlib.util.spec_from_file_location("control_models", place)
    assert spec is not None and spec.loader is not None, place
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["control_models"] = module
    spec.loader.exec_module(module)
    return module


def test_larger_models_equal_onnxruntime() -> None:
    models = _samples()
    chosen = [models.greedy_decoding(steps=9), models.lstm_as_scan(7, 2, 5, 9)]
    chosen += [models.nested_ifs(3, 16, sign) for sign in (1.0, -1.0)]
    for sample in chosen:
        want = ort.InferenceSession(sample.model.SerializeToString()).run(None, dict(sample.feeds))
        exe = aisc.compile(sample.model, threads=2, cache=False, host=False)
        got = exe.run(None, sample.feeds)
        for a, b in zip(got, want, strict=True):
            assert a.shape == b.shape, sample.name
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=sample.name)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_recurrent_cells(op: str, direction: str) -> None:
    """Any length of sequence, and sequences of different lengths, from one object."""
    gates, sides = {"LSTM": 4, "GRU": 3, "RNN": 1}[op], 1 + (direction == "bidirectional")
    shapes = {"w": (sides, gates * 5, 4), "r": (sides, gates * 5, 5), "b": (sides, gates * 10)}
    weights = [const(k, rng.standard_normal(s).astype(np.float32) * 0.3) for k, s in shapes.items()]
    outputs = "y h c" if op == "LSTM" else "y h"
    cell = node(op, "x w r b n", outputs, hidden_size=5, direction=direction)
    inputs = [value("x", F, ["t", "k", 4]), value("n", TensorProto.INT32, ["k"])]
    m = model([cell], inputs, [value(o) for o in outputs.split()], *weights)
    exe = aisc.compile(m, threads=1, cache=False, host=False)
    session = ort.InferenceSession(m.SerializeToString())
    for steps, lengths in ((6, [6, 2, 1]), (1, [1]), (3, [3, 3])):
        x = rng.standard_normal((steps, len(lengths), 4)).astype(np.float32)
        feed = {"x": x, "n": np.array(lengths, np.int32)}
        close(exe.run(None, feed), session.run(None, feed), f"{steps} steps")


def test_stacked_values_must_not_differ_in_size() -> None:
    body = loop_body([node("Concat", "h x", "h2", axis=0), node("Identity", "h2", "row")],
                     ["h"], ["h2", "row"])  # fmt: skip
    inputs = [value("x", F, ["n", 3]), value("m", I64, [])]
    m = model([node("Loop", "m _ x", "y s", body=body)], inputs, [value("y"), value("s")])
    exe = aisc.compile(m, threads=1, cache=False)
    (_, rows) = exe.run(None, {"x": X, "m": integer(1)})
    assert rows.shape == (1, 8, 3)
    with pytest.raises(ExecutionError) as caught:
        exe.run(None, {"x": X, "m": integer(2)})
    assert caught.value.codes == ("E502",)


def test_faults_inside_regions_are_reported_once() -> None:
    body = loop_body([node("NoSuchOperator", "h", "h2")], ["h"], ["h2"])
    m = model([node("Loop", "m _ x", "y", body=body)], [value("x", F, [3])], [value("y")],
              const("m", integer(2)))  # fmt: skip
    with pytest.raises(aisc.CompileError) as caught:
        aisc.compile(m)
    assert caught.value.codes == ("E102",)
