"""Rules that move transposes out of the way.

They sink through elementwise operators, concatenations, gathers and reductions until they meet
their inverse or the graph's edge.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aisc.ir.arith.poly import Dim, product
from aisc.ir.graph import opdef
from aisc.ir.graph.core import AttrValue, GraphNode, Value
from aisc.ir.graph.opdef import size_checks
from aisc.ir.rewrite.rules import Match, Rule, rule


def to_last(rank: int) -> tuple[int, ...]:
    """N C spatial… -> N spatial… C."""
    return (0, *range(2, rank), 1)


def to_first(rank: int) -> tuple[int, ...]:
    """N spatial… C -> N C spatial…."""
    return (0, rank - 1, *range(1, rank - 1))


def _perm(node: GraphNode) -> tuple[int, ...]:
    perm = node.attr("perm")
    assert isinstance(perm, tuple), "perm is a tuple"
    return tuple(k for k in perm if isinstance(k, int))


def _inverse(perm: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(k) for k in np.argsort(perm))


def _sink_map(m: Match) -> Sequence[Value] | None:
    """``f(T(x), T(y), c) -> T(f(x, y, T'(c)))`` for elementwise f over one permutation; c is a
    constant, or has been transposed by T' for another reader."""
    node = m.node
    rank = node.output.type.rank
    found = [m.producer(v, "transpose") for v in node.inputs]
    movers = [t for t in found if t is not None and len(_perm(t)) == rank]
    if not movers or len({_perm(t) for t in movers}) != 1:
        return None
    perm = _perm(movers[0])
    inputs: list[Value | None] = []
    plan: list[tuple[Value, str]] = []
    for v, t in zip(node.inputs, found, strict=True):
        if v is None:
            return None
        if t is not None and t in movers:
            inner = t.inputs[0]
            assert inner is not None, "a transpose has an input"
            plan.append((inner, "plain"))
        elif v.type.size == 1:
            plan.append((v, "flat"))
        elif (m.constant(v) is not None and v.type.rank <= rank) or any(
            _perm(t) == _inverse(perm) for t in m.readers(v, "transpose")
        ):
            plan.append((v, "permute"))
        else:
            return None
    for v, how in plan:
        inputs.append(_prepared(m, v, how, perm, rank))
    return (m.add("transpose", (m.add(node.op, inputs, node.attr_map),), {"perm": perm}),)


def _is_there(m: Match, v: Value, perm: tuple[int, ...]) -> bool:
    """Whether an operand before the transpose `perm` costs nothing: a constant, or one that is
    transposed back already."""
    if m.constant(v) is not None:
        return v.type.rank <= len(perm)
    return any(_perm(t) == _inverse(perm) for t in m.readers(v, "transpose"))


def _prepared(m: Match, v: Value, how: str, perm: tuple[int, ...], rank: int) -> Value:
    """An operand as it stands before the transpose `perm`."""
    if how == "plain":
        return v
    if how == "flat":
        return v if v.type.rank <= 1 else m.add("reshape", (v,), {"shape": (1,)})
    shape = (1,) * (rank - v.type.rank) + v.type.shape
    if v.type.rank < rank:
        v = m.add("reshape", (v,), {"shape": shape})
    return m.add("transpose", (v,), {"perm": _inverse(perm)})


@rule("concat")
def sink_concat(m: Match) -> Sequence[Value] | None:
    """``concat(T(x), T(y), axis) -> T(concat(x, y, T^-1(axis)))``."""
    found = [m.producer(v, "transpose") for v in m.node.inputs]
    if any(t is None for t in found):
        return None
    movers = [t for t in found if t is not None]
    if len({_perm(t) for t in movers}) != 1:
        return None
    perm, axis = _perm(movers[0]), m.node.attr("axis")
    assert isinstance(axis, int), "axis is an int"
    inputs = [t.inputs[0] for t in movers]
    new = m.add("concat", inputs, {"axis": perm[axis % len(perm)]}, movers)
    return (m.add("transpose", (new,), {"perm": perm}),)


@rule("lrn", "softmax", "log_softmax")
def sink_axis(m: Match) -> Sequence[Value] | None:
    """``f(T(x), axis) -> T(f(x, T^-1(axis)))`` for operators along one axis."""
    mover = m.producer(m.input(0), "transpose")
    axis = m.node.attr_map.get("axis")
    if mover is None or not isinstance(axis, int):
        return None
    perm = _perm(mover)
    source = mover.input_values[0]
    if m.node.op != "lrn" and better_axis(source.type.shape, perm[axis % len(perm)]) is not None:
        return None
    attrs: dict[str, AttrValue] = {**m.node.attr_map, "axis": perm[axis % len(perm)]}
    new = m.add(m.node.op, (source,), attrs, (mover,))
    return (m.add("transpose", (new,), {"perm": perm}),)


FEW = 8  # elements that are less than a vector
MANY = 64  # rows that make vectors instead


def better_axis(shape: Sequence[Dim], axis: int) -> int | None:
    """Where an axis that is worked along should stand, if not where it is: last, where what is
    behind it is shorter than a vector; first, where it is shorter itself and rows are many."""
    behind, row, rows = product(tuple(shape[axis + 1 :])), shape[axis], product(tuple(shape[:axis]))
    if not isinstance(behind, int) or not isinstance(row, int):
        return None
    if 1 < behind < FEW <= row:
        return len(shape) - 1
    if behind == 1 and 1 < row < FEW and isinstance(rows, int) and rows >= MANY:
        return 0
    return None


REDUCTIONS = ("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod")


@rule(*REDUCTIONS)
def sink_reduction(m: Match) -> Sequence[Value] | None:
    """``reduce(T(x), axes, keepdims) -> T(reduce(x, T^-1(axes), keepdims))``."""
    mover, axes = m.producer(m.input(0), "transpose"), m.node.attr("axes")
    if mover is None or not isinstance(axes, tuple) or not m.node.attr("keepdims"):
        return None
    perm = _perm(mover)
    source = mover.input_values[0].type.shape
    if len(axes) == 1 and better_axis(source, perm[int(str(axes[0])) % len(perm)]) is not None:
        return None
    inner = tuple(sorted(perm[a % len(perm)] for a in axes if isinstance(a, int)))
    attrs: dict[str, AttrValue] = {**m.node.attr_map, "axes": inner}
    new = m.add(m.node.op, (mover.inputs[0],), attrs, (mover,))
    return (m.add("transpose", (new,), {"perm": perm}),)


@rule("gather", "sample")
def sink_gather(m: Match) -> Sequence[Value] | None:
    """``gather(T(x), i, axis) -> T(gather(x, i, T^-1(axis)))`` for one list of places."""
    node = m.node
    mover, axis = m.producer(m.input(0), "transpose"), node.attr("axis")
    lists = [v for v in node.inputs[1:] if v is not None]
    if mover is None or not isinstance(axis, int) or any(v.type.rank != 1 for v in lists):
        return None
    perm = _perm(mover)
    attrs: dict[str, AttrValue] = {**node.attr_map, "axis": perm[axis % len(perm)]}
    new = m.add(node.op, (mover.inputs[0], *node.inputs[1:]), attrs, (mover,))
    return (m.add("transpose", (new,), {"perm": perm}),)


@rule("slice")
def sink_slice(m: Match) -> Sequence[Value] | None:
    """``slice(T(x), …) -> T(slice(x, T^-1(…)))``."""
    mover = m.producer(m.input(0), "transpose")
    if mover is None:
        return None
    perm = _perm(mover)
    attrs: dict[str, AttrValue] = {
        key: _permuted(m.node.attr(key), perm) for key in ("starts", "ends", "steps")
    }
    new = m.add("slice", (mover.inputs[0],), attrs, (mover,))
    return (m.add("transpose", (new,), {"perm": perm}),)


@rule("pad")
def sink_pad(m: Match) -> Sequence[Value] | None:
    """``pad(T(x), …) -> T(pad(x, T^-1(…)))``."""
    mover = m.producer(m.input(0), "transpose")
    pads = m.node.attr("pads")
    if mover is None or not isinstance(pads, tuple):
        return None
    perm, rank = _perm(mover), len(pads) // 2
    begins, ends = _permuted(pads[:rank], perm), _permuted(pads[rank:], perm)
    attrs: dict[str, AttrValue] = {**m.node.attr_map, "pads": (*begins, *ends)}
    new = m.add("pad", (mover.inputs[0], *m.node.inputs[1:]), attrs, (mover,))
    return (m.add("transpose", (new,), {"perm": perm}),)


@rule("reshape")
def sink_reshape(m: Match) -> Sequence[Value] | None:
    """``reshape(T(x)) -> T'(reshape(x))`` where each axis of either shape is made of axes of the
    other that also lie together in x: rows of an image as an image, ``[n, h*w, c]`` and
    ``[n, h, w, c]`` seen with channels first."""
    mover = m.producer(m.input(0), "transpose")
    if mover is None or size_checks(m.node):
        return None
    perm, (x,) = _perm(mover), mover.input_values
    groups = matching_axes(mover.output.type.shape, m.node.output.type.shape)
    if groups is None:
        return None
    sources = [[perm[a] for a in old] for old, _ in groups]
    if any(s != list(range(s[0], s[0] + len(s))) for s in sources):
        return None
    # Groups of axes in the order of x, and where their new axes then stand.
    order = sorted(range(len(groups)), key=lambda k: sources[k][0])
    shape = m.node.output.type.shape
    axes = [b for k in order for b in groups[k][1]]
    inner = m.add("reshape", (x,), {"shape": tuple(shape[b] for b in axes)}, (mover,))
    return (m.add("transpose", (inner,), {"perm": _inverse(axes)}),)


Axes = tuple[int, ...]


def matching_axes(before: Sequence[Dim], after: Sequence[Dim]) -> list[tuple[Axes, Axes]] | None:
    """Axes of two shapes of the same elements, in groups that hold as many: several on one side at
    most. ``None`` where several axes become several others at once, or where sizes that only the
    run knows are joined or divided."""
    groups: list[tuple[Axes, Axes]] = []
    i, j = 0, 0
    while i < len(before) and j < len(after):
        counts = _group(before[i:], after[j:])
        if counts is None or min(counts) > 1:
            return None
        groups.append((tuple(range(i, i + counts[0])), tuple(range(j, j + counts[1]))))
        i, j = i + counts[0], j + counts[1]
    rest = tuple(range(i, len(before))), tuple(range(j, len(after)))
    if not groups or any(d != 1 for d in (*before[i:], *after[j:])):
        return None
    old, new = groups.pop()
    return [*groups, (old + rest[0], new + rest[1])]


def _group(before: Sequence[Dim], after: Sequence[Dim]) -> tuple[int, int] | None:
    """How many first axes of either shape hold the same number of elements."""
    if before[0] == after[0]:
        return 1, 1
    i, j, a, b = 1, 1, before[0], after[0]
    while a != b:
        if not isinstance(a, int) or not isinstance(b, int):
            return None
        if a < b and i < len(before):
            i, a = i + 1, product((a, before[i]))
        elif a > b and j < len(after):
            j, b = j + 1, product((b, after[j]))
        else:
            return None
    return i, j


def _permuted(values: object, perm: tuple[int, ...]) -> tuple[AttrValue, ...]:
    """Values per axis of a transpose's result, as values per axis of its operand."""
    assert isinstance(values, tuple), "one value per axis"
    return tuple(values[k] for k in _inverse(perm))


def rules() -> tuple[Rule, ...]:
    """The table; the map rule is indexed by every elementwise operator of the registry."""
    maps = tuple(op.name for op in opdef.all_ops() if op.kind == "map")
    sink = rule(*maps)(_sink_map)
    return (
        sink, sink_concat, sink_axis, sink_reduction, sink_gather, sink_slice, sink_pad,
        sink_reshape,
    )  # fmt: skip
