"""Attributes of nodes, as what their operators declare them to be."""

from __future__ import annotations

from typing import cast

from aisc.ir.arith.poly import Dim, SymDim, sole_symbol
from aisc.ir.graph.core import GraphNode


def dims(node: GraphNode, name: str) -> tuple[Dim, ...]:
    """A list of dimensions or whole numbers."""
    return cast(tuple[Dim, ...], node.attr(name))


def whole(node: GraphNode, name: str) -> int:
    """A whole number."""
    return cast(int, node.attr(name))


def bound(node: GraphNode, name: str) -> list[SymDim]:
    """The dimensions that an attribute defines."""
    return [s for d in dims(node, name) if (s := sole_symbol(d)) is not None]
