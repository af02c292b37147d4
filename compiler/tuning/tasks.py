"""Which kernel gets the next round: the one from which the whole model gains most.

A kernel weighs as much of the model's time as its calls take. What a round will bring is what the
last ones brought; before the first, a share that every kernel is given alike. So time goes to heavy
kernels, and away from those that have stopped getting faster (the gradient of Zheng et al.,
*Ansor*, 2020, without its similar tasks).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from aisc.ir.dataclass import dataclass
from aisc.tuning.search import Search

# What is expected of the first round, and how quickly hope fades without success.
FIRST, FADE = 0.15, 0.6
LAST_ROUNDS = 3


@dataclass(slots=True)
class Task:
    """The search for a kernel. calls: of one run of the model."""

    name: str
    search: Search
    calls: int = 1

    @property
    def seconds(self) -> float:
        """The time of the default in one run, when it was measured last; 0 before."""
        measured = [t.seconds for t in self.search.trials if t.seconds > 0]
        return self.calls * measured[-1] if measured else 0.0

    @property
    def factor(self) -> float:
        """Time over that of the default, by the best so far."""
        best = self.search.best
        return 1.0 if best is None or best.ratio is None else min(1.0, best.ratio.median)

    @property
    def hope(self) -> float:
        """The part of the kernel's time that another round may save."""
        if self.search.exhausted:
            return 0.0
        gains = self.search.gains[-LAST_ROUNDS:]
        if not gains:
            return FIRST
        recent = 1 - exp(-sum(gains) / len(gains))
        return max(recent, FIRST * FADE ** len(self.search.gains))

    @property
    def gain(self) -> float:
        """Seconds of one run of the model that another round may save."""
        return self.seconds * self.factor * self.hope


def next_task(tasks: Sequence[Task]) -> Task | None:
    """The task whose next round promises most; ``None`` when none promises anything."""
    best = max(tasks, key=lambda t: t.gain, default=None)
    return None if best is None or best.gain <= 0 else best


def promised(tasks: Sequence[Task]) -> float:
    """The part of the model's time that another round of every task may save."""
    total = sum(t.seconds * t.factor for t in tasks)
    return sum(t.gain for t in tasks) / total if total > 0 else 0.0
