"""Which dimensions of a model are symbolic, and why: what ``aisc check`` prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field

from rich.table import Table

from aisc.ir.arith.poly import Dim, SymDim, bounds, sole_symbol
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Graph


@dataclass(slots=True)
class SymbolicDim:
    """A symbolic size of an input or output: its reason, and the axes that have it."""

    dim: Dim
    why: str
    places: list[str] = field(default_factory=list)

    @property
    def values(self) -> str:
        """The values it can take, such as ``0 .. 512``."""
        low, high = (int(b) if abs(b) < float("inf") else "" for b in bounds(self.dim))
        return f"{low} .. {high}".strip()


def symbolic_dims(graph: Graph) -> list[SymbolicDim]:
    """Symbolic sizes in the order of the signature, inputs first."""
    found: dict[Dim, SymbolicDim] = {}
    for d, name, axis in _axes(graph):
        symbol = sole_symbol(d)
        why = "derived" if symbol is None else _origin(symbol, name, axis)
        found.setdefault(d, SymbolicDim(d, why)).places.append(f"{name}[{axis}]")
    return list(found.values())


def _axes(graph: Graph) -> Iterator[tuple[Dim, str, int]]:
    """(size, name of the value, axis) of each symbolic axis of the signature."""
    inputs = [(v.name, v.type) for v in graph.inputs]
    outputs = [(n, v.type) for n, v in zip(graph.result_names, graph.outputs, strict=True)]
    for name, type_ in (*inputs, *outputs):
        for axis, d in enumerate(type_.shape):
            if not isinstance(d, int):
                yield d, name, axis


def _origin(symbol: SymDim, name: str, axis: int) -> str:
    """A size without a name in the model is called after its first place."""
    if symbol.kind == "data":
        return "computed by the run"
    stem = "".join(c if c.isalnum() or c == "_" else "_" for c in name)
    return "unnamed axis" if symbol.name == f"{stem}_{axis}" else "named in the model"


def dimension_table(graph: Graph) -> Table:
    """The symbolic dimensions as a table that fits a terminal."""
    table = Table("dimension", "values", "why", "where", title="symbolic dimensions")
    for d in symbolic_dims(graph):
        shown = ", ".join(d.places[:3]) + (", …" if len(d.places) > 3 else "")
        table.add_row(str(d.dim), d.values, d.why, shown)
    return table
