"""``aisc check --types``: what the names in a file of the model language stand for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aisc.frontend.lang.analysis import Analysis, analysed
from aisc.frontend.lang.mentions import Mention
from aisc.frontend.lang.model import text_of
from aisc.ir.arith.poly import Extent
from aisc.ir.diagnostics import error

MOST = 4  # types of one name that are shown


def show_types(model: str, shapes: Mapping[str, Extent]) -> None:
    """Print a table for each layer, as far as the model uses it. Faults are left to the check that
    follows; E401 for a file of another kind."""
    path = Path(model)
    if path.suffix.lower() != ".aim":
        raise error("E401", f"{path.name} has no names to show types of", "expected a .aim file")
    found = analysed(text_of(path), str(path), path.parent, shapes)
    console = Console()
    for table in type_tables(found):
        console.print(table)
    if found.parameters:
        table = Table("parameter", "type", "given by", title="parameters", title_justify="left")
        for name, p in found.parameters.items():
            table.add_row(Text(name), Text(p.type), Text(p.given))
        console.print(table)


def type_tables(found: Analysis) -> Iterator[Table]:
    """The names that each layer defines, in the order of the text."""
    defined = [m for m in found.mentions if m.defines and m.kind != "index"]
    for home, names in groupby(defined, key=lambda m: m.home):
        head, *rest = names
        table = Table("line", "name", "what", "type", title=f"{head.kind} {home}")
        table.title_justify = "left"
        for m in rest:
            table.add_row(str(m.at.line), m.name, _kind(m), Text(_shown(found.types_of(m))))
        yield table


def _kind(m: Mention) -> str:
    return "input" if m.kind == "tensor" else m.kind


def _shown(types: Sequence[str]) -> str:
    """Types one below the other; none are known after a fault, or where nothing calls."""
    more = [f"and {len(types) - MOST} more"] if len(types) > MOST else []
    return "\n".join((*types[:MOST], *more)) or "not known"
