"""Step 2: dimensions that the user fixes get their values, others narrower bounds.

before: ``graph(%x: f32[n, 8]) { %y = reshape(%x) {shape = [n, 2, 4]} }``   with n = 3
after:  ``graph(%x: f32[3, 8]) { %y = reshape(%x) {shape = [3, 2, 4]} }``
Branches whose results had different sizes may have the same now, and bind none any more. Importers
bind sizes while they translate, since a file may decide by them; this is for graphs that are there
already. Postcondition: the graph verifies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from aisc.ir.arith.poly import Dim, Extent, Poly, SymDim, of_symbol, substitute, symbol
from aisc.ir.diagnostics import error
from aisc.ir.graph.core import Graph, GraphNode, Value, bound_symbols, defined_symbols
from aisc.ir.graph.ops.control import escapes
from aisc.ir.graph.verify import verify
from aisc.ir.types import TensorType

Sizes = dict[str, Dim]


def specialize(graph: Graph, shapes: Mapping[str, Extent]) -> Graph:
    """The graph with some of its dimensions fixed, or bounded by ``(least, greatest)``. E106 for a
    name that no input has, or a size that its bounds exclude."""
    if not shapes:
        return graph
    known = {s.name: s for v in graph.inputs for s in v.type.symbols if s.kind == "input"}
    sizes: dict[str, Dim] = {}
    for name, extent in shapes.items():
        if name not in known:
            names = ", ".join(sorted(known)) or "none"
            raise error("E106", f"the graph has no dimension '{name}'", f"dimensions: {names}")
        sizes[name] = _size(known[name], extent)
    made = _specialized(graph, sizes, {})
    verify(made)
    return made


def _size(s: SymDim, extent: Extent) -> Dim:
    """What a dimension becomes."""
    least, most = (extent, extent) if isinstance(extent, int) else extent
    if not s.lower <= least <= most or (s.upper is not None and most > s.upper):
        bounds = f"{s.name} is {s.lower} to {'any size' if s.upper is None else s.upper}"
        raise error("E106", f"bad size of '{s.name}': {extent}", bounds)
    if isinstance(extent, int):
        return extent
    return symbol(s.name, least, most)


def _specialized(graph: Graph, sizes: Sizes, table: dict[Value, Value]) -> Graph:
    """One graph or region; `table` has its values."""
    for v in graph.inputs:
        table[v] = _value(v, sizes)
    nodes = tuple(_node(n, sizes, table) for n in graph.nodes)
    return replace(
        graph,
        inputs=tuple(table[v] for v in graph.inputs),
        nodes=nodes,
        outputs=tuple(table[v] for v in graph.outputs),
        output_names=graph.result_names,
    )


def _node(node: GraphNode, sizes: Sizes, table: dict[Value, Value]) -> GraphNode:
    regions = tuple(_specialized(r, sizes, {}) for r in node.regions)
    attrs = dict(node.attrs)
    if node.op == "if":
        attrs["binds"] = tuple(_still_bound(node, regions, sizes))
    for v in node.outputs:
        table[v] = _value(v, sizes)
    return replace(
        node,
        inputs=tuple(None if v is None else table[v] for v in node.inputs),
        outputs=tuple(table[v] for v in node.outputs),
        attrs=tuple((name, _attribute(value, sizes)) for name, value in attrs.items()),
        regions=regions,
    )


def _still_bound(node: GraphNode, regions: tuple[Graph, ...], sizes: Sizes) -> Iterator[Dim]:
    """The dimensions that a branch still binds; the others get the size that both arms have."""
    left = iter(defined_symbols(node))
    inner = frozenset().union(*map(bound_symbols, regions))
    for k in range(len(node.outputs)):
        before = zip(*(r.outputs[k].type.shape for r in node.regions), strict=True)
        after = zip(*(r.outputs[k].type.shape for r in regions), strict=True)
        for (a, b), (x, y) in zip(before, after, strict=True):
            if a == b and escapes(a, inner):
                continue
            bound = next(left)
            if x == y and escapes(x, inner):
                sizes[bound.name] = x
            else:
                yield of_symbol(bound)


def _value(v: Value, sizes: Sizes) -> Value:
    shape = tuple(substitute(d, sizes) for d in v.type.shape)
    return Value(v.name, TensorType(shape, v.type.dtype))


def _attribute(value: Any, sizes: Sizes) -> Any:
    """An attribute's value with the dimensions in it."""
    if isinstance(value, Poly):
        return substitute(value, sizes)
    return tuple(_attribute(x, sizes) for x in value) if isinstance(value, tuple) else value
