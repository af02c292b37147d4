"""What tells graphs apart whose compiled forms are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph
from aisc.ir.text.printer_graph import print_graph


def graph_digest(graph: Graph) -> list[str]:
    """One word for all that a graph says: its text, in which constants stand by their contents; the
    names that values have for callers, which texts may change; and the places that errors name.
    None where an operator of a user stands, whose meaning is not told."""
    if opdef.uses_custom(graph):
        return []
    sha = hashlib.sha256(print_graph(graph).encode())
    for word in _words(graph):
        sha.update(word.encode() + b"\0")
    return [sha.hexdigest()]


def _words(graph: Graph) -> Iterator[str]:
    yield from (v.name for v in (*graph.inputs, *graph.defaults))
    yield from graph.result_names
    yield repr(graph.loc)
    for node in graph.nodes:
        yield repr(node.loc)
        for region in node.regions:
            yield from _words(region)
