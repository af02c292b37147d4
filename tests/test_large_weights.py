"""Weights of any size: what a process holds while it compiles and afterwards, who shares what."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import aisc
from aisc.artifact.cache import cache_of
from aisc.ir import dtypes
from aisc.ir import mapped as files
from aisc.ir.blob import Blob
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.mapped import give_back, is_mapped, mapped
from aisc.passes.graph.fold import Fold

WIDTH, COUNT = 1024, 24
MIB = 1 << 20
WEIGHTS = WIDTH * WIDTH * COUNT * 4
# Resident memory, pages of files included, in bytes: now and at most since the last reset.
CHILD = """
import json, sys
import numpy as np
import aisc

def resident(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(l.split()[1]) << 10 for l in lines if l.startswith(name))

small, large, cache = sys.argv[1:]
kept = cache == "cache"  # what compiles has compiled before, so that its modules are there
aisc.compile(small, threads=1, cache=kept)(np.ones((1, 1024), np.float32))
open("/proc/self/clear_refs", "w").write("5")
before = resident("VmRSS")
run = aisc.compile(large, threads=1, cache=kept)
peak = resident("VmHWM")
y = run(np.ones((1, 1024), np.float32))
print(json.dumps([peak - before, resident("VmRSS") - before, float(y.sum())]))
"""


def model(count: int, turned: bool = False) -> onnx.ModelProto:
    """Products with maps between them; every other weight is stored transposed."""
    rng = np.random.default_rng(0)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])]
    outputs = [helper.make_tensor_value_info(f"h{count}", TensorProto.FLOAT, ["n", WIDTH])]
    nodes, weights = [helper.make_node("Identity", ["x"], ["h0"])], []
    for k in range(count):
        w = rng.standard_normal((WIDTH, WIDTH), np.float32) * np.float32(0.044)
        weights.append(numpy_helper.from_array(w, f"w{k}"))
        if turned and k % 2:
            nodes.append(helper.make_node("Transpose", [f"w{k}"], [f"t{k}"]))
        read = f"t{k}" if turned and k % 2 else f"w{k}"
        nodes.append(helper.make_node("MatMul", [f"h{k}", read], [f"m{k}"]))
        nodes.append(helper.make_node("Relu", [f"m{k}"], [f"h{k + 1}"]))
    made = helper.make_graph(nodes, "chain", inputs, outputs, weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("models")
    onnx.save(model(1), str(found / "small.onnx"))
    onnx.save(model(COUNT, turned=True), str(found / "inside.onnx"))
    given = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    onnx.save(model(COUNT, turned=True), str(found / "outside.onnx"), **given)
    return found


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="tells what is resident")
@pytest.mark.parametrize("name", ["inside", "outside"])
def test_what_a_process_holds(
    folder: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled into the cache, opened from there, and compiled without it: the peak, and what is
    resident after a run. Beside weights there are code, and what the compiler has made."""
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path))
    held, results = [], set()
    for how in ("cache", "cache", "alone"):
        argv = [sys.executable, "-c", CHILD, *(str(folder / f"{n}.onnx") for n in ("small", name))]
        done = subprocess.run([*argv, how], capture_output=True, text=True, check=True)
        *sizes, result = json.loads(done.stdout)
        held.append(sizes)
        results.add(result)
    assert len(results) == 1
    (first, after), (second, opened), (alone, last) = held
    rest = 32 * MIB
    assert first < WEIGHTS // 4 + rest
    assert second < rest
    assert alone < 1.1 * WEIGHTS + rest
    assert max(after, opened, last) < 1.05 * WEIGHTS + rest


def test_executables_of_a_model_share_its_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path))
    runs = [aisc.compile(folder / "outside.onnx", threads=t) for t in (1, 2)]
    places = [[w.ctypes.data for w in run.image.weights] for run in runs]
    assert places[0] == places[1]
    aisc.save(runs[0], tmp_path / "saved.aisc")
    loaded = [aisc.load(tmp_path / "saved.aisc", threads=t) for t in (1, 2)]
    assert len({run.image.weights[0].ctypes.data for run in loaded}) == 1
    x = np.random.default_rng(1).standard_normal((2, WIDTH)).astype(np.float32)
    assert len({run(x).tobytes() for run in (*runs, *loaded)}) == 1
    assert len(cache_of("", "images").files()) == 1


