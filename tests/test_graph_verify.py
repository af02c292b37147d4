"""The graph verifier refuses malformed graphs by code, and the interpreter wrong inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.diagnostics import CompileError, ExecutionError
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.verify import verify
from aisc.ir.location import Loc
from aisc.ir.types import TensorType

F23 = TensorType((2, 3), dtypes.f32)
WHERE = Loc("m.onnx", node="here")


def graph() -> Graph:
    gb = GraphBuilder()
    x = gb.input("x", F23)
    y = gb.add("softmax", [gb.add("relu", [x], loc=WHERE)], {"axis": 1}, loc=WHERE)
    return gb.finish([y], ["out"])


def bad(**changes: object) -> Graph:
    """The graph with its last node changed."""
    g = graph()
    node = replace(g.nodes[-1], **changes)  # type: ignore[arg-type]
    return replace(g, nodes=(*g.nodes[:-1], node), outputs=node.outputs)


def test_good_graph() -> None:
    verify(graph())
    verify(graph(), "core")


CASES = {
    "no such op": (bad(op="nothing"), "E202"),
    "order": (replace(graph(), nodes=graph().nodes[::-1]), "E202"),
    "undefined output": (replace(graph(), outputs=(Value("z", F23),)), "E202"),
    "output names": (replace(graph(), output_names=("a", "b")), "E202"),
    "too many operands": (bad(inputs=(graph().inputs[0],) * 2), "E202"),
    "missing operand": (bad(inputs=()), "E202"),
    "name twice": (bad(outputs=(Value("x", F23),)), "E202"),
    "wrong type": (bad(outputs=(Value("y", TensorType((3, 2), dtypes.f32)),)), "E201"),
    "unknown attribute": (bad(attrs=(("axes", 1),)), "E203"),
    "attribute type": (bad(attrs=(("axis", 1.0),)), "E203"),
    "attribute twice": (bad(attrs=(("axis", 1), ("axis", 1))), "E203"),
    "value of another graph": (bad(inputs=(Value("x", F23),)), "E202"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_graph(name: str) -> None:
    g, code = CASES[name]
    with pytest.raises(CompileError) as caught:
        verify(g)
    assert caught.value.codes == (code,)


@pytest.mark.parametrize(
    ("start", "end", "step", "fits"),
    [
        (2, 8, 3, True), (1, 8, 3, True), (2, 9, 3, False), (7, 9, 1, False), (-1, 3, 1, False),
        (7, -1, -1, True), (7, -1, -7, True), (7, -2, -1, False), (6, -3, -8, False),
        (8, 5, -1, False), (9, 9, 1, True), (9, 9, -1, True),
    ],
)  # fmt: skip
def test_a_slice_stays_in_its_axis(start: int, end: int, step: int, fits: bool) -> None:
    gb = GraphBuilder()
    x = gb.input("x", TensorType((8,), dtypes.f32))
    attrs = {"starts": (start,), "ends": (end,), "steps": (step,)}
    if fits:
        gb.add("slice", (x,), attrs)
        return
    with pytest.raises(CompileError) as caught:
        gb.add("slice", (x,), attrs)
    assert caught.value.codes == ("E203",)


def test_errors_name_the_node() -> None:
    with pytest.raises(CompileError) as caught:
        verify(bad(attrs=(("axis", 1.0),)))
    assert caught.value.diagnostics[0].loc == WHERE


def test_core_level_refuses_composite_operators() -> None:
    gb = GraphBuilder()
    x = gb.input("x", F23)
    g = gb.finish([gb.add("reduce_l2", [x], {"axes": (1,)})])
    verify(g)
    with pytest.raises(CompileError) as caught:
        verify(g, "core")
    assert caught.value.codes == ("E202",)


def test_region_is_isolated() -> None:
    outer = graph()
    node = GraphNode("relu", (outer.inputs[0],), (Value("z", F23),))
    inner = Graph("inner", (), (node,), node.outputs)
    g = replace(outer, nodes=(replace(outer.nodes[0], regions=(inner,)), outer.nodes[1]))
    with pytest.raises(CompileError):
        verify(g)


def test_interpreter_binds_and_checks_inputs() -> None:
    gb = GraphBuilder()
    n = symbol("n")
    x = gb.input("x", TensorType((n, 3), dtypes.f32))
    y = gb.input("y", TensorType((n,), dtypes.f32))
    flat = gb.add("reshape", [x], {"shape": (n * 3,)})
    g = gb.finish([flat, gb.add("sizes", [], {"values": (n, n * n)}), y])
    a, b = np.ones((4, 3), np.float32), np.ones(4, np.float32)
    kept: list[str] = []
    flat_out, sizes, _ = interpret(g, {"x": a, "y": b}, lambda v, _: kept.append(v.name))
    assert flat_out.shape == (12,)
    assert sizes.tolist() == [4, 16]
    assert kept == ["reshape", "sizes"]
    for wrong in (
        [a],
        [a, b[:3]],
        [a.astype(np.float64), b],
        [a[0], b],
        {"x": a},
        {"x": a, "z": b},
    ):
        with pytest.raises(ExecutionError) as caught:
            interpret(g, wrong)
        assert caught.value.codes == ("E501",)


def test_interpreter_reports_bad_indices() -> None:
    gb = GraphBuilder()
    x = gb.input("x", F23)
    i = gb.input("i", TensorType((), dtypes.i64))
    g = gb.finish([gb.add("gather", [x, i])])
    with pytest.raises(ExecutionError) as caught:
        interpret(g, [np.ones((2, 3), np.float32), np.array(2)])
    assert caught.value.codes == ("E502",)
