"""Tuning a model: searches for all its kernels share one budget, whose records a database keeps."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field

from aisc.codegen.backend import Described
from aisc.ir.dataclass import dataclass
from aisc.ir.target import Target
from aisc.ir.tensor.func import Func
from aisc.passes.schedule.picks import Choices, choices_to_json
from aisc.records.database import Database, Past, Record, workload_key
from aisc.tuning.bench import KernelBench, Workshop
from aisc.tuning.described import DescribedBench
from aisc.tuning.learned import Learned
from aisc.tuning.search import MADE, Search
from aisc.tuning.space import label_of
from aisc.tuning.tasks import Task, next_task, promised
from aisc.tuning.trial import FAILED, Bench, Trial
from aisc.tuning.workers import MAKER, RUNNER, Worker

# Of the time, what remains for measuring the chosen once more; and of choices, those begun with.
FINAL_SHARE = 0.2
SEEDS = 6


@dataclass(frozen=True, slots=True)
class Budget:
    """What a session may spend: seconds, trials, and how much more must be promised to go on (a
    part of the model's time)."""

    seconds: float = 60.0
    trials: int = 0
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Workload:
    """A kernel to be tuned. calls: of one run of the model; moved: bytes that lie between two;
    device: who knows what it takes, where it does not run here; sizes: for which it is tuned."""

    func: Func
    calls: int = 1
    moved: int = 0
    device: Described | None = None
    sizes: tuple[Mapping[str, int], ...] = ({},)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a session is: the kernel at hand, its best factor, the model's expected factor,
    trials so far, seconds left, and what another round of all is expected to bring."""

    kernel: str
    factor: float
    model: float
    trials: int
    left: float
    promise: float
    phase: str = "search"


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came of a kernel. ratio: time over that of the default, with its bounds; 1 where the
    default stays. seconds: of the default; history: best ratio after each trial; predicted: what
    the analytical model expected of the choice."""

    kernel: str
    label: str
    choices: Choices
    ratio: float
    low: float
    high: float
    seconds: float
    calls: int
    trials: int
    failed: int
    bound: str
    predicted: float
    history: tuple[float, ...]
    digest: str = ""

    @property
    def speedup(self) -> float:
        """How many times as fast as by default."""
        return 1 / self.ratio


@dataclass(slots=True)
class Session:
    """A tuning session for a host, and for devices that are described. `learned` grows with every
    trial that was run."""

    target: Target
    database: Database
    shop: Workshop
    exact: bool = True
    seed: int = 0
    report: Callable[[Progress], None] = lambda progress: None
    learned: Learned = field(default_factory=Learned)
    _deadline: float = 0.0
    _count: int = 0
    _homes: dict[str, Workload] = field(default_factory=dict)

    def run(self, workloads: Sequence[Workload], budget: Budget) -> list[Tuned]:
        """Tune kernels, the result in their order. Interrupted, it settles for what it has."""
        start = time.monotonic()
        self._deadline = start + budget.seconds * (1 - FINAL_SHARE)
        self.shop.stopped = lambda: time.monotonic() > self._deadline
        for p in self.database.trials(self.target):
            if p.ratio is not None:
                self.learned.add(p.features, p.base, p.ratio)
        tasks = [self._task(w) for w in workloads]
        self._homes = {t.name: w for t, w in zip(tasks, workloads, strict=True)}
        try:
            self._search(tasks, budget)
        except KeyboardInterrupt:
            self._deadline = 0.0
        self._deadline = max(start + budget.seconds, time.monotonic() + 2.0)
        return [self._settled(t, w) for t, w in zip(tasks, workloads, strict=True)]

    def take_back(self, workloads: Sequence[Workload]) -> None:
        """Record the default for kernels after all."""
        for w in workloads:
            record = Record(w.func.name, {}, 1.0, 1.0, 1.0, 0.0, self.shop.threads)
            self.database.choose(workload_key(w.func), self._target(w), record)

    def _task(self, w: Workload) -> Task:
        if w.device is not None:  # what costs nothing is asked again
            bench: Bench = DescribedBench(w.device, w.func)
            return Task(w.func.name, Search(bench, Learned(), self.seed, self.exact), w.calls)
        key = workload_key(w.func)
        bench = KernelBench(self.shop, w.func, w.sizes, w.moved, self.exact)
        past = self.database.trials(self.target, key)
        seeds = self._seeds(key, past)
        search = Search(bench, self.learned, self.seed, self.exact, seeds)
        search.dead = {choices_to_json(p.choices) for p in past}
        search.dead -= {choices_to_json(c) for c in ({}, *seeds)}
        return Task(w.func.name, search, w.calls)

    def _seeds(self, key: str, past: Sequence[Past]) -> list[Choices]:
        """What was good before: of this kernel, then of others."""
        good = [p for p in past if p.ratio is not None and p.ratio < 1]
        mine = [p.choices for p in sorted(good, key=lambda p: p.ratio or 1.0)[: SEEDS // 2]]
        record = self.database.best(key, self.target, self.shop.threads)
        if record is not None and record.choices:
            mine.insert(0, record.choices)
        others = self.database.liked(self.target, SEEDS)
        return list({choices_to_json(c): c for c in (*mine, *others)}.values())

    def _search(self, tasks: Sequence[Task], budget: Budget) -> None:
        """Rounds, until the budget is spent or nothing more is promised."""
        self._measure_defaults(tasks)
        while not self.shop.stopped():
            task = next_task(tasks)
            spent = budget.trials and self._count >= budget.trials
            if task is None or spent or (budget.until and promised(tasks) < budget.until):
                break
            left = budget.trials - self._count if budget.trials else 0
            trials = task.search.round(min(left, MADE) if left else MADE)
            self._note(task, trials)
            self._tell(task, tasks)

    def _measure_defaults(self, tasks: Sequence[Task]) -> None:
        """What each kernel weighs."""
        for task in tasks:
            if self.shop.stopped():
                return
            self._note(task, task.search.begin())
            self._tell(task, tasks, "defaults")

    def _note(self, task: Task, trials: Sequence[Trial]) -> None:
        """Keep trials."""
        base = task.search.default
        done = [t for t in trials if t.fate != "unmeasured"]
        self._count += len(done)
        rows = [
            Past(t.sketch.label, t.sketch.choices, t.fate,
                 None if t.ratio is None else t.ratio.median, t.seconds, t.sketch.features,
                 base.features if base else (), self.shop.threads, t.detail)
            for t in done
        ]  # fmt: skip
        w = self._homes[task.name]
        self.database.note(workload_key(w.func), self._target(w), rows)

    def _target(self, w: Workload) -> Target:
        return self.target if w.device is None else w.device.target

    def _tell(self, task: Task, tasks: Sequence[Task], phase: str = "search") -> None:
        total = sum(t.seconds for t in tasks)
        now = sum(t.seconds * t.factor for t in tasks)
        left = max(0.0, self._deadline - time.monotonic())
        model = now / total if total else 1.0
        self.report(
            Progress(task.name, task.factor, model, self._count, left, promised(tasks), phase)
        )

    def _settled(self, task: Task, w: Workload) -> Tuned:
        """The choice of a kernel, recorded."""
        tuned = tuned_of(task, task.search.settle())
        if task.search.default is not None:
            record = Record(
                tuned.kernel if not tuned.choices else f"{tuned.kernel}: {tuned.label}",
                tuned.choices, tuned.ratio, tuned.low, tuned.high, tuned.seconds,
                self.shop.threads, tuned.digest,
            )  # fmt: skip
            self.database.choose(workload_key(w.func), self._target(w), record)
        return tuned


def tuned_of(task: Task, chosen: Trial | None) -> Tuned:
    """The report of a kernel."""
    search = task.search
    ratio = chosen.ratio if chosen is not None else None
    sketch = chosen.sketch if chosen is not None else search.default
    default = search.default
    predicted = sketch.cycles / default.cycles if sketch and default and default.cycles else 1.0
    best, history = 1.0, []
    for t in search.trials:
        best = min(best, t.ratio.median) if t.ratio is not None else best
        history.append(best)
    middle, low, high = (ratio.median, ratio.low, ratio.high) if ratio else (1.0, 1.0, 1.0)
    return Tuned(
        kernel=task.name,
        label=label_of(sketch.choices) if sketch else "default",
        choices=sketch.choices if sketch else {},
        ratio=middle,
        low=low,
        high=high,
        seconds=task.seconds / max(1, task.calls),
        calls=task.calls,
        trials=len(search.trials),
        failed=sum(t.fate in FAILED for t in search.trials),
        bound=sketch.bound if sketch else "",
        predicted=predicted,
        history=tuple(history),
        digest=chosen.digest if chosen else "",
    )


def workshop(target: str, threads: int, makers: int = 0) -> Workshop:
    """The processes on this machine: one maker for each core, and a runner."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    count = makers or max(1, cores)
    return Workshop([Worker(MAKER) for _ in range(count)], [Worker(RUNNER)], target, threads)
