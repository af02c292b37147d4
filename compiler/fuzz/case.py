"""A case: a graph and several sets of inputs for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Graph, GraphNode, defined_symbols, used_symbols
from aisc.ir.graph.opdef import Array

Feed = Mapping[str, Array]


@dataclass(frozen=True)
class Case:
    """`feeds` bind the symbolic sizes in several ways."""

    seed: int
    graph: Graph
    feeds: tuple[Feed, ...]


def nodes_of(graph: Graph) -> Iterator[GraphNode]:
    """Nodes of a graph and of its regions."""
    for node in graph.nodes:
        yield node
        for region in node.regions:
            yield from nodes_of(region)


def live(graph: Graph) -> Graph:
    """`graph` and its regions without the nodes that no result depends on."""
    nodes: list[GraphNode] = []
    wanted = set(graph.outputs)
    sizes = {s for v in graph.outputs for s in v.type.symbols}
    for node in reversed(graph.nodes):
        binds = set(defined_symbols(node))
        if not wanted.isdisjoint(node.outputs) or binds & sizes:
            nodes.append(replace(node, regions=tuple(map(live, node.regions))))
            wanted.update(node.input_values)
            sizes |= used_symbols(node)
    return replace(graph, nodes=tuple(reversed(nodes)))


def size_of(graph: Graph) -> int:
    """How many nodes there are that compute something."""
    return sum(n.op != "constant" for n in nodes_of(graph))


def frozen_feed(feed: Feed) -> dict[str, Array]:
    """The same inputs as arrays of their own."""
    return {name: np.array(array) for name, array in feed.items()}
