"""Which machine runs what, why a device does not, and what crosses: what ``aisc check`` prints."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from aisc.ir.arith.poly import Dim
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Graph
from aisc.ir.node import walk
from aisc.ir.tensor.func import Program
from aisc.ir.tensor.stmt import Copy
from aisc.passes.graph.place import Placed, placements
from aisc.passes.policy import Machines


@dataclass(frozen=True, slots=True)
class Crossing:
    """A value that is copied from one memory to another: its name, the targets, and its bytes."""

    name: str
    source: str
    target: str
    bytes: Dim


def crossings(program: Program) -> Iterator[Crossing]:
    """The copies of an entry between memories, in order."""
    host = program.entry.target
    for n in walk(program.entry.body):
        if isinstance(n, Copy) and n.src.space != n.dst.space:
            source, target = (_owner(b.space, host) for b in (n.src, n.dst))
            yield Crossing(n.src.name, source, target, n.src.bytes)


def _owner(space: str, host: str) -> str:
    """The target whose memory a space of an entry is."""
    return space.rpartition(".")[0] or host


def placement_table(graph: Graph, machines: Machines) -> Table:
    """The groups of a partitioned graph, one row for those that are alike."""
    table = Table("runs on", "operators", "groups", "why not", title="where groups run")
    rows: dict[tuple[str, str, str], int] = {}
    for placed in placements(graph, machines):
        why = "\n".join(f"{name}: {reason}" for name, reason in placed.reasons.items())
        row = placed.target, _operators(placed), why
        rows[row] = rows.get(row, 0) + 1
    for (target, operators, why), count in rows.items():
        table.add_row(target, operators, str(count), why)
    return table


def _operators(placed: Placed) -> str:
    return ", ".join(n.op for n in placed.node.regions[0].nodes if n.op != "constant")


def crossing_table(found: list[Crossing]) -> Table:
    """The copies, with the bytes of all of them."""
    table = Table("value", "from", "to", "bytes", title="copied between memories in a run")
    total: Dim = 0
    for c in found:
        table.add_row(c.name, c.source, c.target, str(c.bytes))
        total = total + c.bytes
    table.add_row("all of them", "", "", str(total))
    return table
