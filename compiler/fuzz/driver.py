"""Many cases in several processes: progress, a summary, files of what was found, an exit code."""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from aisc.fuzz.case import Case, size_of
from aisc.fuzz.check import Finding, Outcome
from aisc.fuzz.worker import Limits, Worker, crash_reducer
from aisc.ir.dataclass import dataclass

MISMATCH, INTERNAL = 4, 70
DEADLY = ("crash", "hang", "memory")
Work = Literal["graph", "schedule"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the user wants. Without a count, as many as there is time for."""

    count: int | None = 100
    seed: int = 0
    seconds: float | None = None
    jobs: int = 0
    out: Path | None = None
    reduce_seconds: float = 60.0
    works: tuple[Work, ...] = ("graph",)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Failure:
    """A finding with the case that it was reduced to, the step that is to blame, and its file."""

    work: Work
    seed: int
    finding: Finding
    case: Case | None = None
    step: str = ""
    path: Path | None = None


@dataclass
class Summary:
    """What a run gave."""

    cases: int = 0
    compared: int = 0
    unclear: int = 0
    skipped: int = 0
    seconds: float = 0.0
    unsupported: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """70 when aisc fails inside, 4 when results differ, else 0."""
        kinds = {f.finding.kind for f in self.failures}
        if kinds - {"mismatch"}:
            return INTERNAL
        return MISMATCH if kinds else 0

    def add(self, outcome: Outcome) -> None:
        """Count a case."""
        self.cases += 1
        self.compared += outcome.compared
        self.unclear += outcome.unclear
        self.skipped += outcome.skipped
        if outcome.unsupported:
            self.unsupported[outcome.unsupported.splitlines()[0]] += 1


def run(plan: Plan, console: Console | None = None) -> Summary:
    """Work on the seeds from ``plan.seed`` on."""
    console = console or Console(stderr=True)
    summary, start = Summary(), time.monotonic()
    results: queue.Queue[tuple[Outcome, list[Failure]] | Exception | None] = queue.Queue()
    todo = _Todo(plan, start)
    jobs = plan.jobs or len(os.sched_getaffinity(0))
    threads = [
        threading.Thread(target=_work, args=(plan, todo, results), daemon=True) for _ in range(jobs)
    ]
    for t in threads:
        t.start()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    shown = Progress(*columns, TimeElapsedColumn(), console=console, transient=True,
                     disable=not console.is_terminal)  # fmt: skip
    try:
        with shown as bar:
            total = None if plan.count is None else plan.count * len(plan.works)
            task = bar.add_task("fuzzing", total=total)
            for outcome, failures in _results(results, jobs):
                summary.add(outcome)
                summary.failures += failures
                found = f"fuzzing: {len(summary.failures)} findings"
                bar.update(task, advance=1, description=found)
    finally:
        todo.stop()
    for t in threads:
        t.join()
    summary.seconds = time.monotonic() - start
    return summary


def _results(
    results: queue.Queue[tuple[Outcome, list[Failure]] | Exception | None], jobs: int
) -> Iterator[tuple[Outcome, list[Failure]]]:
    while jobs:
        item = results.get()
        if isinstance(item, Exception):
            raise item
        if item is None:
            jobs -= 1
        else:
            yield item


class _Todo:
    """Hands out work to several threads until the count or the time is over."""

    def __init__(self, plan: Plan, start: float) -> None:
        self._plan, self._lock = plan, threading.Lock()
        self._end = None if plan.seconds is None else start + plan.seconds
        numbers = itertools.count() if plan.count is None else range(plan.count)
        self._items = ((w, plan.seed + k) for k in numbers for w in plan.works)
        self._stopped = False

    def next(self) -> tuple[Work, int] | None:
        """The next item."""
        with self._lock:
            late = self._end is not None and time.monotonic() > self._end
            return None if self._stopped or late else next(self._items, None)

    def stop(self) -> None:
        """Hand out no more."""
        self._stopped = True


def _work(plan: Plan, todo: _Todo, results: queue.Queue[object]) -> None:
    """One thread, with one process."""
    worker = Worker(plan.limits)
    try:
        while (item := todo.next()) is not None:
            work, seed = item
            outcome = worker.ask(work, seed)
            failures = [_failure(plan, worker, work, seed, f) for f in outcome.findings]
            results.put((outcome, failures))
    except Exception as fault:
        results.put(fault)
    finally:
        worker.close()
        results.put(None)


def _failure(plan: Plan, worker: Worker, work: Work, seed: int, finding: Finding) -> Failure:
    """A finding, reduced and written."""
    case, step = None, ""
    if work == "graph" and plan.reduce_seconds > 0:
        if finding.kind in DEADLY:
            case = _reduced_alone(plan, seed, finding)
        else:
            seconds = plan.reduce_seconds + plan.limits.seconds
            answer = worker.ask("reduced", seed, finding, plan.reduce_seconds, seconds=seconds)
            if isinstance(answer, tuple):
                case, finding, step = answer
    path = None
    if plan.out is not None and case is not None:
        from aisc.fuzz.write import as_test, write_finding

        text = as_test(case, finding, plan.limits.target, step)
        path = write_finding(plan.out, f"test_{finding.kind}_{seed}", text)
    return Failure(work, seed, finding, case, step, path)


def _reduced_alone(plan: Plan, seed: int, finding: Finding) -> Case | None:
    """What is left of a case that ends its process, tried in processes of its own."""
    from aisc.fuzz.generate import Shape, make
    from aisc.fuzz.reduce import Reducer

    worker = Worker(plan.limits)
    try:
        fails = crash_reducer(worker, finding)
        case = make(seed, Shape(nodes=plan.limits.nodes))
        for number in range(len(case.feeds)):
            small = Reducer(fails, plan.reduce_seconds).run(case, number)
            if len(small.feeds) == 1:
                return small
        return case
    finally:
        worker.close()


# -- what the user sees ----------------------------------------------------------------------------
def report(summary: Summary, plan: Plan, console: Console) -> None:
    """The failures, a table of their kinds, and how much was compared."""
    for f in summary.failures:
        size = "" if f.case is None else f", reduced to {size_of(f.case.graph)} nodes"
        step = f", first wrong after {f.step}" if f.step else ""
        where = "" if f.path is None else f"\n  {f.path}"
        head = f"{f.finding.kind}: {f.work} {f.seed}, by {f.finding.oracle}{size}{step}"
        console.print(f"{head}\n  {f.finding.message}{where}", markup=False, highlight=False)
    table = Table("kind", "oracle", "count", title="findings")
    counts = Counter((f.finding.kind, f.finding.oracle) for f in summary.failures)
    for (kind, oracle), count in sorted(counts.items()):
        table.add_row(kind, oracle, str(count))
    if counts:
        console.print(table)
    for message, count in summary.unsupported.most_common():
        console.print(f"not supported, {count} times: {message}", markup=False, highlight=False)
    rate = summary.cases / max(summary.seconds, 1e-9)
    share = summary.unclear / max(1, summary.compared)
    console.print(
        f"{summary.cases} cases from seed {plan.seed} in {summary.seconds:.1f} s ({rate:.1f} a "
        f"second), {summary.compared} elements compared, {share:.2%} unclear, "
        f"{len(summary.failures)} findings", highlight=False,
    )  # fmt: skip
