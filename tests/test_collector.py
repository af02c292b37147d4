"""The garbage collector rests while something is compiled, and is then as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from aisc.driver.collector import ALLOCATIONS, patient


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_thresholds_come_back_also_after_an_error() -> None:
    gc.set_threshold(701, 11, 12)
    with patient():
        assert gc.get_threshold() == (ALLOCATIONS, 11, 12)
        with patient():
            assert gc.get_threshold()[0] == ALLOCATIONS
        assert gc.get_threshold()[0] == ALLOCATIONS
    assert gc.get_threshold() == (701, 11, 12)
    with pytest.raises(ValueError, match="inside"), patient():
        raise ValueError("inside")
    assert gc.get_threshold() == (701, 11, 12)


@pytest.mark.parametrize("chosen", [0, ALLOCATIONS + 5])
def test_what_the_user_chose_holds_where_it_asks_for_less(chosen: int) -> None:
    gc.set_threshold(chosen, 10, 10)
    with patient():
        assert gc.get_threshold() == (chosen, 10, 10)
