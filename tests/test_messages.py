"""Refusals speak of the model: its own names of dimensions, and no names that only the compiler
knows; what is right but out of reach is not called inconsistent."""

from __future__ import annotations

import re

import onnx.parser
import pytest
from onnx import ModelProto

from aisc.frontend.onnx.importer import import_model
from aisc.ir.diagnostics import CompileError
from aisc.ir.graph import opdef

INTERNAL = re.compile(r"(?<!['\w])(d|turn|turns|kept)\d+(?!\w)")


def parsed(text: str, opset: int = 18) -> ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]>\ng ({text}')


def refusal(model: ModelProto) -> CompileError:
    with pytest.raises(CompileError) as caught:
        import_model(model)
    assert not INTERNAL.search(str(caught.value)), caught.value
    return caught.value


RESIZE = """float[n, 3, height, width] x) => (y) <int64[4] to = {1, 3, 7, 7}> {
    y = Resize<mode = "linear", antialias = 1>(x, , , to) }"""


def test_hints_name_the_dimensions_of_the_model() -> None:
    fault = refusal(parsed(RESIZE))
    assert fault.codes == ("E204",)
    assert 'shapes={"n": 224, "height": 224, "width": 224}' in str(fault)
    assert "--shape n=224 --shape height=224 --shape width=224" in str(fault)
    import_model(parsed(RESIZE), {"n": 1, "height": 8, "width": 9})


def test_dimensions_are_spelled_as_in_the_model() -> None:
    model = parsed(RESIZE)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "unk.749 + 1"
    fault = refusal(model)
    assert '"unk.749 + 1": 224' in str(fault) and "--shape 'unk.749 + 1'=224" in str(fault)
    assert "f32[n, 3, unk.749 + 1, width]" in str(fault)
    assert "unk_749" not in str(fault)
    import_model(model, {"n": 1, "unk.749 + 1": 8, "width": 9})


def test_sizes_that_the_run_gives_are_told_in_words() -> None:
    fault = refusal(
        parsed("""float[m, 4] x) => (y) <int64[2] to = {2, 4}> {
        found = NonZero(x)  f = Cast<to = 1>(found)
        y = Resize<mode = "linear", antialias = 1>(f, , , to) }""")
    )
    assert "f32[2, ?]" in str(fault)
    assert "? is a size computed at run time, by node 'found'" in str(fault)


def test_several_of_them_are_told_apart() -> None:
    fault = refusal(
        parsed("""float[7] x, int64[1] k, int64[2] s) => (y) {
        a = Reshape(x, s)  b, i = TopK(x, k)  y = Gemm(a, b) }""")
    )
    assert "f32[?1]" in str(fault) or "f32[?1, ?2]" in str(fault)
    assert "by node 'a'" in str(fault) or "by node 'b'" in str(fault)


def test_operands_that_only_the_run_gives_have_no_hint_of_sizes() -> None:
    text = "float[batch, 4] x, int64[k] axes) => (y) { y = ReduceSum<keepdims = 0>(x, axes) }"
    assert refusal(parsed(text)).codes == ("E204",)
    text = "float[1, 8, 1] x, int64 n, float[2] w) => (y) { y = STFT(x, n, w) }"
    fault = refusal(parsed(text))
    assert "--shape" not in str(fault)


RIGHT = {
    "blocks": "float[1, c, 2, 2] x) => (y) { y = DepthToSpace<blocksize = 2>(x) }",
    "depth": "float[1, 2, h, 4] x) => (y) { y = SpaceToDepth<blocksize = 2>(x) }",
    "groups": """float[1, c, 4] x, float[4] s) => (y) {
        y = GroupNormalization<num_groups = 2>(x, s, s) }""",
    "grid": "float[1, 1, 4, 4] x, float[1, 2, 2, k] g) => (y) { y = GridSample(x, g) }",
    "recurrent": """float[3, 1, 2] x, float[1, 4, 2] w, float[1, 4, k] r) => (y) {
        y = RNN<hidden_size = 4>(x, w, r) }""",
    "range": "int64[k] a, int64 b) => (y) { y = Range(a, b, b) }",
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_may_be_right_is_tested_by_the_run(name: str) -> None:
    graph = import_model(parsed(RIGHT[name], 21 if name == "groups" else 17))
    assert any(opdef.size_checks(n) for n in graph.nodes)


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_wrong_for_certain_is(name: str) -> None:
    text = re.sub(r"\b[chk]\b(?=[,\]])", "3", RIGHT[name])
    assert refusal(parsed(text, 21 if name == "groups" else 17)).codes == ("E103",)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_an_open_number_of_channels_is_what_the_weight_expects(op: str) -> None:
    text = f"float[n, c, 8, 8] x, float[4, 4, 3, 3] w) => (y) {{ y = {op}(x, w) }}"
    (y,) = import_model(parsed(text)).outputs
    assert str(y.type).startswith("f32[n, 4,")


def test_parts_of_an_open_size_are_tested_by_the_run() -> None:
    graph = import_model(parsed("float[n, 2] x) => (y, z) { y, z = Split(x, p) }".replace(
        "=> (y, z)", "=> (y, z) <int64[2] p = {2, 3}>")))  # fmt: skip
    assert [str(v.type) for v in graph.outputs] == ["f32[2, 2]", "f32[3, 2]"]
