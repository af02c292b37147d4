"""Whole models in the cache: opened when everything that matters is the same, else compiled."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import aisc
from aisc.artifact import facts
from aisc.artifact.cache import Cache, cache_of
from aisc.codegen.run import bundle
from aisc.codegen.run.executable import Executable
from aisc.codegen.weights import Ready
from aisc.driver import api
from aisc.driver import model_cache as images
from aisc.driver.options import Options
from aisc.ir.dtypes import f32
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.location import Loc
from aisc.ir.types import TensorType

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


class Failing(Ready):
    """Weights of which the last one cannot be made."""

    def __init__(self, weights: Sequence[Any], fault: BaseException) -> None:
        super().__init__(weights)
        self.last, self.fault = len(weights) - 1, fault

    def array(self, k: int, allocate: Any) -> Any:
        if k == self.last:
            raise self.fault
        return super().array(k, allocate)


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
    for name, value in (
        ("fingerprint", lambda: "another"),
        ("_installed", lambda name: f"{name}-0"),
    ):
        monkeypatch.setattr(images, name, value)
        keys.add(key())
    assert len(keys) == 8


def test_graphs_are_kept_as_models_are(store: Cache, built: list[Any]) -> None:
    """Equal ones, whoever made them; names, places and contents tell them apart."""

    def graph(name: str = "x", scale: float = 1.0, line: int = 1) -> Graph:
        b = GraphBuilder("g")
        x = b.input(name, TensorType((3, 16), f32))
        w = b.constant(np.full((16, 4), scale, np.float32))
        return b.finish([b.add("matmul", (x, w), loc=Loc("m.py", line))])

    first = aisc.compile(graph(), threads=1)
    second = aisc.compile(graph(), threads=1)
    assert len(built) == 1 and len(store.files()) == 1
    np.testing.assert_array_equal(first(X), second(X))
    for k, other in enumerate((graph("z"), graph(scale=2.0), graph(line=2))):
        made = aisc.compile(other, threads=1)
        assert len(built) == k + 2
        np.testing.assert_array_equal(made(X), first(X) * (2 if k == 1 else 1))


def test_functions_are_kept(store: Cache, built: list[Any]) -> None:
    def scaled(x: Any) -> Any:
        return x * 3.0

    for _ in range(2):
        np.testing.assert_array_equal(aisc.function(scaled, threads=1)(X), X * np.float32(3))
    assert len(built) == 1


def test_small_folders_are_not_looked_through_again(
    store: Cache, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aisc.compile(path, threads=1)
    looked: list[Path] = []
    files = Cache.files

    def counting(cache: Cache) -> list[Path]:
        looked.append(cache.folder)
        return files(cache)

    monkeypatch.setattr(Cache, "files", counting)
    for k in range(4):
        onnx.save(model(k + 2.0), str(path))
        aisc.compile(path, threads=1)
    assert not looked
    small = replace(store, limit=store.known_size())
    small.trim()
    assert looked, "the limit may not hold"


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


def several_files(folder: Path, scale: float = 1.0) -> Path:
    path = folder / "parts.onnx"
    given = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    onnx.save(model(scale), str(path), **given)
    return path


def test_models_in_several_files_are_known_by_all_of_them(
    store: Cache, tmp_path: Path, built: list[Any]
) -> None:
    path = several_files(tmp_path)
    first = aisc.compile(path)
    same(first, aisc.compile(path))
    assert len(built) == len(store.files()) == 1
    (tmp_path / "w.bin").unlink()
    assert several_files(tmp_path, 2.0) == path
    np.testing.assert_array_equal(aisc.compile(path)(X), 2 * first(X))
    assert len(built) == 2
    (tmp_path / "w.bin").unlink()
    with pytest.raises(aisc.CompileError, match="E104"):
        aisc.compile(path)


def test_contents_are_read_once(
    store: Cache, tmp_path: Path, built: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was changed a moment ago may change again under the same stamp."""
    path = several_files(tmp_path)
    read: list[Path] = []
    digest = images._digest_of
    monkeypatch.setattr(images, "_digest_of", lambda p: (read.append(p), digest(p))[1])
    for _ in range(2):
        aisc.compile(path)
    assert read == [path, tmp_path / "w.bin"] * 2
    monkeypatch.setattr(facts, "_SETTLED_NS", -(10**18))
    for _ in range(3):
        aisc.compile(path)
    assert read == [path, tmp_path / "w.bin"] * 3
    with open(tmp_path / "w.bin", "r+b") as f:
        f.write(b"\0\0\0\0")
    aisc.compile(path)
    assert read[6:] == [tmp_path / "w.bin"]
    assert len(built) == 2


def test_weights_of_an_image_are_verified_once(
    store: Cache, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the machine was started again, when what was written may not have got to the disk; the
    first is the one that is not there, the second opens what was written."""
    verified: list[bool] = []
    read = bundle.read
    monkeypatch.setattr(
        bundle, "read", lambda p, verify, **m: (verified.append(verify), read(p, verify, **m))[1]
    )
    for boot in ("a", "a", "b", "b", "", ""):
        monkeypatch.setattr(images, "_boot", lambda boot=boot: boot)
        aisc.compile(path)
    assert verified == [True, False, False, True, False, True, True]


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
    replace(place, store=small).keep(executable.image, Ready(executable.image.weights))
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


@pytest.mark.parametrize(
    ("fault", "said"),
    [(OSError(errno.ENOSPC, "no space"), "the disk is full"), (OSError(errno.EIO, "?"), ""),
     (KeyboardInterrupt(), "")],
)  # fmt: skip
def test_an_interrupted_write_leaves_nothing(
    store: Cache, path: Path, caplog: pytest.LogCaptureFixture, fault: BaseException, said: str
) -> None:
    place = images.place_of(path, [api.resolve_target("cpu")], Options())
    assert place is not None
    image = aisc.compile(path, cache=False).image
    with contextlib.suppress(KeyboardInterrupt):
        assert place.keep(image, Failing(image.weights, fault)) is None
    assert [p for p in store.folder.rglob("*") if p.is_file()] == []
    assert caplog.messages == ([] if not said else [caplog.messages[0]])
    assert said in caplog.text
    same(aisc.compile(path), aisc.compile(path))


def test_a_limit_that_does_not_allow_an_image_is_told(
    store: Cache, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AISC_CACHE_LIMIT", "100k")
    y = aisc.compile(path)(X)
    assert store.files() == []
    (line,) = caplog.messages
    assert "is not kept for the next time: the limit of the cache is" in line
    assert "AISC_CACHE_LIMIT" in line
    caplog.clear()
    monkeypatch.setenv("AISC_CACHE_LIMIT", "0.5 MB")
    assert aisc.compile(path)(X).tobytes() == y.tobytes()
    assert (len(store.files()), caplog.messages) == (1, [])
    monkeypatch.setattr(
        shutil, "disk_usage", lambda p: SimpleNamespace(total=1 << 40, free=1 << 30)
    )
    store.clear()
    aisc.compile(path)
    assert store.files() == []
    assert "has only 1.1 GB left" in caplog.text
    monkeypatch.setenv("AISC_CACHE_LIMIT", "much")
    with pytest.raises(aisc.CompileError, match="AISC_CACHE_LIMIT=MUCH"):
        aisc.compile(path)
