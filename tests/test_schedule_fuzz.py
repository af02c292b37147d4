"""Random loop nests under random schedules: what is accepted keeps the result to the bit, what is
refused with a witness conflicts, every trace replays."""

from __future__ import annotations

import pytest

from aisc.fuzz.schedules import check, check_default
from aisc.fuzz.steps import MOVES
from aisc.ir.target import resolve
from aisc.passes.schedule import schedule as registry

# Instructions belong to a target's description (tests/test_dsa.py), variants match few blocks
# (tests/test_winograd.py).
ELSEWHERE = {"tensorize", "variant"}


def test_every_primitive_is_tried() -> None:
    registry._load()
    assert set(registry.PRIMITIVES) - ELSEWHERE == set(MOVES)


@pytest.mark.parametrize("start", range(0, 400, 10))
def test_random_schedules_keep_the_meaning(start: int) -> None:
    for seed in range(start, start + 10):
        check(seed)


# The last: a nest of rows that read rows which come later.
@pytest.mark.parametrize("start", [*range(0, 200, 20), 20580])
def test_default_rules_keep_the_meaning(start: int) -> None:
    for seed in range(start, start + 20):
        check_default(seed, resolve("cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 11000, 100))
def test_many_random_schedules_keep_the_meaning(start: int) -> None:
    for seed in range(start, start + 100):
        check(seed)
