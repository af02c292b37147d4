"""Operators of one's own: from files of the language, from decorated classes, from packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import aisc
from aisc import tensor
from aisc.cli.main import main
from aisc.frontend.lang.model import graph_of
from aisc.ir import plugins
from aisc.ir.diagnostics import CompileError
from aisc.ir.graph import opdef
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, Value
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.opdef import Array
from aisc.ir.graph.same import same
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Expr
from aisc.ir.tensor.func import Buffer
from aisc.ir.text.parser import parse_graph
from aisc.ir.text.printer import print_ir
from aisc.ir.types import TensorType

FILE = """
operator Neighbours(x: t[n, k], by: t[k], radius: int = 1, scale: float = 1) -> t[n, k] {
    width = 2 * radius + 1
    total[i, j in 0..k] = sum[r in 0..width]((x[i, j + r - radius] else 0))
    y[i, j] = total[i, j] * by[j] * scale
    return y
}

operator Ends(x: t[n, k]) -> t[n], t[n] {
    return x[:, 0], x[:, -1]
}

layer twice(x: f32[n, k]) { return x + x }
operator Doubled(x: f32[n, k]) -> f32[n, k] { return twice(x) }
"""
rng = np.random.default_rng(0)
X = rng.standard_normal((3, 8)).astype(np.float32)
BY = rng.standard_normal(8).astype(np.float32)


def neighbours(x: Array, by: Array, radius: int, scale: float) -> Array:
    wide = np.pad(x, ((0, 0), (radius, radius)))
    total = sum(wide[:, r : r + x.shape[1]] for r in range(2 * radius + 1))
    return np.asarray(total * by * np.float32(scale), x.dtype)


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Every test registers operators of its own."""
    yield
    for op in opdef.custom_ops():
        opdef.remove_custom(op.name)
    plugins.forget()


@pytest.fixture
def ops(tmp_path: Path) -> Path:
    path = tmp_path / "own.aim"
    path.write_text(FILE)
    return path


def graph(body: str, head: str = "x: f32[n, 8], by: f32[8]") -> Graph:
    return graph_of(f"model m({head}) {{\n{body}\n}}\n", "m.aim", Path(), {})


def check(g: Graph, inputs: list[Array], want: list[Array]) -> None:
    """Interpreted, compiled and through text, `g` gives what is wanted."""
    assert same(parse_graph(print_ir(g)), g)
    compiled = aisc.compile(g, threads=2, cache=False)(*inputs)
    found = compiled if isinstance(compiled, tuple) else (compiled,)
    for got in (interpret(g, inputs), list(found)):
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def onnx_model(op: str, inputs: dict[str, list[int | str]], **attrs: Any) -> onnx.ModelProto:
    node = helper.make_node(op, list(inputs), ["y"], domain="com.example", **attrs)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    made = helper.make_graph([node], "g", values, [out])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9)


# --- files ------------------------------------------------------------------------------------
def test_a_file_defines_operators_of_the_language(ops: Path) -> None:
    assert aisc.load_operators(ops) == ["Neighbours", "Ends", "Doubled"]
    g = graph("return Neighbours(x, by, radius=2, scale=0.5), Doubled(x)")
    assert [n.op for n in g.nodes] == ["Neighbours", "Doubled"]
    check(g, [X, BY], [neighbours(X, BY, 2, 0.5), X + X])
    several = graph("a, b = Ends(x + x)\nreturn b, a", "x: f64[n, 8]")
    check(several, [X.astype(np.float64)], [2 * X[:, -1], 2 * X[:, 0]])


def test_operators_of_a_file_stand_in_onnx_models(ops: Path) -> None:
    model = onnx_model("Neighbours", {"x": ["n", 8], "by": [8]}, radius=2, scale=0.5)
    with pytest.raises(CompileError, match="not supported") as caught:
        aisc.compile(model)
    assert caught.value.codes == ("E102",)
    aisc.load_operators(ops)
    got = aisc.compile(model, threads=1)(X, BY)
    np.testing.assert_allclose(got, neighbours(X, BY, 2, 0.5), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "code", "text"),
    [
        (onnx_model("Neighbours", {"x": ["n", 8]}), "E103", "operand 'by' is missing"),
        (onnx_model("Doubled", {"x": ["n", 8], "z": [8]}), "E103", "takes 1 operands, got 2"),
        (onnx_model("Doubled", {"x": ["n", 8]}, far=1), "E102", "attribute 'far'"),
        (onnx_model("Doubled", {"x": [8]}), "E109", "must be f32 with 2 axes"),
        (onnx_model("Neighbours", {"x": ["n", 8], "by": [8]}, radius="a"), "E103", "type int"),
    ],
)
def test_wrong_uses_in_onnx_models_are_told(
    ops: Path, model: onnx.ModelProto, code: str, text: str
) -> None:
    aisc.load_operators(ops)
    with pytest.raises(CompileError, match=text) as caught:
        aisc.compile(model)
    assert caught.value.codes == (code,)


