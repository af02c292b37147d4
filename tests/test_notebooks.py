"""Notebooks of the examples run, and show what the stored ones show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import notebooks
import pytest


def shown(cell: Any) -> tuple[str, set[str]]:
    """The text that a cell has printed, and the kinds of its other outputs."""
    text = "".join(o.text for o in cell.outputs if o.output_type == "stream")
    return text, {kind for o in cell.outputs for kind in o.get("data", {})}


@pytest.mark.parametrize("path", notebooks.NOTEBOOKS, ids=lambda p: p.name)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    stored = nbformat.read(path, as_version=4)
    found = notebooks.executed(path, tmp_path)
    for before, now in zip(stored.cells, found.cells, strict=True):
        if before.cell_type != "code":
            continue
        (old, kinds), (new, again) = shown(before), shown(now)
        assert kinds == again, before.source
        assert bool(old) == bool(new), before.source
        if "same" in before.metadata.get("tags", ()):
            assert old == new, before.source
