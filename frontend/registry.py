"""Importers of foreign models, found by file suffix and loaded only when needed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from aisc.ir.arith.poly import Extent
from aisc.ir.diagnostics import error
from aisc.ir.graph.core import Graph


class Importer(Protocol):
    """Turns a model file into a verified graph. Raises ``CompileError`` E1xx and E2xx."""

    def __call__(self, source: Path, shapes: Mapping[str, Extent]) -> Graph:
        """Import `source`; `shapes` fixes or bounds symbolic dimensions by name."""
        ...


# Suffix -> (module, attribute) of an Importer.
IMPORTERS: dict[str, tuple[str, str]] = {
    ".onnx": ("aisc.frontend.onnx.importer", "import_model"),
}


def importer_for(path: Path) -> Importer:
    """The importer of a file, by suffix; ``CompileError`` E101 when there is none."""
    entry = IMPORTERS.get(path.suffix.lower())
    if entry is None:
        known = ", ".join(sorted(IMPORTERS))
        raise error("E101", f"{path.name}: unknown kind of model", f"known suffixes: {known}")
    module, name = entry
    found: Importer = getattr(importlib.import_module(module), name)
    return found
