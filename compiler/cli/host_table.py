"""Which operators of a model run on the host, and what that costs: what ``aisc check`` prints."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from aisc.ir.arith.poly import Dim, product
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.passes.analysis.host import host_nodes


@dataclass(frozen=True, slots=True)
class HostOperator:
    """An operator without native code. `reads` and `writes` are the bytes of its operands and
    results in one call, `depth` the number of loops and branches around it."""

    name: str
    place: str
    reads: Dim
    writes: Dim
    depth: int


def host_operators(graph: Graph) -> list[HostOperator]:
    """Operators of a legalized graph that a program calls back for, in order."""
    depths = dict(_depths(graph, 0))
    return [
        HostOperator(
            node.op, node.loc.node, _bytes(node.input_values), _bytes(node.outputs), depths[node]
        )
        for node in host_nodes(graph)
    ]


def _depths(graph: Graph, depth: int) -> Iterator[tuple[GraphNode, int]]:
    for node in graph.nodes:
        yield node, depth
        for region in node.regions:
            yield from _depths(region, depth + 1)


def _bytes(values: tuple[Value, ...]) -> Dim:
    total: Dim = 0
    for v in values:
        total = total + product(v.type.shape) * v.type.dtype.bytes
    return total


def host_table(found: list[HostOperator]) -> Table:
    """The operators as a table that fits a terminal."""
    table = Table(
        "operator", "node", "reads, bytes", "writes, bytes", "inside",
        title="on the host: numpy on one thread, with Python's lock, at every call",
    )  # fmt: skip
    for x in found:
        nested = f"{x.depth} loops or branches" if x.depth else ""
        table.add_row(x.name, x.place, str(x.reads), str(x.writes), nested)
    return table
