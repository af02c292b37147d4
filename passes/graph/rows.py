"""Rules that make one matrix of the rows of many: ``[n, s, k] @ [k, m]`` is ``[n*s, k] @ [k, m]``.

Rows of a batch then share register tiles, and the weights are read once. The reshape back sinks
through the elementwise operators that follow, so that they stay epilogues of the product. Axes that
are reduced, normed or kept together are one; a softmax moves its axis where that makes vectors, and
products with too few columns for a tile are sums along rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aisc.ir.arith.poly import Dim, product
from aisc.ir.dtypes import DType
from aisc.ir.graph import opdef
from aisc.ir.graph.core import AttrValue, Value
from aisc.ir.rewrite.rules import Match, Rule, rule
from aisc.passes.graph.layout import FEW, REDUCTIONS, better_axis


@rule("matmul")
def flatten_rows(m: Match) -> Sequence[Value] | None:
    """``matmul(x[..., s, k], w[k, m]) -> reshape(matmul(reshape(x), w))`` over one matrix."""
    x, w = m.input(0), m.input(1)
    if x is None or w is None or x.type.rank < 3 or w.type.rank != 2:
        return None
    shape = x.type.shape
    flat = m.add("reshape", (x,), {"shape": (product(shape[:-1]), shape[-1])})
    made = m.add("matmul", (flat, w), m.node.attr_map)
    return (m.add("reshape", (made,), {"shape": m.node.output.type.shape}),)


@rule(*REDUCTIONS)
def join_reduced(m: Match) -> Sequence[Value] | None:
    """``reduce(x[n, c, h, w], axes=(2, 3)) -> reduce(reshape(x, [n, c, h*w]), axis=2)`` for axes
    that follow each other, but for axes of one element: one long row instead of many short ones."""
    x, axes = m.input(0), _axes(m)
    if x is None or not axes:
        return None
    shape, last = x.type.shape, axes[-1]
    if all(d == 1 for d in shape[last + 1 :]):
        last = len(shape) - 1
    if last == axes[0] or any(k not in axes and shape[k] != 1 for k in range(axes[0], last)):
        return None
    return _joined(m, axes[0], last, {"axes": (axes[0],)})


@rule(*REDUCTIONS)
def reduce_twice(m: Match) -> Sequence[Value] | None:
    """``reduce(x[n, c, 3], axes=(0, 2)) -> reduce(reduce(x, axis=0)[c, 3], axis=1)`` for a few
    columns: what they lie in are long rows of lanes until the end."""
    x, axes = m.input(0), _axes(m)
    if x is None or len(axes) < 2 or axes[-1] != x.type.rank - 1 or not _is_exact(x.type.dtype):
        return None
    columns = x.type.shape[-1]
    if not isinstance(columns, int) or columns >= FEW:
        return None
    first: dict[str, AttrValue] = {"axes": tuple(axes[:-1]), "keepdims": False}
    part = m.add(m.node.op, (x,), first)
    attrs: dict[str, AttrValue] = {"axes": (part.type.rank - 1,), "keepdims": False}
    result = m.add(m.node.op, (part,), attrs)
    return (m.add("reshape", (result,), {"shape": m.node.output.type.shape}),)


@rule(*REDUCTIONS)
def turn_reduced(m: Match) -> Sequence[Value] | None:
    """``reduce(x[n, 3], axis=1) -> reduce(transpose(x)[3, n], axis=0)`` for many short rows."""
    x, axes = m.input(0), _axes(m)
    if x is None or len(axes) != 1 or better_axis(x.type.shape, axes[0]) != 0:
        return None
    matrix = m.add("reshape", (x,), {"shape": _matrix(x.type.shape)})
    turned = m.add("transpose", (matrix,), {"perm": (1, 0)})
    result = m.add(m.node.op, (turned,), {"axes": (0,), "keepdims": False})
    return (m.add("reshape", (result,), {"shape": m.node.output.type.shape}),)


@rule(*REDUCTIONS, "argmax", "argmin")
def join_kept(m: Match) -> Sequence[Value] | None:
    """``reduce(x[n, c, h, w], axis=1) -> reduce(reshape(x, [n, c, h*w]), axis=1)`` for axes of
    known sizes behind the last one that is reduced: they become lanes together."""
    axes = _axes(m)
    x = m.input(0)
    if x is None or not axes or axes[-1] > x.type.rank - 3:
        return None
    if not all(isinstance(d, int) for d in x.type.shape[axes[-1] + 1 :]):
        return None
    attrs = m.node.attr_map
    chosen: dict[str, AttrValue] = {"axes": tuple(axes)}
    if "axis" in attrs:
        chosen = {"axis": axes[0], "select_last": attrs["select_last"]}
    return _joined(m, axes[-1] + 1, x.type.rank - 1, chosen)


@rule(*REDUCTIONS)
def widen_rows(m: Match) -> Sequence[Value] | None:
    """``reduce(x[n, r, 3], axis=1) -> reduce(reshape(reduce(reshape(x, [n, r/16, 48]), axis=1),
    [n, 16, 3]), axis=1)``: vectors of several short rows, whose parts are then put together."""
    x, axes = m.input(0), _axes(m)
    if x is None or x.type.rank < 2 or axes != [x.type.rank - 2] or not x.type.dtype.is_float:
        return None
    *outer, rows, columns = x.type.shape
    if not isinstance(rows, int) or not isinstance(columns, int) or not 1 < columns < FEW:
        return None
    fitting = (k for k in TOGETHER if rows % k == 0 and rows >= LEAST_PARTS * k)
    together = next(fitting, None)
    if together is None:
        return _filled_up(m, x, rows) if columns < FEWEST else None
    attrs: dict[str, AttrValue] = {"axes": tuple(axes), "keepdims": False}
    wide = (*outer, rows // together, together * columns)
    parts = m.add(m.node.op, (_reshaped(m, x, wide),), attrs)
    parts = m.add("reshape", (parts,), {"shape": (*outer, together, columns)})
    result = m.add(m.node.op, (parts,), attrs)
    return (m.add("reshape", (result,), {"shape": m.node.output.type.shape}),)


@rule("layer_norm", "rms_norm")
def join_normed(m: Match) -> Sequence[Value] | None:
    """``layer_norm(x[n, h, w], axis=1) -> reshape(layer_norm(reshape(x, [n, h*w])))``: one long row
    of the axes that are normed together, and one row where that is all of them."""
    x, axis = m.input(0), m.node.attr("axis")
    operands = m.node.inputs[1:]
    if x is None or not isinstance(axis, int):
        return None
    axis %= x.type.rank
    outer, inner = x.type.shape[:axis], x.type.shape[axis:]
    if (len(inner) == 1 and outer) or any(v is None or v.type.shape != inner for v in operands):
        return None
    size = product(inner)
    row = m.add("reshape", (x,), {"shape": (*(outer or (1,)), size)})
    flat = [m.add("reshape", (v,), {"shape": (size,)}) for v in operands if v is not None]
    made = m.add(m.node.op, (row, *flat), m.node.attr_map | {"axis": -1})
    return (m.add("reshape", (made,), {"shape": x.type.shape}),)


@rule("top_k")
def first_of_row(m: Match) -> Sequence[Value] | None:
    """``top_k(x[n, k, 3], k=1, axis=1) -> gather_elements(x, i), i = argmax(x)`` where rows do not
    lie together: all columns are lanes, which insert none. Both take NaN for the greatest."""
    x, axis = m.input(0), m.node.attr("axis")
    if x is None or not isinstance(axis, int) or m.node.attr("k") != (1,):
        return None
    axis %= x.type.rank
    size = x.type.shape[axis]
    greatest = bool(m.node.attr("largest")) or not x.type.dtype.is_float
    together = all(d == 1 for d in x.type.shape[axis + 1 :])
    if not isinstance(size, int) or size < 1 or together or not greatest:
        return None
    op = "argmax" if m.node.attr("largest") else "argmin"
    place = m.add(op, (x,), {"axis": axis, "keepdims": True})
    return m.add("gather_elements", (x, place), {"axis": axis}), place


@rule("softmax", "log_softmax")
def move_axis(m: Match) -> Sequence[Value] | None:
    """``softmax(x[n, k, 3], axis=1) -> transpose(softmax(transpose(x), axis=2))``, so that there
    are vectors along the axis or across it."""
    x, axis = m.input(0), m.node.attr("axis")
    if x is None or not isinstance(axis, int):
        return None
    axis %= x.type.rank
    place = better_axis(x.type.shape, axis)
    if place is None:
        return None
    perm = [k for k in range(x.type.rank) if k != axis]
    perm.insert(place, axis)
    turned = m.add("transpose", (x,), {"perm": tuple(perm)})
    made = m.add(m.node.op, (turned,), {"axis": place})
    back = tuple(perm.index(k) for k in range(x.type.rank))
    return (m.add("transpose", (made,), {"perm": back}),)


@rule("softmax", "log_softmax")
def join_behind(m: Match) -> Sequence[Value] | None:
    """``softmax(x[n, k, h, w], axis=1) -> reshape(softmax(reshape(x, [n, k, h*w]), axis=1))``: axes
    of known sizes behind the one that is worked along are lanes together."""
    x, axis = m.input(0), m.node.attr("axis")
    if x is None or not isinstance(axis, int):
        return None
    axis %= x.type.rank
    behind = x.type.shape[axis + 1 :]
    if len(behind) < 2 or not all(isinstance(d, int) for d in behind):
        return None
    joined = m.add("reshape", (x,), {"shape": (*x.type.shape[: axis + 1], product(behind))})
    made = m.add(m.node.op, (joined,), {"axis": axis})
    return (m.add("reshape", (made,), {"shape": x.type.shape}),)


@rule("matmul")
def few_columns(m: Match) -> Sequence[Value] | None:
    """``matmul(a[n, k], b[k, 2]) -> reduce_sum(a[n, 1, k] * transpose(b)[1, 2, k])``: sums along
    rows, where the result has too few columns for vectors and nothing is packed."""
    a, b = m.input(0), m.input(1)
    if a is None or b is None or m.constant(b) is not None or min(a.type.rank, b.type.rank) < 2:
        return None
    columns, t = b.type.shape[-1], a.type.dtype
    if not isinstance(columns, int) or columns >= FEWEST or not t.is_float or t.bits < 32:
        return None
    if t is not m.node.output.type.dtype:
        return None
    perm = (*range(b.type.rank - 2), b.type.rank - 1, b.type.rank - 2)
    turned = m.add("transpose", (b,), {"perm": perm})
    left = m.add("reshape", (a,), {"shape": (*a.type.shape[:-1], 1, a.type.shape[-1])})
    shape = turned.type.shape
    right = m.add("reshape", (turned,), {"shape": (*shape[:-2], 1, *shape[-2:])})
    terms = m.add("mul", (left, right))
    attrs: dict[str, AttrValue] = {"axes": (terms.type.rank - 1,), "keepdims": False}
    return (m.add("reduce_sum", (terms,), attrs),)


@rule("matmul")
def turn_product(m: Match) -> Sequence[Value] | None:
    """``matmul(T(a[k, n]), b[k, 2]) -> T(matmul(T(b)[2, k], a[k, n]))``: vectors along the rows of
    what is transposed, where the result has too few columns for them."""
    b, mover = m.input(1), m.producer(m.input(0), "transpose")
    if b is None or mover is None or b.type.rank < 2:
        return None
    (a,), rank = mover.input_values, mover.output.type.rank
    columns, rows = b.type.shape[-1], a.type.shape[-1]
    if mover.attr("perm") != (*range(rank - 2), rank - 1, rank - 2):
        return None
    if not isinstance(columns, int) or columns >= FEW or (isinstance(rows, int) and rows < FEW):
        return None

    def turned(v: Value) -> Value:
        last = v.type.rank - 1
        return m.add("transpose", (v,), {"perm": (*range(last - 1), last, last - 1)}, (mover,))

    return (turned(m.add("matmul", (turned(b), a), m.node.attr_map, (mover,))),)


# Short rows that make one of several vectors, whole ones first, and then most; and how many such
# parts are worth it.
WHOLE = (16, 8, 4)
TOGETHER, LEAST_PARTS = (*WHOLE, *range(15, 4, -1)), 4
# What may be added to the operands of a reduction.
NEUTRAL = {"reduce_sum": 0, "reduce_prod": 1, "reduce_max": -np.inf, "reduce_min": np.inf}
FEWEST = 4  # columns from which on there are tiles


def _axes(m: Match) -> list[int]:
    """The reduced axes in order."""
    x, given = m.input(0), m.node.attr_map
    if x is None:
        return []
    axes: Any = given["axes"] if "axes" in given else (given["axis"],)
    return sorted(a % x.type.rank for a in axes)


def _joined(m: Match, first: int, last: int, attrs: dict[str, AttrValue]) -> Sequence[Value]:
    """The reduction over an operand whose axes from `first` to `last` are one."""
    x = m.input(0)
    assert x is not None, "a reduction has an operand"
    shape = x.type.shape
    joined = (*shape[:first], product(shape[first : last + 1]), *shape[last + 1 :])
    result = m.add(m.node.op, (_reshaped(m, x, joined),), attrs | {"keepdims": False})
    return (m.add("reshape", (result,), {"shape": m.node.output.type.shape}),)


def _reshaped(m: Match, x: Value, shape: Sequence[Dim]) -> Value:
    """`x` in another shape. What is computed elementwise for this alone, from operands that no
    kernel makes whose epilogue it could be, has that shape itself: it is computed where it is
    read."""
    made = m.producer(x)
    if made is None or not _is_own_map(m, x):
        return m.add("reshape", (x,), {"shape": tuple(shape)})
    inputs = [v if v.type.rank == 0 else _reshaped(m, v, shape) for v in made.input_values]
    return m.add(made.op, inputs, made.attr_map, (made,))


def _is_own_map(m: Match, x: Value) -> bool:
    """Whether nothing but maps of one shape, each read once, leads from operands to `x`."""
    made = m.producer(x)
    if made is None or opdef.get(made.op).kind != "map" or not m.single_use(made):
        return False
    inputs = [v for v in made.input_values if v.type.rank > 0]
    return all(
        v.type.shape == x.type.shape and (m.producer(v) is None or _is_own_map(m, v))
        for v in inputs
    )


def _filled_up(m: Match, x: Value, rows: int) -> Sequence[Value] | None:
    """A reduction along the last axis but one over more rows, which change nothing: as many as make
    several parts. That copies the operand, which is worth it where there are no vectors else."""
    together = next((k for k in WHOLE if rows >= LEAST_PARTS * k), None)
    op, divided = ("reduce_sum", True) if m.node.op == "reduce_mean" else (m.node.op, False)
    if together is None or not _is_exact(x.type.dtype):
        return None
    dtype = x.type.dtype.numpy
    pads = [0] * (2 * x.type.rank)
    pads[-2] = -rows % together
    neutral = m.make_constant(np.array(NEUTRAL[op], dtype))
    filled = m.add("pad", (x, neutral), {"pads": tuple(pads)})
    attrs: dict[str, AttrValue] = {"axes": (x.type.rank - 2,), "keepdims": False}
    result = m.add(op, (filled,), attrs)
    if divided:
        result = m.add("div", (result, m.make_constant(np.array(rows, dtype))))
    return (m.add("reshape", (result,), {"shape": m.node.output.type.shape}),)


def _is_exact(t: DType) -> bool:
    """Whether sums of sums are as good as sums: numbers that are not rounded to a few bits, nor
    divided like integers."""
    return t.is_float and t.bits >= 32


def _matrix(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """`shape` with all axes but the last in one."""
    return product(tuple(shape[:-1])), shape[-1]


def sink_rows(m: Match) -> Sequence[Value] | None:
    """``f(reshape(x), c) -> reshape(f(x, c'))`` for elementwise f, a matrix x whose rows the
    reshape divides, and operands of the same shape or broadcast along the rows."""
    shape = m.node.output.type.shape
    if len(shape) < 3:
        return None
    flat = _matrix(shape)
    found = [m.producer(v, "reshape") for v in m.node.inputs]
    inner = [None if t is None else t.inputs[0] for t in found]
    if not any(x is not None and x.type.shape == flat for x in inner):
        return None
    inputs: list[Value | None] = []
    for v, x in zip(m.node.inputs, inner, strict=True):
        if v is None or not _fits(v.type.shape, shape):
            return None
        inputs.append(x if x is not None and x.type.shape == flat else v)
    return (_again(m, inputs, flat),)


def _fits(operand: Sequence[Dim], shape: Sequence[Dim]) -> bool:
    """Whether an operand has the whole shape, or one value (or one row of them) for every row."""
    if tuple(operand) == tuple(shape):
        return True
    return all(d == 1 for d in operand[:-1]) and (not operand or operand[-1] in (1, shape[-1]))


def _again(m: Match, inputs: Sequence[Value | None], flat: tuple[Dim, ...]) -> Value:
    prepared: list[Value | None] = []
    for v in inputs:
        assert v is not None, "checked to be there"
        if v.type.shape != flat and v.type.rank > 1:
            same = v.type.size == product(flat)
            v = m.add("reshape", (v,), {"shape": flat if same else v.type.shape[-1:]})
        prepared.append(v)
    result = m.add(m.node.op, prepared, m.node.attr_map)
    return m.add("reshape", (result,), {"shape": m.node.output.type.shape})


def rules() -> tuple[Rule, ...]:
    """The table; the map rule is indexed by every elementwise operator of the registry."""
    maps = tuple(op.name for op in opdef.all_ops() if op.kind == "map")
    return (
        turn_product, few_columns, flatten_rows, join_reduced, reduce_twice, turn_reduced,
        join_kept, widen_rows, join_normed, join_behind, move_axis, first_of_row,
        rule(*maps)(sink_rows),
    )  # fmt: skip
