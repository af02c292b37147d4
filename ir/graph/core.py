"""The graph IR: SSA values, nodes with several results, isolated regions.

Everything is immutable. A graph is a list of nodes in topological order; a pass builds a new
list (:mod:`aisc.ir.graph.builder`) and shares the nodes it did not touch. Equality of values
and nodes is identity; :func:`aisc.ir.graph.same.same` compares structurally.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Union

from aisc.ir.arith.poly import Poly, SymDim, symbols
from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType
from aisc.ir.location import UNKNOWN, Loc
from aisc.ir.types import TensorType

# The element types of tuple attributes are int (or Dim), float or str.
AttrValue = Union[int, float, str, bool, DType, Blob, tuple[object, ...]]


@dataclass(frozen=True, eq=False, slots=True)
class Value:
    """A result of a node or an input of a graph. `name` is a hint, unique within its graph."""

    name: str
    type: TensorType

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"


@dataclass(frozen=True, eq=False, slots=True)
class GraphNode:
    """One operation. An absent optional input is ``None``; `regions` are isolated from above."""

    op: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    attrs: tuple[tuple[str, AttrValue], ...] = ()
    regions: tuple[Graph, ...] = ()
    loc: Loc = UNKNOWN

    def attr(self, name: str) -> AttrValue:
        """The attribute called `name`; ``KeyError`` when the node has none."""
        for key, value in self.attrs:
            if key == name:
                return value
        raise KeyError(f"{self.op} has no attribute '{name}'")

    @property
    def attr_map(self) -> dict[str, AttrValue]:
        """The attributes as a dict."""
        return dict(self.attrs)

    @property
    def output(self) -> Value:
        """The only result."""
        assert len(self.outputs) == 1, f"{self.op} has {len(self.outputs)} results"
        return self.outputs[0]

    @property
    def input_values(self) -> tuple[Value, ...]:
        """The inputs that are present."""
        present = self.inputs
        if None in present:
            return tuple(v for v in present if v is not None)
        return present  # type: ignore[return-value]


@dataclass(frozen=True, eq=False, slots=True)
class Graph:
    """A function over tensors: `nodes` are in topological order, names of values are unique.

    defaults: inputs of an imported model that are constants here, for which a caller may want
    other values. No part of what the graph computes or prints.
    """

    name: str
    inputs: tuple[Value, ...]
    nodes: tuple[GraphNode, ...]
    outputs: tuple[Value, ...]
    output_names: tuple[str, ...] = ()
    loc: Loc = field(default=UNKNOWN)
    defaults: tuple[Value, ...] = ()

    @property
    def result_names(self) -> tuple[str, ...]:
        """The model's own names of the outputs, else those of the values; one that is returned
        again gets a number."""
        return self.output_names or _distinct([v.name for v in self.outputs])

    def producers(self) -> dict[Value, GraphNode]:
        """The node that computes each value; inputs are absent."""
        return {out: node for node in self.nodes for out in node.outputs}

    def users(self) -> dict[Value, list[GraphNode]]:
        """The nodes that read each value, once per operand; graph outputs are not counted."""
        table: dict[Value, list[GraphNode]] = {}
        for node in self.nodes:
            for v in node.input_values:
                table.setdefault(v, []).append(node)
        return table

    def constants(self) -> dict[Value, Blob]:
        """The contents of every value made by a ``constant`` node."""
        found: dict[Value, Blob] = {}
        for node in self.nodes:
            if node.op == "constant":
                blob = node.attr("value")
                assert isinstance(blob, Blob), "constant without a blob"
                found[node.output] = blob
        return found

    def values(self) -> Iterator[Value]:
        """Inputs, then every result in order."""
        yield from self.inputs
        for node in self.nodes:
            yield from node.outputs


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    taken = set(names)
    for name in names:
        count, own = 0, name
        while own in found or (count and own in taken):
            count += 1
            own = f"{name}_{count}"
        found[own] = None
    return tuple(found)


# Attributes that list dimensions which a node defines: for what follows it, or for its regions.
DEFINITIONS = ("binds", "index", "carried_dims")


def attribute_symbols(value: object) -> Iterator[SymDim]:
    """Symbolic dimensions inside an attribute's value."""
    if isinstance(value, Poly):
        yield from symbols(value)
    elif isinstance(value, tuple):
        for item in value:
            yield from attribute_symbols(item)


def defined_symbols(node: GraphNode) -> tuple[SymDim, ...]:
    """Dimensions that are known from a node on: those of its attribute ``binds``."""
    for key, value in node.attrs:
        if key == "binds":
            return tuple(attribute_symbols(value))
    return ()


def used_symbols(node: GraphNode) -> set[SymDim]:
    """Dimensions that a node mentions, its regions included."""
    found = {s for _, value in node.attrs for s in attribute_symbols(value)}
    for v in (*node.outputs, *node.input_values):
        found |= v.type.symbols
    for region in node.regions:
        for inner in region.nodes:
            found |= used_symbols(inner)
        for v in region.values():
            found |= v.type.symbols
    return found


def bound_symbols(graph: Graph) -> frozenset[str]:
    """Names of the dimensions that nodes of a graph bind, regions included."""
    found: set[str] = set()
    for node in graph.nodes:
        for key in DEFINITIONS:
            found |= {s.name for s in attribute_symbols(node.attr_map.get(key, ()))}
        for region in node.regions:
            found |= bound_symbols(region)
    return frozenset(found)