def test_files_import_operators_as_layers(ops: Path) -> None:
    text = 'import "own.aim"\nmodel m(x: f32[n, 8], by: f32[8]) { return Neighbours(x, by) }\n'
    g = graph_of(text, "m.aim", ops.parent, {})
    np.testing.assert_allclose(interpret(g, [X, BY])[0], neighbours(X, BY, 1, 1), rtol=1e-5)


WRONG_FILES = {
    "operator F(x: f32[n]) { return x }": ("E109", "does not say what it gives"),
    "layer f(x: f32[n]) { return x }": ("E109", "defines no operator"),
    "operator relu(x: f32[n]) -> f32[n] { return x }": ("E203", "an operator 'relu' already"),
    "operator F(x: f32[n) -> f32[n] { return x }": ("E107", "unexpected"),
}
WRONG_USES = {
    "param w: f32[8] = ones()\nreturn x * w": ("E109", "an operator has no parameters"),
    "return x[:, 0]": ("E109", "must be f32 with 2 axes"),
    "return xx": ("E108", "there is no name 'xx'"),
    "q = bind_dims(cast(x[0, 0:1], to=i64))\nreturn expand(x[0:1], shape=[q, 8])": (
        "E109", "depend on data",
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG_FILES)
def test_wrong_files_are_told(tmp_path: Path, text: str) -> None:
    code, words = WRONG_FILES[text]
    (tmp_path / "own.aim").write_text(text)
    with pytest.raises(CompileError, match=words) as caught:
        aisc.load_operators(tmp_path / "own.aim")
    assert caught.value.codes[0] == code


@pytest.mark.parametrize("body", WRONG_USES)
def test_faults_of_a_body_show_both_places(tmp_path: Path, body: str) -> None:
    code, words = WRONG_USES[body]
    path = tmp_path / "own.aim"
    path.write_text(f"operator F(x: t[n, k]) -> f32[n, k] {{\n{body}\n}}\n")
    aisc.load_operators(path)
    with pytest.raises(CompileError, match=words) as caught:
        graph("return F(x)", "x: f32[n, 8]")
    report = str(caught.value)
    assert caught.value.codes == (code,)
    assert "own.aim:" in report
    assert "in m.aim:2" in report


def test_all_faults_of_a_body_are_one_report(tmp_path: Path) -> None:
    path = tmp_path / "own.aim"
    path.write_text("operator F(x: t[n, k]) -> t[n, k] {\na = xx\nb = yy\nreturn x\n}\n")
    aisc.load_operators(path)
    with pytest.raises(CompileError) as caught:
        graph("return F(x)", "x: f32[n, 8]")
    assert caught.value.codes == ("E108", "E108")


def test_the_command_line_takes_operators(
    ops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(onnx_model("Doubled", {"x": ["n", 8]}), "m.onnx")
    Path("net.aim").write_text("model m(x: f32[n, 8]) { y = Doubled(x)\nreturn y }")
    np.save("x.npy", X)
    for model, code in (("m.onnx", 3), ("net.aim", 1)):
        with pytest.raises(SystemExit) as ended:
            main(["check", model])
        assert ended.value.code == code
        for command in (
            ["compile", model, "--ops", "own.aim", "-o", "net.aisc"],
            ["run", "net.aisc", "--input", "x=@x.npy", "--output", "y=@y.npy"],
            ["check", model, "--ops", "own.aim"],
        ):
            with pytest.raises(SystemExit) as ended:
                main(command)
            assert not ended.value.code, command
        np.testing.assert_array_equal(np.load("y.npy"), X + X)
        opdef.remove_custom("Doubled")
    capsys.readouterr()


def test_what_own_operators_mean_is_not_kept_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path / "cache"))
    model = tmp_path / "net.aim"
    model.write_text("model m(x: f32[n, 8]) { return F(x) }")
    for factor in (2, 3):
        (tmp_path / "own.aim").write_text(
            f"operator F(x: f32[n, k]) -> f32[n, k] {{ return x * {factor} }}"
        )
        aisc.load_operators(tmp_path / "own.aim")
        np.testing.assert_array_equal(aisc.compile(model, threads=1)(X), X * np.float32(factor))


# --- classes ------------------------------------------------------------------------------------
def blend() -> type:
    @aisc.operator
    class Blend:
        """``alpha * a + (1 - alpha) * b``."""

        alpha: float = 0.5

        def infer(self, a: TensorType, b: TensorType) -> TensorType:
            return a

        def scalar(self, a: Expr, b: Expr) -> Expr:
            return a * self.alpha + b * (1 - self.alpha)

    return Blend


