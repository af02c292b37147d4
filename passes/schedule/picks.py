"""What rules have decided for a kernel: the name of a decision, the choice, and what else there is.

A rule never decides by a bare constant: it asks a chooser
(:class:`aisc.passes.schedule.rules.chooser.Chooser`), and what was picked stands in the schedule
beside its steps. So a default schedule, a tuned one and a space to search are one mechanism: the
choices of a record are what the rules are given when the kernel is scheduled again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from aisc.ir.dataclass import dataclass

Choice = bool | int | str | tuple[int, ...]
Choices = Mapping[str, Choice]


@dataclass(frozen=True, slots=True)
class Pick:
    """A decision: its name (block and subject, as ``matmul.tile``), what was picked, the rule's own
    choice and all options, that one first. Of an `exact` one every option gives the same bits."""

    name: str
    choice: Choice
    default: Choice
    options: tuple[Choice, ...]
    exact: bool = True

    def __str__(self) -> str:
        own = "" if self.choice == self.default else f", by default {written(self.default)}"
        return f"{self.name} = {written(self.choice)}{own}"


def written(choice: Choice) -> str:
    """A choice as people read it: ``yes``, ``4``, ``winograd``, ``14x2``."""
    if isinstance(choice, bool):
        return "yes" if choice else "no"
    return "x".join(map(str, choice)) if isinstance(choice, tuple) else str(choice)


def space_size(picks: Sequence[Pick]) -> int:
    """How many schedules the decisions span; a decision that only another choice asks for is not
    among them."""
    return prod(len(p.options) for p in picks)


def tuned(picks: Sequence[Pick]) -> dict[str, Choice]:
    """The choices that are not the rules' own: what a record must hold."""
    return {p.name: p.choice for p in picks if p.choice != p.default}


def stale(choices: Choices, picks: Sequence[Pick]) -> list[str]:
    """The names among `choices` that nothing asked for, or whose choice was none of the options."""
    made = {p.name: p.choice for p in picks}
    return [name for name, choice in choices.items() if made.get(name) != choice]


def choices_to_json(choices: Choices) -> str:
    """Choices as JSON; :func:`choices_from_json` restores them exactly."""
    return json.dumps(dict(choices), sort_keys=True)


def choices_from_json(text: str) -> dict[str, Choice]:
    """Read :func:`choices_to_json`; ``ValueError`` for anything else."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("choices are an object of JSON")
    return {name: _choice(value) for name, value in found.items()}


def _choice(value: Any) -> Choice:
    if isinstance(value, list) and all(isinstance(v, int) for v in value):
        return tuple(value)
    if isinstance(value, bool | int | str):
        return value
    raise ValueError(f"{value!r} is no choice")
