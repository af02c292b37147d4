"""Which concats and slices of a graph are to be no kernels, and concats as parts of others.

before: ``%y = concat(%a, %b); %z = concat(%a, %b, %c)``
after:  ``%y = concat(%a, %b); %z = concat(%y, %c)``, and both only say where %a, %b, %c are made
before: ``%a, %b = %x[:, :8], %x[:, 8:]; %z = concat(%a, %b, %c)``
after:  ``%z = concat(%x, %c)``

A concat moves nothing where kernels make its parts. It stays a kernel where rows of a part would
be shorter than a line of the cache, or where the one map that reads it takes it along and some of
its parts would have to be copied. A slice that is no stretch of memory is read with strides, if
something reads it that would not take it along.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from aisc.ir.arith.poly import Dim, product
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.tensor.func import row_major
from aisc.passes.analysis.places import Places, axis_of, has_none, slice_steps
from aisc.passes.analysis.views import is_view, stays_alone

# Bytes that lie together in each row of a part, at least.
LEAST_ROW = 64


def nested_concats(graph: Graph) -> Graph:
    """`graph` with concats reading others instead of the same first parts, and a value instead of
    the pieces that make it up; the same object if there are none such."""
    known: dict[tuple[int, tuple[Value, ...]], Value] = {}
    made = graph.producers()
    nodes: list[GraphNode] = []
    for node in graph.nodes:
        if node.op == "concat" and not opdef.size_checks(node):
            axis, parts = axis_of(node), _joined(node, made)
            known.setdefault((axis, parts), node.output)
            for count in range(len(parts) - 1, 1, -1):
                first = known.get((axis, parts[:count]))
                if first is not None:
                    parts = (first, *parts[count:])
                    break
            node = node if parts == node.input_values else replace(node, inputs=parts)
        nodes.append(node)
    same = all(a is b for a, b in zip(nodes, graph.nodes, strict=True))
    return graph if same else replace(graph, nodes=tuple(nodes))


def _joined(node: GraphNode, made: Mapping[Value, GraphNode]) -> tuple[Value, ...]:
    """The parts of a concat; pieces that follow each other and make up a value are one part."""
    axis, parts = axis_of(node), list(node.input_values)
    k = 0
    while k < len(parts):
        source, count = _first_piece(parts[k:], axis, made)
        if source is not None:
            parts[k : k + count] = [source]
        k += 1
    return tuple(parts)


def _first_piece(
    parts: list[Value], axis: int, made: Mapping[Value, GraphNode]
) -> tuple[Value | None, int]:
    """The value that the first parts are the pieces of, and how many of them are."""
    at: Dim = 0
    source = None
    for count, v in enumerate(parts, 1):
        piece = made.get(v)
        if piece is None or piece.op != "slice" or any(n != 1 for n in slice_steps(piece)):
            break
        (x,) = piece.input_values
        starts = tuple(at if k == axis else 0 for k in range(v.type.rank))
        others = [(a, b) for k, (a, b) in enumerate(zip(x.type.shape, v.type.shape, strict=True))
                  if k != axis]  # fmt: skip
        if source not in (None, x) or piece.attr("starts") != starts:
            break
        if any(a != b for a, b in others) or opdef.size_checks(piece):
            break
        source, at = x, at + v.type.shape[axis]
        if at == x.type.shape[axis]:
            return source, count
    return None, 1


def in_place(graph: Graph, taken: Collection[GraphNode]) -> set[GraphNode]:
    """The concats and slices that are to be no kernels; those in `taken` are parts of groups."""
    found = {n for n in graph.nodes if n not in taken and _may_be_bare(n)}
    if not found:
        return found

    def made(node: GraphNode) -> bool:
        return not stays_alone(node) and node not in found

    places = Places(graph, made, found)
    slices = {n for n in found if n.op == "slice" and not _is_read_apart(places, n)}
    if slices:
        found -= slices
        places = Places(graph, made, found)
    return {n for n in found if n.op == "slice" or _is_worth(places, n)}


def _may_be_bare(node: GraphNode) -> bool:
    """Whether a concat or slice is one of long rows."""
    if node.op == "concat":
        axis = axis_of(node)
        return all(_is_long(v, axis) for v in node.input_values if not has_none(v))
    if node.op != "slice" or is_view(node):
        return False
    steps, shape = slice_steps(node), node.output.type.shape
    if min(steps) < 1 or steps[-1] != 1 or has_none(node.output):
        return False
    pairs = zip(node.input_values[0].type.shape, shape, strict=True)
    cut = [k for k, (a, b) in enumerate(pairs) if a != b]
    return _is_long(node.output, max(cut, default=0))


def _is_long(v: Value, axis: int) -> bool:
    """Whether rows from an axis on are long, as far as is known."""
    known = tuple(d for d in v.type.shape[axis:] if isinstance(d, int))
    size = product(known)
    assert isinstance(size, int), "a product of numbers"
    return size * v.type.dtype.bytes >= LEAST_ROW or len(known) < v.type.rank - axis


def _is_read_apart(places: Places, node: GraphNode) -> bool:
    """Whether a slice can be read with strides, and not everything that reads it is a map, which
    would become one kernel with it."""
    (x,), readers = node.input_values, places.readers.get(node.output, [])
    strides = row_major(x.type.shape)
    after = tuple(s * n for s, n in zip(strides, slice_steps(node), strict=True))
    maps = all(opdef.get(n.op).kind == "map" for n in readers)
    return not maps and places.reads_strided(node.output, after)


def _is_worth(places: Places, node: GraphNode) -> bool:
    """Whether parts of a concat can be made in place: all of them, where its reader takes it along
    otherwise."""
    parts = [(v, at) for v, at in places.parts(node) if not has_none(v)]
    some = [v for v, at in parts if places.lies_in(node, v, at)]
    readers = places.readers.get(node.output, [])
    alone = len(readers) == 1 and opdef.get(readers[0].op).kind == "map"
    return len(some) == len(parts) if alone else bool(some)