def row_sum() -> type:
    @aisc.operator
    class RowSum:
        def infer(self, x: TensorType) -> TensorType:
            return TensorType(x.shape[:1], x.dtype)

        def compute(self, build: ComputeBuilder, x: Buffer, y: Buffer) -> None:
            build.reduce(y, x.shape[1:], "sum", lambda i, r: tensor.Load(x, (*i, *r)))

    return RowSum


def halves() -> type:
    @aisc.operator
    class Halves:
        results = 2
        at: int = 4

        def infer(self, x: TensorType) -> tuple[TensorType, TensorType]:
            width = x.shape[1]
            rest = width - self.at
            return TensorType((x.shape[0], self.at), x.dtype), TensorType(
                (x.shape[0], rest), x.dtype
            )

        def decompose(self, graph: GraphBuilder, x: Value) -> tuple[Value, Value]:
            rows, width = x.type.shape

            def part(low: object, high: object) -> Value:
                ends = {"starts": (0, low), "ends": (rows, high), "steps": (1, 1)}
                return graph.add("slice", (x,), ends)

            return part(0, self.at), part(self.at, width)

        def reference(self, x: Array) -> tuple[Array, Array]:
            return x[:, : self.at], x[:, self.at :]

    return Halves


def test_a_class_of_elements_is_a_map() -> None:
    blend()
    g = graph("return relu(Blend(x, x * by, alpha=0.25))")
    check(g, [X, BY], [np.maximum(X * np.float32(0.25) + X * BY * np.float32(0.75), 0)])
    (kernel,) = aisc.lower(g, "tensor").kernels  # type: ignore[union-attr]
    assert kernel.name == "k0_mul_Blend_relu"


def test_a_class_of_loops_is_scheduled_by_its_structure() -> None:
    row_sum()
    g = graph("return RowSum(x + x)", "x: f32[n, 8]")
    check(g, [X], [(2 * X).sum(1)])


def test_a_class_of_other_operators() -> None:
    halves()
    check(graph("a, b = Halves(x, at=3)\nreturn b, a", "x: f32[n, 8]"), [X], [X[:, 3:], X[:, :3]])
    model = onnx_model("Halves", {"x": ["n", 8]}, at=3)
    np.testing.assert_array_equal(aisc.compile(model, threads=1)(X), X[:, :3])


def test_other_targets_take_own_operators() -> None:
    blend(), row_sum()
    g = graph("return RowSum(Blend(x, x * by))")
    got = aisc.compile(g, "nvidia_sm90", threads=1)(X, BY)
    np.testing.assert_allclose(got, ((X + X * BY) / 2).sum(1), rtol=1e-5, atol=1e-5)


class NoWay:
    def infer(self, x: TensorType) -> TensorType:
        return x


class TwoWays(NoWay):
    def scalar(self, x: Expr) -> Expr:
        return x

    def compute(self, build: ComputeBuilder, x: Buffer, y: Buffer) -> None: ...


class OddAttribute(NoWay):
    table: dict[str, int] = {}  # noqa: RUF012

    def scalar(self, x: Expr) -> Expr:
        return x


@pytest.mark.parametrize("cls", [NoWay, TwoWays, OddAttribute], ids=lambda c: c.__name__)
def test_classes_that_say_too_little_are_refused(cls: type) -> None:
    with pytest.raises(CompileError, match=cls.__name__) as caught:
        aisc.operator(cls)
    assert caught.value.codes == ("E203",)


FAULTY: dict[str, dict[str, Callable[..., Any]]] = {
    "'infer' failed": {"infer": lambda self, x: 1 // 0},
    "'infer' gives no types": {"infer": lambda self, x: 3},
    "must follow from": {"infer": lambda self, x: TensorType((aisc.tensor.symbol("q"),), x.dtype)},
    "'scalar' must give": {"scalar": lambda self, x: 3},
}


@pytest.mark.parametrize("text", FAULTY)
def test_faults_of_methods_are_told_at_the_node(text: str) -> None:
    methods = {"infer": lambda self, x: x, "scalar": lambda self, x: x} | FAULTY[text]
    aisc.operator(type("Odd", (), methods))
    with pytest.raises(CompileError, match=text) as caught:
        aisc.compile(graph("return Odd(x)"), cache=False)
    assert caught.value.codes == ("E203",)
    assert "m.aim:2" in str(caught.value)


def test_packages_offer_operators(ops: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered: dict[str, Callable[[], object]] = {
        "RowSum": row_sum, "Doubled": lambda: ops, "Odd": lambda: "".join,
    }  # fmt: skip
    find = plugins.find

    def found(group: plugins.Group, name: str) -> Any:
        return offered[name]() if group == "ops" and name in offered else find(group, name)

    monkeypatch.setattr(plugins, "find", found)
    check(graph("return RowSum(Doubled(x))", "x: f32[n, 8]"), [X], [(2 * X).sum(1)])
    with pytest.raises(CompileError, match="gives no operator 'Odd'"):
        graph("return Odd(x)")
    monkeypatch.undo()
