"""The search space of a kernel: the decisions of its rules.

A candidate is what is given to the rules instead of their own choices; the default gives nothing
and is always the first. Each other one differs from it in a single decision, those of the
register tile, which the analytical model has ordered, before others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from aisc.passes.schedule.picks import Choices, Pick, written


@dataclass(frozen=True, slots=True)
class Candidate:
    """A schedule to try: the choices that make it, and how they are called."""

    label: str
    choices: Choices


DEFAULT = Candidate("default", {})


def candidates(picks: Sequence[Pick], limit: int = 64, exact: bool = True) -> list[Candidate]:
    """The default, then one candidate for each other option of each decision, at most `limit` in
    all. `exact`: only those that give the same bits."""
    return [DEFAULT, *islice(_others(picks, exact), limit - 1)]


def _others(picks: Sequence[Pick], exact: bool) -> Iterator[Candidate]:
    tiles = [p for p in picks if p.name.endswith(".tile")]
    for p in (*tiles, *(p for p in picks if p not in tiles)):
        if exact and not p.exact:
            continue
        for option in p.options:
            if option != p.choice:
                yield Candidate(f"{p.name}={written(option)}", {p.name: option})


def joined(found: Sequence[Candidate]) -> Candidate:
    """What several candidates differ in, together; of one decision the first one's choice."""
    choices = {name: choice for c in reversed(found) for name, choice in c.choices.items()}
    label = ", ".join(f"{name}={written(choice)}" for name, choice in sorted(choices.items()))
    return Candidate(label, choices)
