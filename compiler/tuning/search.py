"""The search for one kernel: evolution over its decisions, with models as a filter.

It begins with the default, what similar kernels were found to like, and every single change, of
which the models choose. Each round then changes and crosses the best so far, has all of it
scheduled, which is cheap, and the most promising made and run, which is not; some of each round
are taken by chance, lest a model that is wrong decides alone. All that is decided by chance comes
from a seed, so a search whose measurements are recorded can be repeated.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import field
from math import log

from aisc.ir.dataclass import dataclass
from aisc.passes.schedule.picks import Choices, choices_to_json
from aisc.tuning.learned import Learned
from aisc.tuning.space import Sketch, crossed, joined, mutated, neighbours, share_changed
from aisc.tuning.trial import Bench, Trial

# Of a round: configurations that are scheduled, that are made and run, and of these by chance.
DRAWN, MADE, BY_CHANCE = 32, 8, 2
PARENTS = 6
# Pairs of a candidate's first and of its last measurement, and candidates that get the last.
SAMPLES, FINAL_SAMPLES, CHECKED = 7, 31, 3
# Children that have two parents, and the ratio of candidates whose choices are joined.
CROSSED, WORTH = 0.35, 0.995
# How wrong models may be about what is changed, as a logarithm: where little is, little is to win.
DOUBT = 0.15
# What the learned model counts for beside the analytical one.
LEARNED_WEIGHT = 0.8


@dataclass(slots=True)
class Search:
    """The state of a search. `seeds` are configurations to begin with; `dead` are not tried: they
    failed, or were measured before. `exact`: only schedules that give the same bits."""

    bench: Bench
    learned: Learned
    seed: int = 0
    exact: bool = True
    seeds: Sequence[Choices] = ()
    dead: set[str] = field(default_factory=set)
    default: Sketch | None = None
    trials: list[Trial] = field(default_factory=list)
    rounds: int = 0
    gains: list[float] = field(default_factory=list)
    exhausted: bool = False
    _seen: set[str] = field(default_factory=set)
    _waiting: list[tuple[Sketch, float]] = field(default_factory=list)
    _single: list[Choices] = field(default_factory=list)

    @property
    def best(self) -> Trial | None:
        """The fastest of all trials; ``None`` before the first, or where none was measured."""
        good = [t for t in self.trials if t.ratio is not None]
        return min(good, key=_median, default=None)

    def round(self, count: int = MADE) -> list[Trial]:
        """Make and run some more candidates, at most `count`."""
        self.rounds += 1
        before = self._level()
        rng = random.Random(f"{self.seed}:{self.rounds}")
        made = self.begin() if self.default is None else []
        if self.default is None:
            return made
        self._schedule(rng)
        chosen = self._choose(rng, count)
        if not chosen:
            self.exhausted = True
        found = self.bench.trials(chosen, SAMPLES) if chosen else []
        self._keep(found)
        self.gains.append(max(0.0, before - self._level()))
        return [*made, *found]

    def begin(self) -> list[Trial]:
        """Measure the default, which must be there for anything to be compared with; where it
        cannot be, there is nothing to search."""
        self.exhausted = True
        (first,) = self.bench.sketches([{}])
        if isinstance(first, str):
            return []
        made = self.bench.trials([first], SAMPLES)
        self._seen.add(first.key)
        if made and made[0].fate in ("ok", "same"):
            self.default, self.exhausted = first, False
        self.trials.extend(made)
        return made

    def _schedule(self, rng: random.Random) -> None:
        """Have new configurations scheduled; they wait for being chosen."""
        assert self.default is not None, "a search begins with the default"
        if self.rounds == 1:
            self._single = list(self._changes(self.default))
        single = self._single[: DRAWN if self.rounds == 1 else DRAWN // 4]
        self._single = self._single[len(single) :]
        wanted = [(c, 0.0) for c in (*(self.seeds if self.rounds == 1 else ()), *single)]
        wanted += [] if self.rounds == 1 else self._children(rng)
        fresh: dict[str, tuple[Choices, float]] = {}
        for choices, bias in wanted:
            key = choices_to_json(choices)
            if key not in self._seen and key not in self.dead:
                fresh.setdefault(key, (choices, bias))
        self._seen |= set(fresh)
        made = self.bench.sketches([c for c, _ in fresh.values()])
        for (key, (_, bias)), sketch in zip(fresh.items(), made, strict=True):
            if isinstance(sketch, str):
                self.dead.add(key)
            elif sketch.key == key or sketch.key not in self._seen | self.dead:
                self._seen.add(sketch.key)
                self._waiting.append((sketch, bias))

    def _changes(self, default: Sketch) -> Iterator[Choices]:
        """Every single change of the default, of each decision in turn."""
        groups: dict[str, list[Choices]] = {}
        for choices in neighbours(default, self.exact):
            (name,) = choices
            groups.setdefault(name, []).append(choices)
        turns = {n: 4 if n.endswith(".tile") else 1 for n in groups}
        while groups:
            for name in list(groups):
                yield from groups[name][: turns[name]]
                groups[name] = groups[name][turns[name] :]
                if not groups[name]:
                    del groups[name]

    def _children(self, rng: random.Random) -> list[tuple[Choices, float]]:
        """Changes of the best, and what several of them have in common, each with what the models
        got wrong about its parents, which they will about it."""
        assert self.default is not None, "a search begins with the default"
        good = sorted((t for t in self.trials if t.ratio is not None), key=_median)[:PARENTS]
        models = self.expected([t.sketch for t in good])
        bias = [log(_median(t)) - m for t, m in zip(good, models, strict=True)]
        better = [t.sketch.choices for t in good if _median(t) < WORTH]
        children: list[tuple[Choices, float]] = [
            (joined(better[:k]), bias[0]) for k in range(2, min(5, len(better) + 1))
        ]
        while len(children) < DRAWN:
            a = min(int(rng.expovariate(0.7)), len(good) - 1)
            b = rng.randrange(len(good))
            if a != b and rng.random() < CROSSED:
                child = crossed(good[a].sketch, good[b].sketch, rng, self.exact)
                children.append((child, (bias[a] + bias[b]) / 2))
            else:
                children.append((mutated(good[a].sketch, rng, self.exact), bias[a]))
        return children

    def _choose(self, rng: random.Random, count: int) -> list[Sketch]:
        """The most promising that wait, and some by chance."""
        assert self.default is not None, "a search begins with the default"
        waiting = self._waiting
        models = self.expected([s for s, _ in waiting])
        scores = [
            m + bias - DOUBT * share_changed(s, self.default)
            for m, (s, bias) in zip(models, waiting, strict=True)
        ]
        order = sorted(range(len(waiting)), key=lambda k: (scores[k], waiting[k][0].key))
        lucky = min(BY_CHANCE, count // 3)
        chosen, rest = order[: count - lucky], order[count - lucky :]
        chosen += rng.sample(rest, min(lucky, len(rest)))
        taken = set(chosen)
        # What was not taken now may be later, but for the worst.
        self._waiting = [waiting[k] for k in order if k not in taken][:DRAWN]
        return [waiting[k][0] for k in chosen]

    def expected(self, sketches: Sequence[Sketch]) -> list[float]:
        """Logarithms of the times that are expected, over that of the default."""
        assert self.default is not None, "a search begins with the default"
        base = [log(max(s.cycles, 1.0) / max(self.default.cycles, 1.0)) for s in sketches]
        learnt = self.learned.predict([s.features for s in sketches], self.default.features)
        if learnt is None:
            return base
        return [
            (1 - LEARNED_WEIGHT) * a + LEARNED_WEIGHT * b for a, b in zip(base, learnt, strict=True)
        ]

    def _keep(self, found: Sequence[Trial]) -> None:
        assert self.default is not None, "a search begins with the default"
        for t in found:
            self.trials.append(t)
            if t.ratio is not None:
                self.learned.add(t.sketch.features, self.default.features, t.ratio.median)
            elif t.fate not in ("same", "unmeasured"):
                self.dead.add(t.sketch.key)

    def _level(self) -> float:
        """The logarithm of the best ratio so far."""
        best = self.best
        return 0.0 if best is None or best.ratio is None else min(0.0, log(best.ratio.median))

    def settle(self) -> Trial | None:
        """The fastest that is faster than the default for sure, measured once more; ``None`` where
        the default stays."""
        measured = [t for t in self.trials if t.ratio is not None and t.sketch.choices]
        good = sorted((t for t in measured if _median(t) < 1.0), key=_median)
        again = self.bench.trials([t.sketch for t in good[:CHECKED]], FINAL_SAMPLES)
        sure = [t for t in again if t.ratio is not None and t.ratio.is_faster]
        return min(sure, key=_median, default=None)


def _median(t: Trial) -> float:
    """The ratio of a trial, for an order: those without one are last."""
    return t.ratio.median if t.ratio is not None else float("inf")
