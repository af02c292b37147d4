"""The measurements of the zoo's report; each returns plain numbers."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import agreement
import llvmlite.binding as llvm
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto

import aisc
import zoo
from aisc.frontend.onnx.importer import import_model

Array = NDArray[Any]
Run = Callable[[], object]
Row = dict[str, Any]


def session(model: ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
    data = model.SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def interleaved(a: Run, b: Run, repeats: int) -> float:
    """The median of the paired ratios of the times of `a` and `b`, which run in turn."""

    def turn(run: Run) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    for run in (a, b):
        run()
    return statistics.median(turn(a) / turn(b) for _ in range(repeats))


def agrees(
    model: ModelProto, feeds: Mapping[str, Array], got: list[Array], peer: ort.InferenceSession
) -> bool:
    """The definition of agreement, against a float64 reference."""
    graph = import_model(model)
    exact = agreement.reference(graph, [feeds[v.name] for v in graph.inputs])
    try:
        agreement.assert_agrees(got, peer.run(None, dict(feeds)), exact)
    except AssertionError:
        return False
    return True


def symbolic(entry: zoo.ZooModel, model: ModelProto, count: int, repeats: int) -> Row:
    """Time of the symbolic build over time of the build for one shape, on random shapes."""
    exe, rng = aisc.compile(model, threads=1), np.random.default_rng(0)
    ratios: dict[str, float] = {}
    for k in range(count):
        dims = entry.random_dims(rng)
        feeds = zoo.feeds(model, dims, k)
        special = aisc.compile(model, threads=1, shapes=dims, cache=False)
        for a, b in zip(exe.run(None, feeds), special.run(None, feeds), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-3 * max(1.0, np.abs(b).max()))
        name = " ".join(f"{d}={v}" for d, v in dims.items())
        ratios[name] = interleaved(
            lambda f=feeds: exe.run(None, f), lambda e=special, f=feeds: e.run(None, f), repeats
        )
    return {"symbolic_ratio": statistics.median(ratios.values()), "symbolic_ratios": ratios}


def random_shapes(entry: zoo.ZooModel, count: int, full: bool) -> Row:
    """One object on random shapes: how many agree, and how many modules LLVM was given after the
    object was there. The small version is compared with a float64 reference; the full one, whose
    small shapes are drawn as often as its large ones, with onnxruntime (:func:`near`)."""
    model = entry.build(**({} if full else entry.tiny))
    exe, peer = aisc.compile(model, threads=1), session(model)
    rng, parse, compiled = np.random.default_rng(1), llvm.parse_assembly, 0

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal compiled
        compiled += 1
        return parse(*args, **kwargs)

    llvm.parse_assembly, good = counting, 0
    try:
        for k in range(count):
            dims = entry.even_dims(rng) if full else entry.random_dims(rng, tiny=True)
            feeds = zoo.feeds(model, dims, k)
            got = exe.run(None, feeds)
            good += near(got, peer.run(None, feeds)) if full else agrees(model, feeds, got, peer)
    finally:
        llvm.parse_assembly = parse
    return {"random_shapes": count, "random_agree": good, "recompilations": compiled}


def near(got: list[Array], want: list[Array]) -> bool:
    """Whether results differ by at most 1e-4 of the largest element."""
    return all(
        a.shape == b.shape and np.abs(a - b).max(initial=0) <= 1e-4 * np.abs(b).max(initial=1)
        for a, b in zip(got, want, strict=True)
    )


def probe(*arguments: str, cache: str = "") -> Row:
    """A measurement of :mod:`zoo.probe`, in a fresh process."""
    env = {**os.environ, **({"AISC_CACHE_DIR": cache} if cache else {})}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # users' interpreters keep compiled sources
    command = [sys.executable, "-m", "zoo.probe", *arguments]
    folder = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True)
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def compile_times(path: str) -> Row:
    """Seconds with an empty kernel cache, and with the one that this left, in fresh processes."""
    with tempfile.TemporaryDirectory() as cache:
        cold = probe("compile", path, cache=cache)["seconds"]
        warm = min(probe("compile", path, cache=cache)["seconds"] for _ in range(2))
    return {"cold_s": cold, "warm_s": warm}


def memory(path: str, dims: Mapping[str, int]) -> Row:
    """Peak memory of a run beside the weights, and its share of onnxruntime's."""
    mine, theirs = (probe("memory", path, json.dumps(dims), r)["bytes"] for r in ("aisc", "ort"))
    return {"memory_mb": mine / 1e6, "ort_memory_mb": theirs / 1e6, "memory_ratio": mine / theirs}
