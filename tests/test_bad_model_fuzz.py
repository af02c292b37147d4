"""Models broken at random (``tests/bad_model_maker.py``): compiled, or refused with one report."""

from __future__ import annotations

from pathlib import Path

import bad_model_maker
import pytest

from aisc.frontend.onnx.importer import import_model


def test_the_whole_models_import(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(96))
    for model in bad_model_maker.bases():
        path = tmp_path / "m.onnx"
        path.write_bytes(model.SerializeToString())
        import_model(path)


def test_broken_models_are_what_their_seeds_say() -> None:
    assert bad_model_maker.broken(7) == bad_model_maker.broken(7)
    whole = {m.SerializeToString() for m in bad_model_maker.bases()}
    assert len({bad_model_maker.broken(seed) for seed in range(100)} - whole) > 90


@pytest.mark.llvm
def test_broken_models(tmp_path: Path) -> None:
    assert list(bad_model_maker.faults(range(1_000_000, 1_000_400), tmp_path)) == []


@pytest.mark.slow
@pytest.mark.llvm
def test_many_broken_models(tmp_path: Path) -> None:
    assert list(bad_model_maker.faults(range(100_000), tmp_path)) == []
