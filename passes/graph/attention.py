"""Chains of operators that become one kernel: a softmax of products, and products of its results.

before: ``%s = matmul(%q, %k); %m = add(%s, %mask); %p = softmax(%m); %o = matmul(%p, %v)``
after:  one group of the four, of copies in another order that only they read, and of one that
        only reads the result

Candidates are found by the kinds of the operators; whether one is attention is asked of the
machine that they run on, about the function that they are lowered to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field

from aisc.ir.dataclass import dataclass
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.optional import attempt
from aisc.ir.tensor.func import Func
from aisc.passes.analysis.views import is_view
from aisc.passes.lower.canonical import group_key
from aisc.passes.lower.group import as_func, region_of
from aisc.passes.policy import Machines, Policy

# Operators between the two contractions.
MAX_CHAIN = 16

Makers = Mapping[Value, GraphNode]
Uses = Mapping[Value, int]
Question = Callable[[Func], bool]


def attention_chains(
    graph: Graph, made: Makers, used: Uses, machines: Machines
) -> Iterator[tuple[GraphNode, ...]]:
    """Nodes of each attention, in the order of the graph."""
    asked = _Asked(machines)
    order = {n: k for k, n in enumerate(graph.nodes)}
    readers: dict[Value, list[GraphNode]] = {}
    for n in graph.nodes:
        for v in n.input_values:
            readers.setdefault(v, []).append(n)
    for node in graph.nodes:
        core = _core(node, made, used) if _kind(node) == "contraction" else None
        if core is None:
            continue
        moves = [m for n in (core[-1], node) for m in _moves(n, made, used, asked)]
        after = _copied(node, readers, used, asked)
        whole = [*moves, *core, node]
        for chain in ([*whole, *after], whole, [*core, node])[0 if after else 1 :]:
            nodes = tuple(sorted(chain, key=order.__getitem__))
            if asked.is_attention(nodes):
                yield nodes
                break


def _kind(node: GraphNode) -> str:
    definition = opdef.get(node.op)
    native = definition.scalar is not None or bool(definition.variants)
    return definition.kind if native else ""


def _core(node: GraphNode, made: Makers, used: Uses) -> list[GraphNode] | None:
    """What lies between a contraction and `node`, which reads it, the contraction last; nothing
    where something else reads of it."""
    for v in dict.fromkeys(node.input_values):
        inside: dict[GraphNode, bool] = {}
        _reaches(v, made, inside)
        core = [n for n, found in inside.items() if found]
        source = [n for n in core if _kind(n) == "contraction"]
        kinds = {_kind(n) for n in core}
        if len(source) != 1 or "reduction" not in kinds or len(core) > MAX_CHAIN:
            continue
        reads = [x for n in (*core, node) for x in n.input_values]
        outputs = [x for n in core for x in n.outputs]
        if all(used[x] == reads.count(x) for x in outputs):
            return [*(n for n in core if n is not source[0]), source[0]]
    return None


def _reaches(v: Value, made: Makers, inside: dict[GraphNode, bool]) -> bool:
    """Whether a value is computed from a contraction by maps and reductions; what was asked of
    each node is in `inside`."""
    node = made.get(v)
    if node is None or len(inside) > 2 * MAX_CHAIN:
        return False
    if node not in inside:
        kind = _kind(node)
        inside[node] = kind == "contraction"
        if kind in ("map", "reduction"):
            found = [_reaches(x, made, inside) for x in node.input_values]
            inside[node] = any(found)
    return inside[node]


def _moves(node: GraphNode, made: Makers, used: Uses, asked: _Asked) -> list[GraphNode]:
    """Copies in another order that only `node` reads; not those that are views by themselves."""
    found = []
    for v in node.input_values:
        chain: list[GraphNode] = []
        source = made.get(v)
        while source is not None and used[source.output] == 1 and asked.is_copy(source):
            chain.append(source)
            source = made.get(source.input_values[0])
        while chain and is_view(chain[-1]):
            chain.pop()
        found += chain
    return found


def _copied(
    node: GraphNode, readers: Mapping[Value, list[GraphNode]], used: Uses, asked: _Asked
) -> list[GraphNode]:
    """The copy in another order that alone reads the result of `node`."""
    result = node.output
    found = readers.get(result, []) if used[result] == 1 else []
    return [n for n in found if not is_view(n) and asked.is_copy(n)]


@dataclass(slots=True)
class _Asked:
    """What groups of nodes are, by what decides their function: layers repeat."""

    machines: Machines
    known: dict[object, bool] = field(default_factory=dict)

    def is_copy(self, node: GraphNode) -> bool:
        """Whether an operator only stores the elements of its operand elsewhere."""
        if _kind(node) != "movement" or len(node.input_values) != 1 or len(node.outputs) != 1:
            return False
        if opdef.size_checks(node):  # a view whose size is compared at run time
            return False
        return self._ask((node,), lambda p: p.is_copy, "copy")

    def is_attention(self, nodes: tuple[GraphNode, ...]) -> bool:
        """Whether the machine takes a group for one attention; the host leaves its products to a
        device that takes them alone."""
        if self.machines.devices and self.machines.home(nodes) is self.machines.host:
            products = (n for n in nodes if _kind(n) == "contraction")
            if any(self.machines.home([n]) is not self.machines.host for n in products):
                return False
        return self._ask(nodes, lambda p: p.is_attention, "attention")

    def _ask(
        self, nodes: tuple[GraphNode, ...], question: Callable[[Policy], Question], what: str
    ) -> bool:
        region = region_of(nodes)
        home = self.machines.home(nodes)
        key = what, home.name, group_key(region, frozenset())
        if key not in self.known:
            self.known[key] = attempt(
                "the rule for attention",
                lambda: question(home)(as_func(region)),
                lambda: False,
            )
        return self.known[key]
