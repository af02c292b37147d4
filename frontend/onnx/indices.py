"""Constant indices that lie outside of what they index: an error of the model (E103)."""

from __future__ import annotations

from collections.abc import Callable

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.onnx.node import Node
from aisc.ir.arith.poly import Dim

# For an operand's shape and the indices' shape: the sizes that the last axis of the indices, or all
# of them alike (one size), must stay within.
_Extents = Callable[[Node, tuple[Dim, ...], tuple[int, ...]], tuple[Dim, ...]]


def _along_axis(node: Node, shape: tuple[Dim, ...], _: tuple[int, ...]) -> tuple[Dim, ...]:
    axis = node.integer("axis", 0)
    return (shape[axis],) if -len(shape) <= axis < len(shape) else ()


def _points(node: Node, shape: tuple[Dim, ...], indices: tuple[int, ...]) -> tuple[Dim, ...]:
    first = node.integer("batch_dims", 0) if node.op == "GatherND" else 0
    if not indices or first < 0:
        return ()
    found = shape[first : first + indices[-1]]
    return found if len(found) == indices[-1] else ()


_EXTENTS: dict[str, _Extents] = {
    "Gather": _along_axis,
    "GatherElements": _along_axis,
    "Scatter": _along_axis,
    "ScatterElements": _along_axis,
    "GatherND": _points,
    "ScatterND": _points,
}


def check_indices(em: Emitter, node: Node) -> None:
    """E103 when a constant index of a gathering or scattering node is out of range. What the
    handler refuses anyway (missing operands, a wrong axis) is left to it."""
    rule = _EXTENTS.get(node.op)
    data, indices = node.optional(0), em.array(node.optional(1))
    if rule is None or data is None or indices is None or indices.dtype.kind not in "iu":
        return
    extents = rule(node, data.type.shape, indices.shape)
    if not extents or not indices.size:
        return
    columns = indices.reshape(-1, len(extents)) if len(extents) > 1 else indices.reshape(-1, 1)
    for k, size in enumerate(extents):
        low, high = int(columns[:, k].min()), int(columns[:, k].max())
        if isinstance(size, int) and not -size <= low <= high < size:
            bad = high if high >= size else low
            raise node.malformed(f"index {bad} is outside an axis of size {size}")
