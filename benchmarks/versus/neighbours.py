"""How much of the machine other processes use, from Linux's counters of processor time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")
# The counters advance in ticks, and not all at the same moment.
_SLACK = 2 * _TICK
LIMIT = 0.1  # cores


def _busy() -> float:
    """Seconds that all cores together have worked, for whom ever."""
    numbers = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]))
    idle, waiting = numbers[3:5]
    return (sum(numbers[:8]) - idle - waiting) * _TICK


def _used(pid: int) -> float:
    """Seconds that a process has worked."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


@dataclass(frozen=True, slots=True)
class Moment:
    """The counters at a time."""

    time: float
    busy: float
    own: float

    @staticmethod
    def now(pids: Iterable[int]) -> Moment:
        """The counters now; `pids` are our own processes, beside this one."""
        own = sum(map(_used, (os.getpid(), *pids)))
        return Moment(time.perf_counter(), _busy(), own)

    def others_since(self, start: Moment) -> float:
        """Cores that others have used since `start`, on the average."""
        seconds = (self.busy - start.busy) - (self.own - start.own) - _SLACK
        return max(0.0, seconds) / max(self.time - start.time, 1e-9)
