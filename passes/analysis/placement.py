"""Where a group of a partitioned graph runs, as :mod:`aisc.passes.graph.place` has decided."""

from __future__ import annotations

from aisc.ir.graph.core import GraphNode


def target_of(group: GraphNode) -> str:
    """The device that runs a group; empty for the host."""
    return str(group.attr_map.get("target", ""))
