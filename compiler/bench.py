"""Latency of a model, interleaved with other runtimes on the same inputs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aisc.codegen.executable import Executable
from aisc.ir.diagnostics import error

Runner = Callable[[], object]
SETTLE_SECONDS = 0.05


def measure_latency(
    model: str,
    exe: Executable,
    feeds: Mapping[str, Any],
    peers: Sequence[str],
    threads: int,
    warmup: int,
    iterations: int,
) -> list[dict[str, Any]]:
    """Times of aisc and the peers in turn: one row per runtime, milliseconds per call.

    With several threads each side first rests, so that the other one's threads stop spinning, and
    makes one call that is not counted. ``ratio`` is the median of the paired ratios peer / aisc:
    above 1, aisc is faster.
    """
    runners: dict[str, Runner] = {"aisc": lambda: exe.run(None, feeds)}
    for name in peers:
        if name not in PEERS:
            raise error("E401", f"unknown runtime '{name}'", f"known: {', '.join(PEERS)}")
        runners[name] = PEERS[name](model, feeds, threads)
    times: dict[str, list[float]] = {name: [] for name in runners}
    for k in range(warmup + iterations):
        for name, runner in runners.items():
            if len(runners) > 1 and threads > 1:
                time.sleep(SETTLE_SECONDS)
                runner()
            start = time.perf_counter()
            runner()
            if k >= warmup:
                times[name].append((time.perf_counter() - start) * 1e3)
    return [_row(name, threads, times[name], times["aisc"]) for name in runners]


def _row(name: str, threads: int, mine: list[float], aisc: list[float]) -> dict[str, Any]:
    ordered = sorted(mine)
    return {
        "runtime": name,
        "threads": threads,
        "median_ms": statistics.median(mine),
        "p90_ms": ordered[int(len(ordered) * 0.9)] if len(ordered) > 1 else ordered[0],
        "min_ms": ordered[0],
        "ratio": statistics.median(m / a for m, a in zip(mine, aisc, strict=True)),
        "iterations": len(mine),
    }


def _onnxruntime(model: str, feeds: Mapping[str, Any], threads: int) -> Runner:
    try:
        import onnxruntime
    except ImportError:
        raise error("E402", "onnxruntime is not installed", "pip install aisc[bench]") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, dict(feeds))


PEERS: dict[str, Callable[[str, Mapping[str, Any], int], Runner]] = {"onnxruntime": _onnxruntime}
