"""Forms that do not depend on names: the keys of equal groups and of equal kernels."""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.blob import Blob
from aisc.ir.graph.core import Graph
from aisc.ir.location import UNKNOWN
from aisc.ir.node import walk
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import Alloc
from aisc.ir.tensor.visitor import replace_buffers


def canonical(func: Func) -> Func:
    """`func` with buffers renamed by position and without locations."""
    local = tuple(n.buffer for n in walk(func.body) if isinstance(n, Alloc))
    table = {b: _numbered(b, k) for k, b in enumerate((*func.params, *local))}
    params = tuple(table[b] for b in func.params)
    body = replace_buffers(func.body, table)
    return replace(func, name="kernel", params=params, body=body, loc=UNKNOWN)


def _numbered(b: Buffer, k: int) -> Buffer:
    return replace(b, name=f"b{k}", alias_set=f"b{k}")


def group_key(region: Graph, weights: frozenset[int]) -> object:
    """What decides the Func of a region: types, operators, attributes, how values are connected,
    and which inputs are weights."""
    place = {v: k for k, v in enumerate(region.values())}
    nodes = tuple(
        (
            n.op,
            tuple(None if v is None else place[v] for v in n.inputs),
            tuple((k, _plain(value)) for k, value in n.attrs),
            tuple(v.type for v in n.outputs),
            tuple(group_key(r, frozenset()) for r in n.regions),
        )
        for n in region.nodes
    )
    types = tuple(v.type for v in region.inputs)
    return types, nodes, tuple(place[v] for v in region.outputs), weights


def _plain(value: object) -> object:
    """An attribute's value that compares as it prints: 0.0 is not -0.0, NaN is NaN."""
    if isinstance(value, Blob):
        return value
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return type(value).__name__, value.hex() if isinstance(value, float) else value
