"""Operators that compute nothing: their results are other shapes over the same storage."""

from __future__ import annotations

from aisc.ir.graph import opdef
from aisc.ir.graph.core import GraphNode


def is_view(node: GraphNode) -> bool:
    """Whether a node only gives another shape to elements that lie together in memory."""
    return "view" in opdef.get(node.op).traits or _is_stretch(node)


def stays_alone(node: GraphNode) -> bool:
    """Whether a node is no part of a kernel: constants, views, control, host operators."""
    op = opdef.get(node.op)
    native = op.scalar is not None or bool(op.variants)
    return op.kind in ("constant", "control") or is_view(node) or not native


def _is_stretch(node: GraphNode) -> bool:
    """Whether a slice is one stretch of memory: whole after its last cut, of size 1 before."""
    if node.op != "slice" or any(s != 1 for s in node.attr("steps")):  # type: ignore[union-attr]
        return False
    (source,), shape = node.input_values, node.output.type.shape
    cut = [k for k, (a, b) in enumerate(zip(source.type.shape, shape, strict=True)) if a != b]
    return not cut or all(d == 1 for d in shape[: cut[-1]])
