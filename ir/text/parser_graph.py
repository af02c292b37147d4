"""Parsing the text form of graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from lark import Token

from aisc.ir.arith.poly import SymDim
from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.text.parsing import Folder, TextError, parse_text, unquote
from aisc.ir.types import TensorType


def parse_graph(text: str, blobs: Mapping[str, Blob] | None = None, file: str = "") -> Graph:
    """The graph in `text`. `blobs` gives constants by SHA-256; E107 on any fault."""
    graph = parse_text("graph", text, _GraphFolder(blobs or {}), file)
    assert isinstance(graph, Graph), "the grammar of graphs makes graphs"
    return graph


@dataclass(slots=True)
class _Scope:
    """Names of the graph being read, and what to restore after it."""

    name: str
    outer_symbols: dict[str, SymDim]
    values: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Declaration:
    token: Token
    value: Value


class _Outputs(list[_Declaration]):
    """Declared results of a node."""


class _Operands(list[Any]):
    """Operands of a node."""


class _Regions(list[Graph]):
    """Regions of a node."""


class _GraphFolder(Folder):
    """Folds a graph; regions have scopes of their own."""

    def __init__(self, blobs: Mapping[str, Blob]) -> None:
        super().__init__(blobs)
        self.scopes: list[_Scope] = []

    def graph_head(self, c: list[Any]) -> str:
        """A graph begins: a new scope of values."""
        self.scopes.append(_Scope(str(c[0]), self.symbol_table))
        return self.declare(c)

    def declaration(self, c: list[Any]) -> _Declaration:
        """A value with its type."""
        return _Declaration(c[0], Value(_value_name(c[0]), TensorType(c[2], c[1])))

    def value_use(self, c: list[Token]) -> Value:
        """An operand."""
        name = _value_name(c[0])
        found = self.scopes[-1].values.get(name)
        if found is None:
            raise TextError(c[0], f"value '%{name}' is not defined here")
        return found

    def inputs(self, c: list[_Declaration]) -> list[Value]:
        """Inputs of a graph."""
        return _Operands(self._define(d) for d in c)

    def outputs(self, c: list[_Declaration]) -> _Outputs:
        """Results of a node."""
        return _Outputs(c)

    def operands(self, c: list[Value | None]) -> _Operands:
        """Operands of a node."""
        return _Operands(c)

    def regions(self, c: list[Graph]) -> _Regions:
        """Regions of a node."""
        return _Regions(c)

    def node(self, c: list[Any]) -> GraphNode:
        """A node; its results are known from here on."""
        declared = c.pop(0) if isinstance(c[0], _Outputs) else _Outputs()
        regions = c.pop() if isinstance(c[-1], _Regions) else _Regions()
        attrs = c.pop() if isinstance(c[-1], tuple) else ()
        op, operands = c
        outputs = tuple(self._define(d) for d in declared)
        return GraphNode(str(op), tuple(operands), outputs, attrs, tuple(regions))

    def _define(self, d: _Declaration) -> Value:
        values = self.scopes[-1].values
        if d.value.name in values:
            raise TextError(d.token, f"value '%{d.value.name}' is defined twice")
        values[d.value.name] = d.value
        return d.value

    def results(self, c: list[Token]) -> list[str]:
        """The model's names of the outputs."""
        return [unquote(t) for t in c]

    def return_(self, c: list[Value]) -> _Operands:
        """The outputs."""
        return _Operands(c)

    def graph(self, c: list[Any]) -> Graph:
        """A finished graph."""
        scope = self.scopes.pop()
        self.symbol_table = scope.outer_symbols
        inputs = tuple(c[1])
        nodes = tuple(n for n in c if isinstance(n, GraphNode))
        names = next((tuple(x) for x in c if type(x) is list), ())
        return Graph(scope.name, inputs, nodes, tuple(c[-1]), names)


def _value_name(token: Token) -> str:
    text = str(token)[1:]
    if not text.startswith('"'):
        return text
    return unquote(Token.new_borrow_pos("VALUE", text, token))
