"""Sizes in the model language: bounds, those of the run, what is computed with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors import deserialize

import aisc
from aisc.frontend.lang.model import graph_of
from aisc.frontend.lang.parameters import safetensors_of
from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.diagnostics import CompileError, ExecutionError
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret

X = np.arange(12, dtype=np.float32).reshape(3, 4)


def graph(body: str, head: str = "x: f32[n, 4]") -> Graph:
    return graph_of(f"model m({head}) {{\n{body}\n}}\n", "m.aim", Path(), {})


def run(body: str, *inputs: Any, head: str = "x: f32[n, 4]") -> list[Any]:
    return interpret(graph(body, head), list(inputs))


def test_sizes_have_bounds() -> None:
    text = "model m(x: f32[n in 1..65, 4], y: f32[n]) { return x }"
    assert graph_of(text, "m.aim", Path(), {}).inputs[1].type.shape == (symbol("n", 1, 64),)
    narrow = graph_of(text, "m.aim", Path(), {"n": (0, 8)}).inputs[0].type.shape[0]
    assert narrow == symbol("n", 1, 8)
    assert graph_of(text, "m.aim", Path(), {"n": 64}).inputs[0].type.shape == (64, 4)
    with pytest.raises(CompileError, match="must be from 1 to 64, got 65"):
        graph_of(text, "m.aim", Path(), {"n": 65})


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("min(n, 2)", 2), ("max(n, 5)", 5), ("ceildiv(n, 2)", 2), ("min(n * 2, n + 1, 9)", 4),
        ("n // max(n - 1, 1)", 1), ("n % max(n - 1, 1)", 1), ("ceildiv(7, max(n, 1))", 3),
        ("max(0.5, 2)", 2), ("ceildiv(7, 2)", 4),
    ],
)  # fmt: skip
def test_functions_of_sizes(text: str, want: int) -> None:
    (got,) = run(f"return cast({text}, to=i64)", X)
    assert int(got) == want


def test_sizes_of_the_run() -> None:
    body = """mask = x[0] > 1
