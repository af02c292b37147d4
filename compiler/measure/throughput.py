"""Requests per second of a model, several at once, interleaved with other runtimes.

Every request is the model on the same inputs. As many are in flight as there are streams: each
stream is a thread of this process that asks for the next one when it has its result, on a number of
threads of its own. Sides take turns of :data:`TURN` seconds, so that what else the machine does
meets all of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

from aisc.codegen.run.executable import Executable
from aisc.ir.dataclass import dataclass
from aisc.measure.peers import Runner, peer

TURN = 1.0  # seconds of one side before it is the next one's turn
REST = 0.2  # seconds between turns, in which threads of the side before stop spinning


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked for: `streams` requests in flight on `threads` threads each, for `seconds` of
    each side."""

    streams: int
    threads: int
    seconds: float


@dataclass(slots=True)
class _Side:
    """A runtime under load: seconds that its turns took, and those of each request."""

    runners: Sequence[Runner]
    elapsed: float = 0.0
    requests: list[float] = field(default_factory=list)

    def turn(self, seconds: float) -> None:
        """All streams at once; requests that are under way at the end are finished and count."""
        found: list[list[float]] = [[] for _ in self.runners]
        ready = threading.Barrier(len(self.runners) + 1)
        faults: list[BaseException] = []

        def stream(runner: Runner, times: list[float]) -> None:
            try:
                ready.wait()
                end = time.perf_counter() + seconds
                while (start := time.perf_counter()) < end or not times:
                    runner()
                    times.append(time.perf_counter() - start)
            except BaseException as fault:
                faults.append(fault)

        made = [
            threading.Thread(target=stream, args=pair)
            for pair in zip(self.runners, found, strict=True)
        ]
        for t in made:
            t.start()
        ready.wait()
        start = time.perf_counter()
        for t in made:
            t.join()
        if faults:
            raise faults[0]
        self.elapsed += time.perf_counter() - start
        self.requests += (t for times in found for t in times)


def measure_throughput(
    model: str,
    exe: Executable,
    feeds: Mapping[str, Any],
    peers: Sequence[str],
    load: Load,
    report: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """One row per runtime: requests per second, and percentiles of milliseconds per request.

    `exe` has the load's number of threads; `report` is told whose turn it is. ``ratio`` is the
    requests of aisc over those of the runtime: above 1, aisc serves more.
    """
    runner: Runner = lambda: exe.run(None, feeds)  # noqa: E731
    sides = {"aisc": _Side([runner] * load.streams)}
    for chosen in map(peer, peers):
        opened = chosen.open_streams(model, feeds, load.threads, load.streams)
        sides[chosen.name] = _Side(opened)
    turns = max(1, round(load.seconds / TURN))
    for k in range(-1, turns):
        for name, side in sides.items():
            report(f"{name}, turn {k + 1} of {turns}" if k >= 0 else f"{name}, warming up")
            side.turn(load.seconds / turns if k >= 0 else 0.0)
            if k < 0:
                side.elapsed, side.requests = 0.0, []
            if len(sides) > 1:
                time.sleep(REST)
    return [_row(name, side, load, sides["aisc"]) for name, side in sides.items()]


def _row(name: str, side: _Side, load: Load, aisc: _Side) -> dict[str, Any]:
    ordered = sorted(side.requests)
    rate = len(ordered) / side.elapsed
    share = {f"p{p}_ms": ordered[int((len(ordered) - 1) * p / 100)] * 1e3 for p in (50, 95, 99)}
    return {
        "runtime": name,
        "streams": load.streams,
        "threads": load.threads,
        "requests": len(ordered),
        "requests_per_second": rate,
        **share,
        "ratio": len(aisc.requests) / aisc.elapsed / rate,
    }
