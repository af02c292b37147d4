"""Constant operands of integer products in the narrowest type that holds them.

before: ``%y = matmul(cast(%x: i8) to i32, %w: i32)``, every element of ``%w`` within -128 .. 127
after:  ``%y = matmul(cast(%x: i8) to i32, cast(%n: i8) to i32)``
Folding has widened what the model stored in 8 bits; a machine that multiplies 8-bit integers needs
them as they were. Nothing is rounded: both casts keep every value.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from aisc.ir import dtypes
from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.types import TensorType
from aisc.passes.base import map_regions

NARROW = (dtypes.i8, dtypes.u8)


@dataclass(frozen=True, slots=True)
class NarrowConstants:
    """The pass; see the module's docstring."""

    name: str = "narrow-constants"

    def run(self, graph: Graph) -> Graph:
        """Apply to one graph and the regions of its control operators."""
        graph = map_regions(graph, self.run)
        constants, made = graph.constants(), graph.producers()
        nodes: list[GraphNode] = []
        for node in graph.nodes:
            if any(_is_widened(v, made) for v in node.input_values) and _multiplies(node):
                for v in dict.fromkeys(node.input_values):
                    added = _narrowed(v, constants.get(v))
                    if added:
                        nodes += added
                        wide = added[-1].output
                        inputs = tuple(wide if x is v else x for x in node.inputs)
                        node = replace(node, inputs=inputs)
            nodes.append(node)
        return replace(graph, nodes=tuple(nodes))


def _multiplies(node: GraphNode) -> bool:
    return opdef.get(node.op).kind == "contraction" and node.output.type.dtype is dtypes.i32


def _is_widened(v: Value, made: dict[Value, GraphNode]) -> bool:
    """Whether a value is the cast of an 8-bit one."""
    source = made.get(v)
    return source is not None and source.op == "cast" and _source_type(source) in NARROW


def _source_type(cast: GraphNode) -> DType:
    (v,) = cast.input_values
    return v.type.dtype


def _narrowed(v: Value, blob: Blob | None) -> tuple[GraphNode, ...]:
    """A narrower constant and the cast of it, or nothing where none holds the values."""
    if blob is None or blob.dtype is not dtypes.i32 or blob.size < 2:
        return ()
    least, most = int(blob.array.min()), int(blob.array.max())
    for dtype in NARROW:
        limits: Any = np.iinfo(dtype.numpy)
        if limits.min <= least and most <= limits.max:
            stored = Value(f"{v.name}_{dtype.name}", TensorType(v.type.shape, dtype))
            wide = Value(f"{v.name}_wide", v.type)
            constant = GraphNode(
                "constant", (), (stored,), (("value", Blob(blob.array.astype(dtype.numpy))),)
            )
            return constant, GraphNode("cast", (stored,), (wide,), (("to", dtypes.i32),))
    return ()