count = bind_dims(reduce_sum(cast(mask, to=i64), axes=[0]), most=[4])
places = true_places(mask, size=[count])
return x[:, places], reshape(sizes(values=[count, n]), shape=[2, 1])"""
    values, found = run(body, X)
    np.testing.assert_array_equal(values, X[:, 2:])
    np.testing.assert_array_equal(found, [[2], [3]])
    got = aisc.compile(graph(body), threads=1, cache=False)(X)
    np.testing.assert_array_equal(got[0], values)


def test_what_the_run_tests() -> None:
    body = 'y = assume(x, shape=[3, 4])\nreturn expect(y, y[0, 0] < 1, message="too large")'
    np.testing.assert_array_equal(run(body, X)[0], X)
    for wrong in (X[:2], X + 1):
        with pytest.raises(aisc.ExecutionError):
            run(body, wrong)


def test_results_of_unknown_size() -> None:
    body = "values, places, back, counts = unique(x)\nreturn values, counts"
    values, counts = run(body, np.float32([3, 1, 3]), head="x: f32[n]")
    assert (list(values), list(counts)) == ([1, 3], [1, 2])


FAULTS = {
    "a = bind_dims(x)\nreturn x": "takes i64[n] of a known length",
    "a = bind_dims(3)\nreturn x": "takes a vector",
    "a = bind_dims(cast(x[0], to=i64), most=3)\nreturn x": "a list of 4 numbers",
    "a = bind_dims(cast(x[0], to=i64), most=[1, 2, 3])\nreturn x": "a list of 4 numbers",
    "a = bind_dims(cast(x[0], to=i64), many=[1])\nreturn x": "takes no 'many'",
    "a = bind_dims(cast(x[0], to=i64))\nreturn x": "1 names for 4 results",
    "return x * min(n, 0.5)": "min does not take",
    "return x * ceildiv(n, 2, 3)": "ceildiv does not take",
    "return reshape(x, shape=[n // n * 4 * n])": "at least 1",
    "return ceildiv(x, 2)": "ceildiv does not take f32[n, 4] and 2",
    "return assume(x, shape=[n, 5])": "assume",
}


@pytest.mark.parametrize("body", FAULTS)
def test_faults_of_sizes(body: str) -> None:
    with pytest.raises(CompileError, match=re.escape(FAULTS[body])):
        graph(body)


@pytest.mark.parametrize(
    ("head", "text"),
    [
        ("x: f32[n in 3..3]", "bad bounds"), ("x: f32[n in 0..n]", "there is no name 'n'"),
        ("x: f32[n], y: f32[n in 0..3]", "is known already"), ("x: f32[n in 0..1.5]", "bounds are"),
        ("x: f32[n in 0..9999999999]", "bad bounds"),
    ],
)  # fmt: skip
def test_faults_of_bounds(head: str, text: str) -> None:
    with pytest.raises(CompileError, match=re.escape(text)):
        graph("return x", head)
    text = "layer a(x: f32[k in 0..3]) { return x }\nmodel m(x: f32[n]) { return a(x) }"
    with pytest.raises(CompileError, match="only inputs of a model"):
        graph_of(text, "m.aim", Path(), {})


WORDS = "f16 bf16 f32 f64 i8 i16 i32 i64 u8 u16 u32 u64 bool"
ELEMENTS = WORDS.split()


def test_weights_of_every_element_type(tmp_path: Path) -> None:
    arrays = {n: np.arange(6).reshape(2, 3).astype(dtypes.dtype(n).numpy) for n in ELEMENTS}
    lines = [f"param {n}_: {n}[2, 3]" for n in ELEMENTS]
    renamed = {f"{n}_": a for n, a in arrays.items()}
    (tmp_path / "w.safetensors").write_bytes(safetensors_of(renamed))
    text = "\n".join([*lines, "return " + ", ".join(renamed)])
    text = f'weights "w.safetensors"\nmodel m(x: f32[n]) {{\n{text}\n}}'
    found = interpret(graph_of(text, "m.aim", tmp_path, {}), [X[0]])
    for name, got in zip(ELEMENTS, found, strict=True):
        assert got.dtype == dtypes.dtype(name).numpy
        np.testing.assert_array_equal(got, arrays[name])


def test_files_of_weights_are_read_by_their_package() -> None:
    arrays = {"a": np.zeros((2, 0), np.float32), "b": np.ones(3, ml_dtypes.bfloat16)}
    found = dict(deserialize(safetensors_of(arrays)))
    assert [(n, found[n]["dtype"], found[n]["shape"]) for n in "ab"] == [
        ("a", "F32", [2, 0]), ("b", "BF16", [3]),
    ]  # fmt: skip


# --- requirements -----------------------------------------------------------------------------
def test_sizes_that_must_be_equal_are_one() -> None:
    g = graph("require n == 2 * m\ny[i, j] = a[i, j] + b[i // 2, j]\nreturn y, n",
              "a: f32[n, 4], b: f32[m, 4]")  # fmt: skip
    assert str(g.outputs[0].type) == "f32[2*m, 4]"
    a, b = np.ones((6, 4), np.float32), np.arange(12, dtype=np.float32).reshape(3, 4)
    exe = aisc.compile(g, threads=1, cache=False)
    for got in (interpret(g, [a, b])[0], exe(a, b)[0]):
        np.testing.assert_array_equal(got, a + np.repeat(b, 2, 0))
    for run_it in (lambda: interpret(g, [a[:5], b]), lambda: exe(a[:5], b)):
        with pytest.raises(ExecutionError, match=r"2\*m"):
            run_it()


@pytest.mark.parametrize(
    "cond", ["n % 2 == 0", "n > 2 and n <= 8", "reduce_max(x, axes=[0], keepdims=false) < 9"]
)
def test_what_a_model_requires_is_tested_by_the_run(cond: str) -> None:
    g = graph(f'require {cond}, "so many"\nreturn x * 2', "x: f32[n]")
    exe = aisc.compile(g, threads=1, cache=False)
    good, bad = np.zeros(4, np.float32), np.full(11, 9, np.float32)
    for call in (lambda x: interpret(g, [x])[0], exe):
        np.testing.assert_array_equal(call(good), good)
        with pytest.raises(ExecutionError, match="so many"):
            call(bad)


REQUIREMENTS = {
    'require x.rank == 3, "an image"': ("E109", "an image"),
    "require x.shape[1] == 8\nreturn x": ("", ""),
    "require x.shape[1] == 9": ("E109", "8 is not 9"),
    "require n": ("E109", "a condition must be bool"),
    "require zz > 0": ("E108", "no name 'zz'"),
    "require n == 3.5": ("E109", "does not hold"),
    "require": ("E107", "unexpected"),
}


@pytest.mark.parametrize("body", REQUIREMENTS)
def test_requirements_that_cannot_hold_are_told(body: str) -> None:
    code, text = REQUIREMENTS[body]
    if not code:
        graph(body, "x: f32[n, 8]")
        return
    with pytest.raises(CompileError, match=text) as caught:
        graph(f"{body}\nreturn x", "x: f32[n, 8]")
    assert caught.value.codes == (code,)
    assert caught.value.diagnostics[0].loc.line == 2
