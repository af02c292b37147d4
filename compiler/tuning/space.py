"""The search space of a kernel: the decisions of its rules, and how to move in it.

A configuration is what is given to the rules instead of their own choices; the empty one is the
default. Which decisions there are depends on those before, so a space is never listed: what was
scheduled tells its decisions, and its neighbours are found from there.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from aisc.ir.dataclass import dataclass
from aisc.passes.schedule.picks import Choice, Choices, Pick, choices_to_json, written

# How often a change takes one decision back.
BACK = 0.25


@dataclass(frozen=True, slots=True)
class Sketch:
    """A configuration as the rules took it: its decisions, the cycles that the model expects, what
    bounds them, the features that a learned model sees, and the nests that follow each other, each
    with its cycles."""

    choices: Choices
    picks: tuple[Pick, ...]
    cycles: float
    bound: str
    features: tuple[float, ...]
    parts: tuple[tuple[str, float], ...] = ()

    @property
    def key(self) -> str:
        """The same for configurations that are scheduled alike."""
        return choices_to_json(self.choices)

    @property
    def label(self) -> str:
        """The configuration for people."""
        return label_of(self.choices)


def share_changed(sketch: Sketch, default: Sketch) -> float:
    """The part of the default's time that goes to nests which a configuration has otherwise."""
    total = sum(n for _, n in default.parts)
    kept = {key for key, _ in sketch.parts}
    changed = sum(n for key, n in default.parts if key not in kept)
    return changed / total if total > 0 else 1.0


def label_of(choices: Choices) -> str:
    """Choices for people: ``matmul_1.tile=6x2``, or ``default``."""
    texts = [f"{name}={written(choice)}" for name, choice in sorted(choices.items())]
    return ", ".join(texts) or "default"


def neighbours(sketch: Sketch, exact: bool) -> list[dict[str, Choice]]:
    """All configurations that differ in one decision, those of register tiles first. `exact`: only
    those that give the same bits."""
    picks = sorted(open_picks(sketch, exact), key=lambda p: not p.name.endswith(".tile"))
    return [_with(sketch.choices, p, o) for p in picks for o in p.options if o != p.choice]


def open_picks(sketch: Sketch, exact: bool) -> list[Pick]:
    """The decisions that a search may change."""
    return [p for p in sketch.picks if p.exact or not exact]


def _with(choices: Choices, pick: Pick, option: Choice) -> dict[str, Choice]:
    found = {name: choice for name, choice in choices.items() if name != pick.name}
    return found if option == pick.default else {**found, pick.name: option}


def mutated(sketch: Sketch, rng: random.Random, exact: bool) -> dict[str, Choice]:
    """A configuration that differs in a decision or a few. Of numbers that are in order, the next
    ones are taken more often."""
    choices = dict(sketch.choices)
    picks = open_picks(sketch, exact)
    if choices and rng.random() < BACK:
        del choices[rng.choice(sorted(choices))]
        return choices
    if not picks:
        return choices
    for p in rng.sample(picks, min(len(picks), rng.choice((1, 1, 2, 3)))):
        option = _other(p, rng)
        choices = _with(choices, p, option)
    return choices


def _other(p: Pick, rng: random.Random) -> Choice:
    """Another option of a decision."""
    others = [o for o in p.options if o != p.choice]
    if isinstance(p.choice, tuple):
        near = sorted(others, key=lambda o: _distance(o, p.choice))
        return (
            rng.choice(near[: max(3, len(near) // 3)]) if rng.random() < 0.6 else rng.choice(near)
        )
    return rng.choice(others) if others else p.choice


def _distance(a: Choice, b: Choice) -> float:
    if not isinstance(a, tuple) or not isinstance(b, tuple):
        return 0.0
    return sum(abs(x - y) / max(x, y, 1) for x, y in zip(a, b, strict=False))


def crossed(a: Sketch, b: Sketch, rng: random.Random, exact: bool) -> dict[str, Choice]:
    """A configuration that takes each decision from one of two."""
    names = [p.name for p in (*open_picks(a, exact), *open_picks(b, exact))]
    found: dict[str, Choice] = {}
    for name in dict.fromkeys(names):
        source: Mapping[str, Choice] = rng.choice((a, b)).choices
        if name in source:
            found[name] = source[name]
    return found


def joined(several: Sequence[Choices]) -> dict[str, Choice]:
    """What several configurations differ in, together; of one decision the first one's choice."""
    return {name: choice for c in reversed(several) for name, choice in c.items()}


def pick_from_json(value: Sequence[object]) -> Pick:
    """The decision of :func:`aisc.tuning.maker.pick_to_json`."""
    name, choice, default, options, exact = value
    assert isinstance(options, list), "options are a list"
    every = tuple(map(_choice, options))
    return Pick(str(name), _choice(choice), _choice(default), every, bool(exact))


def _choice(value: object) -> Choice:
    if isinstance(value, list):
        return tuple(int(v) for v in value)
    assert isinstance(value, bool | int | str), "a choice"
    return value
