"""The default schedules of the zoo and of single operators are those that were last agreed on."""

from __future__ import annotations

import golden
import pytest
import zoo


@pytest.mark.parametrize("target", golden.TARGETS)
def test_default_schedules_are_known(target: str) -> None:
    known = golden.path(target).read_text(encoding="utf-8")
    assert golden.current(target) == known, "python tests/golden.py shows and renews them"


def test_every_model_of_the_zoo_is_there() -> None:
    assert set(golden.MODELS["avx512"]) == {*zoo.ZOO, "operators"}
