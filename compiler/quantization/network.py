"""A model of ONNX as the tool changes it: constants, who makes and who reads a value, new nodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper
from onnx import numpy_helper as arrays

from aisc.ir.names import fresh_name

Array = NDArray[Any]


class Network:
    """A model and its tables. Only the outermost graph is changed; what regions read is known."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self._weights = {t.name: t for t in model.graph.initializer}
        self._values: dict[str, Array] = {}
        self.outputs = {v.name for v in model.graph.output}
        self.names = set(self._weights) | self.outputs
        self.index()

    @property
    def graph(self) -> GraphProto:
        """The outermost graph."""
        return self.model.graph

    def index(self) -> None:
        """Renew the tables after nodes have changed."""
        self.makers: dict[str, NodeProto] = {}
        self.readers: dict[str, list[tuple[NodeProto, int]]] = defaultdict(list)
        self.captured: set[str] = set()
        for node in self.graph.node:
            self.makers.update((name, node) for name in node.output if name)
            for k, name in enumerate(node.input):
                if name:
                    self.readers[name].append((node, k))
            self.captured.update(_captured(node))
            self.names.update((*node.input, *node.output))

    def fresh(self, base: str) -> str:
        """A name that nothing has, from now on taken."""
        return fresh_name(base, self.names)

    def is_constant(self, name: str) -> bool:
        """Whether a value stands in the model."""
        return name in self._weights

    def constant(self, name: str) -> Array | None:
        """A value that stands in the model."""
        if name not in self._weights:
            return None
        if name not in self._values:
            self._values[name] = arrays.to_array(self._weights[name])
        return self._values[name]

    def add_constant(self, base: str, value: Array) -> str:
        """The name of a new constant."""
        name = self.fresh(base)
        whole = np.ascontiguousarray(value).reshape(value.shape)
        self._weights[name] = arrays.from_array(whole, name)
        return name

    def set_constant(self, name: str, value: Array) -> None:
        """Give a name, which nothing makes any more, a value."""
        self._weights[name] = arrays.from_array(
            np.ascontiguousarray(value).reshape(value.shape), name
        )
        self._values[name] = value

    def drop_unread(self) -> None:
        """Forget constants that nothing reads, and inputs that are their defaults; renew the list
        of constants in the model."""
        self.index()
        read = set(self.readers) | self.captured | self.outputs
        kept = {n: t for n, t in self._weights.items() if n in read}
        gone = set(self._weights) - set(kept)
        _replace(self.graph.input, [v for v in self.graph.input if v.name not in gone])
        _replace(self.graph.initializer, list(kept.values()))
        self._weights = {t.name: t for t in self.graph.initializer}
        self._values = {n: v for n, v in self._values.items() if n in kept}

    def replace_nodes(self, nodes: Sequence[NodeProto]) -> None:
        """Take these nodes, in this order, as those of the model."""
        _replace(self.graph.node, nodes)
        self.index()

    def only_reader(self, name: str) -> NodeProto | None:
        """The node that alone reads a value."""
        found = self.readers.get(name, [])
        if len(found) != 1 or name in self.outputs or name in self.captured:
            return None
        return found[0][0]


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """The value of an attribute."""
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def float_inputs(model: ModelProto) -> Iterator[str]:
    """Names of inputs that hold floats and have no default."""
    defaults = {t.name for t in model.graph.initializer}
    for v in model.graph.input:
        if v.name not in defaults and v.type.tensor_type.elem_type == TensorProto.FLOAT:
            yield v.name


def _captured(node: NodeProto) -> Iterator[str]:
    """Names that the regions of a node mention."""
    for a in node.attribute:
        regions = [a.g] if a.type == AttributeProto.GRAPH else list(a.graphs)
        for region in regions:
            yield from (v.name for v in region.output)
            for inner in region.node:
                yield from inner.input
                yield from _captured(inner)


def _replace(field: Any, items: Sequence[Any]) -> None:
    kept = list(items)
    del field[:]
    field.extend(kept)
