"""One layer measured: results compared, then all sides in turn.

In a round every side makes a call that is not counted and then calls for about a turn's time; the
order is turned round from one round to the next. The median of the calls is the side's time in this
round; a side's time is the median of its rounds, a ratio that of the ratios within the rounds. A
peer whose results are not those of the first peer is no measure, and is left out.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import aisc
from aisc.driver.api import build
from aisc.driver.options import from_environment
from aisc.ir.diagnostics import CompileError
from aisc.measure.peers import peer
from aisc.measure.profile import profile_runs
from fuzzing.draft import Array, Layer
from fuzzing.results import ceilings

Run = Callable[[], Sequence[Any]]
Row = dict[str, Any]
MOST_CALLS = 3000  # of a turn
# Seconds of a call from which on the clock is that of the process, where it has one thread: a
# scheduler that shares the core with others interrupts every such call.
LONG_CALL = 1e-3
PROFILED = 5  # runs for what a layer needs at least
RELATIVE, ABSOLUTE = 2e-3, 1e-4  # the latter of the largest element


@dataclass(frozen=True, slots=True)
class Plan:
    """How to measure: peers in the order in which their results count, threads of every side,
    rounds, seconds of a turn; `roofline`: what the machine allows is measured, too."""

    peers: tuple[str, ...] = ("onnxruntime", "openvino")
    threads: int = 1
    rounds: int = 5
    turn: float = 0.02
    roofline: bool = False


def measured(layer: Layer, plan: Plan) -> Row:
    """A layer as plain numbers: ``ratio`` and ``us`` by side where it was timed; ``fault`` when
    aisc fails or its results differ; ``skipped`` when no peer runs it."""
    row: Row = {"family": layer.family, "what": layer.about}
    sides, row["left_out"] = opened(layer, plan)
    if not sides:
        return {**row, "skipped": "; ".join(f"{n}: {why}" for n, why in row["left_out"].items())}
    try:
        start = time.perf_counter()
        # A file would be read again at each run of the program, and layers are never the same.
        exe = aisc.compile(layer.model.SerializeToString(), threads=plan.threads, cache=False)
        row["compile_s"] = time.perf_counter() - start
        feeds = dict(layer.feeds)
        got = exe.run(None, feeds)
    except Exception as fault:
        return {**row, "fault": f"{type(fault).__name__}: {_head(fault)}"}
    wrong = compared(sides, got)
    if wrong.pop("aisc", None):
        return {**row, "fault": "results differ"}
    row["left_out"] |= wrong
    runs = {n: run for n, run in sides.items() if n not in wrong}
    row |= timed({"aisc": lambda: exe.run(None, feeds), **runs}, plan)
    return row | shares(layer, plan, row["us"]["aisc"] * 1e-6) if plan.roofline else row


def opened(layer: Layer, plan: Plan) -> tuple[dict[str, Run], dict[str, str]]:
    """The peers that run the layer, and why the others do not."""
    sides: dict[str, Run] = {}
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.onnx"
        onnx.save(layer.model, path)
        for name in plan.peers:
            try:
                run = peer(name).open(str(path), layer.feeds, plan.threads)
                run()
                sides[name] = run
            except CompileError as fault:
                left_out[name] = "; ".join(fault.diagnostics[0].notes)[:200]
            except Exception as fault:  # whatever a runtime throws when it runs
                left_out[name] = _head(fault)
    return sides, left_out


def _head(fault: Exception) -> str:
    return (str(fault).strip().splitlines() or [""])[0][:200]


# -- results ---------------------------------------------------------------------------------------
def compared(sides: Mapping[str, Run], got: Sequence[Array]) -> dict[str, str]:
    """The sides, aisc among them, whose results are not those of the first peer."""
    first, *others = sides
    want = [np.array(a) for a in sides[first]()]
    differ = {n: "results differ" for n in others if not agree(sides[n](), want)}
    return differ if agree(got, want) else {**differ, "aisc": "results differ"}


def agree(got: Sequence[Any], want: Sequence[Array]) -> bool:
    """Whether results are the same, floats up to the roundings of long sums."""
    return len(got) == len(want) and all(map(_close, map(np.asarray, got), want))


def _close(got: Array, want: Array) -> bool:
    if got.shape != want.shape or got.dtype != want.dtype:
        return False
    if want.dtype.kind != "f":
        return np.array_equal(got, want)
    largest = np.abs(want).max(initial=0.0, where=np.isfinite(want))
    bound = ABSOLUTE * max(1e-6, float(largest))
    return np.allclose(got, want, rtol=RELATIVE, atol=bound, equal_nan=True)


# -- limits ----------------------------------------------------------------------------------------
def shares(layer: Layer, plan: Plan, seconds: float) -> Row:
    """Of the multiply-add peak: ``peak``, the share that a call of so many seconds reaches, and
    ``allowed``, that of kernels whose time is that of their operations or that of their bytes at
    the rate of large copies, whichever is longer."""
    options = from_environment(threads=plan.threads, profile=True)
    profile = profile_runs(build(layer.model, "cpu", options), layer.feeds, 1, PROFILED)
    most = _most(plan.threads)
    profile = replace(profile, fma=most["gflops"], copy=most["gbytes"])
    kernels = [r for r in profile.rows if r.kind == "kernel"]
    least = sum(map(profile.least, kernels))
    at_peak = sum(r.flops for r in kernels) / profile.fma / 1e9
    return {"peak": at_peak / seconds, "allowed": at_peak / least}


@cache
def _most(threads: int) -> Row:
    return ceilings(threads)


# -- times -----------------------------------------------------------------------------------------
def timed(runs: Mapping[str, Run], plan: Plan) -> Row:
    """Microseconds of a call of each side, the nearest peer, and its time over ours."""
    seconds = rounds(runs, plan)
    mine = seconds.pop("aisc")
    ratios = {
        n: statistics.median(s / m for s, m in zip(theirs, mine, strict=True))
        for n, theirs in seconds.items()
    }
    best = min(ratios, key=ratios.__getitem__)
    us = {n: statistics.median(s) * 1e6 for n, s in {"aisc": mine, **seconds}.items()}
    return {"us": us, "ratios": ratios, "best": best, "ratio": ratios[best]}


def rounds(runs: Mapping[str, Run], plan: Plan) -> dict[str, list[float]]:
    """Seconds of a call of each side in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for k in range(plan.rounds):
        for name in list(runs)[:: -1 if k % 2 else 1]:
            seconds[name].append(_turn(runs[name], plan))
    return seconds


def _turn(run: Run, plan: Plan) -> float:
    """The median of calls that take about a turn together: what interrupts one does not count."""
    start = time.perf_counter()
    run()
    one = max(time.perf_counter() - start, 1e-6)
    clock = time.process_time if plan.threads == 1 and one > LONG_CALL else time.perf_counter
    count = max(1, min(MOST_CALLS, round(plan.turn / one)))
    return statistics.median(each(run, count, clock))


def each(run: Run, count: int, clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Seconds of so many calls."""
    found = []
    for _ in range(count):
        start = clock()
        run()
        found.append(clock() - start)
    return found
