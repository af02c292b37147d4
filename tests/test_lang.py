"""The model language: what files mean, what is told about those that mean nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import language
import numpy as np
import pytest
from safetensors.numpy import save_file

import aisc
from aisc.cli.main import main
from aisc.frontend.lang import hints, operators
from aisc.frontend.lang.analysis import analysed
from aisc.frontend.lang.formatting import formatted
from aisc.frontend.lang.model import graph_of, parts
from aisc.frontend.lang.parameters import STARTS
from aisc.frontend.lang.reading import MAX_FAULTS, read, tokens
from aisc.ir.arith.poly import symbol
from aisc.ir.diagnostics import AiscWarning, CompileError
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.same import same
from aisc.ir.location import Loc
from aisc.ir.text.parser import parse
from aisc.ir.text.printer import print_ir
from aisc.ir.text.source import Source
from aisc.lsp import answers

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples" / "lang").glob("*.aim"))
rng = np.random.default_rng(0)
X = rng.standard_normal((3, 8)).astype(np.float32)
Y = rng.standard_normal((8, 5)).astype(np.float32)
K = np.arange(6).astype(np.float32)


def graph(body: str, head: str = "x: f32[n, 8], y: f32[8, 5]", before: str = "") -> Graph:
    """The graph of a model with a body."""
    text = f"{before}\nmodel m({head}) {{\n{body}\n}}\n"
    return graph_of(text, "m.aim", Path(), {})


def run(body: str, *inputs: Any, head: str = "", before: str = "") -> list[Any]:
    heads = {2: "x: f32[n, 8], y: f32[8, 5]", 1: "x: f32[n, 8]"}
    return interpret(graph(body, head or heads[len(inputs)], before), list(inputs))


# --- expressions -----------------------------------------------------------------------------
EXPRESSIONS: dict[str, Callable[[Any, Any], Any]] = {
    "x @ y": lambda x, y: x @ y,
    "x * 2 + 1.5 - x / 4": lambda x, y: x * 2 + np.float32(1.5) - x / 4,
    "-x ** 2": lambda x, y: -(x**2),
    "(x > 0) and not (x > 1)": lambda x, y: (x > 0) & ~(x > 1),
    "x != x[0, 0]": lambda x, y: x != x[0, 0],
    "x if x > 0 else 0": lambda x, y: np.where(x > 0, x, 0),
    "x // 0.5": lambda x, y: np.floor(x / np.float32(0.5)),
    "x % 0.5": lambda x, y: x - np.floor(x / np.float32(0.5)) * np.float32(0.5),
    "x[:, 0]": lambda x, y: x[:, 0],
    "x[-1]": lambda x, y: x[-1],
    "x[:, ::-1]": lambda x, y: x[:, ::-1],
    "x[:, 1:-2:2]": lambda x, y: x[:, 1:-2:2],
    "x[:, 5:2]": lambda x, y: x[:, 5:2],
    "x[:, -100:100]": lambda x, y: x[:, -100:100],
    "x[1:, 2:4]": lambda x, y: x[1:, 2:4],
    "y[0:7:3, 2]": lambda x, y: y[0:7:3, 2],
    "reshape(x, shape=[-1, 4])": lambda x, y: x.reshape(-1, 4),
    "reshape(x, shape=[x.shape[0], 2, 8 // 2])": lambda x, y: x.reshape(3, 2, 4),
    "concat(x, x, axis=1)": lambda x, y: np.concatenate([x, x], 1),
    "transpose(y, perm=[1, 0])": lambda x, y: y.T,
    "reduce_sum(x, axes=[1], keepdims=false)": lambda x, y: x.sum(1),
    "cast(x, to=i32)": lambda x, y: x.astype(np.int32),
    "layer_norm(x, axis=1)": lambda x, y: (
        (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    ),
    "x * x.rank": lambda x, y: x * 2,
    "x * (1 if x.rank == 2 and true else 3)": lambda x, y: x,
    "clip(x, max=0.5)": lambda x, y: np.minimum(x, 0.5),
}


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expressions_mean_what_numpy_does(text: str) -> None:
    (got,) = run(f"return {text}", X, Y)
    want = EXPRESSIONS[text](X, Y)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert got.shape == want.shape


@pytest.mark.parametrize("a", [7, -7])
def test_whole_numbers_divide_downwards(a: int) -> None:
    k = np.array([a, a + 1], np.int64)
    got = run("return k // 3, k % 3, k * 2", k, head="k: i64[n]")
    for one, want in zip(got, (k // 3, k % 3, k * 2), strict=True):
        np.testing.assert_array_equal(one, want)


def test_indices_may_be_computed() -> None:
    (got,) = run("return x[k, 1]", X, np.array([2, 0]), head="x: f32[n, 8], k: i64[m]")
    np.testing.assert_array_equal(got, X[[2, 0], 1])


def test_several_results() -> None:
    values, places = run("a, b = top_k(x, k=[2], axis=1)\nreturn a, b", X)
    np.testing.assert_array_equal(values, -np.sort(-X, 1)[:, :2])
    np.testing.assert_array_equal(np.take_along_axis(X, places, 1), values)


# --- layers and parameters -------------------------------------------------------------------
DENSE = """seed 3
layer dense(x: f32[n, k], out: int, bias: bool = true) -> f32[n, out] {
    param w: f32[k, out] = normal()
    y = x @ w
    if bias {
        param b: f32[out] = full(0.5)
        y = y + b
    }
    return y
}
"""


def constants(g: Graph) -> list[np.ndarray]:
    return [n.attr("value").array for n in g.nodes if n.op == "constant"]  # type: ignore[union-attr]


def test_parameters_are_made_from_seed_and_path_alone() -> None:
    one = graph("return dense(x, out=4) as a", "x: f32[n, 8]", DENSE)
    more = graph(
        "b = dense(x, out=4) as b\nreturn b + (dense(x, out=4) as a)", "x: f32[n, 8]", DENSE
    )
    w, bias = constants(one)
    assert any(np.array_equal(w, c) for c in constants(more))
    assert not np.array_equal(w, constants(more)[0])
    np.testing.assert_array_equal(bias, np.full(4, 0.5, np.float32))
    other = graph("return dense(x, out=4) as a", "x: f32[n, 8]", DENSE.replace("seed 3", "seed 4"))
    assert not np.array_equal(w, constants(other)[0])


def test_hyper_parameters_decide() -> None:
    (got,) = run("return dense(x, 4, bias=false)", X, before=DENSE)
    (want,) = run("return dense(x, 4) - 0.5", X, before=DENSE)
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("name", STARTS)
def test_every_start_fills_its_parameter(name: str) -> None:
    call = f"{name}(2)" if name == "full" else f"{name}()"
    (w,) = constants(graph(f"param w: f32[8, 3] = {call}\nreturn x @ w", "x: f32[n, 8]"))
    assert w.shape == (8, 3)
    assert np.isfinite(w).all()


def test_weights_come_from_a_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **{"a.0.w": Y, "a.0.b": np.ones(5, np.float32)})
    text = f'weights "w.npz"\n{DENSE}model m(x: f32[n, 8]) {{ return dense(x, out=5) as a[0] }}'
    (got,) = interpret(graph_of(text, "m.aim", tmp_path, {}), [X])
    np.testing.assert_allclose(got, X @ Y + 1, rtol=1e-5)
    np.savez(tmp_path / "w.npz", **{"a.0.w": Y.T, "a.0.b": np.ones(5, np.float32)})
    with pytest.raises(CompileError, match=r"holds float32\[5, 8\]") as caught:
        graph_of(text, "m.aim", tmp_path, {})
    assert caught.value.codes == ("E109",)


def test_what_a_file_of_weights_lacks_or_has_too_much_is_told(tmp_path: Path) -> None:
    body = "y = dense(x, out=5) as a\nparam v: f32[5]\nreturn y * v"
    text = f'weights "w.npz"\n{DENSE}model m(x: f32[n, 8]) {{\n{body}\n}}\n'
    one = np.ones(5, np.float32)
    for arrays, told in (
        ({"a.w": Y, "v": one.astype(np.float64)}, ["w.npz holds float64[5]", "np.float32"]),
        ({"a.w": Y, "a.b": one}, ["'v' has no contents", "none of this name"]),
        ({"a.w": Y, "vv": one}, ["'v' has no contents", "w.npz has vv"]),
    ):
        np.savez(tmp_path / "w.npz", **arrays)
        with pytest.raises(CompileError) as caught:
            graph_of(text, "m.aim", tmp_path, {})
        assert all(part in str(caught.value) for part in told), str(caught.value)
    np.savez(tmp_path / "w.npz", **{"a.w": Y, "v": one, "a.c": one})
    with pytest.warns(AiscWarning, match=r"1 arrays of w.npz are not used: a\.c"):
        graph_of(text, "m.aim", tmp_path, {})
    (tmp_path / "w.npz").unlink()
    with pytest.raises(CompileError) as caught:
        graph_of(text.replace("x @ w", "x @ ww"), "m.aim", tmp_path, {})
    assert set(caught.value.codes) == {"E104", "E108"}, "other faults are told as well"


def test_weights_come_from_safetensors(tmp_path: Path) -> None:
    save_file({"a.w": Y, "a.b": np.ones(5, np.float32)}, tmp_path / "w.safetensors")
    head = f'weights "w.safetensors"\n{DENSE}'
    text = f"{head}model m(x: f32[n, 8]) {{ return dense(x, out=5) as a }}"
    (got,) = interpret(graph_of(text, "m.aim", tmp_path, {}), [X])
    np.testing.assert_allclose(got, X @ Y + 1, rtol=1e-5)


def test_layers_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "layers.aim").write_text(DENSE + "model other(x: f32[n]) { return x }")
    (tmp_path / "more.aim").write_text('import "layers.aim"\nimport "m.aim"')
    text = 'import "more.aim"\nimport "layers.aim"\nmodel m(x: f32[n, 8]) { return dense(x, 3) }'
    (tmp_path / "m.aim").write_text(text)
    assert aisc.compile(tmp_path / "m.aim", threads=1)(X).shape == (3, 3)
    (tmp_path / "layers.aim").write_text(DENSE.replace("x @ w", "x @ ww"))
    with pytest.raises(CompileError, match="there is no name 'ww'") as caught:
        graph_of(text, "m.aim", tmp_path, {})
    (d,) = caught.value.diagnostics
    assert (d.loc.file, d.loc.line) == ("layers.aim", 4)
    assert "y = x @ ww" in d.notes[0]
    for name in ("none.aim", "../m.aim"):
        with pytest.raises(CompileError) as caught:
            graph_of(f'import "{name}"', "m.aim", tmp_path, {})
        assert caught.value.codes == ("E104",)


@pytest.mark.parametrize(
    "name", ["none.npz", "../w.npz", "text.npz", "text.safetensors", "w.bin", "/etc/passwd", "\0"]
)
def test_files_of_weights_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    inner = tmp_path / "inner"
    inner.mkdir()
    for kind in ("npz", "safetensors"):
        (inner / f"text.{kind}").write_text("no archive")
    np.savez(tmp_path / "w.npz", w=Y)
    text = f"weights {json.dumps(name)}\nmodel m(x: f32[n]) {{ return x }}"
    with pytest.raises(CompileError) as caught:
        graph_of(text, "m.aim", inner, {})
    assert caught.value.codes == ("E104",)


def test_sizes_are_bound_and_tested() -> None:
    pair = "layer pair(a: f32[k], b: f32[k]) -> f32[k] { return a + b }"
    g = graph("return pair(x, y)", "x: f32[n], y: f32[m]", pair)
    np.testing.assert_array_equal(interpret(g, [K[:3], K[3:]])[0], [3, 5, 7])
    with pytest.raises(aisc.ExecutionError):
        interpret(g, [K[:3], K[:2]])
    with pytest.raises(CompileError, match="a size must be 3, got 4"):
        graph("return pair(x, y)", "x: f32[3], y: f32[4]", pair)


# --- control flow ----------------------------------------------------------------------------
def test_branches_of_the_run_change_variables() -> None:
    body = """y = x
