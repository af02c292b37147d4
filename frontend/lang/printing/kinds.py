"""What equal nodes have in common: all but the values they read, the contents of constants in their
regions, and the names of the dimensions that they bind."""

from __future__ import annotations

from collections.abc import Sequence

from aisc.ir.arith.poly import Dim, Poly, sole_symbol, substitute, symbol
from aisc.ir.blob import Blob
from aisc.ir.graph.core import DEFINITIONS, Graph, GraphNode, Value, defined_symbols


def kind_of(node: GraphNode) -> object:
    """The same for nodes that may be equal parts of equal blocks. What binds a dimension for the
    nodes behind it is like nothing else."""
    return defined_symbols(node) or _node(node, {})


def _node(node: GraphNode, dims: dict[str, Dim]) -> object:
    attrs = [(k, _bound(v, dims) if k in DEFINITIONS else v) for k, v in node.attrs]
    inner = tuple(_graph(region, dims) for region in node.regions)
    shown = tuple((k, None if isinstance(v, Blob) else _plain(v, dims)) for k, v in attrs)
    return node.op, _types(node.inputs, dims), _types(node.outputs, dims), shown, inner


def _bound(value: object, dims: dict[str, Dim]) -> object:
    """Dimensions that a node binds are numbered from there on."""
    for d in value if isinstance(value, tuple) else ():
        s = sole_symbol(d)
        if s is not None:
            dims[s.name] = symbol(f"#{len(dims)}", s.lower, s.upper, s.kind)
    return value


def _plain(value: object, dims: dict[str, Dim]) -> object:
    if isinstance(value, Poly):
        return substitute(value, dims) if dims else value
    return tuple(_plain(x, dims) for x in value) if isinstance(value, tuple) else value


def _types(values: Sequence[Value | None], dims: dict[str, Dim]) -> object:
    return tuple(
        None if v is None else (_plain(v.type.shape, dims), v.type.dtype) for v in values
    )  # fmt: skip


def _graph(graph: Graph, dims: dict[str, Dim]) -> object:
    """A region: its values are numbered."""
    numbers = {v: k for k, v in enumerate(graph.values())}
    nodes = tuple(
        (_node(n, dims), tuple(None if v is None else numbers[v] for v in n.inputs))
        for n in graph.nodes
    )
    results = tuple(numbers[v] for v in graph.outputs)
    return _types(graph.inputs, dims), nodes, results
