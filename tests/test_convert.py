"""``aisc convert``: models of ONNX as text of the model language, which means the same."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import conformance
import numpy as np
import onnx
import pytest
import zoo
from onnx import ModelProto
from test_lang_printing import same_numbers

import aisc
from aisc.cli import convert_command
from aisc.cli.main import main
from aisc.frontend.lang.formatting import formatted
from aisc.frontend.lang.model import import_model as read
from aisc.frontend.lang.parameters import safetensors_of
from aisc.frontend.lang.printing import printed
from aisc.frontend.onnx.importer import import_model
from aisc.ir.diagnostics import CompileError, InternalError
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.same import same

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits" / "digits.onnx"
SAMPLED = 30  # one case of the standard of so many is tried in every run


def converted(g: Graph, folder: Path) -> Graph:
    """A graph through the language, whose text is in its one form, and comes again from what is
    read."""
    p = printed(g, "m.safetensors", exact=False)
    assert formatted(p.text) == p.text
    (folder / "m.aim").write_text(p.text)
    (folder / "m.safetensors").write_bytes(safetensors_of(p.weights))
    found = read(folder / "m.aim")
    again = printed(found, "m.safetensors")
    (folder / "m.aim").write_text(again.text)
    (folder / "m.safetensors").write_bytes(safetensors_of(again.weights))
    assert same(read(folder / "m.aim"), found), p.text
    return found


def assert_alike(got: Sequence[Any], want: Sequence[Any], exactly: bool = False) -> None:
    for a, b in zip(got, want, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if exactly:
            assert same_numbers(a, b)
        else:  # products of the same numbers in another order in memory
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# --- whole models ----------------------------------------------------------------------------
@pytest.mark.parametrize("name", zoo.ZOO)
def test_models_mean_the_same_through_the_language(name: str, tmp_path: Path) -> None:
    entry = zoo.ZOO[name]
    model = entry.build(**entry.tiny)
    g = import_model(model)
    found = converted(g, tmp_path)
    assert [v.name for v in found.inputs] == [v.name for v in g.inputs]
    assert found.result_names == g.result_names
    dims = {d: r.usual for d, r in {**entry.dims, **entry.tiny_dims}.items()}
    feeds = zoo.feeds(model, dims)
    inputs = [feeds[v.name] for v in g.inputs]
    assert_alike(interpret(found, inputs), interpret(g, inputs))


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.ZOO)
def test_full_models_mean_the_same_through_the_language(name: str, tmp_path: Path) -> None:
    entry = zoo.ZOO[name]
    model = entry.build()
    found = converted(import_model(model), tmp_path)
    feeds = zoo.feeds(model, {d: r.low for d, r in entry.dims.items()})
    want, got = (aisc.compile(m, threads=2, cache=False).run(None, feeds) for m in (model, found))
    assert_alike(got, want)


def test_equal_layers_are_one_layer_in_a_loop() -> None:
    entry = zoo.ZOO["bert"]
    text = printed(import_model(entry.build(**entry.tiny)), "m.safetensors", exact=False).text
    assert text.count("layer block(") == 1 and "as blocks[i]" in text
    assert len(text.splitlines()) < 80


# --- the cases of the standard ---------------------------------------------------------------
@cache
def cases() -> list[Any]:
    return [c for c in conformance.all_cases() if "cuda" not in c.name]


def agrees(case: Any, folder: Path) -> bool:
    """Whether a case computes the same through the language, to the bit; false where it is no
    model for us, or has no reference."""
    model: ModelProto = case.model or onnx.load(Path(case.model_dir) / "model.onnx")
    try:
        g = import_model(model)
    except CompileError:
        return False
    found = converted(g, folder)
    for inputs, _ in conformance.data_sets(case, model):
        arrays = [conformance.array(x) for x in inputs]
        assert_alike(interpret(found, arrays), interpret(g, arrays), exactly=True)
    return True


def test_cases_of_the_standard_mean_the_same_through_the_language(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sum(agrees(c, tmp_path) for c in cases()[::SAMPLED]) >= 55


@pytest.mark.slow
def test_all_cases_of_the_standard_mean_the_same_through_the_language(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sum(agrees(c, tmp_path) for c in cases()) >= 1700


# --- the command -----------------------------------------------------------------------------
def run(*arguments: object) -> int:
    try:
        main([str(a) for a in arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def test_convert_writes_text_and_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("convert", DIGITS, "-o", tmp_path / "d.aim", "--shape", "batch=2") == 0
    assert "d.safetensors: 10 parameters, 0.1 MB" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.aim", "d.safetensors"]
    assert run("fmt", "--check", tmp_path / "d.aim") == 0
    x = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype(np.float32)
    one, two = (aisc.compile(p, threads=1, cache=False)(x) for p in (DIGITS, tmp_path / "d.aim"))
    assert_alike([two], [one])


def test_convert_of_a_model_of_the_language(tmp_path: Path) -> None:
    (tmp_path / "a.aim").write_text("model m(x: f32[n]) { return relu(x) * 2 }")
    assert run("convert", tmp_path / "a.aim", "-o", tmp_path / "b.AIM") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.aim", "b.AIM"]


@pytest.mark.parametrize("output", ["-", "d.onnx", "d", "none/d.aim", "same.aim"])
def test_where_convert_cannot_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("same.aim").write_text("model m(x: f32[n]) { return x + 1 }")
    assert run("convert", "same.aim", "-o", output) == 1
    err = capsys.readouterr().err
    assert f"error[{'E503' if '/' in output else 'E401'}]" in err and "note:" in err
    assert [p.name for p in tmp_path.iterdir()] == ["same.aim"]


def test_convert_writes_both_files_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise InternalError("planted")

    monkeypatch.setattr(convert_command, "_require_readable", fail)
    assert run("convert", DIGITS, "-o", tmp_path / "d.aim") == 70
    assert list(tmp_path.iterdir()) == []
    assert run("convert", tmp_path / "none.onnx", "-o", tmp_path / "d.aim") == 1
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    assert run("convert", tmp_path / "bad.onnx", "-o", tmp_path / "d.aim") == 1
