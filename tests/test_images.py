"""Whole models in the cache: opened when everything that matters is the same, else compiled."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import aisc
from aisc.artifact.cache import Cache, cache_of
from aisc.codegen.run.executable import Executable
from aisc.driver import api
from aisc.driver import model_cache as images
from aisc.driver.options import Options

X = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)


def model(scale: float = 1.0) -> onnx.ModelProto:
    weight = np.random.default_rng(1).standard_normal((16, 2048)).astype(np.float32) * scale
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2048])]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"]), helper.make_node("Relu", ["t"], ["y"]),
    ]  # fmt: skip
    made = helper.make_graph(nodes, "m", inputs, outputs, [numpy_helper.from_array(weight, "w")])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path / "cache"))
    return cache_of("", "images")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    onnx.save(model(), str(tmp_path / "m.onnx"))
    return tmp_path / "m.onnx"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models that go through the pipeline."""
    seen: list[Any] = []
    build = api.build

    def counting(source: Any, *rest: Any, **more: Any) -> Any:
        seen.append(source)
        return build(source, *rest, **more)

    monkeypatch.setattr(api, "build", counting)
    return seen


def same(a: Executable, b: Executable) -> None:
    assert (a.image.objects, a.image.runtime) == (b.image.objects, b.image.runtime)
    assert a.image.signature == b.image.signature
    for v, w in zip(a.image.weights, b.image.weights, strict=True):
        assert v.tobytes() == w.tobytes()
    assert a(X).tobytes() == b(X).tobytes()


@pytest.mark.parametrize("kind", [Path, str, lambda p: p.read_bytes()])
def test_a_model_is_compiled_once(
    store: Cache, path: Path, built: list[Any], kind: Callable[[Path], Any]
) -> None:
    first, second = (aisc.compile(kind(path), threads=k) for k in (1, 2))
    assert len(built) == 1
    assert second.threads == 2
    same(first, second)
    assert len(store.files()) == 1


def test_a_model_is_known_by_its_contents(store: Cache, path: Path, built: list[Any]) -> None:
    aisc.compile(path)
    path.rename(path.with_name("other.onnx"))
    aisc.compile(path.with_name("other.onnx"))
    assert len(built) == 1
    onnx.save(model(2.0), str(path))
    second = aisc.compile(path)
    assert len(built) == 2
    np.testing.assert_array_equal(second(X), 2 * aisc.compile(path.with_name("other.onnx"))(X))


def test_everything_that_matters_is_in_the_key(
    store: Cache, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, options = api.resolve_target("cpu"), Options()

    def key(target: Any = target, **changes: Any) -> str:
        place = images.place_of(path, [target], replace(options, **changes))
        assert place is not None
        return place.key

    keys = {
        key(), key(level=1), key(shapes={"n": 3}), key(shapes={"n": (1, 4)}), key(host=False),
        key(replace(target, vector_bits=128)),
    }  # fmt: skip
    assert key(threads=7) in keys
    for name, value in (("fingerprint", lambda: "another"), ("version", lambda name: "0")):
        monkeypatch.setattr(images, name, value)
        keys.add(key())
    assert len(keys) == 8


@pytest.mark.parametrize("damage", ["truncate", "head", "weights", "empty"])
def test_a_damaged_image_is_made_again(
    store: Cache, path: Path, built: list[Any], damage: str
) -> None:
    first = aisc.compile(path)
    (kept,) = store.files()
    data = bytearray(kept.read_bytes())
    if damage in ("truncate", "empty"):
        del data[0 if damage == "empty" else -64 :]
    else:
        data[100 if damage == "head" else -5000] ^= 1
    kept.unlink()  # the old one stays mapped
    kept.write_bytes(data)
    same(first, aisc.compile(path))
    assert len(built) == 2
    aisc.compile(path)
    assert len(built) == 2


def test_models_in_several_files_are_not_kept(store: Cache, tmp_path: Path) -> None:
    path = tmp_path / "outside.onnx"
    onnx.save(model(), str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    aisc.compile(path)
    assert store.files() == []


def test_a_model_that_changes_meanwhile_is_not_kept(
    store: Cache, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = api.build

    def changing(source: Path, *rest: Any, **more: Any) -> Any:
        onnx.save(model(3.0), str(source))
        return build(source, *rest, **more)

    monkeypatch.setattr(api, "build", changing)
    aisc.compile(path)
    assert store.files() == []


def test_what_is_not_kept(store: Cache, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aisc.compile(path, cache=False)
    aisc.compile(model())
    monkeypatch.setenv("AISC_VERIFY", "each")
    aisc.compile(path)
    assert store.files() == []
    monkeypatch.delenv("AISC_VERIFY")
    place = images.place_of(path, [api.resolve_target("cpu")], Options())
    assert place is not None
    replace(place, store=replace(store, limit=1 << 16)).keep(aisc.compile(path, cache=False))
    assert store.files() == []
    with pytest.raises(aisc.CompileError, match="E101"):
        aisc.compile(path.with_name("missing.onnx"))
    os.mkfifo(path.with_name("fifo.onnx"))
    with pytest.raises(aisc.CompileError, match="E101"):
        aisc.compile(path.with_name("fifo.onnx"))


def test_old_images_give_way(store: Cache, path: Path) -> None:
    size = 0
    for n in range(1, 5):
        executable = aisc.compile(path, shapes={"n": n})
        size = max(size, store.files()[0].stat().st_size)
    small = replace(store, limit=2 * size + 100)
    place = images.place_of(path, [api.resolve_target("cpu")], Options())
    assert place is not None
    replace(place, store=small).keep(executable)
    assert len(store.files()) == 2
    assert store.path(place.key) in store.files()


def test_what_was_never_finished_is_removed(store: Cache, path: Path) -> None:
    aisc.compile(path)
    folder = store.files()[0].parent
    old, new = folder / "old.tmp", folder / "new.tmp"
    for half in (old, new):
        half.write_bytes(b"half")
    os.utime(old, (0, 0))
    store.prune()
    assert (old.exists(), new.exists()) == (False, True)
