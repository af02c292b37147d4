"""Building graphs: nodes with inferred types, fresh names, locations."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np

from aisc.ir.blob import Blob
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.graph import opdef
from aisc.ir.graph.core import AttrValue, Graph, GraphNode, Value
from aisc.ir.location import UNKNOWN, Loc
from aisc.ir.types import TensorType


class GraphBuilder:
    """Appends nodes in order. ``loc`` is used for nodes made without a location of their own."""

    def __init__(self, name: str = "main") -> None:
        self.name = name
        self.loc: Loc = UNKNOWN
        self.inputs: list[Value] = []
        self.nodes: list[GraphNode] = []
        self.constants: dict[Value, Blob] = {}
        self._names: dict[str, int] = {}

    def fresh(self, hint: str) -> str:
        """A name that no value of this graph has yet: `hint`, or `hint` with a number."""
        if hint not in self._names:
            self._names[hint] = 0
            return hint
        while True:
            self._names[hint] += 1
            name = f"{hint}_{self._names[hint]}"
            if name not in self._names:
                self._names[name] = 0
                return name

    def input(self, name: str, type_: TensorType) -> Value:
        """Declare a graph input."""
        if not isinstance(type_, TensorType):
            raise error("E201", f"input '{name}' needs a type of tensors", f"got {type_!r}")
        value = Value(self.fresh(name), type_)
        self.inputs.append(value)
        return value

    def constant(self, data: Blob | np.ndarray, name: str = "c", loc: Loc | None = None) -> Value:
        """A constant node's value."""
        blob = data if isinstance(data, Blob) else Blob(np.asarray(data))
        return self.add("constant", (), {"value": blob}, names=(name,), loc=loc)

    def add(
        self,
        op: str,
        inputs: Sequence[Value | None],
        attrs: Mapping[str, AttrValue] | None = None,
        names: Sequence[str] = (),
        loc: Loc | None = None,
    ) -> Value:
        """Append a node with one result and return it."""
        (value,) = self.add_multi(op, inputs, attrs, names, loc)
        return value

    def add_multi(
        self,
        op: str,
        inputs: Sequence[Value | None],
        attrs: Mapping[str, AttrValue] | None = None,
        names: Sequence[str] = (),
        loc: Loc | None = None,
        regions: tuple[Graph, ...] = (),
    ) -> tuple[Value, ...]:
        """Append a node; types come from the operator's inference rule."""
        where = self.loc if loc is None else loc
        if not opdef.exists(op):
            raise _unknown(op)
        definition = opdef.get(op)
        full = opdef.complete_attrs(definition, attrs or {}, where)
        types = tuple(None if v is None else v.type for v in inputs)
        known = tuple(None if v is None else self.constants.get(v) for v in inputs)
        results = definition.infer(opdef.OpCall(definition, types, full, known, where, regions))
        hints = list(names) + [op] * (len(results) - len(names))
        outputs = tuple(Value(self.fresh(h), t) for h, t in zip(hints, results, strict=True))
        self.append(GraphNode(op, tuple(inputs), outputs, tuple(full.items()), regions, where))
        return outputs

    def append(self, node: GraphNode) -> None:
        """Append a finished node whose result names are already unique in this graph."""
        for v in node.outputs:
            self._names.setdefault(v.name, 0)
        self.nodes.append(node)
        if node.op == "constant":
            blob = node.attr("value")
            assert isinstance(blob, Blob), "constant without a blob"
            self.constants[node.output] = blob

    def finish(self, outputs: Sequence[Value], output_names: Sequence[str] = ()) -> Graph:
        """The graph built so far."""
        return Graph(
            self.name, tuple(self.inputs), tuple(self.nodes), tuple(outputs), tuple(output_names)
        )


def _unknown(op: str) -> CompileError:
    near = difflib.get_close_matches(str(op), [o.name for o in opdef.all_ops()], 3)
    notes = [f"there is {', '.join(near)}"] if near else []
    return error("E201", f"there is no operator '{op}'", *notes)
