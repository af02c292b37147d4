"""Inputs that have defaults: constants as long as nobody gives them, inputs when somebody does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from onnx import ModelProto

import aisc
from aisc import onnx_backend
from aisc.cli.main import main
from aisc.codegen.run.executable import Executable
from aisc.frontend.onnx.importer import import_model
from aisc.ir.diagnostics import CompileError, ExecutionError

X = np.float32([[1, 2, 3]])
W = np.float32([[5, 6, 7], [8, 9, 10], [0, 1, 2]])
B = np.float32([1, -1, 1])


def model(ir_version: int = 8, declared: str = "float[3, 3] w") -> ModelProto:
    """y = x w + b, where w (the identity) and b (zeros) have defaults; c is a plain constant."""
    text = f"""<ir_version: {ir_version}, opset_import: ["": 17]>
        g (float[n, 3] x, {declared}, float[3] b) => (float[n, 3] y)
        <float[3, 3] w = {{1, 0, 0, 0, 1, 0, 0, 0, 1}}, float[3] b = {{0, 0, 0}},
         float[1] c = {{2}}> {{ m = MatMul(x, w)  a = Add(m, b)  y = Mul(a, c) }}"""
    return onnx.parser.parse_model(text)


def test_defaults_are_constants_of_the_graph() -> None:
    graph = import_model(model())
    assert [v.name for v in graph.inputs] == ["x"]
    assert [(v.name, str(v.type)) for v in graph.defaults] == [("w", "f32[3, 3]"), ("b", "f32[3]")]
    opened = import_model(model(), overridable=["w"])
    assert [v.name for v in opened.inputs] == ["x", "w"]
    assert [v.name for v in opened.defaults] == ["b"]


def test_before_version_4_of_the_format_there_are_no_defaults() -> None:
    graph = import_model(model(3))
    assert [v.name for v in graph.inputs] == ["x"] and graph.defaults == ()
    with pytest.raises(CompileError) as caught:
        import_model(model(3), overridable=["w"])
    assert caught.value.codes == ("E106",)


@pytest.mark.parametrize("name", ["x", "c", "nothing"])
def test_only_inputs_with_defaults_can_be_overridable(name: str) -> None:
    with pytest.raises(CompileError) as caught:
        import_model(model(), overridable=[name])
    assert caught.value.codes == ("E106",) and "w, b" in str(caught.value)


def test_defaults_have_their_declared_type() -> None:
    import_model(model(declared="float[k, 3] w"))
    for declared in ("float[3, 4] w", "float[3] w", "double[3, 3] w"):
        with pytest.raises(CompileError) as caught:
            import_model(model(declared=declared))
        assert caught.value.codes == ("E103",)


def check(exe: Executable) -> None:
    """All ways of giving x, w and b."""
    assert exe.input_names == ["x"]
    assert [p.name for p in exe.optional_inputs] == ["w", "b"]
    np.testing.assert_array_equal(exe(X), X * 2)
    np.testing.assert_array_equal(exe.run(None, {"x": X})[0], X * 2)
    np.testing.assert_array_equal(exe.run(["y"], {"w": W, "x": X})[0], X @ W * 2)
    np.testing.assert_array_equal(exe.run(None, {"x": X, "b": B})[0], (X + B) * 2)
    np.testing.assert_array_equal(exe.run(None, {"x": X, "b": B, "w": W})[0], (X @ W + B) * 2)
    np.testing.assert_array_equal(exe(X), X * 2)


@pytest.mark.llvm
def test_calls_may_replace_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "m.onnx"
    onnx.save(model(), path)
    for source in (model(), model().SerializeToString(), path, path):  # once from the cache
        check(aisc.compile(source, threads=1))


@pytest.mark.llvm
def test_another_executable_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    exe = aisc.compile(model(), threads=1, cache=False)
    exe.run(None, {"x": X, "w": W})

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr("aisc.driver.pipeline.run_pipeline", refuse)
    np.testing.assert_array_equal(exe.run(None, {"x": X, "w": W + 1})[0], X @ (W + 1) * 2)


@pytest.mark.llvm
def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model(), path)
    exe = aisc.compile(path, threads=1, cache=False)
    for feeds in ({"w": W}, {"x": X, "c": B}, {"x": X, "w": W[:2]}, {"x": X, "w": W, "z": B}):
        with pytest.raises(ExecutionError) as caught:
            exe.run(None, feeds)
        assert caught.value.codes == ("E501",)
    with pytest.raises(ExecutionError, match="may be given as well: w, b"):
        exe.run(None, {"x": X, "z": B})
    changed = model()
    changed.graph.name = "another"
    onnx.save(changed, path)
    with pytest.raises(ExecutionError, match="has changed"):
        exe.run(None, {"x": X, "b": B})


@pytest.mark.llvm
def test_bundles_keep_the_defaults(tmp_path: Path) -> None:
    path, bundle = tmp_path / "m.onnx", tmp_path / "m.aisc"
    onnx.save(model(), path)
    aisc.save(aisc.compile(path, threads=1, cache=False), bundle)
    exe = aisc.load(bundle)
    np.testing.assert_array_equal(exe(X), X * 2)
    with pytest.raises(ExecutionError, match="--overridable") as caught:
        exe.run(None, {"x": X, "w": W})
    assert caught.value.codes == ("E501",) and "default of w" in str(caught.value)
    with pytest.raises(SystemExit) as ended:
        main(["compile", str(path), "-o", str(bundle), "--overridable", "w", "--threads", "1"])
    assert not ended.value.code
    exe = aisc.load(bundle)
    assert exe.input_names == ["x", "w"]
    np.testing.assert_array_equal(exe.run(None, {"x": X, "w": W})[0], X @ W * 2)


@pytest.mark.llvm
def test_run_takes_files_for_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path / "cache"))
    onnx.save(model(), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "w.npy", W)
    arguments = [f"--input={k}=@{tmp_path / k}.npy" for k in ("x", "w")]
    out = tmp_path / "y.npy"
    with pytest.raises(SystemExit) as ended:
        main(["run", str(tmp_path / "m.onnx"), *arguments, f"--output=y=@{out}"])
    assert not ended.value.code, capsys.readouterr().err
    np.testing.assert_array_equal(np.load(out), X @ W * 2)


@pytest.mark.llvm
def test_the_backend_replaces_defaults() -> None:
    rep = onnx_backend.prepare(model(), threads=1, cache=False)
    np.testing.assert_array_equal(rep.run([X])[0], X * 2)
    np.testing.assert_array_equal(rep.run({"x": X, "w": W})[0], X @ W * 2)
    np.testing.assert_array_equal(rep.run({"x": X})[0], X * 2)


@pytest.mark.parametrize("version", [3, 4, 5, 8])
def test_defaults_begin_with_version_4(version: int) -> None:
    """Before, every initializer had to be listed as an input, and is a constant."""
    if version < 4:
        with pytest.raises(CompileError, match="no input 'w' with a default"):
            import_model(model(version), overridable=("w",))
    else:
        names = [v.name for v in import_model(model(version), overridable=("w",)).inputs]
        assert names == ["x", "w"]
