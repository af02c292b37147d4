"""Step 3: dead code, common sub-expressions, folding and identities to a bounded fixpoint."""

from __future__ import annotations

from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Graph
from aisc.ir.rewrite.driver import rewrite
from aisc.ir.rewrite.rules import Rule
from aisc.passes.base import map_regions
from aisc.passes.graph import affine, identities, norms, quantized
from aisc.passes.graph.cse import CommonSubexpressions
from aisc.passes.graph.dce import DeadCode
from aisc.passes.graph.fold import Budget, Fold
from aisc.passes.graph.formulas import raising as formulas
from aisc.passes.graph.hoist import Hoist

MAX_ROUNDS = 8
_PLAIN = formulas.RULES + norms.RULES + identities.RULES + affine.RULES


@dataclass(frozen=True, slots=True)
class Canonicalize:
    """The pass. Each round applies every part; rounds end when one changes nothing."""

    name: str = "canonicalize"
    rules: tuple[Rule, ...] = quantized.RULES + _PLAIN

    @staticmethod
    def exactly() -> Canonicalize:
        """The pass without rules that may give the next value of a quantizer."""
        return Canonicalize(rules=quantized.EXACT + _PLAIN)

    def run(self, graph: Graph) -> Graph:
        """Apply to one graph and the regions of its control operators."""
        return self._run(graph, Budget.of(graph))

    def _run(self, graph: Graph, budget: Budget) -> Graph:
        graph = map_regions(graph, lambda region: self._run(region, budget))
        for _ in range(MAX_ROUNDS):
            before = graph
            graph = Hoist().run(DeadCode().run(graph))
            graph = CommonSubexpressions().run(graph)  # first: what is equal is folded once
            graph = Fold(budget=budget).run(graph)
            graph = rewrite(graph, self.rules)
            if graph is before:
                break
        return graph
