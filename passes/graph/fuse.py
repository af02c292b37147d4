"""Partition a graph into groups, each of which becomes one kernel.

before: ``%a = conv(%x, %w, %b); %y = relu(%a)``
after:  ``%y = fused(%x, %w, %b) { %a = conv(…); return relu(%a) }``

A group is an anchor (contraction, window, reduction, movement or map) and the elementwise operators
that follow it, one after another or in ways that part and meet (``x * sigmoid(x)``). A group gives
what is read outside of it, which may be several values where an operator has several results. An
attention is a group of its own (:mod:`aisc.passes.graph.attention`). The transpose of an image of
few channels joins the convolution that reads it.
Constants with one element move into the groups that read them; other constants and views stay
outside, as do operators of kind control (whose regions are partitioned in turn) and those that
only the host can compute. A group that a device runs takes no operator that would keep it from
there. Postcondition: every other node is a ``fused`` one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.location import fuse
from aisc.ir.rewrite.driver import use_counts
from aisc.passes.analysis.views import is_view
from aisc.passes.base import map_regions
from aisc.passes.graph.attention import attention_chains
from aisc.passes.policy import HOST_ALONE, Machines

# A group stops growing here: generated code and compile time grow with it.
MAX_GROUP = 24
FEW_CHANNELS = 4


@dataclass(eq=False, slots=True)
class _Group:
    nodes: list[GraphNode] = field(default_factory=list)
    anchored: bool = False  # holds a reduction of some kind
    closed: bool = False  # takes no more nodes


def stays_alone(node: GraphNode) -> bool:
    """Whether a node is no part of a kernel: constants, views, control, host operators."""
    op = opdef.get(node.op)
    native = op.scalar is not None or bool(op.variants)
    return op.kind in ("constant", "control") or is_view(node) or not native


@dataclass(frozen=True, slots=True)
class Fuse:
    """The pass; without `join` every operator is a group of its own."""

    name: str = "fuse"
    join: bool = True
    machines: Machines = HOST_ALONE

    def run(self, graph: Graph) -> Graph:
        """Apply to one graph and the regions of its control operators."""
        graph = map_regions(graph, self.run)
        groups = self._partition(graph)
        last = {g.nodes[-1]: g for g in groups.values()}
        read = _read_outside(graph, groups)
        scalars = {
            n.output: n for n in graph.nodes if n.op == "constant" and n.output.type.size == 1
        }
        nodes: list[GraphNode] = []
        for node in graph.nodes:
            if node in last:
                nodes.append(_fused(last[node], scalars, read))
            elif node not in groups:
                nodes.append(node)
        return replace(graph, nodes=tuple(nodes))

    def _partition(self, graph: Graph) -> dict[GraphNode, _Group]:
        used, made = use_counts(graph), graph.producers()
        groups: dict[GraphNode, _Group] = {}
        ways = _Ways(graph)
        chains = attention_chains(graph, made, used, self.machines) if self.join else ()
        for chain in chains:
            groups.update(dict.fromkeys(chain, _Group(list(chain), anchored=True, closed=True)))
        for node in graph.nodes:
            if node in groups or stays_alone(node):
                continue
            if self.join and self._take_ways(node, groups, made, used, ways):
                continue
            kept = self._kept_for_device(node, made, used, ways)
            joined = self._join(node, groups, made, used) if self.join and not kept else None
            if joined is None and self.join:
                joined = _prologue(node, groups, made, used)
                joined = joined if joined is not None and self._stays(joined, [node]) else None
                joined = joined or self._with_casts(node, groups, made, used)
            group = joined or _Group()
            group.nodes.append(node)
            group.anchored |= opdef.get(node.op).kind not in ("map", "movement")
            groups[node] = group
        return groups

    def _stays(self, group: _Group, more: Sequence[GraphNode]) -> bool:
        """Whether a group runs where it did when it takes more nodes."""
        home = self.machines.home
        return not self.machines.devices or home(group.nodes) is home([*group.nodes, *more])

    def _take_ways(
        self,
        node: GraphNode,
        groups: dict[GraphNode, _Group],
        made: dict[Value, GraphNode],
        used: dict[Value, int],
        ways: _Ways,
    ) -> bool:
        """Let the group of what a node reads have all ways that start there and meet again."""
        for v in node.input_values:
            producer = made.get(v)
            if producer is None or producer not in groups:
                continue
            if not _is_read_alone(v, producer, used):
                continue
            group, region = groups[producer], ways.from_value(v)
            fits = len(group.nodes) + len(region) <= MAX_GROUP and not group.closed
            if any(n in groups for n in region):
                continue
            starts = bool(region) and region[0] is node and group.nodes[-1] is producer
            if starts and fits and self._stays(group, region):
                group.nodes += region
                groups.update(dict.fromkeys(region, group))
                return True
        return False

    def _join(
        self,
        node: GraphNode,
        groups: dict[GraphNode, _Group],
        made: dict[Value, GraphNode],
        used: dict[Value, int],
    ) -> _Group | None:
        """The group that an elementwise node continues; map groups that feed it are merged in."""
        if opdef.get(node.op).kind != "map" or len(node.outputs) != 1:
            return None
        found: list[_Group] = []
        for v in node.input_values:
            producer = made.get(v)
            if producer is None or producer not in groups or used[v] != 1:
                continue
            group = groups[producer]
            if group.closed or not _is_read_alone(v, producer, used):
                continue
            same_shape = v.type.shape == node.output.type.shape
            last = group.nodes[-1] is producer and len(group.nodes) < MAX_GROUP
            if same_shape and last and self._stays(group, [node]):
                found.append(group)
        if not found:
            return None
        order = {id(g): k for k, g in enumerate(found)}
        home = max(found, key=lambda g: (g.anchored, order[id(g)]))
        for other in found:
            if other is not home and not other.anchored and self._stays(home, other.nodes):
                self._merge(home, other, groups)
        return home

    def _kept_for_device(
        self, node: GraphNode, made: dict[Value, GraphNode], used: dict[Value, int], ways: _Ways
    ) -> bool:
        """Whether a cast is to begin a group with the contraction that reads it."""
        readers = ways.readers.get(node.output, []) if node.op == "cast" else []
        return len(readers) == 1 and node in self._casts(readers[0], made, used)

    def _casts(
        self, node: GraphNode, made: dict[Value, GraphNode], used: dict[Value, int]
    ) -> list[GraphNode]:
        """The casts that only a contraction reads, where a device takes it with them and not
        without."""
        home, host = self.machines.home, self.machines.host
        if not self.machines.devices or opdef.get(node.op).kind != "contraction":
            return []
        casts = [made[v] for v in node.input_values if v in made and made[v].op == "cast"]
        casts = [c for c in casts if used[c.output] == 1]
        alone = not casts or home([node]) is not host or home([*casts, node]) is host
        return [] if alone else casts

    def _with_casts(
        self,
        node: GraphNode,
        groups: dict[GraphNode, _Group],
        made: dict[Value, GraphNode],
        used: dict[Value, int],
    ) -> _Group | None:
        """A group of those casts, for the contraction to join."""
        alone = [c for c in self._casts(node, made, used) if groups[c].nodes == [c]]
        if not alone:
            return None
        joined = _Group(alone)
        groups.update(dict.fromkeys(alone, joined))
        return joined

    @staticmethod
    def _merge(home: _Group, other: _Group, groups: dict[GraphNode, _Group]) -> None:
        if len(home.nodes) + len(other.nodes) > MAX_GROUP:
            return
        for node in other.nodes:
            groups[node] = home
        home.nodes[:0] = other.nodes


class _Ways:
    """Elementwise operators between a value with several readers and where all its ways meet."""

    def __init__(self, graph: Graph) -> None:
        self.order = {n: k for k, n in enumerate(graph.nodes)}
        self.results = set(graph.outputs)
        self.readers: dict[Value, list[GraphNode]] = {}
        for node in graph.nodes:
            for v in dict.fromkeys(node.input_values):
                self.readers.setdefault(v, []).append(node)

    def from_value(self, v: Value) -> list[GraphNode]:
        """The operators in order, the last one alone being read from outside; none if the ways do
        not meet in few steps, or something else than an elementwise operator lies on one."""
        waiting = list(self.readers.get(v, ()))
        if len(waiting) < 2 or v in self.results:
            return []
        region: list[GraphNode] = []
        while len(region) < MAX_GROUP:
            node = min(waiting, key=self.order.__getitem__)
            if opdef.get(node.op).kind != "map" or stays_alone(node) or len(node.outputs) != 1:
                return []
            if node.output.type.shape != v.type.shape:
                return []
            region.append(node)
            waiting.remove(node)
            if not waiting:
                return region
            if node.output in self.results:
                return []
            waiting += [n for n in self.readers.get(node.output, ()) if n not in waiting]
        return []


def _is_read_alone(v: Value, producer: GraphNode, used: dict[Value, int]) -> bool:
    """Whether a node's other results are not read: who reads them may stand before what the group
    takes next, and be needed by it."""
    return all(other is v or not used.get(other) for other in producer.outputs)


def _prologue(
    node: GraphNode,
    groups: dict[GraphNode, _Group],
    made: dict[Value, GraphNode],
    used: dict[Value, int],
) -> _Group | None:
    """The group of a transpose that only gives an image of few channels to a convolution, which
    reads it one element at a time in either layout."""
    producer = made.get(node.input_values[0]) if node.op == "conv" else None
    if producer is None or producer.op != "transpose" or used[producer.output] != 1:
        return None
    channels = producer.output.type.shape[-1]
    few = isinstance(channels, int) and channels <= FEW_CHANNELS
    return groups.get(producer) if few and node.attr("data_layout") == "NHWC" else None


def _read_outside(graph: Graph, groups: dict[GraphNode, _Group]) -> set[Value]:
    """The values that something else than the group which computes them reads."""
    made = {v: g for n, g in groups.items() for v in n.outputs}
    found = set(graph.outputs)
    for n in graph.nodes:
        found.update(v for v in n.input_values if v in made and made[v] is not groups.get(n))
    return found


def _fused(group: _Group, scalars: dict[Value, GraphNode], read: set[Value]) -> GraphNode:
    """The node of a group: its region takes what the group reads from outside, and gives what is
    read there."""
    inside = {v for n in group.nodes for v in n.outputs}
    inputs: dict[Value, Value] = {}
    body: dict[GraphNode, None] = {}
    for node in group.nodes:
        for v in node.input_values:
            if v in scalars:
                body[scalars[v]] = None
            elif v not in inside and v not in inputs:
                inputs[v] = Value(v.name, v.type)
    inner: dict[Value, Value] = dict(inputs)
    nodes = [*body, *(_inside(n, inner) for n in group.nodes)]
    results = tuple(v for n in group.nodes for v in n.outputs if v in read)
    region = Graph("group", tuple(inputs.values()), tuple(nodes), tuple(inner[v] for v in results))
    loc = fuse(n.loc for n in group.nodes)
    return GraphNode("fused", tuple(inputs), results, (), (region,), loc)


def _inside(node: GraphNode, inner: dict[Value, Value]) -> GraphNode:
    """A copy of a node over the region's own values."""
    inputs = tuple(None if v is None else inner.get(v, v) for v in node.inputs)
    outputs = tuple(Value(v.name, v.type) for v in node.outputs)
    inner.update(zip(node.outputs, outputs, strict=True))
    return replace(node, inputs=inputs, outputs=outputs)
