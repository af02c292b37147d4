"""What `aisc` offers at its top: names, functions and schedules as callables, calls by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aisc
from aisc import tensor
from aisc.ir.types import TensorType
from aisc.tensor import ComputeBuilder, Func, Load, buffer, f32, symbol

DIGITS: Any = str(Path(__file__).resolve().parent.parent / "examples" / "digits" / "digits.onnx")
rng = np.random.default_rng(0)
A, B = (rng.standard_normal((20, 20)).astype(np.float32) for _ in range(2))


def product(role: Any = "weight") -> Func:
    """``c = a @ b`` with any number of rows."""
    n = symbol("n")
    a, b = buffer("a", f32, (n, 20), "input"), buffer("b", f32, (20, 20), role)
    c = buffer("c", f32, (n, 20), "output")
    cb = ComputeBuilder()
    cb.reduce(c, (20,), "sum", lambda i, k: Load(a, (i[0], k[0])) * Load(b, (k[0], i[1])), "mm")
    return cb.func("product", (a, b, c), (tensor.Var("n"),))


def packed() -> Any:
    return aisc.Schedule.of(product()).pack("b", 1, 4, (1, 0, 2))


def test_names_are_there_and_complete() -> None:
    assert set(aisc.__all__) <= set(dir(aisc))
    for name in aisc.__all__:
        assert getattr(aisc, name).__doc__, name
    for name in tensor.__all__:
        assert hasattr(tensor, name), name


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 20])
def test_functions_are_callable(rows: int, given: bool, threads: int) -> None:
    weights = {"b": B} if given else {}
    exe = aisc.build(product(), threads=threads, weights=weights)
    got = exe(A[:rows]) if given else exe(A[:rows], B)
    np.testing.assert_allclose(got, A[:rows] @ B, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("given", [True, False])
def test_schedules_are_callable_as_they_stand(given: bool) -> None:
    s = aisc.Schedule.of(product()).reorder("mm_i0", "mm_r_i0", "mm_i1")
    exe = aisc.build(s, weights={"b": B} if given else None)
    got = exe(A) if given else exe(A, B)
    np.testing.assert_allclose(got, A @ B, rtol=1e-5, atol=1e-5)


def test_packed_weights() -> None:
    exe = aisc.build(packed(), weights={"b": B})
    np.testing.assert_allclose(exe(A[:7]), A[:7] @ B, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("what", "choices", "code", "message"),
    [
        (packed, {}, "E302", "the schedule packs b, whose contents are not known"),
        (product, {"weights": {"x": A}}, "E302", "product has no weight x"),
        (product, {"weights": {"a": A}}, "E302", "the contents of a do not fit it"),
        (product, {"weights": {"b": A[:3]}}, "E302", "the contents of b do not fit it"),
        (product, {"weights": {"b": A.astype(np.float64)}}, "E302", "the contents of b do not"),
        (product, {"target": "frob"}, "E401", "there is no target 'frob'"),
        (lambda: "model.onnx", {}, "E401", "expected Func or Schedule"),
    ],
)
def test_what_cannot_be_built(what: Any, choices: Any, code: str, message: str) -> None:
    with pytest.raises(aisc.CompileError, match=message) as caught:
        aisc.build(what(), **choices)
    assert caught.value.codes == (code,)


def test_inputs_by_name() -> None:
    exe = aisc.build(product("input"), threads=1)
    want = exe(A, B)
    for got in (exe(a=A, b=B), exe(b=B, a=A), exe(A, b=B), exe(a=A, b=B, out=np.empty_like(A))):
        np.testing.assert_array_equal(got, want)
    for call in (
        lambda: exe(A, a=A), lambda: exe(A, B, A, b=B), lambda: exe(A, x=B), lambda: exe(a=A),
    ):  # fmt: skip
        with pytest.raises(aisc.ExecutionError) as caught:
            call()
        assert caught.value.codes == ("E501",)


def test_an_executable_says_what_it_is() -> None:
    text = repr(aisc.build(product("input"), threads=1))
    ports = "a: f32[n, 20], b: f32[20, 20] -> c: f32[n, 20]"
    assert text.startswith(f"<Executable product: {ports}; 1 thread; cpu ")


def test_levels_have_names() -> None:
    with pytest.raises(aisc.CompileError, match="expected one of 'graph', 'tensor', 'program'"):
        aisc.lower("examples/digits/digits.onnx", to="x")  # type: ignore[arg-type]


aisc_: Any = aisc  # what is wrong here on purpose is not for the type checker
WRONG: dict[str, tuple[Callable[[], Any], str, str]] = {
    "target": (lambda: aisc_.compile(DIGITS, target=5), "E401", "a name or Target"),
    "threads": (lambda: aisc_.compile(DIGITS, threads="2"), "E401", "a whole number or None"),
    "shapes": (lambda: aisc_.compile(DIGITS, shapes="n=1"), "E401", "a mapping of names to"),
    "size": (lambda: aisc_.compile(DIGITS, shapes={"n": "1"}), "E401", "a mapping of names to"),
    "level": (lambda: aisc_.compile(DIGITS, level=True), "E401", "a whole number"),
    "cache": (lambda: aisc_.compile(DIGITS, cache="no"), "E401", "True or False"),
    "overridable": (lambda: aisc_.compile(DIGITS, overridable="x"), "E401", "a sequence of names"),
    "unknown": (lambda: aisc_.compile(DIGITS, thread=1), "E401", "it takes model, target, threads"),
    "missing": (lambda: aisc_.compile(), "E401", "missing a required argument: 'model'"),
    "model": (lambda: aisc_.compile(3), "E101", "a path, bytes, an object that an importer knows"),
    "budget": (lambda: aisc_.tune(DIGITS, budget="1s"), "E401", "a number"),
    "records": (lambda: aisc_.compile(DIGITS, tuned="/nowhere"), "E503", "make it with aisc tune"),
    "file": (lambda: aisc_.load(3), "E401", "a name or a path"),
    "saved": (lambda: aisc_.save(3, "x.aisc"), "E401", "Executable"),
    "graph": (lambda: aisc_.interpret(DIGITS, []), "E501", "aisc.lower"),
    "name": (lambda: aisc_.targets.resolve(5), "E401", "by its name"),
    "function": (lambda: aisc_.Schedule.of(3), "E302", "a function of the tensor IR"),
    "element": (lambda: aisc_.tensor.buffer("a", "f32", (1,)), "E301", "f32, i64"),
    "type": (lambda: aisc_.GraphBuilder().input("x", 3), "E201", "a type of tensors"),
    "operator": (lambda: aisc_.GraphBuilder().add("matmull", ()), "E201", "there is matmul"),
    "feeds": (lambda: aisc_.build(product("input")).run(None, [A, B]), "E501", "names: a, b"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_name_what_is_allowed(name: str) -> None:
    call, code, text = WRONG[name]
    with pytest.raises(aisc.AiscError, match=re.escape(text)) as caught:
        call()
    assert caught.value.codes == (code,)


def test_a_model_is_tuned_for_a_described_target(tmp_path: Path) -> None:
    """The measuring process gets the description, whose name it cannot know."""
    (tmp_path / "odd.toml").write_text('[target]\nkind = "cpu"\nvector_bits = 128\n')
    target, path = str(tmp_path / "odd.toml"), tmp_path / "t.sqlite"
    graph: Any = aisc.GraphBuilder()
    x = graph.input("x", TensorType((64, 256), f32))
    model = graph.finish([graph.add("softmax", (x,))])
    (result,) = aisc.tune(model, target, budget=60.0, trials=3, database=path)
    assert result.trials > 1
    assert aisc.compile(model, target, tuned=path, threads=1)(np.ones((64, 256), np.float32)).shape


def test_a_model_is_tuned_and_compiled_with_its_records(tmp_path: Path) -> None:
    path = tmp_path / "t.sqlite"
    results = aisc.tune(DIGITS, trials=12, database=path, shapes={"batch": 2})
    assert len(results)
    assert all(r.trials >= 1 and r.speedup >= 1 for r in results)
    exe = aisc.compile(DIGITS, shapes={"batch": 2}, tuned=path, threads=1)
    x = np.random.default_rng(0).random((2, 1, 8, 8), np.float32)
    plain = aisc.compile(DIGITS, shapes={"batch": 2}, threads=1)
    np.testing.assert_array_equal(exe(x), plain(x), "what was picked gives the same bits")


def test_an_executable_saves_itself(tmp_path: Path) -> None:
    exe = aisc.build(product("input"), threads=1)
    exe.save(tmp_path / "product.aisc", threads=1)
    opened = aisc.load(tmp_path / "product.aisc")
    np.testing.assert_array_equal(opened(A, B), exe(A, B))
    assert opened.threads == 1
    with pytest.raises(aisc.CompileError) as caught:
        exe.save(tmp_path / "nowhere" / "product.aisc")
    assert caught.value.codes == ("E503",)
