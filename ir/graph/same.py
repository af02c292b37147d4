"""Structural equality of graphs: alpha-stable (names of values and of the dimensions that nodes
bind do not count), blind to Loc."""

from __future__ import annotations

from dataclasses import field

from aisc.ir.arith.poly import Dim, Poly, of_symbol, sole_symbol, substitute
from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import DEFINITIONS, Graph, GraphNode, Value
from aisc.ir.types import TensorType


def same(a: Graph, b: Graph) -> bool:
    """True when the graphs have the same nodes in the same order over the same types."""
    return a.result_names == b.result_names and _Match().graphs(a, b)


@dataclass(slots=True)
class _Match:
    """What of the second graph stands for values and bound dimensions of the first."""

    values: dict[Value, Value] = field(default_factory=dict)
    dims: dict[str, Dim] = field(default_factory=dict)

    def graphs(self, a: Graph, b: Graph) -> bool:
        """Whether two graphs are the same; regions see no values from outside."""
        sizes = [(len(g.inputs), len(g.nodes), len(g.outputs)) for g in (a, b)]
        if sizes[0] != sizes[1]:
            return False
        for x, y in zip(a.inputs, b.inputs, strict=True):
            if not self._types(x.type, y.type):
                return False
            self.values[x] = y
        if not all(self._nodes(m, n) for m, n in zip(a.nodes, b.nodes, strict=True)):
            return False
        return all(self.values.get(x) is y for x, y in zip(a.outputs, b.outputs, strict=True))

    def _nodes(self, a: GraphNode, b: GraphNode) -> bool:
        if a.op != b.op or len(a.inputs) != len(b.inputs) or len(a.outputs) != len(b.outputs):
            return False
        for x, y in zip(a.inputs, b.inputs, strict=True):
            if (None if x is None else self.values.get(x)) is not y:
                return False
        if len(a.regions) != len(b.regions) or not self._attributes(a, b):
            return False
        if not all(self.graphs(r, s) for r, s in zip(a.regions, b.regions, strict=True)):
            return False
        for x, y in zip(a.outputs, b.outputs, strict=True):
            if not self._types(x.type, y.type):
                return False
            self.values[x] = y
        return True

    def _attributes(self, a: GraphNode, b: GraphNode) -> bool:
        one, other = a.attr_map, b.attr_map
        if one.keys() != other.keys():
            return False
        bound = [k for k in DEFINITIONS if isinstance(one.get(k), tuple)]
        if not all(self._bind(one[k], other[k]) for k in bound):
            return False
        return all(k in bound or self._equal(one[k], other[k]) for k in one)

    def _bind(self, a: object, b: object) -> bool:
        """Dimensions that a node binds: those of the other one stand for them from here on."""
        if not isinstance(a, tuple) or not isinstance(b, tuple) or len(a) != len(b):
            return False
        for x, y in zip(a, b, strict=True):
            s, t = sole_symbol(x), sole_symbol(y)
            if s is None or t is None:
                if not self._equal(x, y):
                    return False
            elif (s.kind, s.lower, s.upper) != (t.kind, t.lower, t.upper):
                return False
            else:
                self.dims[s.name] = of_symbol(t)
        return True

    def _types(self, a: TensorType, b: TensorType) -> bool:
        return a.dtype is b.dtype and self._equal(a.shape, b.shape)

    def _equal(self, a: object, b: object) -> bool:
        if isinstance(a, Poly) and self.dims:
            return bool(substitute(a, self.dims) == b)
        if type(a) is not type(b):
            return False
        if isinstance(a, float) and isinstance(b, float):
            return a.hex() == b.hex()  # NaN equals itself, -0.0 differs from 0.0
        if isinstance(a, tuple) and isinstance(b, tuple):
            return len(a) == len(b) and all(map(self._equal, a, b))
        return isinstance(a, Blob) and a == b if isinstance(b, Blob) else a == b