if reduce_sum(x, axes=[0, 1], keepdims=false) > 0 {
    y = y * 2
    z = y + 1
} else if x[0, 0] > 0 { z = x } else {
    z = x - 1
}
return y, z"""
    for sign in (1, -1):
        x = (np.abs(X) * sign).astype(np.float32)
        y, z = run(body, x)
        np.testing.assert_array_equal(y, x * 2 if sign > 0 else x)
        np.testing.assert_array_equal(z, x * 2 + 1 if sign > 0 else x - 1)


def test_the_run_compares_open_sizes() -> None:
    body = "y = x\nif n > 2 { y = y * 2 }\nif 3 == n { y = y + 1 }\nreturn y"
    for n, want in ((2, X[:2]), (3, X * 2 + 1)):
        np.testing.assert_array_equal(run(body, X[:n])[0], want)
    turns = "t = 0\nwhile t < n { t = t + 1 }\nreturn t"
    assert run(turns, X) == [3]
    with pytest.raises(CompileError, match="is expected, got a tensor"):
        graph("return reshape(x, shape=[n > 2])", "x: f32[n, 8]")


def test_loops_of_the_run_carry_what_they_assign() -> None:
    body = """total = 0
step = 1
while total < limit {
    for i in 0..2 { total = total + step }
    step = step + 1
}
return total, step"""
    total, step = run(body, np.array(7), head="limit: i64[]")
    assert (int(total), int(step)) == (12, 4)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_examples_compile_and_agree_with_the_interpreter(path: Path) -> None:
    exe = aisc.compile(path, threads=1, cache=False)
    g = graph_of(path.read_text(), str(path), path.parent, {})
    assert same(parse(print_ir(g), blobs={}) if not constants(g) else g, g)
    sizes = {"n": 2, "height": 17, "width": 20, "steps": 3}
    inputs = []
    for v in g.inputs:
        shape = tuple(sizes[str(d)] if not isinstance(d, int) else d for d in v.type.shape)
        values = np.abs(np.random.default_rng(1).standard_normal(shape)) * 2
        inputs.append(values.astype(v.type.dtype.numpy))
    got = exe(*inputs)
    for one, want in zip(
        got if isinstance(got, tuple) else (got,), interpret(g, inputs), strict=True
    ):
        np.testing.assert_allclose(one, want, rtol=1e-4, atol=1e-5)


def test_a_slice_of_a_parameter_bounds_an_open_size() -> None:
    """As of learned positions: more places than there are parameters fit no run."""
    g = graph("param w: f32[512, 8] = ones()\nreturn x + w[:n]", "x: f32[n, 8]")
    assert g.inputs[0].type.shape[0] == symbol("n", 0, 512)
    np.testing.assert_array_equal(interpret(g, [X])[0], X + 1)


def test_sizes_can_be_fixed_and_bounded() -> None:
    text = "model m(x: f32[n, 8]) { return x + 1 }"
    assert graph_of(text, "m.aim", Path(), {"n": 4}).inputs[0].type.shape == (4, 8)
    bounded = graph_of(text, "m.aim", Path(), {"n": (1, 9)}).inputs[0].type.shape[0]
    assert bounded == symbol("n", 1, 9)
    with pytest.raises(CompileError, match="dimensions: n") as caught:
        graph_of(text, "m.aim", Path(), {"q": 4})
    assert caught.value.codes == ("E106",)


# --- the formatter ---------------------------------------------------------------------------
MESSY = """
layer   dense( x:f32[n,k],out :int,bias:bool=true )->f32[n,out]{
  param w:f32[ k,out ]=normal( - 0.02,0 )   # weights


  y=x@w  *- 1+x [ : , -1 ] ** 2
      if bias and not(out>3){ y = y }else{
y = f( x,out = 3,
a=[1,2] ) as b [ i ] . c
}
  for i in 0 .. 12 { return y[1:2,::2] }
}
"""
NEAT = """layer dense(x: f32[n, k], out: int, bias: bool = true) -> f32[n, out] {
    param w: f32[k, out] = normal(-0.02, 0)  # weights

    y = x @ w * -1 + x[:, -1]**2
    if bias and not (out > 3) { y = y } else {
        y = f(x, out=3,
            a=[1, 2]) as b[i].c
    }
    for i in 0..12 { return y[1:2, ::2] }
}
"""


def test_the_formatter_has_one_form() -> None:
    assert formatted(MESSY) == NEAT
    assert formatted(NEAT) == NEAT


def test_lines_inside_of_brackets_may_begin_with_an_operator() -> None:
    text = """model m(x: f32[n]) {
    y = (x  # first
        - x * 2
        - -x)
    z = f(  # nothing before
        -x)
}
"""
    assert formatted(text.replace("- ", "-").replace("    ", " ")) == text


def placeless(x: Any) -> Any:
    """A tree without places."""
    if isinstance(x, tuple):
        return tuple(map(placeless, x))
    if isinstance(x, Loc):
        return None
    if dataclasses.is_dataclass(x):
        parts = {f.name: getattr(x, f.name) for f in dataclasses.fields(x)}
        return type(x).__name__, tuple(
            placeless(v) for k, v in parts.items() if k not in ("at", "name_at")
        )
    return x


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_formatting_changes_no_meaning(path: Path) -> None:
    text = path.read_text()
    want = placeless(read(Source(text)))
    dice = random.Random(0)
    loose = re.sub(r"(?m)^ +| (?=[-+*/@=(),\[\]])", lambda m: " " * dice.randrange(1, 4), text)
    for one in (text, loose):
        assert placeless(read(Source(formatted(one)))) == want
        assert formatted(formatted(one)) == formatted(one)


def test_fmt_rewrites_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.aim"
    path.write_text(MESSY)
    for words, code in (("--check", 1), ("", 0), ("--check", 0)):
        with pytest.raises(SystemExit) as end:
            main(["fmt", str(path), *words.split()])
        assert end.value.code == code
    assert path.read_text() == NEAT
    assert "-  y=x@w" in capsys.readouterr().out
    path.write_text("model (")
    with pytest.raises(CompileError):
        formatted(path.read_text())


# --- faults ----------------------------------------------------------------------------------
FAULTS = {
    "return relu(x": ("E107", "expected"),
    "return x $ y": ("E107", "unexpected '$'"),
    "return rellu(x)": ("E108", "did you mean relu"),
    "return xx": ("E108", "there is no name 'xx'"),
    "return x.size": ("E108", "there is no property 'size'"),
    "return softmax(x, axs=1)": ("E109", "it takes x, axis"),
    "return softmax(x, axis=1.5)": ("E109", "'axis' is of type int, got 1.5"),
    "return softmax(x, axis=5)": ("E203", "axis 5"),
    "return matmul(x)": ("E109", "needs the tensor 'b'"),
    "return relu(x, y)": ("E109", "takes 1 tensors"),
    "return y @ y": ("E201", "matmul"),
    "return x + cast(x, to=i32)": ("E109", "cast one of them"),
    "return cast(x, to=i32) + 1.5": ("E109", "1.5 is no i32"),
    "a, b = relu(x)\nreturn a": ("E109", "2 names for 1 results"),
    "return relu(x) as b": ("E109", "no parameters to name"),
    "param w: f32[n] = zeros()\nreturn w": ("E109", "must be known"),
    "param w: f32[4]\nreturn w": ("E109", "has no contents"),
    "param w: f32[4] = sevens()\nreturn w": ("E109", "there are zeros"),
    "param w: f32[4] = zeros()\nparam w: f32[4] = zeros()\nreturn w": ("E109", "two parameters"),
    "for i in 0..100000 { x = x + 1 }\nreturn x": ("E109", "too many"),
    "for i in 0..x { y = i }\nreturn y": ("E109", "how often is not known"),
    "if x > 0 { y = x }\nreturn y": ("E109", "a condition must be bool[]"),
    "return x[9, 9]": ("E109", "outside of axis"),
    "return x[0, 0, 0]": ("E109", "3 indices"),
    "return x[1.5]": ("E109", "whole number"),
    "return x[::0]": ("E109", "a step must be"),
    "return 1 // 0": ("E109", "floordiv"),
    "return x * 2 ** 100000 ** 2": ("E109", "pow"),
    "return [1, 2][7] * x": ("E109", "outside of a list"),
    "y = 3": ("E109", "returns nothing"),
    "return m(x, y)": ("E109", "deep"),
}


@pytest.mark.parametrize("body", FAULTS)
def test_faults_are_told_at_their_place(body: str) -> None:
    code, text = FAULTS[body]
    with pytest.raises(CompileError, match=re.escape(text)) as caught:
        graph(body)
    assert caught.value.codes == (code,)
    (d,) = caught.value.diagnostics
    assert d.loc.file == "m.aim"
    assert d.loc.line > 0
    assert d.notes[0].endswith("^"), "the line with a caret"


HABITS = {
    "return sum(x)": "here: reduce_sum",
    "return x.reshape(4)": "there are no methods: reshape(x)",
    "x += 1\nreturn x": "write it out: x = x + 1",
    "for i in range(3) { x = x + 1 }\nreturn x": "for i in 0..3",
    "if true: return x": "a block stands in braces",
    "return relu(x);": "the end of a line",
    "s = 'text'\nreturn x": "between double quotes",
    "let z = x\nreturn z": "without a word before it",
    "return float(x)": "cast(x, to=f32)",
    "return cast(x, to=float16)": "here: f16",
    "return concat([x, x], axis=1)": "concat(a, b, axis=0)",
    "return reshape(x, [n, 2, 4])": "given by name: reshape(x, shape=…)",
    "return reduce_mean(x)": "it takes x, axes: ints, keepdims: bool",
    "return reduce_mean(x, axes=1)": "a list: axes=[1]",
    "return x.values": "tensors have shape, rank and dtype",
}


@pytest.mark.parametrize("body", HABITS)
def test_habits_of_other_languages_get_a_hint(body: str) -> None:
    with pytest.raises(CompileError, match=re.escape(HABITS[body])):
        graph(body)


def test_hints_name_what_there_is() -> None:
    for name, hint in hints.ELSEWHERE.items():
        assert not operators.exists(name)
        for used in re.findall(r"(\w+)\(", hint):
            assert operators.exists(used), hint


def test_all_faults_of_a_file_come_together_and_once() -> None:
    body = "a = rellu(x)\nb = a + x\nc = softmax(b, axs=1)\nd = x[9, 9]\nreturn c + d"
    with pytest.raises(CompileError) as caught:
        graph(body)
    assert caught.value.codes == ("E108", "E109")


SYNTAX = """layer a(x: f32[n]) {
    y = x + * 2
    z = relu(y))
    if y = 3 {
        u = 1 +
        w = 2
    } else if {
        w = = 3
    }
    return y
}

