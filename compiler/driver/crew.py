"""Kernels made by several processes, this one among them.

Each takes the next kernel when it has none; the largest come first, so that all end together. What
another process does not give back in time this one makes.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from aisc.artifact.fingerprint import fingerprint
from aisc.driver.kernel import BuiltKernel
from aisc.driver.kernel_process import KernelProcess, can_start
from aisc.driver.options import Options
from aisc.ir.dataclass import dataclass
from aisc.ir.description import to_toml
from aisc.ir.target import Target

# A process takes as long to start as a handful of kernels: one for each so many operators.
OPERATORS = 24
MAX_PROCESSES = 7  # beside this one; each needs about 150 MB


@dataclass(frozen=True, slots=True)
class Task:
    """A kernel as another process is told of it: its text, the key of its target, and choices."""

    kernel: str
    target: str
    choices: str


@dataclass(frozen=True, slots=True)
class Crew:
    """The processes beside this one; `targets` are the keys of those that they know."""

    processes: tuple[KernelProcess, ...] = ()
    targets: tuple[str, ...] = ()

    @staticmethod
    def start(targets: Sequence[Target], options: Options, operators: int) -> Crew:
        """As many as pay for a model of so many operators, and as cores are idle."""
        count = min(
            operators // OPERATORS, usable_cores() - 1, options.threads - 1, idle_cores() - 1,
            MAX_PROCESSES,
        )  # fmt: skip
        plain = [t for t in targets if not t.instructions]
        if count < 1 or not plain or not can_start():
            return ALONE
        keys = [t.key for t in plain]
        greeting = {"compiler": fingerprint(), "targets": keys}
        descriptions = [to_toml(t) for t in plain]
        started = (KernelProcess.start(descriptions, options.level, greeting) for _ in range(count))
        return Crew(tuple(p for p in started if p is not None), tuple(keys))

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        for p in self.processes:
            p.close()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def made(
        self, tasks: Sequence[Task | None], here: Callable[[int], BuiltKernel]
    ) -> Iterator[tuple[int, BuiltKernel]]:
        """Each kernel by number, as it is made; `here` makes one in this process, as must be where
        there is no task."""
        start = time.monotonic()
        largest = sorted(range(len(tasks)), key=lambda n: -_size(tasks[n]))
        todo = deque(largest)
        while todo or any(p.waiting for p in self.processes):
            self._give(todo, tasks)
            if todo:
                number = todo.popleft()
                yield number, here(number)
            else:
                todo.extend(self._left(1 + time.monotonic() - start))
            for p in self.processes:
                while (answer := p.take()) is not None:
                    number, kernel = answer
                    yield number, kernel or here(number)
                if p.is_gone:
                    todo.extend(p.waiting)
                    p.waiting.clear()

    def _give(self, todo: deque[int], tasks: Sequence[Task | None]) -> None:
        """Hand out what others may make; the next one that must be made here stays."""
        for p in self.processes:
            for number in [n for n in todo if tasks[n] is not None]:
                task = tasks[number]
                if not p.is_free or len(todo) < 2:
                    break
                if task is not None and task.target in self.targets:
                    todo.remove(number)
                    at = self.targets.index(task.target)
                    p.give(number, task.kernel, at, task.choices)

    def _left(self, patience: float) -> list[int]:
        """What to make here when nothing is left to be given: a request that has hardly been begun
        is taken back; for the last one of each process it is worth to wait so many seconds."""
        busy = max(self.processes, key=lambda p: len(p.waiting))
        if len(busy.waiting) > 1 or not busy.child.wait(patience):
            return [busy.take_back()]
        return []


ALONE = Crew()


def _size(task: Task | None) -> int:
    return 0 if task is None else len(task.kernel)


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def idle_cores() -> int:
    """Cores on which no other thread wants to run now, with that of this one: on a busy machine
    another process only takes turns with this one. Where nobody tells, all."""
    cores = os.cpu_count() or 1
    try:
        running = int(Path("/proc/loadavg").read_text().split()[3].split("/")[0])
    except (OSError, ValueError, IndexError):
        return cores
    return cores - (running - 1)
