"""Constant folding: nodes whose inputs are all constants are evaluated by their reference.

before: ``%c = add(constant 1, constant 2)``   after: ``%c = constant 3``
Results above :attr:`Fold.limit` bytes stay as they are, unless they are no larger than the inputs.
So do results that are larger than what they come from, once a model has grown by its
:class:`Budget`: what is cheap to compute and large to keep is computed by the run. Elements that
are only repeated for maps cost these nothing, and are not folded when there are many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod

import numpy as np

from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value, attribute_symbols
from aisc.ir.graph.opdef import Array, run_reference
from aisc.ir.mapped import LARGE_BYTES, give_back, is_mapped
from aisc.ir.rewrite.driver import eliminate_dead
from aisc.passes.graph import stored

MIN_GROWTH = 1 << 26
AGAIN_BYTES = 1 << 23  # of results that are computed again rather than kept
REPEATED_BYTES = 1 << 20  # of repeated elements that are not worth a thought
GROWTH = 4  # times a model's own weights: what 8-bit weights need as f32, and more


@dataclass(slots=True)
class Budget:
    """Bytes by which folding may still make a model larger."""

    left: int

    @staticmethod
    def of(graph: Graph) -> Budget:
        """The budget of a model of which constants may have been folded before."""
        own = grown = 0
        for blob in dict.fromkeys(_blobs(graph)):
            own += blob.nbytes - blob.grown
            grown += blob.grown
        return Budget(max(MIN_GROWTH, GROWTH * own) - grown)

    def spend(self, size: int, sources: Mapping[Blob, int]) -> int | None:
        """What `size` bytes computed from blobs, each with a number of users, are more than what
        the model itself has for them; ``None`` when that is more than is left. An operand counts
        in equal parts for its users."""
        own = sum((b.nbytes - b.grown) // users for b, users in sources.items())
        grown = max(0, size - own)
        cost = max(0, grown - sum(b.grown // users for b, users in sources.items()))
        if cost > max(self.left, 0):
            return None
        self.left -= cost
        return grown


def _blobs(graph: Graph) -> Iterator[Blob]:
    yield from graph.constants().values()
    for node in graph.nodes:
        for region in node.regions:
            yield from _blobs(region)


@dataclass(frozen=True, slots=True)
class Fold:
    """The pass; `limit` bounds the bytes of one folded result. `budget`: of the whole model, when
    the graph is a part of it."""

    name: str = "fold"
    limit: int = 1 << 26
    budget: Budget | None = None

    def run(self, graph: Graph) -> Graph:
        """Apply to one graph."""
        budget = self.budget or Budget.of(graph)
        known: dict[Value, Blob] = {}
        users, results = graph.users(), set(graph.outputs)
        nodes: list[GraphNode] = []
        for node in graph.nodes:
            if node.op == "constant":
                blob = node.attr("value")
                assert isinstance(blob, Blob), "constant without a blob"
                known[node.output] = blob
            elif self._foldable(node, known) and not _is_left(node, users, results):
                sources = {known[v]: len(set(users[v])) + (v in results) for v in node.input_values}
                grown = budget.spend(_size(node), sources)
                made = [] if grown is None else _evaluated(node, known, grown)
                if made:
                    known.update((n.output, n.attr("value")) for n in made)  # type: ignore[misc]
                    nodes.extend(made)
                    continue
            nodes.append(node)
        if all(a is b for a, b in zip(nodes, graph.nodes, strict=False)) and len(nodes) == len(
            graph.nodes
        ):
            return graph
        return eliminate_dead(replace(graph, nodes=tuple(nodes)))

    def _foldable(self, node: GraphNode, known: dict[Value, Blob]) -> bool:
        if (
            opdef.get(node.op).kind == "control"
            or node.op == "dequantize"  # integers are what the model keeps, and computes with
            or node.regions
            or any(v not in known for v in node.input_values)
        ):
            return False
        if any(True for _, value in node.attrs for _ in attribute_symbols(value)):
            return False
        if not all(v.type.is_static for v in node.outputs):
            return False
        source = sum(known[v].nbytes for v in node.input_values)
        return _size(node) <= max(self.limit, source)


def _is_left(node: GraphNode, users: Mapping[Value, list[GraphNode]], results: set[Value]) -> bool:
    """Whether those who read a node compute it as they go."""
    if node.op == "widen":
        return node.output not in results and stored.stays(node, users)
    return _is_free(node, users, results)


def _is_free(node: GraphNode, users: Mapping[Value, list[GraphNode]], results: set[Value]) -> bool:
    """Whether a node repeats elements for maps only, which read them where they are."""
    if node.op != "expand" or node.output in results or _size(node) <= REPEATED_BYTES:
        return False
    return all(opdef.get(user.op).scalar is not None for user in users.get(node.output, ()))


def _size(node: GraphNode) -> int:
    """Bytes of all results."""
    return sum(prod(v.type.static_shape) * v.type.dtype.bytes for v in node.outputs)


def _evaluated(node: GraphNode, known: Mapping[Value, Blob], grown: int) -> list[GraphNode]:
    """Constants in place of a node; none where it fails on its operands, as the run will report."""
    operands = [None if v is None else known[v] for v in node.inputs]
    made: list[GraphNode] = []
    try:
        arrays = [None if b is None else b.array for b in operands]
        results = run_reference(node, arrays)
    except (IndexError, ValueError, ZeroDivisionError, MemoryError):
        return []
    for value, result in zip(node.outputs, results, strict=True):
        blob = _blob(node, operands, arrays, result, min(grown, result.nbytes))
        grown -= blob.grown
        made.append(replace(
            node, op="constant", inputs=(), outputs=(value,), attrs=(("value", blob),), regions=(),
        ))  # fmt: skip
    _give_back(arrays)
    return made


def _blob(
    node: GraphNode,
    operands: Sequence[Blob | None],
    arrays: Sequence[Array | None],
    result: Array,
    grown: int,
) -> Blob:
    """A result as a constant that keeps as little as it can. One that only arranges a large operand
    anew is a view of it, a large part of a file stays in the file; and what is as cheap to compute
    as to read is computed again when it is wanted."""
    if result.nbytes >= LARGE_BYTES:
        for blob, array in zip(operands, arrays, strict=True):
            if blob is None or array is None or not blob.is_kept:
                continue
            is_view = np.may_share_memory(result, array)
            if is_view and (result.nbytes == array.nbytes or is_mapped(array)):
                return Blob(result, grown)
    is_cheap = opdef.get(node.op).kind in ("map", "movement") and len(node.outputs) == 1
    if result.nbytes >= AGAIN_BYTES and is_cheap:
        return Blob(result, grown, partial(_again, node, operands))
    return Blob(np.ascontiguousarray(result).reshape(result.shape), grown)


def _again(node: GraphNode, operands: Sequence[Blob | None]) -> Array:
    """The result of a node with one."""
    arrays = [None if b is None else b.array for b in operands]
    (result,) = run_reference(node, arrays)
    _give_back(arrays)
    return result


def _give_back(arrays: Sequence[Array | None]) -> None:
    for array in arrays:
        if array is not None:
            give_back(array)
