"""What paired times say: how much longer one takes than the other, and how sure that is.

A shared machine slows down for seconds at a time, and both sides of a pair alike. So each pair
gives a ratio, their median counts, and its bounds are order statistics: whatever the distribution,
the median of a sample of n lies between the k-th ratio from either end but for a chance of twice
the probability that fewer than k of n coins show heads.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import comb

CHANCE = 0.05  # of a bound being wrong, on both sides together


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
