"""Latency of a model, interleaved with other runtimes on the same inputs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from aisc.codegen.run.executable import Executable
from aisc.measure.peers import Runner, peer

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
    for chosen in map(peer, peers):
        runners[chosen.name] = chosen.open(model, feeds, threads)
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
