"""The kernel cache: whole records or none, keys that hold everything that affects code."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from aisc.artifact import kernel_signature as signature
from aisc.artifact.cache import Cache, key_of
from aisc.codegen.cpu.backend import CpuBackend
from aisc.driver.api import build, resolve_target
from aisc.driver.kernel import kernel_key
from aisc.driver.options import Options, from_environment
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, ceildiv, symbol
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.tensor.expr import Var
from aisc.ir.tensor.func import Func, Program, buffer
from aisc.ir.tensor.stmt import Seq
from aisc.ir.types import TensorType


def graph(n: int = 32) -> Graph:
    b = GraphBuilder()
    x = b.input("x", TensorType((n, 16), dtypes.f32))
    return b.finish(
        [b.add("relu", (b.add("matmul", (x, b.constant(np.eye(16, 24, dtype="f4")))),))]
    )


def test_records_round_trip(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    key = key_of("a", "b")
    assert cache.get(key) is None
    cache.put(key, {"head": b"{}", "object": bytes(range(256)) * 10, "empty": b""})
    assert cache.get(key) == {"head": b"{}", "object": bytes(range(256)) * 10, "empty": b""}
    assert key_of("a", "b") != key_of("ab", "") != key_of("", "ab")


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "garbage"])
def test_damaged_records_count_as_absent(tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path)
    cache.put("ab12", {"x": b"0123456789" * 50})
    (path,) = cache.files()
    data = path.read_bytes()
    flipped = data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]
    made = {"truncate": data[:-7], "flip": flipped, "empty": b"", "garbage": b"nix"}[damage]
    path.write_bytes(made)
    assert cache.get("ab12") is None


def test_the_cache_stays_below_its_limit(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit=3000)
    for k in range(10):
        cache.put(key_of(str(k)), {"x": bytes(1000)})
    cache.prune()
    assert 0 < cache.size() <= 3000
    assert cache.clear() > 0
    assert cache.files() == []


def test_a_read_only_folder_is_no_fault(tmp_path: Path) -> None:
    Cache(tmp_path / "file").put("ab", {"x": b"1"})
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    Cache(blocked).put("ab", {"x": b"1"})
    assert Cache(blocked).get("ab") is None


def test_compilation_hits_the_cache(tmp_path: Path) -> None:
    options = from_environment(threads=1, cache_dir=str(tmp_path))
    first, second = (build(graph(), "cpu", options) for _ in range(2))
    assert (first.from_cache, second.from_cache) == (0, first.kernels)
    assert first.executable is not None
    assert second.executable is not None
    x = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)
    assert first.executable(x).tobytes() == second.executable(x).tobytes()
    third = build(graph(33), "cpu", options)
    assert third.from_cache == 0


def test_every_option_is_in_the_key_or_neutral() -> None:
    others = {
        "level": 1, "shapes": {"n": 2}, "threads": 3, "wait": "passive", "stop_after": "fuse",
        "dump_dir": "d",
        "verify": True, "use_cache": False, "cache_dir": "c", "host": False, "profile": True,
        "overridable": ("w",), "apart": True, "load": False, "tuned": "none", "locked": "x.lock",
        "exact_quantization": True, "precision": "bf16", "keep_float": ("head",),
    }  # fmt: skip
    base = Options()
    assert set(others) == {f.name for f in fields(Options)}
    for f in fields(Options):
        changed = replace(base, **{f.name: others[f.name]})
        assert (changed.key != base.key) == f.metadata["code"], f.name


def test_target_and_kernel_are_in_the_key() -> None:
    target = resolve_target("cpu")
    programs = [
        build(graph(n), target, from_environment(stop_after="lower")).product for n in (32, 33)
    ]
    kernels = [p.kernels[0] for p in programs if isinstance(p, Program)]
    narrow = replace(target, vector_bits=128)
    keys = {kernel_key(k, Options(), CpuBackend(t)) for k in kernels for t in (target, narrow)}
    assert len(keys) == 4


@pytest.mark.parametrize("rows", [32, symbol("n", 1, 512), ceildiv(symbol("n"), 16) * 8 + 3])
def test_signatures_round_trip(rows: Dim) -> None:
    x = buffer("x", dtypes.bf16, (rows, 7), "input")
    t = replace(buffer("t", dtypes.i8, (7, rows)), alignment=32, alias_set="shared")
    func = Func("k", (x, t), (Var("n"),), Seq(()), (("parallel", True), ("work", 9)))
    assert signature.from_json(json.loads(json.dumps(signature.to_json(func)))) == func
