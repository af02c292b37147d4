"""Step 4: core operators only, in the layout that the machine prefers.

:class:`Decompose` replaces operators until only core ones are left, which have a compute
definition of their own.

before: ``%y = batch_norm(%x, …)``   after: ``%t = mul(%x, …); %y = add(%t, …)``
Postcondition: no node has an operator with a ``decompose`` rule.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, Value
from aisc.ir.rewrite.rules import RewriteGraph
from aisc.passes.base import map_regions
from aisc.passes.graph import affine, identities, images, layout, masks, rows
from aisc.passes.graph import pooling as pools
from aisc.passes.graph.canonicalize import Canonicalize
from aisc.passes.graph.narrow import NarrowConstants
from aisc.passes.policy import HOST_ALONE, Machines

MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Legalize:
    """The step: decompose, move to channels last where the machine wants that, join rows of
    products, canonicalize what that exposes."""

    name: str = "legalize"
    machines: Machines = HOST_ALONE

    def run(self, graph: Graph) -> Graph:
        """Apply to one graph."""
        graph, main = Canonicalize().run(Decompose().run(graph)), self.machines.main
        if main.channels_last:
            graph = images.ImageLayouts(lanes=main.image_lanes).run(graph)
        table = (
            identities.RULES
            + affine.RULES
            + pools.RULES
            + images.RULES
            + masks.RULES
            + layout.rules()
            + rows.rules()
        )
        graph = Canonicalize(rules=table).run(graph)
        return NarrowConstants().run(graph) if self.machines.narrow_constants else graph


@dataclass(frozen=True, slots=True)
class Decompose:
    """The pass; see the module's docstring."""

    name: str = "decompose"

    def run(self, graph: Graph) -> Graph:
        """Apply to one graph and the regions of its control operators."""
        graph = map_regions(graph, self.run)
        for _ in range(MAX_DEPTH):
            if not any(opdef.get(n.op).decompose for n in graph.nodes):
                return graph
            graph = _once(graph)
        raise AssertionError("operators decompose into each other without end")


def _once(graph: Graph) -> Graph:
    out = RewriteGraph(graph.name)
    out.inputs = list(graph.inputs)
    for v in graph.values():
        out.fresh(v.name)
    mapped: dict[Value, Value] = {}
    for node in graph.nodes:
        inputs = tuple(None if v is None else mapped.get(v, v) for v in node.inputs)
        rule = opdef.get(node.op).decompose
        if rule is None:
            out.append(replace(node, inputs=inputs))
            continue
        out.loc = node.loc
        call = opdef.call_of(replace(node, inputs=inputs), out.constants)
        results = rule(out, call, inputs)
        mapped.update(zip(node.outputs, results, strict=True))
    outputs = tuple(mapped.get(v, v) for v in graph.outputs)
    return replace(graph, nodes=tuple(out.nodes), outputs=outputs, output_names=graph.result_names)
