"""Profiles of whole runs: every kernel is accounted for, and results do not change."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from onnx_models import BOOL, I64, const, graph, model, node, value

from aisc.codegen.cpu.backend import CpuBackend
from aisc.driver import api
from aisc.driver.options import from_environment
from aisc.driver.pipeline import Compiled
from aisc.ir.tensor.func import Program
from aisc.measure.profile import Profile, profile_runs

Feeds = dict[str, np.ndarray]
rng = np.random.default_rng(0)


def random(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def two_equal_layers() -> Any:
    """Two layers that share a kernel, then a softmax; the number of rows is symbolic."""
    return model(
        [
            node("MatMul", "x w0", "a", name="first"),
            node("Relu", "a", "b", name="bend"),
            node("MatMul", "b w1", "c", name="second"),
            node("Relu", "c", "d"),
            node("Softmax", "d", "y", name="last"),
        ],
        [value("x", shape=["n", 16])],
        [value("y")],
        const("w0", random(16, 16)),
        const("w1", random(16, 16)),
    )


def counting_loop() -> Any:
    """A Loop of `trips` turns over a vector."""
    body = graph(
        [node("Identity", "c", "go"), node("Sin", "v", "w", name="turn")],
        [value("i", I64, []), value("c", BOOL, []), value("v", shape=[64])],
        [value("go", BOOL, []), value("w", shape=[64])],
    )
    return model(
        [node("Loop", "trips yes x", "y", body=body)],
        [value("trips", I64, []), value("x", shape=[64])],
        [value("y", TensorProto.FLOAT, [64])],
        const("yes", np.bool_(True)),
    )


def compiled(source: Any, threads: int, **choices: Any) -> Compiled:
    return api.build(source, "cpu", from_environment(threads=threads, use_cache=False, **choices))


def results(c: Compiled, feeds: Feeds) -> list[bytes]:
    assert c.executable is not None
    return [np.ascontiguousarray(a).tobytes() for a in c.executable.run(None, feeds)]


def profiled(source: Any, feeds: Feeds, threads: int) -> Profile:
    c = compiled(source, threads, profile=True)
    assert results(c, feeds) == results(compiled(source, threads), feeds)
    return profile_runs(c, feeds, warmup=1, iterations=2)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [1, 6])
def test_layers_are_accounted_for(threads: int, rows: int) -> None:
    p = profiled(two_equal_layers(), {"x": random(rows, 16)}, threads)
    kernels = [r for r in p.rows if r.kind == "kernel"]
    assert [r.nodes[0] for r in kernels] == ["first", "second", "last"]
    assert kernels[0].kernel == kernels[1].kernel
    assert [r.calls for r in kernels] == [1, 1, 1]
    assert [r.flops for r in kernels[:2]] == [rows * 16 * (2 * 16 + 1)] * 2
    assert [r.bytes for r in kernels[:2]] == [4 * (2 * rows * 16 + 256)] * 2
    assert kernels[2].bytes == 4 * 2 * rows * 16
    assert all(r.seconds > 0 for r in kernels)
    assert 0 < p.between + sum(r.seconds for r in p.rows) <= 2 * p.wall
    assert p.fma > 0 and p.copy > 0


def test_another_algorithm_is_told_apart() -> None:
    """A convolution that Winograd's algorithm computes: what it is, and what is executed."""
    source = model(
        [node("Conv", "x w", "c", pads=[1, 1, 1, 1]), node("Relu", "c", "y")],
        [value("x", shape=[1, 64, 24, 24])],
        [value("y")],
        const("w", random(64, 64, 3, 3)),
    )
    p = profiled(source, {"x": random(1, 64, 24, 24)}, 1)
    (row,) = [r for r in p.rows if "conv" in r.kernel]
    assert row.flops == 24 * 24 * 64 * (2 * 64 * 9 + 1)
    products = 2 * 36 * 36 * 64 * 64  # 36 tiles of 36 points
    assert products < row.executed < row.flops
    images = 4 * 2 * 64 * 24 * 24
    assert row.bytes == images + 4 * 36 * 64 * 64
    assert p.least(row) < row.flops / p.fma / 1e9


def test_turns_of_a_loop_are_counted() -> None:
    for trips in (0, 3):
        p = profiled(counting_loop(), {"trips": np.int64(trips), "x": random(64)}, 1)
        turns = [r for r in p.rows if r.nodes[:1] == ("turn",)]
        assert sum(r.calls for r in turns) == trips
        assert sum(r.flops for r in turns) == 64 * trips


def test_without_the_option_nothing_changes() -> None:
    c = compiled(two_equal_layers(), 1)
    assert isinstance(c.product, Program)
    assert c.executable is not None
    backend = CpuBackend(api.resolve_target("cpu"))
    plain, timed = (backend.emit_entry(c.product, profile=on) for on in (False, True))
    assert not re.search("stamp|clock", plain)
    calls = [re.findall(r"call void @(k\w+)", text) for text in (plain, timed)]
    assert calls[0] == calls[1] != []
    c.executable(random(2, 16))
    assert [p.size for p in c.executable.profiles()] == [0]


def test_profiles_are_reset() -> None:
    c = compiled(two_equal_layers(), 1, profile=True)
    assert c.executable is not None
    x = random(2, 16)
    for _ in range(3):
        c.executable(x)
    (three,) = c.executable.profiles()
    c.executable.reset_profiles()
    c.executable(x)
    (one,) = c.executable.profiles()
    assert three[2] == 3 * one[2] > 0


def test_kernels_come_from_the_cache(tmp_path: Any) -> None:
    source = two_equal_layers()
    options = {"threads": 1, "cache_dir": str(tmp_path)}
    first = api.build(source, "cpu", from_environment(**options))
    second = api.build(source, "cpu", from_environment(**options, profile=True))
    assert second.from_cache == first.kernels > first.from_cache
