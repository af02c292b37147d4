"""Computations that a loop repeats without need are done once, before it.

before: ``%y = loop(%x, %w) { %k = slice(%w); %h = matmul(%h, %k); … }``
after:  ``%k = slice(%w); %y = loop(%x, %k) { %h = matmul(%h, %k); … }``

A node is moved whose operands are captures or constants of the loop, which mentions no size that a
turn binds, cannot fail, and whose result is no larger than what it reads: what enlarges is cheaper
computed where it is used. A loop without turns then computes something that nobody reads.
"""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.arith.poly import bounds
from aisc.ir.dataclass import dataclass
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value, bound_symbols, used_symbols
from aisc.ir.names import fresh_name
from aisc.passes.base import map_regions

# They end a run whose data do not fit; what is computed for nothing must not.
_MAY_FAIL = frozenset(
    {"expect", "within", "gather", "gather_elements", "gather_nd", "scatter_elements", "scatter_nd",
     "mod", "index", "one_hot", "sample", "top_k"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hoist:
    """The pass."""

    name: str = "hoist"

    def run(self, graph: Graph) -> Graph:
        """Apply to one graph and the regions of its control operators, inner ones first."""
        graph = map_regions(graph, self.run)
        taken = {v.name for v in graph.values()}
        nodes: list[GraphNode] = []
        for node in graph.nodes:
            moved, node = _divided(node, taken) if node.op == "loop" else ([], node)
            nodes += [*moved, node]
        return graph if len(nodes) == len(graph.nodes) else replace(graph, nodes=tuple(nodes))


def _divided(node: GraphNode, taken: set[str]) -> tuple[list[GraphNode], GraphNode]:
    """The nodes that need not be in a loop, and the loop without them."""
    (body,) = node.regions
    count = node.attr("carried")
    assert isinstance(count, int), "a number of carried values"
    captured = dict(zip(body.inputs[count:], node.inputs[2 + count :], strict=True))
    outside: dict[Value, Value] = {v: o for v, o in captured.items() if o is not None}
    changing = bound_symbols(Graph("", (), (node,), ()))
    moved: list[GraphNode] = []
    kept: list[GraphNode] = []
    for n in body.nodes:
        free = all(v in outside for v in n.input_values) and _may_move(n, changing)
        if not free:
            kept.append(n)
            continue
        results = tuple(Value(fresh_name(v.name, taken), v.type) for v in n.outputs)
        inputs = tuple(None if v is None else outside[v] for v in n.inputs)
        moved.append(replace(n, inputs=inputs, outputs=results))
        outside.update(zip(n.outputs, results, strict=True))
    if not any(n.op != "constant" for n in moved):
        return [], node
    read = [*(v for n in kept for v in n.input_values), *body.outputs]
    made = {v for n in body.nodes for v in n.outputs}
    more = [v for v in dict.fromkeys(read) if v in made and v in outside]
    inner = replace(body, nodes=tuple(kept), inputs=(*body.inputs, *more))
    inputs = (*node.inputs, *(outside[v] for v in more))
    return moved, replace(node, inputs=inputs, regions=(inner,))


def _may_move(n: GraphNode, changing: frozenset[str]) -> bool:
    op = opdef.get(n.op)
    if op.kind in ("control", "opaque") or n.op in _MAY_FAIL or n.regions:
        return False
    if n.op in ("div", "fmod") and n.output.type.dtype.is_integer:
        return False
    if any(s.name in changing for s in used_symbols(n)) or opdef.size_checks(n):
        return False
    return n.op == "constant" or (bool(n.input_values) and _is_no_larger(n))


def _is_no_larger(n: GraphNode) -> bool:
    read = max((v.type.size for v in n.input_values), key=lambda d: bounds(d)[0])
    return all(bounds(read - v.type.size)[0] >= 0 for v in n.outputs)
