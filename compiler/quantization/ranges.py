"""Ranges of values, from what was seen of them: histograms that grow, and methods over them."""

from __future__ import annotations

import math
from dataclasses import field

import numpy as np

from aisc.ir.dataclass import dataclass
from aisc.quantization.network import Array
from aisc.quantization.settings import Settings

# Cells of a histogram: fine beside the 256 steps of 8 bits, also of a part of the range.
CELLS = 8192
LEVELS = 255
# Parts of the seen range that the method "mse" tries.
_PARTS = np.geomspace(0.02, 1.0, 64)


@dataclass(slots=True)
class Histogram:
    """How often values were seen in equal cells from ``-reach`` to ``reach``, a power of two that
    doubles when a value lies outside, so that what was counted before keeps its cells. Values that
    are not finite are left out."""

    low: float = math.inf
    high: float = -math.inf
    reach: float = 0.0
    counts: Array = field(default_factory=lambda: np.zeros(CELLS, np.int64))
    skipped: int = 0

    def add(self, values: Array) -> None:
        """Count values."""
        flat = np.asarray(values, np.float32).reshape(-1)
        finite = np.isfinite(flat)
        if not finite.all():
            self.skipped += int(flat.size - finite.sum())
            flat = flat[finite]
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._grow(max(abs(low), abs(high)))
        cells = ((flat.astype(np.float64) / self.reach + 1) * (CELLS // 2)).astype(np.int64)
        self.counts += np.bincount(np.minimum(cells, CELLS - 1), minlength=CELLS)

    def merge(self, other: Histogram) -> None:
        """Count what another has counted."""
        if not other.reach:
            return
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        theirs = Histogram(reach=other.reach, counts=other.counts.copy())
        self._grow(other.reach)
        theirs._grow(self.reach)
        self.counts += theirs.counts

    def _grow(self, wanted: float) -> None:
        if not self.reach:
            self.reach = 2.0 ** math.ceil(math.log2(max(wanted, 1e-30)))
        while self.reach < wanted:
            half = CELLS // 4
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(pairs, (half, half))
            self.reach *= 2

    @property
    def centres(self) -> Array:
        """The middle of each cell."""
        return (np.arange(CELLS) + 0.5) * (2 * self.reach / CELLS) - self.reach


def find_range(seen: Histogram, settings: Settings) -> tuple[float, float]:
    """The least and the greatest value that a quantized value shall stand for; 0 is among them."""
    if not seen.reach:
        return 0.0, 0.0
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if settings.method == "percentile":
        most = _percentile(seen, settings.percentile)
    elif settings.method == "entropy":
        most = _entropy(seen)
    elif settings.method == "mse":
        return _least_error(seen, low, high, settings)
    else:
        return low, high
    return max(low, -most), min(high, most)


def _percentile(seen: Histogram, percentile: float) -> float:
    """The absolute value that this part of all does not exceed."""
    sizes = _sizes(seen)
    passed = np.cumsum(sizes) >= sizes.sum() * percentile / 100
    return float((int(np.argmax(passed)) + 1) * seen.reach / len(sizes))


def _sizes(seen: Histogram) -> Array:
    """Counts by absolute value."""
    half = CELLS // 2
    return np.asarray(seen.counts[half:] + seen.counts[:half][::-1])


def _entropy(seen: Histogram) -> float:
    """The limit of absolute values whose clipped and quantized distribution diverges least, in the
    sense of Kullback and Leibler, from that of all values."""
    sizes = _sizes(seen).astype(np.float64)
    levels = (LEVELS + 1) // 2
    used = int(np.flatnonzero(sizes)[-1]) + 1
    ends = np.unique(np.linspace(min(levels, used), used, 128).astype(int))
    return min((_divergence(sizes, int(end), levels), int(end)) for end in ends)[1] * (
        seen.reach / len(sizes)
    )


def _divergence(sizes: Array, end: int, levels: int) -> float:
    """How far the distribution below `end`, quantized, is from that of all, clipped."""
    wanted = sizes[:end].copy()
    wanted[-1] += sizes[end:].sum()
    level = np.arange(end) * levels // end
    full = sizes[:end] > 0
    total = np.bincount(level, sizes[:end], levels)
    count = np.bincount(level, full, levels)
    got = np.where(full, total[level] / np.maximum(count[level], 1), 0.0)
    p, q = wanted / wanted.sum(), got / max(got.sum(), 1e-30)
    some = p > 0
    return float((p[some] * np.log(p[some] / np.maximum(q[some], 1e-9))).sum())


def _least_error(
    seen: Histogram, low: float, high: float, settings: Settings
) -> tuple[float, float]:
    """The part of the range that gives the least squared error, each end in turn."""
    some = seen.counts > 0
    x, n = seen.centres[some], seen.counts[some].astype(np.float64)

    def loss(a: float, b: float) -> float:
        step = (max(-a, b) * 2 if settings.activations == "i8" else b - a) / LEVELS
        if step <= 0:
            return math.inf
        q = np.rint(np.clip(x, a, b) / step) * step
        return float((n * (x - q) ** 2).sum())

    best = min(_PARTS, key=lambda p: loss(low * p, high * p))
    low, high = low * best, high * best
    lower = min(_PARTS, key=lambda p: loss(low * p, high))
    return low * lower, high * min(_PARTS, key=lambda p: loss(low * lower, high * p))
