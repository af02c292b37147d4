"""Operators of users: from files of the model language, from decorated classes, from packages.

A package offers one as an entry point of the group ``aisc.ops``, whose name is the operator's: what
it gives is a class with the decorator, or the path of a file that defines it.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from aisc.ir.annotations import checked_arguments
from aisc.ir.diagnostics import error
from aisc.ir.graph import opdef
from aisc.ir.graph.opdef import OpDef

GROUP = "aisc.ops"


@checked_arguments
def load_operators(path: str | os.PathLike[str]) -> list[str]:
    """Register the operators that a file of the model language defines, and give their names.
    Raises ``CompileError`` where the file is wrong."""
    from aisc.frontend.lang.definitions import definitions_of

    return [opdef.add_custom(op).name for op in definitions_of(Path(path))]


def find(name: str) -> OpDef | None:
    """The operator of a user that is called `name`: registered, or offered by a package."""
    known = {op.name: op for op in opdef.custom_ops()}
    if name in known or name not in _offered():
        return known.get(name)
    found = _offered()[name].load()
    if isinstance(found, str | os.PathLike):
        load_operators(found)
    known = {op.name: op for op in opdef.custom_ops()}
    if name not in known:
        raise error("E203", f"the entry point '{name}' of '{GROUP}' gives no operator '{name}'")
    return known[name]


@cache
def _offered() -> dict[str, EntryPoint]:
    return {e.name: e for e in entry_points(group=GROUP)}
