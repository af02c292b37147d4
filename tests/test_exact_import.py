"""The importer is exact: what contradicts the standard or itself is refused, with the place named;
what is only unusual is taken."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from aisc.cli.main import main
from aisc.frontend.onnx.importer import import_model
from aisc.ir.diagnostics import AiscWarning, CompileError
from aisc.ir.graph.interpret import interpret

MODEL = '<ir_version: 8, opset_import: ["": {opset}]>\ng ({head}'


def parsed(head: str, opset: int = 17) -> ModelProto:
    """A model from its inputs, outputs and body."""
    return onnx.parser.parse_model(MODEL.format(opset=opset, head=head))


def relu() -> ModelProto:
    return parsed("float[2, 3] x) => (float[2, 3] y) { y = Relu(x) }")


def fault(model: ModelProto) -> str:
    """The text of the only E103 that a model is refused with."""
    with pytest.raises(CompileError) as caught:
        import_model(model)
    assert caught.value.codes == ("E103",), caught.value
    return str(caught.value)


# --- declared types of results --------------------------------------------------------------------
@pytest.mark.parametrize(
    "declared",
    ["int64[2, 3] y", "float[2] y", "float[2, 3, 1] y", "float[2, 4] y", "float[0, n] y"],
)
def test_outputs_that_are_not_what_they_are_declared_as(declared: str) -> None:
    text = fault(parsed(f"float[2, 3] x) => ({declared}) {{ y = Relu(x) }}"))
    assert "node 'y'" in text and "f32[2, 3]" in text


@pytest.mark.parametrize(
    "declared",
    ["float[2, 3] y", "float[a, b] y", "float[2, b] y", "float[] y", "y", "float[?, 3] y"],
)
def test_names_of_dimensions_are_hints(declared: str) -> None:
    if declared == "float[] y":  # an output without a shape, not a scalar
        model = relu()
        model.graph.output[0].type.tensor_type.ClearField("shape")
    else:
        model = parsed(f"float[2, 3] x) => ({declared}) {{ y = Relu(x) }}")
    assert str(import_model(model).outputs[0].type) == "f32[2, 3]"


def test_sizes_that_the_caller_fixes_are_not_the_models() -> None:
    model = parsed("float[n, 3] x) => (float[1, 3] y) { y = Relu(x) }")
    assert import_model(model, {"n": 4}).outputs[0].type.static_shape == (4, 3)


# --- nodes ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("y = Relu(x, x)", "Relu: 2 inputs"),
        ("y = Add(x)", "Add: 1 input"),
        ("y = Concat<axis = 0>()", "Concat: 0 inputs"),
        ("y, z = Relu(x)", "Relu: 2 outputs"),
        ("y = Clip(x, x, x, x)", "Clip: 4 inputs"),
        ("y = Cast(x)", "attribute 'to' is missing"),
    ],
)
def test_numbers_of_operands(body: str, words: str) -> None:
    assert words in fault(parsed(f"float[2, 3] x) => (float[2, 3] y) {{ {body} }}"))


@pytest.mark.parametrize(
    ("body", "opset", "words"),
    [
        ("y = Gelu(x)", 17, "it came with opset 20"),
        ("y = Upsample(x, x)", 13, "opset 10 removed it"),
        ("y = Scatter(x, x, x)", 13, "opset 11 removed it"),
    ],
)
def test_operators_that_the_imported_opset_lacks(body: str, opset: int, words: str) -> None:
    assert words in fault(parsed(f"float[2, 3] x) => (y) {{ {body} }}", opset))


def test_forms_that_a_later_opset_corrects_are_there() -> None:
    """GroupNormalization of opset 18 is marked as deprecated, but no earlier opset had it."""
    text = (
        "float[1, 4, 3] x, float[2] s) => (y) { y = GroupNormalization<num_groups = 2>(x, s, s) }"
    )
    assert import_model(parsed(text, 18)).outputs[0].type.static_shape == (1, 4, 3)


def test_operators_that_no_opset_has_are_unsupported() -> None:
    with pytest.raises(CompileError) as caught:
        import_model(parsed("float[2] x) => (y) { y = Frobnicate(x) }"))
    assert caught.value.codes == ("E102",)


def test_references_to_attributes_outside_of_a_function() -> None:
    model = parsed("float[2, 3] x) => (y) { y = LeakyRelu(x) }")
    model.graph.node[0].attribute.append(
        onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    )
    assert "'slope'" in fault(model)


def _function(body: str, call: str) -> ModelProto:
    return onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 17, "f": 1]>
        g (float[2] x) => (float[2] y) {{ y = {call} }}
        <domain: "f", opset_import: ["": 17]>
        twice <slope> (a) => (b) {{ {body} }}""")


def test_functions_take_what_they_declare() -> None:
    body = "b = LeakyRelu<alpha: float = @slope>(a)"
    graph = import_model(_function(body, "f.twice<slope = 0.5>(x)"))
    np.testing.assert_allclose(interpret(graph, [np.float32([-2, 4])])[0], np.float32([-1, 4]))
    assert "2 inputs" in fault(_function(body, "f.twice<slope = 0.5>(x, x)"))
    model = _function(body, "f.twice<slope = 0.5>(x)")
    model.functions.append(model.functions[0])
    assert "defined twice" in fault(model)


