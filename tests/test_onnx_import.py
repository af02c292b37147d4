"""Imported models against onnxruntime: operators over their opsets, and the light models."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent))
import light_models

from aisc.frontend.onnx.importer import import_model
from aisc.ir.diagnostics import CompileError, ExecutionError
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.verify import verify

rng = np.random.default_rng(3)
onnxruntime.set_default_logger_severity(3)


def f32(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def make(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    constants: Mapping[str, np.ndarray],
    opset: int,
    dims: Mapping[str, Sequence[object]] | None = None,
) -> onnx.ModelProto:
    infos = [
        helper.make_tensor_value_info(
            k, helper.np_dtype_to_tensor_dtype(v.dtype), list((dims or {}).get(k, v.shape))
        )
        for k, v in inputs.items()
    ]
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    weights = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(list(nodes), "g", infos, results, weights)
    others = sorted({n.domain for n in nodes} - {""})
    versions = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in others)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model)
    known = {v.name: v for v in inferred.graph.output}
    del model.graph.output[:]
    model.graph.output.extend(known[name] for name in outputs)
    return model


def compare(
    model: onnx.ModelProto, inputs: Mapping[str, np.ndarray], tolerance: float = 2e-5
) -> None:
    graph = import_model(model)
    verify(graph)
    got = interpret(graph, inputs)
    for a, b in zip(got, session(model).run(None, dict(inputs)), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        if a.dtype.kind == "f":
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(a, b)


X = f32(2, 3, 4, 5)
IMAGE = f32(1, 4, 9, 8)
# op, opset, operands (arrays; a constant is given as [array]), attributes, number of results
CASES: list[tuple[str, int, list[object], dict[str, object], int]] = [
    ("Softmax", 11, [X], {"axis": 1}, 1), ("Softmax", 11, [X], {}, 1),
    ("Softmax", 13, [X], {"axis": 1}, 1), ("LogSoftmax", 9, [X], {"axis": -2}, 1),
    ("Hardmax", 11, [X], {"axis": 2}, 1), ("Hardmax", 13, [X], {"axis": 2}, 1),
    ("Dropout", 7, [X], {"ratio": 0.3}, 1), ("Dropout", 12, [X], {}, 1),
    ("Dropout", 12, [X], {}, 2),
    ("Clip", 6, [X], {"min": -0.5, "max": 0.5}, 1), ("Clip", 11, [X, [np.float32(0)]], {}, 1),
    ("Clip", 13, [X, np.float32(-0.1), np.float32(0.1)], {}, 1),
    ("Reshape", 5, [X, [i64(0, -1, 5)]], {}, 1), ("Reshape", 14, [X, [i64(6, 20)]], {}, 1),
    ("Flatten", 9, [X], {"axis": 2}, 1), ("Flatten", 13, [X], {"axis": -1}, 1),
    ("Flatten", 13, [X], {"axis": 0}, 1),
    ("Squeeze", 11, [f32(1, 3, 1)], {"axes": [0]}, 1), ("Squeeze", 13, [f32(1, 3, 1)], {}, 1),
    ("Unsqueeze", 11, [X], {"axes": [0, 5]}, 1), ("Unsqueeze", 13, [X, [i64(-1)]], {}, 1),
    ("ReduceSum", 11, [X], {"axes": [1, -1]}, 1), ("ReduceSum", 13, [X, [i64(2)]], {}, 1),
    ("ReduceMean", 13, [X], {"keepdims": 0}, 1), ("ReduceMax", 18, [X, [i64(0, 2)]], {}, 1),
    ("ReduceSum", 13, [X], {"noop_with_empty_axes": 1}, 1),
    ("ReduceL1", 11, [X], {"axes": [1]}, 1), ("ReduceL2", 18, [X, [i64(1)]], {}, 1),
    ("ReduceLogSumExp", 13, [X], {"axes": [3]}, 1), ("ReduceSumSquare", 13, [X], {}, 1),
    ("ReduceProd", 13, [X], {"axes": [2]}, 1), ("ReduceMin", 13, [X], {"axes": [0]}, 1),
    ("Slice", 9, [X], {"starts": [1, -3], "ends": [9, -1], "axes": [0, 3]}, 1),
    ("Slice", 13, [X, [i64(4, -1)], [i64(0, -99)], [i64(3, 2)], [i64(-2, -1)]], {}, 1),
    ("Split", 11, [X], {"axis": 3, "split": [2, 3]}, 2),
    ("Split", 13, [X, [i64(1, 4)]], {"axis": -1}, 2),
    ("Split", 18, [X], {"axis": 3, "num_outputs": 3}, 3), ("Split", 9, [X], {"axis": 2}, 2),
    ("Pad", 10, [X], {"pads": [0, 1, 0, 2, 0, 0, 3, 0], "value": 1.5}, 1),
    ("Pad", 13, [X, [i64(0, 0, 2, 1, 0, 0, 1, 2)]], {"mode": "reflect"}, 1),
    ("Pad", 18, [X, [i64(1, 2)], [np.float32(4)], [i64(-1)]], {}, 1),
    ("Pad", 18, [X, [i64(0, 0, 2, 1, 0, 0, 1, 2)]], {"mode": "edge"}, 1),
    ("Transpose", 13, [X], {"perm": [3, 1, 0, 2]}, 1), ("Transpose", 13, [X], {}, 1),
    ("Concat", 13, [X, X], {"axis": -2}, 1), ("Expand", 13, [f32(3, 1), [i64(2, 1, 4)]], {}, 1),
    ("Tile", 13, [X, [i64(1, 2, 1, 3)]], {}, 1),
    ("Gather", 13, [X, np.array([[0, -1]])], {"axis": 2}, 1),
    ("GatherElements", 13, [f32(3, 3), np.array([[1, 2, 0], [2, 0, 0]])], {"axis": 0}, 1),
    ("GatherND", 13, [X, np.array([[0, 1], [1, 2]])], {}, 1),
    ("ScatterND", 13, [f32(4, 3), np.array([[1], [3]]), f32(2, 3)], {}, 1),
    ("ScatterElements", 13, [f32(3, 3), np.array([[1, 0, 2]]), f32(1, 3)], {"axis": 1}, 1),
    ("OneHot", 11, [i64(1, -1, 5), [np.int64(4)], f32(2)], {"axis": 0}, 1),
    ("Where", 9, [X > 0, X, f32(5)], {}, 1), ("Trilu", 14, [f32(4, 5), [np.int64(-1)]], {}, 1),
    ("CumSum", 14, [X, [np.int64(1)]], {"reverse": 1, "exclusive": 1}, 1),
    ("ArgMax", 13, [X], {"axis": 3, "keepdims": 0}, 1),
    ("ArgMin", 13, [np.zeros((2, 3), np.float32)], {"axis": 1, "select_last_index": 1}, 1),
    ("TopK", 11, [X, [i64(2)]], {"axis": 2}, 2), 
    ("TopK", 10, [X, [i64(3)]], {"axis": 3}, 2),
    ("Pow", 12, [np.abs(X), i64(2)], {}, 1), ("Pow", 13, [np.arange(5), np.float32(2)], {}, 1),
    ("Mod", 13, [np.arange(-5, 5), i64(3)], {}, 1), ("Mod", 13, [X, np.abs(X)], {"fmod": 1}, 1),
    ("Div", 14, [np.arange(-5, 5), i64(3)], {}, 1), ("Round", 11, [X * 4], {}, 1),
    ("Max", 13, [X, f32(5), f32(4, 1)], {}, 1), ("Sum", 13, [X, X, f32(5)], {}, 1),
    ("Mean", 13, [X, f32(5)], {}, 1), ("Erf", 13, [X], {}, 1), ("Gelu", 20, [X], {}, 1),
    ("Selu", 6, [X], {}, 1), ("Elu", 6, [X], {"alpha": 0.7}, 1), ("Celu", 12, [X], {}, 1),
    ("HardSwish", 14, [X * 3], {}, 1), ("HardSigmoid", 6, [X * 3], {}, 1),
    ("LeakyRelu", 6, [X], {"alpha": 0.2}, 1), ("PRelu", 9, [X, f32(3, 1, 1)], {}, 1),
    ("Softplus", 1, [X], {}, 1), ("Softsign", 1, [X], {}, 1), ("Mish", 18, [X], {}, 1),
    ("ThresholdedRelu", 10, [X], {"alpha": 0.3}, 1), ("Shrink", 9, [X], {"bias": 0.1}, 1),
    ("IsInf", 10, [np.array([1, np.inf, -np.inf], np.float32)], {"detect_negative": 0}, 1),
    ("BitShift", 11, [np.arange(5, dtype=np.uint32), np.uint32([1])], {"direction": "LEFT"}, 1),
    ("Cast", 13, [X * 50], {"to": TensorProto.INT32}, 1),
    ("Cast", 13, [X], {"to": TensorProto.FLOAT16}, 1),
    ("MatMul", 13, [f32(2, 1, 3, 4), f32(5, 4, 2)], {}, 1), ("MatMul", 9, [f32(4), f32(4)], {}, 1),
    ("Gemm", 7, [f32(3, 4), f32(4, 5), f32(5)], {"alpha": 0.5, "beta": 2.0}, 1),
    ("Gemm", 11, [f32(4, 3), f32(5, 4)], {"transA": 1, "transB": 1}, 1),
    ("Gemm", 13, [f32(3, 4), f32(4, 5), np.float32(2)], {}, 1),
    ("MatMulInteger", 10, [np.arange(12, dtype=np.uint8).reshape(3, 4),
     np.arange(8, dtype=np.uint8).reshape(4, 2), [np.uint8(3)], [np.uint8(2)]], {}, 1),
    ("Conv", 11, [IMAGE, f32(6, 4, 3, 3), f32(6)], {"pads": [1, 0, 2, 1], "strides": [2, 1]}, 1),
    ("Conv", 11, [IMAGE, f32(6, 2, 3, 2)], {"group": 2, "dilations": [2, 1]}, 1),
    ("Conv", 11, [IMAGE, f32(4, 1, 3, 3)], {"group": 4, "auto_pad": "SAME_UPPER",
                                            "strides": [2, 2]}, 1),
    ("Conv", 11, [IMAGE, f32(4, 4, 2, 2)], {"auto_pad": "SAME_LOWER"}, 1),
    ("Conv", 11, [f32(2, 3, 9), f32(4, 3, 3)], {"auto_pad": "VALID"}, 1),
    ("Conv", 11, [f32(1, 2, 5, 4, 6), f32(3, 2, 2, 2, 3)], {}, 1),
    ("ConvTranspose", 11, [IMAGE, f32(4, 3, 3, 3), f32(3)], {"strides": [2, 2]}, 1),
    ("ConvTranspose", 11, [IMAGE, f32(4, 2, 3, 3)], {"group": 2, "pads": [1, 1, 0, 1]}, 1),
    ("ConvTranspose", 11, [IMAGE, f32(4, 2, 3, 3)], {"strides": [3, 2],
                                                     "output_shape": [26, 16]}, 1),
    *[("Resize", 13, [IMAGE, [np.float32([])], [np.float32([1, 1, *s])]],
       {"mode": m, "coordinate_transformation_mode": c}, 1)
      for s in ((2, 2), (0.6, 1.5)) for m in ("nearest", "linear", "cubic")
      for c in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")],
    ("Resize", 18, [IMAGE, [], [], [i64(5, 11)]],
     {"mode": "linear", "antialias": 1, "axes": [2, 3]}, 1),
    ("Resize", 10, [IMAGE, [np.float32([1, 1, 2, 3])]], {}, 1),
    ("Upsample", 9, [IMAGE, [np.float32([1, 1, 2, 2])]], {"mode": "linear"}, 1),
    ("QuantizeLinear", 13, [X, [np.float32(0.1)], [np.uint8(5)]], {}, 1),
    ("QuantizeLinear", 13, [X, [np.float32([0.1, 0.2, 0.3])], [np.int8([0, 1, -4])]], {}, 1),
    ("DequantizeLinear", 13, [np.arange(6, dtype=np.uint8).reshape(2, 3),
     [np.float32([1, 2, 3])], [np.uint8([0, 1, 2])]], {"axis": 1}, 1),
    ("DynamicQuantizeLinear", 11, [X], {}, 3),
    ("QLinearMatMul", 10, [np.arange(12, dtype=np.uint8).reshape(3, 4), [np.float32(0.2)],
     [np.uint8(3)], np.arange(8, dtype=np.uint8).reshape(4, 2), [np.float32(0.3)], [np.uint8(2)],
     [np.float32(0.5)], [np.uint8(1)]], {}, 1),
    ("QLinearConv", 10, [rng.integers(0, 255, (1, 2, 5, 5)).astype(np.uint8), [np.float32(0.02)],
     # Weights of 7 bits: sums of pairs of larger ones saturate in onnxruntime on some processors.
     [np.uint8(100)], [rng.integers(-64, 63, (3, 2, 3, 3)).astype(np.int8)],
     [np.float32([0.02, 0.01, 0.03])], [np.int8([0, 0, 0])], [np.float32(0.05)], [np.uint8(128)],
     [np.int32([1, -2, 3])]], {}, 1),
    ("Einsum", 12, [f32(2, 3, 4), f32(2, 4, 5)], {"equation": "bij,bjk->bik"}, 1),
    ("Einsum", 12, [f32(2, 3, 4, 5), f32(2, 6, 4, 5)], {"equation": "bqhd,bkhd->bhqk"}, 1),
    ("Einsum", 12, [f32(2, 3, 4), f32(4, 5), f32(3)], {"equation": "...ij,jk,i->...k"}, 1),
    ("Einsum", 12, [f32(3, 4)], {"equation": "ij->ji"}, 1),
    ("Einsum", 12, [f32(3, 4), f32(3, 4)], {"equation": "ij,ij"}, 1),
    *[(op, 14, [f32(4, 2, 3), f32(d, g * 5, 3), f32(d, g * 5, 5), f32(d, 2 * g * 5), [],
       f32(d, 2, 5)], {"hidden_size": 5, "direction": way, **more}, 2)
      for op, g, more in (("LSTM", 4, {}), ("GRU", 3, {}), ("GRU", 3, {"linear_before_reset": 1}),
                          ("RNN", 1, {"clip": 0.5}))
      for d, way in ((1, "forward"), (1, "reverse"), (2, "bidirectional"))],
    ("MaxPool", 8, [IMAGE], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}, 1),
    ("MaxPool", 12, [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, 1),
    ("MaxPool", 12, [IMAGE], {"kernel_shape": [2, 2], "dilations": [2, 3]}, 1),
    ("AveragePool", 11, [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, 1),
    ("AveragePool", 11, [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1],
                                  "count_include_pad": 1}, 1),
    ("AveragePool", 19, [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 3], "ceil_mode": 1}, 1),
    ("AveragePool", 10, [IMAGE], {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}, 1),
    ("LpPool", 11, [IMAGE], {"kernel_shape": [2, 2], "p": 2}, 1),
    ("GlobalAveragePool", 1, [IMAGE], {}, 1), ("GlobalMaxPool", 1, [IMAGE], {}, 1),
    ("LRN", 13, [IMAGE], {"size": 3, "alpha": 0.1}, 1),
    ("LRN", 13, [IMAGE], {"size": 5, "alpha": 0.1, "bias": 2.0}, 1),
    *[("BatchNormalization", v, [IMAGE, f32(4), f32(4), f32(4), np.abs(f32(4)) + 0.5], a, 1)
      for v, a in ((7, {}), (9, {"epsilon": 0.1}), (14, {}), (15, {}))],
    ("InstanceNormalization", 6, [IMAGE, f32(4), f32(4)], {}, 1),
    ("GroupNormalization", 21, [IMAGE, f32(4), f32(4)], {"num_groups": 2}, 1),
    ("LayerNormalization", 17, [X, f32(5), f32(5)], {}, 1),
    ("LayerNormalization", 17, [X, f32(4, 5)], {"axis": 2}, 1),
    ("LpNormalization", 1, [X], {"axis": 1, "p": 1}, 1),
    ("MeanVarianceNormalization", 13, [X], {}, 1),
    ("DepthToSpace", 13, [f32(1, 8, 2, 3)], {"blocksize": 2, "mode": "CRD"}, 1),
    ("DepthToSpace", 11, [f32(1, 8, 2, 3)], {"blocksize": 2}, 1),
    ("SpaceToDepth", 13, [f32(1, 2, 4, 6)], {"blocksize": 2}, 1),
    ("Shape", 15, [X], {"start": 1, "end": -1}, 1), ("Size", 13, [X], {}, 1),
    ("Range", 11, [[np.int64(3)], [np.int64(12)], [np.int64(4)]], {}, 1),
    ("EyeLike", 9, [f32(3, 5)], {"k": 1}, 1), ("Identity", 13, [X], {}, 1),
    ("ConstantOfShape", 9, [[i64(2, 3)]], {}, 1),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{c[1]}-{sorted(c[3])}")
def test_operator(case: tuple[str, int, list[object], dict[str, object], int]) -> None:
    op, opset, operands, attrs, results = case
    inputs: dict[str, np.ndarray] = {}
    constants: dict[str, np.ndarray] = {}
    names_in = [f"i{k}" if not isinstance(x, list) or x else "" for k, x in enumerate(operands)]
    for k, operand in enumerate(operands):
        if not names_in[k]:
            continue
        where, data = (constants, operand[0]) if isinstance(operand, list) else (inputs, operand)
        where[f"i{k}"] = np.asarray(data)
    names = [f"o{k}" for k in range(results)]
    node = helper.make_node(op, names_in, names, **attrs)
    compare(make([node], inputs, names, constants, opset), inputs)


UNARY = (
    "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Exp Floor Log Neg Reciprocal Relu Sigmoid "
    "Sign Sin Sinh Sqrt Tan Tanh IsNaN"
)


BINARY = "Add Sub Mul Div Equal Less Greater LessOrEqual Min Max"


@pytest.mark.parametrize("op", UNARY.split())
def test_unary(op: str) -> None:
    x = np.array([0.0, -0.0, 0.3, -0.7, 1.0, 2.5, -3.5, np.nan, np.inf, -np.inf], np.float32)
    compare(make([helper.make_node(op, ["x"], ["y"])], {"x": x}, ["y"], {}, 13), {"x": x})


@pytest.mark.parametrize("op", BINARY.split())
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64])
def test_binary(op: str, dtype: type) -> None:
    a, b = (rng.integers(1, 9, s).astype(dtype) for s in ((3, 1, 4), (2, 1)))
    inputs = {"a": a, "b": b}
    compare(make([helper.make_node(op, ["a", "b"], ["y"])], inputs, ["y"], {}, 16), inputs)


@pytest.mark.parametrize(("op", "inputs"), [("Gelu", 1), ("FastGelu", 1), ("FastGelu", 2)])
def test_activations_of_onnxruntime(op: str, inputs: int) -> None:
    feeds = {"x": X, "bias": f32(X.shape[-1])}
    feeds = {k: feeds[k] for k in list(feeds)[:inputs]}
    node = helper.make_node(op, list(feeds), ["y"], domain="com.microsoft")
    compare(make([node], feeds, ["y"], {}, 17), feeds)


def test_old_broadcast() -> None:
    node = helper.make_node("Add", ["x", "b"], ["y"], axis=1, broadcast=1)
    inputs = {"x": X, "b": f32(3)}
    infos = [helper.make_tensor_value_info(k, 1, v.shape) for k, v in inputs.items()]
    y = helper.make_tensor_value_info("y", 1, X.shape)
    graph = helper.make_graph([node], "g", infos, [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 6)])
    (got,) = interpret(import_model(model), inputs)
    np.testing.assert_array_equal(got, X + inputs["b"].reshape(3, 1, 1))


@pytest.mark.parametrize(("version", "refused"), [(6, True), (7, False)])
def test_old_products_do_not_broadcast_unasked(version: int, refused: bool) -> None:
    """Before opset 7 ``broadcast`` says whether C may be smaller than the result."""
    node = helper.make_node("Gemm", ["a", "b", "c"], ["y"])
    node.attribute.append(helper.make_attribute("broadcast", 0))
    inputs = {"a": f32(2, 3), "b": f32(3, 4), "c": f32(4)}
    infos = [helper.make_tensor_value_info(k, 1, v.shape) for k, v in inputs.items()]
    y = helper.make_tensor_value_info("y", 1, (2, 4))
    graph = helper.make_graph([node], "g", infos, [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    if refused:
        with pytest.raises(CompileError, match="operand C does not have the result's shape"):
            import_model(model)
    else:
        del model.graph.node[0].attribute[:]
        import_model(model)


def test_old_batch_normalization_and_reshape() -> None:
    stats = [f32(4), f32(4), f32(4), np.abs(f32(4)) + np.float32(0.5)]
    names = ["s", "b", "m", "v"]
    nodes = [
        helper.make_node("BatchNormalization", ["x", *names], ["n"], is_test=1, spatial=1,
                         consumed_inputs=[0, 0, 0, 1, 1]),
        helper.make_node("Reshape", ["n"], ["y"], shape=[0, -1], consumed_inputs=[0]),
    ]  # fmt: skip
    x = helper.make_tensor_value_info("x", 1, IMAGE.shape)
    y = helper.make_tensor_value_info("y", 1, [1, 288])
    weights = [numpy_helper.from_array(w, n) for w, n in zip(stats, names, strict=True)]
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 1)])
    (got,) = interpret(import_model(model), [IMAGE])
    s, b, m, v = (w.reshape(1, 4, 1, 1) for w in stats)
    want = (IMAGE - m) / np.sqrt(v + np.float32(1e-5)) * s + b
    np.testing.assert_allclose(got, want.reshape(1, -1), rtol=1e-5, atol=1e-5)


def test_dynamic_shapes_flow_through_shape_arithmetic() -> None:
    """(n, s, 12) -> (n, s, 3, 4) -> transpose -> back, sizes computed with Shape and Gather."""
    n = helper.make_node
    nodes = [
        n("Shape", ["x"], ["s"]), n("Gather", ["s", "zero"], ["b"], axis=0),
        n("Gather", ["s", "one"], ["t"], axis=0), n("Unsqueeze", ["b", "axis"], ["bv"]),
        n("Unsqueeze", ["t", "axis"], ["tv"]), n("Concat", ["bv", "tv", "heads"], ["to"], axis=0),
        n("Reshape", ["x", "to"], ["split"]), n("Transpose", ["split"], ["h"], perm=[0, 2, 1, 3]),
        n("Transpose", ["h"], ["back"], perm=[0, 2, 1, 3]), n("Mul", ["t", "twelve"], ["wide"]),
        n("Unsqueeze", ["wide", "axis"], ["wv"]), n("Concat", ["bv", "wv"], ["flat"], axis=0),
        n("Reshape", ["back", "flat"], ["y"]), n("Slice", ["x", "axis", "tv", "ones"], ["z"]),
        n("ConstantOfShape", ["s"], ["zeros"]), n("Add", ["x", "zeros"], ["same"]),
    ]  # fmt: skip
    constants = {
        "zero": np.array(0), "one": np.array(1), "axis": i64(0), "ones": i64(1),
        "heads": i64(3, 4), "twelve": np.array(12),
    }  # fmt: skip
    x = f32(2, 5, 12)
    model = make(nodes, {"x": x}, ["y", "z", "same", "s"], constants, 13, {"x": ["n", "s", 12]})
    graph = import_model(model)
    assert str(graph.outputs[0].type) == "f32[n, 12*s]"
    compare(model, {"x": x})
    compare(model, {"x": f32(1, 1, 12)})
    fixed = import_model(model, {"n": 2})
    assert str(fixed.outputs[0].type) == "f32[2, 12*s]"
    with pytest.raises(ExecutionError):
        interpret(fixed, [f32(3, 5, 12)])


@pytest.mark.parametrize("which", [True, False])
def test_if_with_a_known_condition(which: bool) -> None:
    out = helper.make_tensor_value_info("r", 1, [2, 3, 4, 5])
    branches = {
        "then_branch": helper.make_graph([helper.make_node("Neg", ["x"], ["r"])], "a", [], [out]),
        "else_branch": helper.make_graph([helper.make_node("Abs", ["x"], ["r"])], "b", [], [out]),
    }
    node = helper.make_node("If", ["c"], ["y"], **branches)
    compare(make([node], {"x": X}, ["y"], {"c": np.array(which)}, 13), {"x": X})


def test_inputs_fixed_to_constants() -> None:
    shape = helper.make_tensor_value_info("s", TensorProto.INT64, [2])
    x = helper.make_tensor_value_info("x", 1, [2, 3])
    y = helper.make_tensor_value_info("y", 1, None)
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "s"], ["y"])], "g", [x, shape], [y]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    fixed = import_model(model, constants={"s": i64(3, 2)})
    assert [v.name for v in fixed.inputs] == ["x"]
    assert fixed.outputs[0].type.static_shape == (3, 2)


@pytest.mark.parametrize("name", light_models.NAMES)
def test_light_model_imports(name: str) -> None:
    graph = import_model(light_models.path(name))
    assert len(graph.inputs) == 1
    assert graph.outputs[0].type.static_shape[:2] == (1, 1000)


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "inception_v2"])
def test_light_model_runs(name: str) -> None:
    model = light_models.load(name, seed=1)
    data = import_model(model).inputs[0]
    compare(model, {data.name: f32(*data.type.static_shape)}, 1e-4)


def test_a_shape_that_is_known_is_a_constant() -> None:
    model = make([helper.make_node("Shape", ["x"], ["y"])], {"x": X}, ["y"], {}, 15)
    graph = import_model(model)
    assert [n.op for n in graph.nodes] == ["constant"]
    open_ = import_model(make([helper.make_node("Shape", ["x"], ["y"])], {"x": X}, ["y"], {}, 15,
                              {"x": ["n", 3, 4, 5]}))  # fmt: skip
    assert [n.op for n in open_.nodes] == ["sizes"]
