"""Medians, spreads, paired ratios and how sure they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = Sequence[float]
DRAWS = 2000  # of the bootstrap
CONFIDENCE = 95  # per cent


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with the bounds of its confidence interval."""

    value: float
    low: float
    high: float


def ratio(peer: Samples, mine: Samples) -> Estimate:
    """The median of paired ratios peer / mine: above 1, mine is faster. The bounds are those of the
    bootstrap over rounds."""
    ratios = np.asarray(peer) / np.asarray(mine)
    return _estimate(float(np.median(ratios)), np.median(_drawn(ratios, 0), axis=1))


def geometric_mean(ratios: Sequence[Samples]) -> Estimate:
    """The geometric mean over models of the medians of their ratios; each model's rounds are drawn
    apart from the others'."""
    logs = [np.log(np.asarray(r)) for r in ratios]
    value = float(np.exp(np.mean([np.median(x) for x in logs])))
    medians = [np.median(_drawn(x, k), axis=1) for k, x in enumerate(logs)]
    return _estimate(value, np.exp(np.mean(medians, axis=0)))


def _drawn(samples: NDArray[Any], seed: int) -> NDArray[Any]:
    """Draws with replacement, a row each."""
    rng = np.random.default_rng(seed)
    return samples[rng.integers(0, len(samples), (DRAWS, len(samples)))]


def _estimate(value: float, drawn: NDArray[Any]) -> Estimate:
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Estimate(value, float(low), float(high))


def spread(samples: Samples) -> tuple[float, float, float]:
    """The 10th, 50th and 90th percentile."""
    low, middle, high = np.percentile(np.asarray(samples), [10, 50, 90])
    return float(low), float(middle), float(high)


def best_peer(peers: Mapping[str, Samples], mine: Samples) -> str:
    """The peer with the least median ratio: the one that comes nearest to `mine`, or beats it."""
    return min(peers, key=lambda name: ratio(peers[name], mine).value)