model m(x: f32[n]) {
    return a(x) as
}
"""


def test_faults_of_syntax_come_together() -> None:
    """Reading goes on behind the statement, in its block."""
    with pytest.raises(CompileError) as caught:
        graph_of(SYNTAX, "m.aim", Path(), {})
    assert set(caught.value.codes) == {"E107"}
    assert [d.loc.line for d in caught.value.diagnostics] == [2, 3, 4, 5, 7, 8, 15]


@pytest.mark.parametrize(
    ("statement", "line", "text"),
    [
        ("y = relu(x", 4, "'(' of line 3 is still open"),
        ("y = concat(x,\n1 + * 2,\naxis=1)", 4, "unexpected '*'"),
        ("y = relu(x))", 3, "unexpected ')'"),
    ],
)
def test_a_bracket_too_few_or_too_many_is_one_fault(statement: str, line: int, text: str) -> None:
    with pytest.raises(CompileError, match=re.escape(text)) as caught:
        graph(f"{statement}\nz = x + 1\nreturn z")
    assert [d.loc.line for d in caught.value.diagnostics] == [line]


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("", "E109", "a file has one model"),
        ("model a() { return 1 }\nmodel b() { return 1 }", "E109", "got a, b"),
        (
            "layer a() { return 1 }\nlayer a() { return 1 }\nmodel m() { return a() }",
            "E109",
            "twice",
        ),
        ("model m(k: int) { return k }", "E109", "an input of a model is a tensor"),
        ("model m(x: int[3]) { return x }", "E109", "no elements of type int"),
        ("model m(x: f32[-1]) { return x }", "E109", "a size must be a whole number"),
        ("model m(x: f32[n]) -> f32[3, n] { return x }", "E109", "must be f32 with 2 axes"),
        ("model m(x: f32[n]) -> f32[n], f32[n] { return x }", "E109", "returns 1 values"),
        ("(" * 5000, "E107", "nested too deeply"),
        ("model m(x: f32[n]) { return " + "-" * 5000 + "x }", "E107", "nested too deeply"),
        ("model m(x: f32[n]) { return x * " + "9" * 500 + " }", "E109", "too large"),
    ],
)
def test_files_that_define_nothing(text: str, code: str, message: str) -> None:
    with pytest.raises(CompileError, match=message) as caught:
        graph_of(text, "m.aim", Path(), {})
    assert set(caught.value.codes) == {code}


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "bad.aim").write_bytes(b"model m() {\xff}")
    for name, message in (("bad.aim", "no UTF-8"), ("none.aim", "no such file"), (".", "unknown")):
        with pytest.raises(CompileError, match=message) as caught:
            aisc.compile(tmp_path / name)
        assert caught.value.codes == ("E101",)


def calls(action: Callable[[], object]) -> int:
    """How many functions are called: work that no clock measures."""
    count = 0

    def counted(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("kind", ["good", "faulty"])
def test_the_work_of_reading_grows_with_the_length(kind: str) -> None:
    def work(lines: int) -> tuple[int, int]:
        text = language.model(lines)
        if kind == "faulty":
            text = text.replace("return x\n", "return x +\n")
        return calls(lambda: list(tokens(text))), calls(lambda: refused_or_graph(text))

    refused_or_graph(language.model(40))  # whatever is made once
    one, two = work(200), work(400)
    assert all(b < 2.2 * a for a, b in zip(one, two, strict=True)), (one, two)


def test_many_faults_cost_no_reading_of_the_whole_again() -> None:
    text = language.model(600)
    faulty = text.replace("sqrt(", "sqrt((")
    assert faulty.count("sqrt((") > MAX_FAULTS
    once = calls(lambda: read(Source(text)))
    with pytest.raises(CompileError) as caught:
        read(Source(faulty))
    assert len(caught.value.diagnostics) == MAX_FAULTS
    assert calls(lambda: refused_or_graph(faulty)) < 2 * once


def refused_or_graph(text: str) -> None:
    with contextlib.suppress(CompileError):
        graph_of(text, "m.aim", Path(), {})


def test_texts_without_an_end_are_looked_at_once(tmp_path: Path) -> None:
    """Quadratic work would take minutes here."""
    with pytest.raises(CompileError, match="unexpected '\"'"):
        read(Source('"' + '\\"' * 500_000))
    (tmp_path / "blank.aim").write_text("\n" * 500_000)
    assert parts(tmp_path / "blank.aim") == ()


TOKENS = re.compile(r'"[^"\n]*"|\w+|\n|[^\s\w]')


def mutated(seed: int) -> str:
    """An example with tokens dropped, doubled, swapped or replaced."""
    dice = random.Random(seed)
    parts = TOKENS.findall(dice.choice(EXAMPLES).read_text())
    for _ in range(dice.randint(1, 4)):
        k = dice.randrange(len(parts))
        match dice.randrange(5):
            case 0:
                del parts[k]
            case 1:
                parts.insert(k, parts[k])
            case 2:
                j = dice.randrange(len(parts))
                parts[k], parts[j] = parts[j], parts[k]
            case 3:
                parts[k] = dice.choice(
                    ["(", "]", "}", "{", "1e400", "9" * 30, "\x00", "é", '"', "as"]
                )
            case _:
                parts[k] = dice.choice(parts)
    return " ".join(parts)


@pytest.mark.parametrize("start", range(0, 100, 20))
def test_mutated_files_are_compiled_or_refused(start: int) -> None:
    for seed in range(start, start + 20):
        check_mutated(seed)


@pytest.mark.slow
def test_many_mutated_files_are_compiled_or_refused() -> None:
    for seed in range(100, 700):
        check_mutated(seed)


def check_mutated(seed: int) -> None:
    text, places = mutated(seed), []
    try:
        graph_of(text, "m.aim", Path(), {})
    except CompileError as report:
        places = [d.loc for d in report.diagnostics]
    assert all(p.file == "m.aim" and p.line > 0 for p in places), seed
    found = analysed(text, "m.aim", Path())
    assert bool(found.diagnostics) == bool(places) or "model" not in text, seed
    assert all(answers.hover(found, m) for m in found.mentions), seed
