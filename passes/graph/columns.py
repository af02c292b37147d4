"""Products of which maps read several parts of the columns at the same places.

before: ``%s = add(matmul(%h, %w), %x); %i = %s[:, :64]; %o = %s[:, 64:]; mul(sigmoid(%i), %o)``
after:  one group, whose map reads column c and column c + 64 of the product

Gates of recurrent cells and of gated units are computed so. In one kernel the parts need not be
stored: a tile of the product has some columns of each part, and the maps are its epilogue
(:mod:`aisc.passes.schedule.rules.columns`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.passes.analysis.places import slice_steps
from aisc.passes.analysis.views import stays_alone

# Parts of the columns, whose accumulators must fit the registers together.
MAX_PARTS = 8
# Operators of such a group: each gate has a few.
MAX_NODES = 40

Readers = Mapping[Value, Sequence[GraphNode]]


def column_chains(graph: Graph) -> Iterator[list[GraphNode]]:
    """Such products with all maps up to where something else reads a result, in order; products of
    one part as well, where the maps give several results."""
    readers, results, taken = _readers(graph), set(graph.outputs), set[GraphNode]()
    for k, node in enumerate(graph.nodes):
        chain = _chain(node, readers, results) if node.op == "matmul" else []
        if not chain:
            continue
        parts = _parts(chain[-1].output, readers)
        values = {p.output for p in parts} or {chain[-1].output}
        inside = _with_maps(graph, k, {*chain, *parts}, values)
        closed = all(r in inside for p in parts for r in readers.get(p.output, ()))
        if closed and (parts or len(_given(inside, readers, results)) > 1):
            inside |= _feeding(graph, inside, readers, results, next(iter(values))) - taken
            if len(inside) <= MAX_NODES and not inside & taken:
                taken |= inside
                yield [n for n in graph.nodes if n in inside]


def _given(inside: AbstractSet[GraphNode], readers: Readers, results: set[Value]) -> list[Value]:
    """What nodes compute that something else reads."""
    made = [v for n in inside for v in n.outputs]
    return [v for v in made if v in results or any(r not in inside for r in readers.get(v, ()))]


def _readers(graph: Graph) -> Readers:
    found: dict[Value, list[GraphNode]] = {}
    for node in graph.nodes:
        for v in dict.fromkeys(node.input_values):
            found.setdefault(v, []).append(node)
    return found


def _chain(node: GraphNode, readers: Readers, results: set[Value]) -> list[GraphNode]:
    """The product and the maps that follow it one after another; none if a result is among what
    they compute."""
    chain = [node]
    while chain[-1].output not in results:
        following = readers.get(chain[-1].output, [])
        if len(following) != 1 or not _is_map(following[0], node.output):
            return chain
        chain.append(following[0])
    return []


def _is_map(node: GraphNode, like: Value) -> bool:
    """Whether a node computes each element for itself, in the shape of a value."""
    is_map = opdef.get(node.op).kind == "map" and len(node.outputs) == 1
    return is_map and not stays_alone(node) and node.output.type.shape == like.type.shape


def _parts(v: Value, readers: Readers) -> list[GraphNode]:
    """The slices that read a value, if nothing else does, and they are parts of one size."""
    found = list(readers.get(v, ()))
    if len(found) < 2 or any(n.op != "slice" or any(s != 1 for s in slice_steps(n)) for n in found):
        return []
    columns = v.type.shape[-1]
    shapes = {n.output.type.shape for n in found}
    (shape, *others) = shapes
    size = shape[-1]
    if others or shape[:-1] != v.type.shape[:-1]:
        return []
    if not isinstance(size, int) or not isinstance(columns, int) or size == 0 or columns % size:
        return []
    aligned = all(isinstance(s := _start(n), int) and s % size == 0 for n in found)
    return found if aligned and columns // size <= MAX_PARTS else []


def _start(part: GraphNode) -> object:
    starts = part.attr("starts")
    assert isinstance(starts, tuple), "the starts of a slice"
    return starts[-1]


def _with_maps(
    graph: Graph, first: int, found: AbstractSet[GraphNode], values: AbstractSet[Value]
) -> set[GraphNode]:
    """The nodes with the maps that read the values and what is made of them, up to the first other
    reader: none depends on what is computed outside from a result."""
    inside, made = set(found), set(values)
    like = next(iter(values))
    for node in graph.nodes[first + 1 :]:
        if node in inside or not made & set(node.input_values):
            continue
        if not _is_map(node, like) or len(inside) == MAX_NODES:
            break
        inside.add(node)
        made.add(node.output)
    return inside


def _feeding(
    graph: Graph, inside: AbstractSet[GraphNode], readers: Readers, results: set[Value], like: Value
) -> set[GraphNode]:
    """The slices and maps that compute for these nodes alone what they read at a place."""
    found: set[GraphNode] = set()
    for node in reversed(graph.nodes):
        shaped = node not in inside and len(node.outputs) == 1 and node.output not in results
        if not shaped or node.output.type.shape != like.type.shape or stays_alone(node):
            continue
        following = readers.get(node.output, ())
        simple = node.op == "slice" or _is_map(node, like)
        if simple and following and all(r in inside or r in found for r in following):
            found.add(node)
    return found