def test_models_with_the_same_weights_share_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the second one packs like the first is neither stored nor mapped again; without the
    first it is made again."""
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path / "cache"))
    for count in (2, 3):
        onnx.save(model(count), str(tmp_path / f"{count}.onnx"))
    store, x = cache_of("", "images"), np.ones((2, WIDTH), np.float32)
    expected = [aisc.compile(model(count), cache=False)(x).tobytes() for count in (2, 3)]

    def compiled() -> list[aisc.Executable]:
        runs = [aisc.compile(tmp_path / f"{count}.onnx") for count in (2, 3)]
        assert [run(x).tobytes() for run in runs] == expected
        return runs

    first, second = compiled()
    sizes = {p: p.stat().st_size for p in store.files()}
    assert sum(sizes.values()) < 3 * 4 * WIDTH * WIDTH + MIB
    shared = [{w.ctypes.data for w in run.image.weights} for run in (first, second)]
    assert shared[0] < shared[1]
    compiled()
    assert {p: p.stat().st_size for p in store.files()} == sizes
    lender, borrower = sorted(sizes, key=lambda p: p.stat().st_mtime)
    assert sizes[borrower] < sizes[lender]
    with pytest.raises(aisc.ExecutionError, match="it belongs to a cache"):
        aisc.load(borrower)
    aisc.save(second, tmp_path / "whole.aisc")
    lender.unlink()
    assert aisc.load(tmp_path / "whole.aisc")(x).tobytes() == expected[1]
    second = aisc.compile(tmp_path / "3.onnx")
    assert second(x).tobytes() == expected[1]
    assert borrower.stat().st_size > 3 * 4 * WIDTH * WIDTH
    first, second = compiled()
    assert {w.ctypes.data for w in first.image.weights} < {
        w.ctypes.data for w in second.image.weights
    }


def test_a_damaged_lender_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path / "cache"))
    for count in (1, 2):
        onnx.save(model(count), str(tmp_path / f"{count}.onnx"))
    store, x = cache_of("", "images"), np.ones((2, WIDTH), np.float32)
    first = aisc.compile(tmp_path / "1.onnx")(x)
    (lender,) = store.files()
    second = aisc.compile(tmp_path / "2.onnx")(x)
    with open(lender, "r+b") as file:
        file.seek(-MIB, 2)
        file.write(b"damage")
    for _ in range(2):
        assert aisc.compile(tmp_path / "2.onnx")(x).tobytes() == second.tobytes()
        assert aisc.compile(tmp_path / "1.onnx")(x).tobytes() == first.tobytes()
    assert len(store.files()) == 2


@pytest.mark.parametrize("name", ["inside", "outside"])
@pytest.mark.parametrize("cache", [False, True])
def test_files_may_change_after_they_were_compiled(
    folder: Path, name: str, cache: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path / "cache"))
    for file in (f"{name}.onnx", "w.bin"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    run = aisc.compile(tmp_path / f"{name}.onnx", threads=1, cache=cache)
    expected = aisc.compile(model(COUNT), threads=1, cache=False)
    for file in (f"{name}.onnx", "w.bin"):
        (tmp_path / file).write_bytes(b"")
    x = np.random.default_rng(2).standard_normal((3, WIDTH)).astype(np.float32)
    turned = np.array([numpy_helper.to_array(w) for w in model(COUNT).graph.initializer])
    y = x
    for k, w in enumerate(turned):
        y = np.maximum(y @ (w.T if k % 2 else w), 0)
    np.testing.assert_allclose(run(x), y, rtol=1e-3, atol=1e-4)
    assert expected(x).shape == y.shape


def test_pages_that_were_given_back_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "data"
    numbers = np.arange(1 << 16, dtype=np.uint32)
    path.write_bytes(numbers.tobytes())
    data = mapped(path)
    assert mapped(path).ctypes.data == data.ctypes.data
    views = data.view(np.uint32), data[4097:8193], data[::-3], data[1:1].view(np.uint32)
    for view in views:
        before = view.copy()
        give_back(view)
        assert is_mapped(view)
        np.testing.assert_array_equal(view, before)
    own = numbers[:100]
    give_back(own)
    assert not is_mapped(own)
    assert own[99] == 99
    with pytest.raises(ValueError, match="read-only"):
        data[0] = 1
    del data, views, view
    assert not [m for m in files._mappings.values() if len(m) == numbers.nbytes]


def test_large_constants_are_computed_again() -> None:
    """They are not kept, and are equal to what is; what is small or only arranged anew is."""
    half = np.random.default_rng(3).standard_normal((2048, 1030)).astype(np.float16)
    b = GraphBuilder()
    wide, turned = (b.constant(half, n) for n in ("wide", "turned"))
    results = [
        b.add("cast", (wide,), {"to": dtypes.f32}),
        b.add("transpose", (turned,), {"perm": (1, 0)}),
        b.add("cast", (b.constant(half[:9], "small"),), {"to": dtypes.f32}),
    ]
    results.append(b.add("transpose", (results[0],), {"perm": (1, 0)}))
    folded = Fold().run(b.finish(results))
    again, view, small, both = (folded.constants()[v] for v in folded.outputs)
    assert not np.shares_memory(again.array, again.array)
    assert not np.shares_memory(both.array, both.array)
    np.testing.assert_array_equal(both.array, half.T.astype(np.float32))
    assert np.shares_memory(view.array, half)
    assert np.shares_memory(small.array, small.array)
    kept = Blob(half.astype(np.float32))
    assert (again, hash(again), again.digest) == (kept, hash(kept), kept.digest)
    assert again.nbytes == kept.array.nbytes
    np.testing.assert_array_equal(view.array, half.T)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(again)).array, kept.array)
