"""A model's profile: the time, operations and bytes of every layer, from whole runs.

The entry stamps the clock around its statements (:mod:`aisc.codegen.cpu.profile`), so a layer is
measured where it stands: with the caches, threads and neighbours that it has in the model. Times
are those of thread 0, medians over the runs. Operations and bytes are the least that the layer
needs (:mod:`aisc.passes.analysis.roofline`); its share of the roofline is the time that the
machine's measured limits allow for them over the time it takes. What lies in a cache is read faster
than the copies that the limit is measured with, so shares above 1 do occur.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aisc.codegen.cpu.profile import BETWEEN, Site, buffers_at, sites_of
from aisc.codegen.run.executable import Executable
from aisc.driver.pipeline import Compiled
from aisc.ir.arith.poly import evaluate
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, ExecutionError
from aisc.ir.tensor.func import Func, Program
from aisc.ir.tensor.stmt import Barrier, CallKernel, Copy, HostCall
from aisc.measure.machine_limits import copy_gbytes, fma_gflops
from aisc.passes.analysis.roofline import flops, traffic
from aisc.passes.plan.overlap import storage
from aisc.passes.schedule.schedule import Schedule, trace_from_json

BURN_ROUNDS = 300_000
MAX_BURNS = 20
Words = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Row:
    """One statement of the entry, per run. kind: kernel, copy, host, or wait (a barrier); nodes:
    what the model calls the layer, empty if it has no name for it; calls: how often it is executed;
    seconds: median; flops: of the operators as the model has them; executed: of the algorithm that
    was chosen for them; bytes: that it reads and writes, weights included; sizes: those of its
    dimensions in the last run."""

    kind: str
    nodes: tuple[str, ...]
    kernel: str
    calls: float
    seconds: float
    flops: int
    executed: int
    bytes: int
    sizes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Profile:
    """Rows in the order of the entry, for statements that were executed.

    between: seconds of thread 0 outside of all rows (sizes, memory); around: outside of the entry
    (the call, fork and join); wall: of a whole call as the caller sees it; fma: GFLOP/s and copy:
    GB/s that the threads reach at most.
    """

    threads: int
    runs: int
    rows: tuple[Row, ...]
    between: float
    around: float
    wall: float
    fma: float
    copy: float

    def least(self, row: Row) -> float:
        """Seconds that a row needs at least."""
        return max(row.executed / self.fma, row.bytes / self.copy) / 1e9

    def to_json(self) -> dict[str, Any]:
        """The profile as a JSON value, with the shares."""
        rows = [{**asdict(r), "roofline": self.least(r) / max(r.seconds, 1e-9)} for r in self.rows]
        head = ("threads", "runs", "between", "around", "wall", "fma", "copy")
        return {**{k: getattr(self, k) for k in head}, "rows": rows}


def profile_runs(
    compiled: Compiled, feeds: Mapping[str, Any], warmup: int, iterations: int
) -> Profile:
    """Run a model compiled with ``profile`` on `feeds`; nothing else may run it meanwhile."""
    exe = compiled.executable
    assert exe is not None and exe.image.profile, "compiled with the option profile"
    call = _caller(exe, feeds)
    for _ in range(warmup):
        call()
    copies = [copy_gbytes(exe.threads) for _ in range(5)]
    call()
    runs: list[tuple[Words, float]] = []
    burns: list[float] = []
    for k in range(iterations):
        runs.append(_one_run(exe, call))
        if k < MAX_BURNS:
            burns.append(fma_gflops(BURN_ROUNDS, exe.threads))
    return _profile(compiled, exe.threads, runs, *map(statistics.median, (burns, copies)))


def count_flops(compiled: Compiled, feeds: Mapping[str, Any]) -> int:
    """Operations of one run of a model compiled with ``profile``."""
    exe = compiled.executable
    assert exe is not None and exe.image.profile, "compiled with the option profile"
    run = _one_run(exe, lambda: exe.run(None, feeds))
    return sum(r.flops for r in _profile(compiled, exe.threads, [run], 1, 1).rows)


def _profile(
    compiled: Compiled, threads: int, runs: Sequence[tuple[Words, float]], fma: float, copy: float
) -> Profile:
    """The profile of some runs, given as their words and seconds."""
    program = compiled.product
    assert isinstance(program, Program), "the product of a whole compilation is its Program"
    kernels = {k.name: k for k in program.kernels}
    sites = sites_of(program.entry, kernels)
    places = (BETWEEN, *(s.at for s in sites))
    around = statistics.median(wall - sum(int(w[k]) for k in places) / 1e9 for w, wall in runs)
    between = statistics.median(int(w[BETWEEN]) / 1e9 for w, _ in runs)
    wall = statistics.median(wall for _, wall in runs)
    table = {n: _Kernel(f, _algorithm(f, kernels[n])) for n, f in compiled.origins.items()}
    rows = _rows(sites, table, np.stack([w for w, _ in runs]))
    return Profile(threads, len(runs), rows, between, around, wall, fma, copy)


def _caller(exe: Executable, feeds: Mapping[str, Any]) -> Callable[[], object]:
    """Calls `exe`. Its results always go to the same arrays where their sizes are known before: the
    system clears pages that are new, and a layer that writes a large result would pay for it."""
    arrays = [feeds[n] for n in exe.input_names]
    made = exe(*arrays)
    out = made if isinstance(made, tuple) else (made,)
    try:
        exe(*arrays, out=out)
    except ExecutionError:
        return lambda: exe(*arrays)
    return lambda: exe(*arrays, out=out)


def _one_run(exe: Executable, call: Callable[[], object]) -> tuple[Words, float]:
    """The words of one run, and its seconds."""
    exe.reset_profiles()
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    (words,) = exe.profiles()
    return words, seconds


@dataclass(frozen=True, slots=True)
class _Kernel:
    """A kernel as it was lowered, and with the variants that its schedule chose."""

    lowered: Func
    algorithm: Func


def _algorithm(lowered: Func, scheduled: Func) -> Func:
    """What was chosen to be computed. A kernel from the cache may have been scheduled under other
    names of its buffers, which a step then does not find: it is counted as it was lowered."""
    chosen = str(scheduled.attr("algorithm", "[]"))
    try:
        return Schedule.of(lowered).replay(trace_from_json(chosen)).func
    except CompileError:
        return lowered


def _rows(sites: Sequence[Site], kernels: Mapping[str, _Kernel], samples: Words) -> tuple[Row, ...]:
    times = np.median(samples, axis=0)
    counts = np.mean(samples, axis=0)
    last = samples[-1]
    return tuple(
        _row(s, kernels, float(times[s.at]) / 1e9, float(counts[s.at + 1]), last)
        for s in sites
        if counts[s.at + 1] > 0
    )


def _row(
    site: Site, kernels: Mapping[str, _Kernel], seconds: float, calls: float, words: Words
) -> Row:
    s = site.stmt
    values = words[site.at + 2 : site.end]
    sizes = {n: int(v) for (n, _), v in zip(site.sizes, values, strict=True)}
    work = executed = 0
    if isinstance(s, CallKernel):
        kind, nodes, name = "kernel", s.loc.nodes, s.kernel
        kernel = kernels[name]
        work, executed = flops(kernel.lowered, sizes), flops(kernel.algorithm, sizes)
        moved = _moved(s, kernel.algorithm, sizes)
    else:
        kind, nodes, name = _what(s)
        moved = sum(evaluate(b.bytes, sizes) for b in buffers_at(s))
    work, executed, moved = (round(n * calls) for n in (work, executed, moved))
    return Row(kind, nodes, name, calls, seconds, work, executed, moved, sizes)


def _what(s: Copy | HostCall | Barrier) -> tuple[str, tuple[str, ...], str]:
    """Kind, nodes and name of what is no kernel."""
    if isinstance(s, Copy):
        return "copy", (), f"copy to {s.dst.name}"
    if isinstance(s, HostCall):
        return "host", s.loc.nodes, s.op
    return "wait", (), "barrier"


def _moved(call: CallKernel, algorithm: Func, sizes: Mapping[str, int]) -> int:
    """Bytes that one call reads and writes; a buffer that is passed twice is read once."""
    found: dict[tuple[str, object], int] = {}
    # Scratch comes after the parameters of the algorithm, and stays in the cache.
    for b, n in zip(call.args, traffic(algorithm, sizes), strict=False):
        key = storage(b), b.offset
        found[key] = max(n, found.get(key, 0))
    return sum(found.values())


def chrome_trace(profiles: Sequence[Profile]) -> dict[str, Any]:
    """Profiles as a trace for chrome://tracing or Perfetto: each is a process named after its
    number of threads, with one run in which its rows follow each other."""
    events: list[dict[str, Any]] = []
    for p in profiles:
        at = 0.0
        for r in p.rows:
            args = {"kernel": r.kernel, "calls": r.calls, "flops": r.flops, "bytes": r.bytes}
            length = r.seconds * 1e6
            events.append(
                {"name": layer_name(r), "cat": r.kind, "ph": "X", "pid": p.threads, "tid": 0,
                 "ts": at, "dur": length, "args": {**args, "nodes": list(r.nodes)}}
            )  # fmt: skip
            at += length
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def layer_name(row: Row) -> str:
    """The first node of a layer, and how many more it has."""
    more = f" +{len(row.nodes) - 1}" if len(row.nodes) > 1 else ""
    return row.nodes[0] + more if row.nodes else row.kernel


def heaviest(rows: Sequence[Row]) -> list[Row]:
    """Rows by falling time, without waiting."""
    return sorted((r for r in rows if r.kind != "wait"), key=lambda r: -r.seconds)
