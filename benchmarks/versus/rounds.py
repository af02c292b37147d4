"""One measurement: a model, a number of threads, all sides in turn, round after round.

Each side is a process. In a round every side runs once: at several threads it rests first, until
the threads of the one before sleep; then it makes a call that is not counted, which brings its data
back into the caches, and then the calls that count: one, or as many as fill about 10 ms. The
multiply-add peak is measured in every round too, so ratios and shares compare what was measured
within a moment. Rounds in which other processes use the machine are repeated.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from versus.neighbours import LIMIT, Moment
from versus.side import Side, SideFailed
from versus.subjects import Array, Subject

sys.path.append(str(Path(__file__).parents[2] / "tests"))  # the definition of agreement

import agreement

from aisc.frontend.registry import importer_for

WARMUP_ROUNDS = 2
MOST_REPEATED = 2  # times the number of rounds
REST_SECONDS = 0.05
TURN_SECONDS = 0.01
BURN_ROUNDS = 500_000
# What the float64 reference may cost: it computes some GFLOP/s.
MAX_REFERENCE_FLOPS = 5e10
NEAR = 1e-3  # of the largest element: fp32 results of long sums differ by about 1e-5

Report = Callable[[str], None]


@dataclass
class SideResult:
    """What a side did: seconds per call, one for each round; or why it did not take part.

    results: ``agrees`` (with the float64 reference, by tests/agreement.py), ``near`` (to aisc's),
    or what differs.
    """

    version: str = ""
    open_seconds: float = 0.0
    seconds: list[float] = field(default_factory=list)
    calls: int = 0
    results: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Round:
    """One turn of everyone: seconds per call by side, GFLOP/s of the peak, and how many cores other
    processes used meanwhile."""

    seconds: Mapping[str, float]
    peak: float
    others: float


@dataclass
class Measurement:
    """A model at a number of threads. flops: of one run; others: cores that other processes used,
    the mean over the rounds that count."""

    subject: Subject
    threads: int
    flops: int
    peaks: list[float]
    sides: dict[str, SideResult]
    others: float

    @property
    def peers(self) -> dict[str, list[float]]:
        """Seconds of the peers that took part."""
        return {n: s.seconds for n, s in self.sides.items() if n != "aisc" and s.seconds}


def measure(
    subject: Subject, threads: int, peers: Sequence[str], rounds: int, folder: Path, report: Report
) -> Measurement:
    """Measure a subject. A side that fails is left out, with its reason; ``SideFailed`` when it is
    aisc."""
    found = {name: SideResult() for name in ("aisc", *peers)}
    about = f"{subject.name}, {threads} thread{'s' * (threads > 1)}"
    with ExitStack() as stack:
        sides: dict[str, Side] = {}
        for name in found:
            report(f"{about}: opening {name}")
            side = stack.enter_context(Side(name, threads))
            if _opened(side, subject, threads, found[name]):
                sides[name] = side
        peak = stack.enter_context(Side("peak", threads))
        files = {"model": str(subject.model), "inputs": _named(subject)}
        flops = int(peak.ask("flops", **files)["flops"])
        _compare(sides, found, subject, flops, folder)
        done = _rounds(sides, found, (peak, threads), rounds, lambda t: report(f"{about}: {t}"))
    for name, result in found.items():
        result.seconds = [] if result.reason else [r.seconds[name] for r in done]
    others = statistics.fmean(r.others for r in done)
    return Measurement(subject, threads, flops, [r.peak for r in done], found, others)


def _rounds(
    sides: dict[str, Side], found: Mapping[str, SideResult], peak: tuple[Side, int], wanted: int,
    report: Report,
) -> list[Round]:  # fmt: skip
    """As many rounds as are wanted. Rounds in which other processes work are replaced by later
    ones, up to twice as many; then those with least of it are taken."""
    done: list[Round] = []
    for k in range(WARMUP_ROUNDS + (1 + MOST_REPEATED) * wanted):
        report(f"round {k + 1}")
        this = _round(sides, found, *peak)
        if k >= WARMUP_ROUNDS:
            done.append(this)
        if sum(r.others <= LIMIT for r in done) == wanted:
            break
    return sorted(done, key=lambda r: max(r.others, LIMIT))[:wanted]


def _opened(side: Side, subject: Subject, threads: int, result: SideResult) -> bool:
    files = {"model": str(subject.model), "inputs": _named(subject)}
    try:
        answer = side.ask("open", side=side.name, threads=threads, **files)
    except SideFailed as fault:
        if side.name == "aisc":
            raise
        result.reason = str(fault)
        return False
    result.version, result.open_seconds = answer["version"], answer["seconds"]
    return True


def _named(subject: Subject) -> dict[str, str]:
    """The files of the inputs by name."""
    return {n: str(p) for n, p in subject.inputs.items()}


def _round(
    sides: dict[str, Side], found: Mapping[str, SideResult], peak: Side, threads: int
) -> Round:
    """Every side's turn, and the peak's. A side that fails is taken out."""
    pids = [s.pid for s in (*sides.values(), peak)]
    start = Moment.now(pids)
    seconds: dict[str, float] = {}
    for name, side in list(sides.items()):
        try:
            answer = _turn(side, threads > 1, "turn", seconds=TURN_SECONDS)
        except SideFailed as fault:
            if name == "aisc":
                raise
            found[name].reason = str(fault)
            del sides[name]
            continue
        seconds[name], found[name].calls = answer["seconds"], answer["calls"]
    burnt = _turn(peak, threads > 1, "peak", rounds=BURN_ROUNDS, threads=threads)["gflops"]
    alive = [p for p in pids if Path(f"/proc/{p}/stat").exists()]
    return Round(seconds, burnt, Moment.now(alive).others_since(start))


def _turn(side: Side, rest: bool, do: str, **values: Any) -> dict[str, Any]:
    """A request to a side, after a rest where threads of the one before may still spin."""
    if rest:
        time.sleep(REST_SECONDS)
    return side.ask(do, **values)


# -- results ------------------------------------------------------------------------------------


def _compare(
    sides: Mapping[str, Side], found: Mapping[str, SideResult], subject: Subject, flops: int,
    folder: Path,
) -> None:  # fmt: skip
    """Compare what the sides compute: aisc with the reference and onnxruntime, the others with
    aisc."""
    results = {n: _results(s, folder / f"{n}-result") for n, s in sides.items()}
    mine = results["aisc"]
    for name, theirs in results.items():
        found[name].results = "" if name == "aisc" else _difference(theirs, mine)
    if "onnxruntime" in results and flops <= MAX_REFERENCE_FLOPS:
        found["aisc"].results = _agreement(subject, mine, results["onnxruntime"])


def _results(side: Side, files: Path) -> list[Array]:
    paths = side.ask("results", files=str(files))["files"]
    return [np.load(p, allow_pickle=False) for p in paths]


def _difference(got: Sequence[Array], want: Sequence[Array]) -> str:
    """``near``, or how far results are apart."""
    if [a.shape for a in got] != [a.shape for a in want]:
        return "other shapes"
    worst = max(map(_distance, got, want), default=0.0)
    return "near" if worst <= NEAR else f"differ by {worst:.1g}"


def _distance(got: Array, want: Array) -> float:
    """Largest difference over the largest element; infinite where one is NaN and the other not."""
    a, b = (np.asarray(x, np.float64) for x in (got, want))
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return float("inf")
    scale = float(np.abs(b).max(initial=0.0, where=np.isfinite(b))) or 1.0
    with np.errstate(invalid="ignore"):
        return float(np.abs(a - b).max(initial=0.0, where=(a != b) & ~np.isnan(b))) / scale


def _agreement(subject: Subject, mine: Sequence[Any], theirs: Sequence[Any]) -> str:
    graph = importer_for(subject.model)(subject.model, {})
    exact = agreement.reference(graph, [subject.feeds[v.name] for v in graph.inputs])
    try:
        agreement.assert_agrees(mine, theirs, exact)
    except AssertionError:
        return "disagrees"
    return "agrees"
