"""Step 3: folding, identities, common sub-expressions and dead code to a bounded fixpoint."""

from __future__ import annotations

from dataclasses import dataclass

from aisc.ir.graph.core import Graph
from aisc.ir.rewrite.driver import rewrite
from aisc.ir.rewrite.rules import Rule
from aisc.passes.base import map_regions
from aisc.passes.graph import affine, identities
from aisc.passes.graph.cse import CommonSubexpressions
from aisc.passes.graph.dce import DeadCode
from aisc.passes.graph.fold import Fold

MAX_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class Canonicalize:
    """The pass. Each round applies every part; rounds end when one changes nothing."""

    name: str = "canonicalize"
    rules: tuple[Rule, ...] = identities.RULES + affine.RULES

    def run(self, graph: Graph) -> Graph:
        """Apply to one graph and the regions of its control operators."""
        graph = map_regions(graph, self.run)
        for _ in range(MAX_ROUNDS):
            before = graph
            graph = DeadCode().run(graph)
            graph = Fold().run(graph)
            graph = rewrite(graph, self.rules)
            graph = CommonSubexpressions().run(graph)
            if graph is before:
                break
        return graph
