"""Importers of models: what turns files, bytes and objects into graphs.

Importers are found in the group ``importers`` (:mod:`aisc.ir.plugins`): the name of one is the
suffix of its files, what it gives is an :class:`Importer`. None is loaded before a model of its
kind comes, or, for what is no file, before those that come before it have said that they do not
know the model.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from aisc.ir import plugins
from aisc.ir.arith.poly import Extent
from aisc.ir.diagnostics import error
from aisc.ir.graph.core import Graph


class Importer(Protocol):
    """What reads one kind of model."""

    def accepts(self, source: object) -> bool:
        """Whether `source`, bytes or an object, is a model of this kind."""

    def parts(self, path: Path) -> Sequence[str] | None:
        """The other files of the model in `path`, by their names from its folder on: where it and
        these are equal, so is the model. ``None`` when that cannot be told."""

    def __call__(
        self, source: Any, shapes: Mapping[str, Extent], *, overridable: Sequence[str] = ()
    ) -> Graph:
        """The verified graph of a file of this kind, or of what it accepts. `shapes` fixes or
        bounds symbolic dimensions by name, `overridable` names inputs that have defaults and stay
        inputs. Raises ``CompileError`` E1xx and E2xx."""


def importer_for(source: object) -> Importer:
    """The importer of a file, by its suffix, or of bytes or an object; E101 when there is none."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        found = _named(_suffix(path))
        if found is None:
            known = ", ".join(f".{name}" for name in suffixes())
            raise error("E101", f"{path.name}: unknown kind of model", f"known suffixes: {known}")
        return found
    for importer in _all():
        if importer.accepts(source):
            return importer
    raise error("E101", "a model is a path, bytes, an object that an importer knows, or a graph",
                f"got {type(source).__name__}")  # fmt: skip


def parts(path: Path) -> Sequence[str] | None:
    """The other files of a model, by their names from its folder on; ``None`` when its kind cannot
    tell."""
    found = _named(_suffix(path))
    return None if found is None else found.parts(path)


def suffixes() -> tuple[str, ...]:
    """Suffixes of files that can be read here, without their point."""
    return tuple(sorted(plugins.names("importers")))


def _suffix(path: Path) -> str:
    """The kind of a file; behind a colon stands what is meant in it: ``module.py:function``."""
    return path.suffix.lower().removeprefix(".").partition(":")[0]


def _named(name: str) -> Importer | None:
    found: Importer | None = plugins.find("importers", name)
    return found


def _all() -> Iterator[Importer]:
    for name in plugins.names("importers"):
        found = _named(name)
        if found is not None:
            yield found
