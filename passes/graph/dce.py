"""Dead code: nodes that no output depends on are dropped."""

from __future__ import annotations

from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Graph
from aisc.ir.rewrite.driver import eliminate_dead


@dataclass(frozen=True, slots=True)
class DeadCode:
    """The pass; see the module's docstring."""

    name: str = "dce"

    def run(self, graph: Graph) -> Graph:
        """Apply to one graph."""
        return eliminate_dead(graph)
