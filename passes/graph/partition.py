"""Which operators of a graph become one kernel: the groups of :mod:`aisc.passes.graph.fuse`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from aisc.ir.dataclass import dataclass
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.rewrite.driver import use_counts
from aisc.passes.analysis.views import stays_alone
from aisc.passes.graph.attention import attention_chains
from aisc.passes.graph.columns import column_chains
from aisc.passes.graph.parts import in_place
from aisc.passes.policy import Machines

# A group stops growing here: generated code and compile time grow with it.
MAX_GROUP = 24
FEW_CHANNELS = 4


@dataclass(eq=False, slots=True)
class Group:
    """The operators of a kernel, in order."""

    nodes: list[GraphNode] = field(default_factory=list)
    anchored: bool = False  # holds a reduction of some kind
    closed: bool = False  # takes no more nodes


def partition(graph: Graph, machines: Machines, join: bool) -> dict[GraphNode, Group]:
    """The group of each node that is part of a kernel; without `join` each has its own."""
    found, views = _Partition(graph, machines), set[GraphNode]()
    if join:
        found.take_attention()
        found.take_columns()
        if not machines.devices:
            views = in_place(graph, found.groups)
    for node in graph.nodes:
        if node not in found.groups and not stays_alone(node) and node not in views:
            found.place(node, join)
    return found.groups


class _Partition:
    """The groups of one graph while they grow. `made`: the producer of each value; `used`: how
    often each is read."""

    def __init__(self, graph: Graph, machines: Machines) -> None:
        self.graph, self.machines = graph, machines
        self.used, self.made = use_counts(graph), graph.producers()
        self.groups: dict[GraphNode, Group] = {}
        self.diamonds = _Diamonds(graph)

    def take_attention(self) -> None:
        """Let each attention be a group that nothing else joins."""
        for chain in attention_chains(self.graph, self.made, self.used, self.machines):
            self._assign(chain, Group(list(chain), anchored=True, closed=True))

    def take_columns(self) -> None:
        """Let each product be a group with the maps that read it in parts."""
        chains = () if self.machines.devices else column_chains(self.graph)
        for chain in chains:
            if not any(n in self.groups for n in chain):
                self._assign(chain, Group(chain, anchored=True, closed=True))

    def place(self, node: GraphNode, join: bool) -> None:
        """Give a node to the group that takes it, or to one of its own."""
        if join and self._joins_diamond(node):
            return
        group = (self._joined(node) if join else None) or Group()
        group.nodes.append(node)
        group.anchored |= opdef.get(node.op).kind not in ("map", "movement")
        self.groups[node] = group

    def _joined(self, node: GraphNode) -> Group | None:
        """The group that a node continues, if there is one."""
        joined = None if self._is_kept_for_device(node) else self._continued(node)
        if joined is None:
            joined = self._prologue(node) or self._maps_of_row(node)
            joined = joined if joined is not None and self._stays(joined, [node]) else None
        return joined or self._group_of_casts(node)

    def _assign(self, nodes: Sequence[GraphNode], group: Group) -> None:
        self.groups.update(dict.fromkeys(nodes, group))

    def _stays(self, group: Group, more: Sequence[GraphNode]) -> bool:
        """Whether a group runs where it did when it takes more nodes."""
        home = self.machines.home
        return not self.machines.devices or home(group.nodes) is home([*group.nodes, *more])

    def _joins_diamond(self, node: GraphNode) -> bool:
        """Let the group of what a node reads have all ways that start there and meet again."""
        for v in node.input_values:
            producer = self.made.get(v)
            if producer is None or producer not in self.groups:
                continue
            if not self._is_read_alone(v, producer):
                continue
            group, region = self.groups[producer], self.diamonds.from_value(v)
            fits = len(group.nodes) + len(region) <= MAX_GROUP and not group.closed
            if any(n in self.groups for n in region):
                continue
            starts = bool(region) and region[0] is node and group.nodes[-1] is producer
            if starts and fits and self._stays(group, region):
                group.nodes += region
                self._assign(region, group)
                return True
        return False

    def _continued(self, node: GraphNode) -> Group | None:
        """The group that an elementwise node continues; map groups that feed it are merged in."""
        if opdef.get(node.op).kind != "map" or len(node.outputs) != 1:
            return None
        found: list[Group] = []
        for v in node.input_values:
            producer = self.made.get(v)
            if producer is None or producer not in self.groups or self.used[v] != 1:
                continue
            group = self.groups[producer]
            if group.closed or not self._is_read_alone(v, producer):
                continue
            if group.anchored and _widens(node, v):
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
                self._merge(home, other)
        return home

    def _merge(self, home: Group, other: Group) -> None:
        if len(home.nodes) + len(other.nodes) <= MAX_GROUP:
            self._assign(other.nodes, home)
            home.nodes[:0] = other.nodes

    def _is_read_alone(self, v: Value, producer: GraphNode) -> bool:
        """Whether a node's other results are not read: who reads them may stand before what the
        group takes next, and be needed by it."""
        return all(other is v or not self.used.get(other) for other in producer.outputs)

    def _prologue(self, node: GraphNode) -> Group | None:
        """The group of what a contraction computes of its operands as it reads them: a transpose
        that only gives it an image of few channels, which it reads one element at a time in either
        layout, and weights that are stored in few bits."""
        contraction = opdef.get(node.op).kind == "contraction"
        weights = self.made.get(node.input_values[1]) if contraction else None
        if weights is not None and weights.op == "widen" and self.used[weights.output] == 1:
            return self.groups.get(weights)
        producer = self.made.get(node.input_values[0]) if node.op == "conv" else None
        if producer is None or producer.op != "transpose" or self.used[producer.output] != 1:
            return None
        channels = producer.output.type.shape[-1]
        few = isinstance(channels, int) and channels <= FEW_CHANNELS
        return self.groups.get(producer) if few and node.attr("data_layout") == "NHWC" else None

    def _maps_of_row(self, node: GraphNode) -> Group | None:
        """The group of the maps that compute, for a reduction alone, what it reads; one that gives
        places compares elements as they lie."""
        operand = node.inputs[0] if opdef.get(node.op).kind == "reduction" else None
        producer = None if operand is None else self.made.get(operand)
        group = None if producer is None else self.groups.get(producer)
        if operand is None or group is None or self.used[operand] != 1:
            return None
        if node.output.type.dtype is not operand.type.dtype:
            return None
        maps = all(opdef.get(n.op).kind == "map" for n in group.nodes)
        fits = group.nodes[-1] is producer and len(group.nodes) < MAX_GROUP and not group.closed
        return group if maps and fits else None

    def _is_kept_for_device(self, node: GraphNode) -> bool:
        """Whether a cast is to begin a group with the contraction that reads it."""
        readers = self.diamonds.readers.get(node.output, []) if node.op == "cast" else []
        return len(readers) == 1 and node in self._casts(readers[0])

    def _casts(self, node: GraphNode) -> list[GraphNode]:
        """The casts that only a contraction reads, where a device takes it with them and not
        without."""
        home, host, made = self.machines.home, self.machines.host, self.made
        if not self.machines.devices or opdef.get(node.op).kind != "contraction":
            return []
        casts = [made[v] for v in node.input_values if v in made and made[v].op == "cast"]
        casts = [c for c in casts if self.used[c.output] == 1]
        alone = not casts or home([node]) is not host or home([*casts, node]) is host
        return [] if alone else casts

    def _group_of_casts(self, node: GraphNode) -> Group | None:
        """A group of those casts, for the contraction to join."""
        alone = [c for c in self._casts(node) if self.groups[c].nodes == [c]]
        if not alone:
            return None
        joined = Group(alone)
        self._assign(alone, joined)
        return joined


def _widens(node: GraphNode, v: Value) -> bool:
    """Whether a node makes more bytes of short integers: who reads them does that better."""
    t = v.type.dtype
    return node.op == "cast" and t.is_integer and 2 * t.bits <= node.output.type.dtype.bits < 64


class _Diamonds:
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
