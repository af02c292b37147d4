"""Rates of the host that were measured: kept, read again, and only for the same processor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aisc.ir import measured
from aisc.ir.measured import Measured, measured_path, processor
from aisc.ir.probe import probe
from aisc.measure import machine_rates
from aisc.passes.analysis.estimate import _levels


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path))


KEPT = Measured(processor(), {"L2": 21.5, "memory": 3.25}, {"clock": 3.0})


def test_rates_hold_for_the_processor_they_were_measured_on() -> None:
    plain = measured.with_measured(probe())
    assert plain == probe()
    measured_path().write_text(KEPT.to_toml())
    found = measured.with_measured(probe())
    assert found.key == plain.key, "code does not depend on them"
    assert found.rates["clock"] == 3.0
    if any(m.name == "L2" for m in found.memories):
        assert found.memory("L2").bandwidth == 21.5
        assert [behind.bandwidth for _, behind in _levels(found)][-1] == 3.25
    measured_path().write_text(replace(KEPT, processor="another").to_toml())
    assert measured.with_measured(probe()) == plain


@pytest.mark.parametrize(
    "text",
    ["", "processor = 3", "[reads]", "x" * 100, KEPT.to_toml().replace("21.5", "-1"),
     KEPT.to_toml().replace("21.500", "'a'"), "\0"],
)  # fmt: skip
def test_a_damaged_file_is_as_if_there_were_none(text: str) -> None:
    measured_path().write_text(text)
    assert measured.with_measured(probe()) == probe()


def test_rates_are_those_of_a_machine() -> None:
    """Orders of size, which hold on a busy machine too."""
    found = machine_rates.measure()
    assert 0.1 < found.clock < 10
    assert 0.05 < found.fma < 8
    assert set(found.reads) >= {"memory"}
    assert all(0 < r < 1000 for r in found.reads.values())
