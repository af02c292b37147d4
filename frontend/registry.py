"""Importers of foreign models, found by file suffix and loaded only when needed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from aisc.ir.arith.poly import Extent
from aisc.ir.diagnostics import error
from aisc.ir.graph.core import Graph


class Importer(Protocol):
    """Turns a model file into a verified graph. Raises ``CompileError`` E1xx and E2xx."""

    def __call__(
        self, source: Path, shapes: Mapping[str, Extent], *, overridable: Sequence[str] = ()
    ) -> Graph:
        """Import `source`; `shapes` fixes or bounds symbolic dimensions by name, `overridable`
        names inputs that have defaults and stay inputs."""
        ...


# Suffix -> (module, attribute) of an Importer.
IMPORTERS: dict[str, tuple[str, str]] = {
    ".onnx": ("aisc.frontend.onnx.importer", "import_model"),
    ".aim": ("aisc.frontend.lang.importer", "import_model"),
}
# Suffix -> (module, attribute) of a function that says whether a file is all there is to a model.
WHOLE: dict[str, tuple[str, str]] = {
    ".onnx": ("aisc.frontend.onnx.reader", "is_whole"),
    ".aim": ("aisc.frontend.lang.importer", "is_whole"),
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


def is_whole(path: Path) -> bool:
    """Whether a model consists of this file alone, as far as its kind can tell."""
    entry = WHOLE.get(path.suffix.lower())
    if entry is None:
        return False
    module, name = entry
    found: Callable[[Path], bool] = getattr(importlib.import_module(module), name)
    return found(path)
