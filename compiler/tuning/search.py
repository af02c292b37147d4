"""Grid search over a kernel's candidates, anytime and never worse than the default.

Every candidate is measured once, a few samples each; the best few, and all together that were
faster than the default, then meet the default in paired, interleaved measurements. A candidate
replaces the default only when the median of its paired ratios says that it is faster by more than
the noise margin.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aisc.ir.tensor.func import Func
from aisc.tuning.database import Record
from aisc.tuning.measure import Worker
from aisc.tuning.space import Candidate, joined

FIRST_SAMPLES = 3
FINAL_SAMPLES = 15
FINALISTS = 3
MARGIN = 0.98  # a winner takes at most this share of the default's time


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate's fate: its median in seconds, or why it has none."""

    label: str
    seconds: float | None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The chosen record (the default's own when nothing beat it) and all trials."""

    record: Record
    trials: tuple[Trial, ...]

    @property
    def speedup(self) -> float:
        """Time of the default over time of the choice, from the paired measurement."""
        return self.record.default_seconds / self.record.seconds


def grid_search(
    func: Func,
    space: Sequence[Candidate],
    worker: Worker,
    budget: float = 60.0,
    report: Callable[[Trial], None] = lambda trial: None,
) -> Outcome:
    """Measure the candidates in order until `budget` seconds are spent, then hold the final."""
    deadline = time.monotonic() + budget
    default, trials = space[0], list[Trial]()
    measured: list[tuple[float, Candidate]] = []
    for candidate in space:
        if time.monotonic() > deadline and trials:
            break
        trial = _try(func, candidate, worker)
        trials.append(trial)
        report(trial)
        if trial.seconds is not None:
            measured.append((trial.seconds, candidate))
    measured.sort(key=lambda m: m[0])
    best = Record(default.label, default.choices, 1.0, 1.0)
    for candidate in _finalists(measured, default):
        record = _duel(func, default, candidate, worker)
        if record is not None and _ratio(record) < min(MARGIN, _ratio(best)):
            best = record
    return Outcome(best, tuple(trials))


def _finalists(measured: Sequence[tuple[float, Candidate]], default: Candidate) -> list[Candidate]:
    """The fastest few, and those faster than the default together."""
    limit = next((MARGIN * t for t, c in measured if c is default), 0.0)
    faster = [c for t, c in measured if t < limit]
    first = [c for _, c in measured if c is not default][:FINALISTS]
    return [*first, joined(faster)] if len(faster) > 1 else first


def _ratio(record: Record) -> float:
    return record.seconds / record.default_seconds


def _try(func: Func, candidate: Candidate, worker: Worker) -> Trial:
    result = worker.measure(func, [candidate.choices], FIRST_SAMPLES)
    if result.failure:
        return Trial(candidate.label, None, result.failure)
    return Trial(candidate.label, statistics.median(result.seconds[0]))


def _duel(func: Func, default: Candidate, other: Candidate, worker: Worker) -> Record | None:
    """A paired measurement; the record's times stand in the ratio of the median pair."""
    result = worker.measure(func, [default.choices, other.choices], FINAL_SAMPLES)
    if result.failure:
        return None
    base, tuned = result.seconds
    ratio = statistics.median(t / b for t, b in zip(tuned, base, strict=True))
    reference = statistics.median(base)
    return Record(other.label, other.choices, reference * ratio, reference)
