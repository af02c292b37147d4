"""Operators of users: from files of the model language, from decorated classes, from packages.

A package offers one as an entry point of the group ``aisc.ops``, whose name is the operator's: what
it gives is a class with the decorator, or the path of a file that defines it.
"""

from __future__ import annotations

import os
from pathlib import Path

from aisc.ir import plugins
from aisc.ir.annotations import checked_arguments
from aisc.ir.diagnostics import error
from aisc.ir.graph import opdef
from aisc.ir.graph.opdef import OpDef


@checked_arguments
def load_operators(path: str | os.PathLike[str]) -> list[str]:
    """Register the operators that a file of the model language defines, and give their names.
    Raises ``CompileError`` where the file is wrong."""
    from aisc.frontend.lang.definitions import definitions_of

    return [opdef.add_custom(op).name for op in definitions_of(Path(path))]


def find(name: str) -> OpDef | None:
    """The operator of a user that is called `name`: registered, or offered by a package."""
    known = {op.name: op for op in opdef.custom_ops()}
    found = None if name in known else plugins.find("ops", name)
    if found is None:
        return known.get(name)
    if isinstance(found, str | os.PathLike):
        load_operators(found)
    known = {op.name: op for op in opdef.custom_ops()}
    if name not in known:
        raise error("E203", f"the entry point '{name}' of 'aisc.ops' gives no operator '{name}'")
    return known[name]
