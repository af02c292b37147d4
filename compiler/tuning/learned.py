"""A model of speed that learns from trials: gradient-boosted trees over features of schedules.

It predicts how a schedule's time relates to that of the default one of its kernel, from its
features and how they differ from the default's; so what was learnt of one kernel helps with others
(as in Zheng et al., *Ansor*, 2020). Trials are kept by the database; the model is made from them,
the same each time. It needs scikit-learn, the extra ``tune``; without it there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from importlib.util import find_spec
from math import log
from typing import Any

from aisc.ir.dataclass import dataclass

# Trials before there is something to learn, and after which it is learnt again.
ENOUGH, STEP = 24, 16
MOST = 20_000


@dataclass(slots=True)
class Learned:
    """Trials and, once there are enough, what was learnt from them."""

    rows: list[list[float]] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    _model: Any = None
    _learnt: int = 0

    @staticmethod
    def is_available() -> bool:
        """Whether the library is installed."""
        return find_spec("sklearn") is not None

    def add(self, features: Sequence[float], default: Sequence[float], ratio: float) -> None:
        """A trial: its time over that of the default."""
        if ratio > 0 and len(features) == len(default):
            self.rows.append(_row(features, default))
            self.ratios.append(log(ratio))

    def predict(
        self, features: Sequence[Sequence[float]], default: Sequence[float]
    ) -> list[float] | None:
        """Logarithms of the expected ratios; ``None`` while nothing is known."""
        rows = [r for r in self.rows[-MOST:] if len(r) == 2 * len(default)]
        if len(rows) < ENOUGH or not features or not default or not self.is_available():
            return None
        if self._model is None or len(rows) >= self._learnt + max(STEP, self._learnt // 4):
            self._learn(rows)
        return [float(x) for x in self._model.predict([_row(f, default) for f in features])]

    def _learn(self, rows: list[list[float]]) -> None:
        from sklearn.ensemble import HistGradientBoostingRegressor

        kept = [
            y for r, y in zip(self.rows[-MOST:], self.ratios[-MOST:], strict=True)
            if len(r) == len(rows[0])
        ]  # fmt: skip
        model = HistGradientBoostingRegressor(
            max_iter=80, learning_rate=0.1, max_leaf_nodes=15, min_samples_leaf=4, random_state=0,
            early_stopping=False,
        )  # fmt: skip
        self._model = model.fit(rows, kept)
        self._learnt = len(rows)


def _row(features: Sequence[float], default: Sequence[float]) -> list[float]:
    return [*features, *(f - d for f, d in zip(features, default, strict=True))]