# --- constant indices -----------------------------------------------------------------------------
INDEXING = [
    ("Gather", {"axis": 1}, [2], [3]),
    ("Gather", {"axis": 0}, [-2], [-3]),
    ("GatherElements", {"axis": -1}, [[2]], [[3]]),
    ("GatherND", {}, [[1, 2]], [[1, 3]]),
    ("GatherND", {"batch_dims": 1}, [[2], [0]], [[3], [0]]),
    ("ScatterElements", {"axis": 0}, [[1]], [[2]]),
    ("ScatterND", {}, [[-2]], [[-3]]),
]


@pytest.mark.parametrize(("op", "attrs", "good", "bad"), INDEXING)
def test_constant_indices(op: str, attrs: dict[str, int], good: object, bad: object) -> None:
    def build(indices: object) -> ModelProto:
        table = [numpy_helper.from_array(np.array(indices, np.int64), "i")]
        operands = ["x", "i"]
        if op.startswith("Scatter"):
            shape = (1, 3) if op == "ScatterND" else (1, 1)
            table.append(numpy_helper.from_array(np.ones(shape, np.float32), "u"))
            operands.append("u")
        made = helper.make_node(op, operands, ["y"], name="taking", **attrs)
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph([made], "g", [x], [y], table)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    import_model(build(good))
    text = fault(build(bad))
    assert "node 'taking'" in text and "is outside an axis of size" in text


# --- the model as a whole -------------------------------------------------------------------------
@pytest.mark.parametrize("version", [None, 0, -3])
def test_versions_of_the_format_that_no_model_has(version: int | None) -> None:
    model = relu()
    model.ClearField("ir_version")
    if version is not None:
        model.ir_version = version
    assert "ir_version" in fault(model)


def test_a_format_of_the_future_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = relu()
    model.ir_version = 9999
    with pytest.warns(AiscWarning, match="ir_version 9999") as caught:
        import_model(model)
    assert len(caught) == 1
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    main_exits_well(["check", str(path)])
    assert "warning[E103]: ir_version 9999" in capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        import_model(relu())


def main_exits_well(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code


def _import(domain: str, version: int) -> Callable[[ModelProto], None]:
    return lambda model: model.opset_import.append(helper.make_opsetid(domain, version)) or None


@pytest.mark.parametrize(("domain", "version"), [("", 17), ("", 16), ("ai.onnx", 13)])
def test_domains_are_imported_once(domain: str, version: int) -> None:
    model = relu()
    _import(domain, version)(model)
    assert "twice" in fault(model)


def test_the_standard_domain_may_have_both_of_its_names() -> None:
    model = relu()
    _import("ai.onnx", 17)(model)
    import_model(model)


@pytest.mark.parametrize("version", [0, -4])
def test_versions_of_operator_sets_are_positive(version: int) -> None:
    model = relu()
    _import("ai.onnx.ml", version)(model)
    assert f"version {version}" in fault(model)


@pytest.mark.parametrize("second", ["int32_data", "raw_data", "external"])
def test_contents_in_two_places(second: str) -> None:
    w = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], float_data=[1.0])
    if second == "raw_data":
        w.raw_data = b"\0\0\0\0"
    elif second == "int32_data":
        w.int32_data.append(1)
    else:
        w.data_location = TensorProto.EXTERNAL
        w.external_data.add(key="location", value="w.bin")
    model = parsed("float[2] x) => (y) { y = Add(x, w) }")
    model.graph.initializer.append(w)
    assert "contents twice" in fault(model)


# --- quantization ---------------------------------------------------------------------------------
@pytest.mark.parametrize("op", ["DequantizeLinear", "QuantizeLinear"])
@pytest.mark.parametrize("shape", [(), (1,), (4,), (2, 3)])
@pytest.mark.parametrize("axis", [None, 0, 5])
def test_one_scale_is_per_tensor_whatever_the_axis(
    op: str, shape: tuple[int, ...], axis: int | None
) -> None:
    kind = TensorProto.INT8 if op == "DequantizeLinear" else TensorProto.FLOAT
    table = [numpy_helper.from_array(np.float32([0.5]), "s"),
             numpy_helper.from_array(np.int8(3), "z")]  # fmt: skip
    attrs = {} if axis is None else {"axis": axis}
    made = helper.make_node(op, ["x", "s", "z"], ["y"], **attrs)
    x = helper.make_tensor_value_info("x", kind, shape)
    out = TensorProto.FLOAT if op == "DequantizeLinear" else TensorProto.INT8
    graph = helper.make_graph(
        [made], "g", [x], [helper.make_tensor_value_info("y", out, shape)], table
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    data = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    (y,) = interpret(import_model(model), [data.astype(np.int8 if kind == 3 else np.float32)])
    expected = (data - 3) * np.float32(0.5) if op == "DequantizeLinear" else data * 2 + 3
    np.testing.assert_array_equal(y, expected.astype(y.dtype))
