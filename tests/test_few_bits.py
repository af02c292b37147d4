"""Types of few bits: constants, casts and quantizers of ONNX, and MatMulNBits."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import aisc
from aisc.frontend.onnx.importer import import_model
from aisc.frontend.onnx.tensors import to_blob
from aisc.ir import dtypes
from aisc.ir.diagnostics import CompileError
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.same import same
from aisc.ir.location import Loc
from aisc.ir.text.parser import blobs_of, parse
from aisc.ir.text.printer import print_ir
from aisc.ir.types import TensorType

rng = np.random.default_rng(5)
KINDS = {"INT4": (-8, 7), "UINT4": (0, 15), "INT2": (-2, 1), "UINT2": (0, 3)}


def packed(kind: str, shape: tuple[int, ...], name: str = "w") -> tuple[TensorProto, np.ndarray]:
    """A tensor of random numbers of a type, and these."""
    low, high = KINDS[kind]
    values = rng.integers(low, high + 1, shape)
    carried = getattr(ml_dtypes, kind.lower())
    return numpy_helper.from_array(values.astype(carried), name), values


def model_of(
    nodes: list[onnx.NodeProto], shape: list[int], stored: list[TensorProto], opset: int = 21
) -> ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 2)
    sets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(nodes, "g", [x], [y], stored)
    return helper.make_model(graph, opset_imports=sets, ir_version=10)


def floats(name: str, *shape: int) -> TensorProto:
    values = rng.uniform(0.01, 0.1, shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(7,), (3, 5), (4, 4), (0, 3), ()])
def test_constants_keep_their_values(kind: str, shape: tuple[int, ...]) -> None:
    tensor, values = packed(kind, shape)
    np.testing.assert_array_equal(to_blob(tensor, None, Loc()).array, values)
    listed = helper.make_tensor("w", getattr(TensorProto, kind), shape, values.reshape(-1))
    np.testing.assert_array_equal(to_blob(listed, None, Loc()).array, values)


def test_too_few_bytes_are_refused() -> None:
    tensor, _ = packed("INT4", (3, 5))
    tensor.raw_data = tensor.raw_data[:-1]
    with pytest.raises(CompileError) as fault:
        to_blob(tensor, None, Loc())
    assert fault.value.codes == ("E103",)


def test_external_data_are_packed(tmp_path: Path) -> None:
    tensor, values = packed("UINT4", (5, 7))
    (tmp_path / "w.bin").write_bytes(b"abc" + tensor.raw_data)
    external = TensorProto(name="w", data_type=TensorProto.UINT4, dims=[5, 7], data_location=1)
    for key, value in (("location", "w.bin"), ("offset", "3"), ("length", "18")):
        external.external_data.add(key=key, value=value)
    np.testing.assert_array_equal(to_blob(external, tmp_path, Loc()).array, values)


@pytest.mark.parametrize("kind", ["INT4", "UINT4"])
@pytest.mark.parametrize("form", ["tensor", "axis", "blocks"])
def test_products_with_dequantized_weights(kind: str, form: str) -> None:
    shape = {"tensor": (), "axis": (10,), "blocks": (3, 10)}[form]
    attrs = {"axis": 0 if form == "blocks" else 1, "block_size": 16 if form == "blocks" else 0}
    stored = [packed(kind, (48, 10))[0], floats("s", *shape), packed(kind, shape, "z")[0]]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], **attrs),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    model = model_of(nodes, [5, 48], stored)
    x = rng.normal(size=(5, 48)).astype(np.float32)
    options = onnxruntime.SessionOptions()  # its own MatMulNBits would round x to 8 bits
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    (right,) = session.run(None, {"x": x})
    got = aisc.compile(model, cache=False)(x)
    np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-5)
    (same,) = interpret(import_model(model), [x])
    np.testing.assert_allclose(got, same, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", ["zero", "type"])
def test_quantizers_saturate_at_the_range_of_the_type(kind: str, given: str) -> None:
    zero = [packed(kind, (), "z")[0]] if given == "zero" else []
    names = [t.name for t in zero]
    scale = numpy_helper.from_array(np.float32(0.5), "s")
    more = {} if zero else {"output_dtype": getattr(TensorProto, kind)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", *names], ["q"], **more),
        helper.make_node("DequantizeLinear", ["q", "s", *names], ["y"]),
    ]
    model = model_of(nodes, [6, 9], [scale, *zero], 25)
    x = (rng.normal(size=(6, 9)) * 5).astype(np.float32)
    low, high = KINDS[kind]
    z = int(numpy_helper.to_array(zero[0]).astype(np.int32)) if zero else 0
    right = (np.clip(np.rint(x / 0.5) + z, low, high) - z) * 0.5
    np.testing.assert_array_equal(aisc.compile(model, cache=False)(x), right)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(("inner", "block"), [(64, 32), (96, 16), (80, 32)])
def test_matmul_of_few_bits(zeros: bool, inner: int, block: int) -> None:
    columns, blocks = 24, -(-inner // block)
    w = rng.integers(0, 256, (columns, blocks, block // 2)).astype(np.uint8)
    stored = [numpy_helper.from_array(w, "w"), floats("s", columns * blocks)]
    if zeros:
        z = rng.integers(0, 256, columns * -(-blocks // 2)).astype(np.uint8)
        stored.append(numpy_helper.from_array(z, "z"))
    names = ["x", "w", *(t.name for t in stored[1:])]
    node = helper.make_node(
        "MatMulNBits", names, ["y"], domain="com.microsoft", K=inner, N=columns, bits=4,
        block_size=block,
    )  # fmt: skip
    model = model_of([node], [3, inner], stored)
    x = rng.normal(size=(3, inner)).astype(np.float32)
    (right,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    np.testing.assert_allclose(aisc.compile(model, cache=False)(x), right, rtol=1e-3, atol=1e-3)


FLOATS = {
    "FLOAT8E4M3FN": ml_dtypes.float8_e4m3fn,
    "FLOAT8E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "FLOAT8E5M2": ml_dtypes.float8_e5m2,
    "FLOAT8E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "FLOAT4E2M1": ml_dtypes.float4_e2m1fn,
}


def cast_model(source: int, to: int, **attrs: int) -> ModelProto:
    x = helper.make_tensor_value_info("x", source, ["n"])
    y = helper.make_tensor_value_info("y", to, ["n"])
    node = helper.make_node("Cast", ["x"], ["y"], to=to, **attrs)
    graph = helper.make_graph([node], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=12)


@pytest.mark.parametrize("kind", FLOATS)
def test_casts_to_floats_of_few_bits(kind: str) -> None:
    """All numbers of 16 bits, and floats beside the middles between codes: as numbers where they
    are in range, and bit by bit back."""
    carried, to = FLOATS[kind], getattr(TensorProto, kind)
    greatest = float(ml_dtypes.finfo(carried).max)
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    codes = np.arange(256, dtype=np.uint8) & (15 if kind == "FLOAT4E2M1" else 255)
    numbers = np.unique(codes.view(carried).astype(np.float32))
    numbers = numbers[np.isfinite(numbers)]
    middles = (numbers[1:] + numbers[:-1]) / 2
    near = [np.nextafter(middles, s * np.inf, dtype=np.float32) for s in (-1, 1)]
    x = np.concatenate([every, middles, *near, np.float32([1e-42, 3e38])]).astype(np.float32)
    got = aisc.compile(cast_model(TensorProto.FLOAT, to), cache=False)(x)
    assert got.dtype == carried
    finite = np.isfinite(x)
    right = np.clip(x, -greatest, greatest).astype(carried)
    equal = got[finite].view(np.uint8) == right[finite].view(np.uint8)
    assert equal.all(), x[finite][~equal]
    large = got[np.isinf(x)].astype(np.float32)
    np.testing.assert_array_equal(np.abs(large), greatest)
    back = aisc.compile(cast_model(to, TensorProto.FLOAT), cache=False)
    np.testing.assert_array_equal(back(got), got.astype(np.float32))
    every_code = codes.view(carried)
    np.testing.assert_array_equal(back(every_code), every_code.astype(np.float32))


@pytest.mark.parametrize("kind", [k for k in FLOATS if k != "FLOAT4E2M1"])
def test_casts_that_do_not_saturate(kind: str) -> None:
    x = np.float32([1e9, -1e9, np.inf, -np.inf, np.nan, 3.0, -0.0])
    to = getattr(TensorProto, kind)
    got = aisc.compile(cast_model(TensorProto.FLOAT, to, saturate=0), cache=False)(x)
    np.testing.assert_array_equal(got.astype(np.float32), x.astype(FLOATS[kind]).astype(np.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_casts_between_integers_lose_upper_bits(kind: str) -> None:
    carried, to = getattr(ml_dtypes, kind.lower()), getattr(TensorProto, kind)
    x = np.arange(-300, 300, dtype=np.int32)
    got = aisc.compile(cast_model(TensorProto.INT32, to), cache=False)(x)
    np.testing.assert_array_equal(got.astype(int), x.astype(carried).astype(int))
    back = aisc.compile(cast_model(to, TensorProto.INT8), cache=False)(got)
    np.testing.assert_array_equal(back, got.astype(np.int8))


def test_nothing_computes_with_codes() -> None:
    builder = GraphBuilder()
    x = builder.input("x", TensorType((4,), dtypes.f8e5m2))
    for op, operands, attrs in (("add", (x, x), {}), ("equal", (x, x), {}), ("neg", (x,), {}),
                                ("cast", (x,), {"to": dtypes.f32})):  # fmt: skip
        with pytest.raises(CompileError) as fault:
            builder.add(op, operands, attrs)
        assert fault.value.codes == ("E201",)


@pytest.mark.parametrize("t", dtypes.CODED, ids=str)
def test_codes_move_and_have_a_text(t: dtypes.DType) -> None:
    builder = GraphBuilder()
    x = builder.input("x", TensorType((3, 5), t))
    w = builder.constant(rng.integers(0, 4, (3, 2)).astype(np.uint8).view(t.numpy))
    both = builder.add("concat", (x, w), {"axis": 1})
    graph = builder.finish([builder.add("transpose", (both,), {"perm": (1, 0)})])
    back = parse(print_ir(graph), blobs_of(graph))
    assert isinstance(back, Graph) and same(back, graph)
    data = rng.integers(0, 4, (3, 5)).astype(np.uint8).view(t.numpy)
    got = aisc.compile(graph, cache=False)(data)
    (right,) = interpret(graph, [data])
    np.testing.assert_array_equal(got.view(np.uint8), right.view(np.uint8))
