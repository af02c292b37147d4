"""Constants are kept once, and folding makes no large ones from small models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import aisc
from aisc.frontend.onnx.importer import import_model
from aisc.ir.blob import Blob
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.interpret import interpret
from aisc.passes.graph.canonicalize import Canonicalize
from aisc.passes.graph.fold import MIN_GROWTH, Budget
from aisc.passes.graph.legalize import Decompose

RNG = np.random.default_rng(3)


def model(
    nodes: list[onnx.NodeProto], shapes: dict[str, list[int]], table: dict[str, np.ndarray]
) -> ModelProto:
    """A model of f32 inputs whose output is 'y'."""
    inputs = [helper.make_tensor_value_info(k, TensorProto.FLOAT, s) for k, s in shapes.items()]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(v, k) for k, v in table.items()]
    graph = helper.make_graph(nodes, "g", inputs, [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def gemms(steps: int, width: int, hidden: int) -> ModelProto:
    """Products that share one transposed weight, with different operators around them."""
    nodes, last = [], "h"
    for k in range(steps):
        nodes += [
            helper.make_node("Gemm", [f"x{k}", "w"], [f"g{k}"], transB=1),
            helper.make_node("Add", [f"g{k}", last], [f"a{k}"]),
            helper.make_node("Tanh", [f"a{k}"], [f"h{k}" if k + 1 < steps else "y"]),
        ]
        last = f"h{k}"
    shapes = {"h": [1, hidden], **{f"x{k}": [1, width] for k in range(steps)}}
    return model(nodes, shapes, {"w": RNG.standard_normal((hidden, width)).astype(np.float32)})


def weight_bytes(graph_or_arrays: object) -> int:
    """Bytes of distinct constants of a graph, or of distinct arrays."""
    if isinstance(graph_or_arrays, tuple):
        return sum(a.nbytes for a in {id(a): a for a in graph_or_arrays}.values())
    blobs = graph_or_arrays.constants().values()  # type: ignore[attr-defined]
    return sum(b.array.nbytes for b in dict.fromkeys(blobs))


@pytest.mark.llvm
def test_a_shared_weight_is_packed_once(tmp_path: Path) -> None:
    made = gemms(6, 640, 112)
    exe = aisc.compile(made, threads=1, cache=False)
    weights = exe.image.weights
    assert len(weights) > 1  # of several kernels
    own = 640 * 112 * 4
    assert weight_bytes(weights) == own
    arrays = [np.ones(p.type.static_shape, np.float32) for p in exe.inputs]
    expected = interpret(import_model(made), arrays)[0]
    np.testing.assert_allclose(exe(*arrays), expected, rtol=1e-4, atol=1e-5)
    path = tmp_path / "m.aisc"
    aisc.save(exe, path)
    assert path.stat().st_size < 2 * own
    np.testing.assert_array_equal(aisc.load(path, verify=True)(*arrays), exe(*arrays))


def test_equal_constants_are_one() -> None:
    w = RNG.standard_normal((128, 160)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "v"], ["a"]),
        helper.make_node("MatMul", ["x", "w"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    made = model(nodes, {"x": [3, 128]}, {"v": w, "w": w.copy()})
    graph = Canonicalize().run(import_model(made))
    assert [n.op for n in graph.nodes] == ["constant", "matmul", "add"]


def test_what_is_equal_is_folded_once() -> None:
    b = GraphBuilder()
    w = b.constant(RNG.standard_normal((256, 300)).astype(np.float32))
    x = b.input("x", w.type)
    ys = [b.add("transpose", (b.add("add", (w, w)),), {"perm": (1, 0)}) for _ in range(5)]
    out = b.add("matmul", (x, b.add("concat", ys, {"axis": 1})))
    graph = Canonicalize().run(b.finish([out]))
    assert len(graph.constants()) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_blobs_are_equal_by_contents(dtype: type) -> None:
    data = (RNG.standard_normal((50, 70)) * 9).astype(dtype)
    a, b = Blob(data), Blob(data.T.copy().T)
    assert a == b and hash(a) == hash(b) and a.digest == b.digest
    other = data.copy()
    other[-1, -2] += 1  # where no sample is taken
    assert Blob(other) != a
    assert Blob(data.reshape(70, 50)) != a
    assert Blob(np.float32([0.0])) != Blob(np.float32([-0.0]))
    assert Blob(np.zeros((0, 3), dtype)) == Blob(np.ones((0, 3), dtype))


def chain(source: str, count: int = 12) -> ModelProto:
    """Large tensors from next to nothing, none equal to another, each added to x."""
    text = "\n".join(source.format(k=k) + f"\n x{k + 1} = Add(x{k}, t{k})" for k in range(count))
    return onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[2048, 4096] x0) => (float[2048, 4096] x{count})
        <int64[2] shape = {{2048, 4096}}, int64 zero = {{0}}, int64 end = {{8388608}},
         int64 one = {{1}}> {{ {text} }}""")


SOURCES = {
    "constant of shape": "t{k} = ConstantOfShape<value: tensor = float[1] {{{k}}}>(shape)",
    "expand, cast": "c{k} = Constant<value_int = {k}>()\n e{k} = Expand(c{k}, shape)\n"
    " t{k} = Cast<to = 1>(e{k})",
    "eye": "e{k} = ConstantOfShape(shape)\n t{k} = EyeLike<dtype = 1, k = {k}>(e{k})",
    "range": "r{k} = Range(zero, end, one)\n c{k} = Constant<value_int = {k}>()\n"
    " a{k} = Add(r{k}, c{k})\n s{k} = Reshape(a{k}, shape)\n t{k} = Cast<to = 1>(s{k})",
}


@pytest.mark.parametrize("name", SOURCES)
def test_small_models_do_not_become_large(name: str) -> None:
    graph = import_model(chain(SOURCES[name]))
    assert weight_bytes(graph) < 1 << 22
    folded = Canonicalize().run(Canonicalize().run(graph))
    assert weight_bytes(folded) <= MIN_GROWTH + (1 << 10)
    assert any(n.op != "add" and n.op != "constant" for n in folded.nodes)


@pytest.mark.parametrize("name", ["constant of shape", "expand, cast"])
def test_elements_that_maps_repeat_are_not_kept(name: str) -> None:
    folded = Canonicalize().run(import_model(chain(SOURCES[name])))
    assert weight_bytes(folded) < 1 << 10


def test_the_budget_follows_the_models_own_weights() -> None:
    w = (RNG.standard_normal((1 << 12, 1 << 12)) * 40).astype(np.int8)
    nodes = [helper.make_node("DequantizeLinear", [f"w{k}", "s"], [f"v{k}"]) for k in range(3)] + [
        helper.make_node("MatMul", ["x", "v0"], ["a"]),
        helper.make_node("MatMul", ["a", "v1"], ["b"]),
        helper.make_node("MatMul", ["b", "v2"], ["y"]),
    ]
    table = {f"w{k}": w + np.int8(k) for k in range(3)}
    made = model(nodes, {"x": [1, 1 << 12]}, {**table, "s": np.float32(0.1)})
    graph = Canonicalize().run(Decompose().run(import_model(made)))
    assert {n.op for n in graph.nodes} == {"constant", "matmul"}
    assert 0 <= Budget.of(graph).left <= w.nbytes * 3 + 64
