"""What paired times say: how much longer one takes than the other, and how sure that is.

A shared machine slows down for seconds at a time, and both sides of a pair alike. So each pair
gives a ratio, their median counts, and its bounds are order statistics: whatever the distribution,
the median of a sample of n lies between the k-th ratio from either end but for a chance of twice
the probability that fewer than k of n coins show heads.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import cache
from math import comb

from aisc.ir.dataclass import dataclass

CHANCE = 0.05  # of a bound being wrong, on both sides together


def take(
    runs: Sequence[Callable[[], float]],
    samples: int,
    go_on: Callable[[int], bool] = lambda turn: True,
) -> list[list[float]]:
    """The times that each run gives, in turn, the first first in every other pair: `samples` of
    them, or as long as `go_on` for the number of a turn."""
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(samples):
        if not go_on(turn):
            break
        order = range(len(runs)) if turn % 2 == 0 else reversed(range(len(runs)))
        for k in order:
            times[k].append(runs[k]())
    return times


def seconds_of(run: Callable[[], object], calls: int) -> float:
    """Seconds of a call, in `calls` calls."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def calls_for(run: Callable[[], object], seconds: float) -> int:
    """Calls that take so many seconds together, one at least."""
    return max(1, int(seconds / max(seconds_of(run, 1), 1e-7)))


@dataclass(frozen=True, slots=True)
class Ratio:
    """Time of a candidate over that of the one that stands: the median and its bounds."""

    median: float
    low: float
    high: float

    @property
    def is_faster(self) -> bool:
        """Whether the candidate is faster for sure."""
        return self.high < 1.0

    @property
    def is_slower(self) -> bool:
        """Whether it is slower for sure."""
        return self.low > 1.0


def ratio_of(standing: Sequence[float], candidate: Sequence[float]) -> Ratio:
    """The ratio of paired times; bounds are the extremes where the sample is too small."""
    ratios = sorted(c / s for s, c in zip(standing, candidate, strict=True))
    cut = rank(len(ratios))
    return Ratio(statistics.median(ratios), ratios[cut], ratios[len(ratios) - 1 - cut])


@cache
def rank(count: int) -> int:
    """How many ratios at either end lie beyond the bounds: as many as may, for the chance."""
    below, beyond = 1 / 2**count, 0
    while beyond < (count - 1) // 2 and below + comb(count, beyond + 1) / 2**count <= CHANCE / 2:
        beyond += 1
        below += comb(count, beyond) / 2**count
    return beyond
