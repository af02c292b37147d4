"""Step 4: core operators only, in the layout that the machine prefers.

:class:`Decompose` replaces operators until only core ones are left, which have a compute
definition of their own.

before: ``%y = batch_norm(%x, …)``   after: ``%t = mul(%x, …); %y = add(%t, …)``
Postcondition: no node has an operator with a ``decompose`` rule.
"""

from __future__ import annotations

from collections.abc import Sequence

from aisc.ir.dataclass import dataclass
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.rewrite.driver import rewrite
from aisc.ir.rewrite.rules import RewriteGraph, replace_nodes
from aisc.passes.base import map_regions
from aisc.passes.graph import affine, borders, identities, images, layout, masks, rows, stored
from aisc.passes.graph import pooling as pools
from aisc.passes.graph.canonicalize import Canonicalize
from aisc.passes.graph.narrow import NarrowConstants
from aisc.passes.graph.precision import Precision
from aisc.passes.policy import HOST_ALONE, Machines

MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Legalize:
    """The step: decompose, move to channels last where the machine wants that, join rows of
    products, canonicalize what that exposes, store weights in the `precision` that is wanted."""

    name: str = "legalize"
    machines: Machines = HOST_ALONE
    precision: Precision | None = None

    def run(self, graph: Graph) -> Graph:
        """Apply to one graph."""
        main, graph = self.machines.main, _with_stored(graph)
        graph = Decompose(images.COMPOSED).run(graph)
        graph = Canonicalize().run(graph)
        if main.channels_last:
            graph = images.ImageLayouts(lanes=main.image_lanes).run(graph)
        graph = Decompose().run(graph)
        table = (
            identities.RULES
            + affine.RULES
            + pools.RULES
            + images.RULES
            + borders.RULES
            + masks.RULES
            + layout.rules()
            + rows.rules()
        )
        graph = Canonicalize(rules=table).run(graph)
        graph = stored.apart(graph if self.precision is None else self.precision.run(graph))
        return NarrowConstants().run(graph) if self.machines.narrow_constants else graph


def _with_stored(graph: Graph) -> Graph:
    """Weights in the bits that they are stored in, in all regions."""
    return rewrite(map_regions(graph, _with_stored), stored.RULES)


@dataclass(frozen=True, slots=True)
class Decompose:
    """The pass; see the module's docstring. Operators of `kept` are left for later."""

    kept: tuple[str, ...] = ()
    name: str = "decompose"

    def run(self, graph: Graph) -> Graph:
        """Apply to one graph and the regions of its control operators."""
        graph = map_regions(graph, self.run)
        for _ in range(MAX_DEPTH):
            if not any(self._rule(n) for n in graph.nodes):
                return graph
            graph = self._once(graph)
        raise AssertionError("operators decompose into each other without end")

    def _rule(self, node: GraphNode) -> opdef.Decompose | None:
        return None if node.op in self.kept else opdef.get(node.op).decompose

    def _once(self, graph: Graph) -> Graph:
        def decomposed(out: RewriteGraph, node: GraphNode) -> Sequence[Value] | None:
            rule = self._rule(node)
            return rule and rule(out, opdef.call_of(node, out.constants), node.inputs)

        return replace_nodes(graph, decomposed)
