"""What aisc and other packages offer by name: back ends, importers, targets and operators.

Packages offer theirs as entry points of groups such as ``aisc.backends``. Those of aisc stand in
``plugins.toml``, in the same form, and come first: looking through the packages that are installed
takes a tenth of a second, and a program that needs none of them does not do it.
"""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

Group = Literal["importers", "backends", "targets", "ops"]


@cache
def find(group: Group, name: str) -> Any:
    """What is offered under a name, loaded; ``None`` where nothing is."""
    place = _own(group).get(name) or _others(group).get(name)
    if place is None:
        return None
    module, _, attribute = place.partition(":")
    return attrgetter(attribute)(importlib.import_module(module))


def names(group: Group) -> Iterator[str]:
    """All names of a group: those of aisc, then those of other packages by the alphabet; these are
    looked for when they are asked."""
    yield from _own(group)
    yield from sorted(name for name in _others(group) if name not in _own(group))


def forget() -> None:
    """Look again at what is installed when something is asked next."""
    find.cache_clear()
    _others.cache_clear()


@cache
def _own(group: Group) -> Mapping[str, str]:
    listed: dict[str, dict[str, str]]
    listed = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return listed.get(group, {})


@cache
def _others(group: Group) -> Mapping[str, str]:
    """What the packages of this installation offer: modules and names in them."""
    from importlib.metadata import entry_points

    return {entry.name: entry.value for entry in entry_points(group=f"aisc.{group}")}
