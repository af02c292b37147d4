"""Reductions along axes, composite reductions, arg-reductions and the cumulative sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, bounds, product
from aisc.ir.dtypes import DType
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Value
from aisc.ir.graph.opdef import (
    Array,
    Arrays,
    Attr,
    Compute,
    OpCall,
    OpDef,
    Operand,
    Variant,
    present,
    register,
)
from aisc.ir.graph.ops.binary import truncated_quotient
from aisc.ir.graph.ops.elementwise import is_narrow, wide_array
from aisc.ir.graph.shapes import infer
from aisc.ir.graph.shapes.checks import require
from aisc.ir.tensor import expr as e
from aisc.ir.tensor.builder import ComputeBuilder, row_numbers
from aisc.ir.tensor.expr import Expr, Load, Var
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.stmt import For, IterKind, Let, Stmt, Store, seq
from aisc.ir.types import TensorType

_ATTRS = (Attr("axes", "ints"), Attr("keepdims", "bool", True))
X = (Operand("x"),)
NumpyReduce = Callable[[Array, tuple[int, ...], bool], Array]


def _reduced(call: OpCall) -> tuple[Dim, ...]:
    x = call.type(0)
    axes = infer.normal_axes(call, call.attrs["axes"], x.rank)
    if call.attrs["keepdims"]:
        return tuple(1 if i in axes else d for i, d in enumerate(x.shape))
    return tuple(d for i, d in enumerate(x.shape) if i not in axes)


def _rule(accepts: infer.Accepts) -> Callable[[OpCall], tuple[TensorType, ...]]:
    def rule(call: OpCall) -> tuple[TensorType, ...]:
        t = infer.check_dtype(call, 0, accepts)
        return (TensorType(_reduced(call), t),)

    return rule


def _axes(call: OpCall) -> tuple[int, ...]:
    return infer.normal_axes(call, call.attrs["axes"], call.type(0).rank)


def source_index(
    at: Sequence[Expr], r: Sequence[Expr], axes: Sequence[int], rank: int, keepdims: bool
) -> tuple[Expr, ...]:
    """Indices into the operand of a reduction from its result's indices and the reduce ones."""
    rest, inner = iter(at), iter(r)
    index: list[Expr] = []
    for axis in range(rank):
        if axis in axes:
            index.append(next(inner))
            if keepdims:
                next(rest)
        else:
            index.append(next(rest))
    return tuple(index)


def _reduce_into(cb: ComputeBuilder, call: OpCall, x: Buffer, acc: Buffer, combiner: str) -> None:
    axes, keep = _axes(call), bool(call.attrs["keepdims"])

    def value(at: Sequence[Var], r: Sequence[Var]) -> Expr:
        return e.cast(Load(x, source_index(at, r, axes, x.rank, keep)), acc.dtype)

    cb.reduce(acc, tuple(x.shape[a] for a in axes), combiner, value, "reduce")


def _plain(combiner: str) -> Compute:
    """The compute definition of a core reduction."""

    def compute(
        cb: ComputeBuilder, call: OpCall, ins: Sequence[Buffer | None], outs: Sequence[Buffer]
    ) -> None:
        (x,), (out,) = ins, outs
        assert x is not None, "a reduction without operand"
        exact = combiner in ("max", "min")
        t = out.dtype if exact else infer.accumulator(out.dtype)
        acc = out if t is out.dtype else cb.alloc("acc", t, out.shape)
        _reduce_into(cb, call, x, acc, combiner)
        if acc is not out:
            cb.map(out, lambda *i: e.cast(Load(acc, i), out.dtype), "narrow")

    return compute


def _mean_accumulator(t: DType) -> DType:
    """What a mean sums in: neither the sum of narrow integers nor their number need fit them."""
    if t.is_float:
        return infer.accumulator(t)
    return dtypes.u64 if t is dtypes.u64 else dtypes.i64


def _mean_compute(
    cb: ComputeBuilder, call: OpCall, ins: Sequence[Buffer | None], outs: Sequence[Buffer]
) -> None:
    (x,), (out,) = ins, outs
    assert x is not None, "a reduction without operand"
    t = _mean_accumulator(out.dtype)
    acc = cb.alloc("acc", t, out.shape)
    _reduce_into(cb, call, x, acc, "sum")
    count = e.cast_dim(product(tuple(x.shape[a] for a in _axes(call))), t)
    divide = "div" if t.is_float else "truncdiv"
    cb.map(out, lambda *i: e.cast(e.Binary(divide, Load(acc, i), count), out.dtype), "mean")


def _core(name: str, doc: str, fn: NumpyReduce, compute: Compute) -> None:
    def reference(call: OpCall, xs: Arrays) -> list[Array]:
        (x,) = present(xs)
        return [fn(wide_array(x), _axes(call), bool(call.attrs["keepdims"]))]

    register(
        OpDef(
            name, doc, X, _rule(infer.is_number), reference, "reduction", _ATTRS,
            variants={"direct": Variant(compute)},
        )
    )  # fmt: skip


def _lowest(t: DType) -> float | int:
    return -np.inf if t.is_float else t.min_value


def _highest(t: DType) -> float | int:
    return np.inf if t.is_float else t.max_value


def _max(x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    low = x.dtype.type(_lowest(dtypes.from_numpy(x.dtype)))
    return np.asarray(np.max(x, axis=axes, keepdims=keep, initial=low))


def _min(x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    high = x.dtype.type(_highest(dtypes.from_numpy(x.dtype)))
    return np.asarray(np.min(x, axis=axes, keepdims=keep, initial=high))


def _mean(x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    t = _mean_accumulator(dtypes.from_numpy(x.dtype)).numpy if x.dtype.kind in "iu" else x.dtype
    total = np.sum(x, axis=axes, keepdims=keep, dtype=t)
    count = np.asarray(int(np.prod([x.shape[a] for a in axes], dtype=np.int64)), t)
    return truncated_quotient(total, count) if x.dtype.kind in "iu" else total / count


_core("reduce_sum", "The sum over `axes`; 0 for none.",
      lambda x, axes, keep: np.sum(x, axis=axes, keepdims=keep, dtype=x.dtype),
      _plain("sum"))  # fmt: skip
_core("reduce_prod", "The product over `axes`; 1 for none.",
      lambda x, axes, keep: np.prod(x, axis=axes, keepdims=keep, dtype=x.dtype),
      _plain("prod"))  # fmt: skip
_core("reduce_max", "The greatest over `axes`; the least value there is for none.", _max,
      _plain("max"))  # fmt: skip
_core("reduce_min", "The least over `axes`; the greatest value there is for none.", _min,
      _plain("min"))  # fmt: skip
_core(
    "reduce_mean",
    "The mean over `axes`; that of integers is exact but for truncation.",
    _mean,
    _mean_compute,
)


# --- composite reductions ---------------------------------------------------------------------
Steps = Callable[[GraphBuilder, OpCall, Value], Value]


def _core_call(gb: GraphBuilder, call: OpCall, x: Value, op: str = "reduce_sum") -> Value:
    return gb.add(op, (x,), dict(call.attrs), loc=call.loc)


def _composite(name: str, doc: str, fn: NumpyReduce, steps: Steps, accepts: infer.Accepts) -> None:
    def reference(call: OpCall, xs: Arrays) -> list[Array]:
        (x,) = present(xs)
        return [fn(wide_array(x), _axes(call), bool(call.attrs["keepdims"]))]

    def decompose(gb: GraphBuilder, call: OpCall, xs: Sequence[Value | None]) -> list[Value]:
        (x,) = xs
        assert x is not None, "a reduction without operand"
        if not is_narrow(x.type.dtype):
            return [steps(gb, call, x)]
        wide = gb.add("cast", (x,), {"to": dtypes.f32}, loc=call.loc)
        result = steps(gb, call, wide)  # rounded once, as the reference
        return [gb.add("cast", (result,), {"to": x.type.dtype}, loc=call.loc)]

    register(
        OpDef(name, doc, X, _rule(accepts), reference, "reduction", _ATTRS, decompose=decompose)
    )


def _sum(x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    return np.asarray(np.sum(x, axis=axes, keepdims=keep, dtype=x.dtype))


def _l1_steps(gb: GraphBuilder, call: OpCall, x: Value) -> Value:
    return _core_call(gb, call, gb.add("abs", (x,), loc=call.loc))


def _squares(gb: GraphBuilder, call: OpCall, x: Value) -> Value:
    return _core_call(gb, call, gb.add("mul", (x, x), loc=call.loc))


def _log_sum_exp(x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    top = _max(x, axes, True)
    top = np.where(np.isfinite(top), top, np.asarray(0, x.dtype))
    total = np.log(np.sum(np.exp(x - top), axis=axes, keepdims=True)) + top
    return np.asarray(total if keep else np.squeeze(total, axis=axes))


def _log_sum_exp_steps(gb: GraphBuilder, call: OpCall, x: Value) -> Value:
    """``log(sum(exp(x - m))) + m`` with the finite maximum m."""
    kept = {"axes": call.attrs["axes"], "keepdims": True}
    largest = float(x.type.dtype.max_value)
    top = gb.add("reduce_max", (x,), kept, loc=call.loc)
    top = gb.add("clip", (top,), {"min": -largest, "max": largest}, loc=call.loc)
    shifted = gb.add("exp", (gb.add("sub", (x, top), loc=call.loc),), loc=call.loc)
    total = gb.add("log", (gb.add("reduce_sum", (shifted,), kept, loc=call.loc),), loc=call.loc)
    result = gb.add("add", (total, top), loc=call.loc)
    if call.attrs["keepdims"]:
        return result
    return gb.add("reshape", (result,), {"shape": _reduced(call)}, loc=call.loc)


_composite("reduce_l1", "The sum of absolute values.",
           lambda x, axes, keep: _sum(np.abs(x), axes, keep), _l1_steps,
           infer.is_number)  # fmt: skip
_composite("reduce_sum_square", "The sum of squares.",
           lambda x, axes, keep: _sum(x * x, axes, keep), _squares, infer.is_number)  # fmt: skip
_composite("reduce_l2", "The square root of the sum of squares.",
           lambda x, axes, keep: np.sqrt(_sum(x * x, axes, keep)),
           lambda gb, call, x: gb.add("sqrt", (_squares(gb, call, x),), loc=call.loc),
           infer.is_float)  # fmt: skip
_composite("reduce_log_sum", "The logarithm of the sum.",
           lambda x, axes, keep: np.log(_sum(x, axes, keep)),
           lambda gb, call, x: gb.add("log", (_core_call(gb, call, x),), loc=call.loc),
           infer.is_float)  # fmt: skip
_composite("reduce_log_sum_exp", "``log(sum(exp(x)))`` without overflow.",
           _log_sum_exp, _log_sum_exp_steps, infer.is_float)  # fmt: skip


# --- arg-reductions ---------------------------------------------------------------------------
def _arg_axis(call: OpCall) -> int:
    return infer.normal_axis(call, call.attrs["axis"], call.type(0).rank)


def _arg_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_dtype(call, 0, infer.is_number)
    x, axis = call.type(0), _arg_axis(call)
    require(call, "<=", 1, x.shape[axis], "an element to choose")
    middle: tuple[Dim, ...] = (1,) if call.attrs["keepdims"] else ()
    return (TensorType((*x.shape[:axis], *middle, *x.shape[axis + 1 :]), dtypes.i64),)


def _arg_reference(fn: Callable[..., Array]) -> Callable[[OpCall, Arrays], list[Array]]:
    def reference(call: OpCall, xs: Arrays) -> list[Array]:
        x, axis = wide_array(present(xs)[0]), _arg_axis(call)
        last = bool(call.attrs["select_last"])
        found = fn(np.flip(x, axis) if last else x, axis=axis, keepdims=call.attrs["keepdims"])
        return [np.asarray(x.shape[axis] - 1 - found if last else found)]

    return reference


# Elements of a row, and rows beside each other, up to which rows are lanes of their own.
SHORT_ROW = 15
FEW_BESIDE = 16


def _arg_compute(combiner: str) -> Compute:
    """The best value first, NaN if there is one; then the first or last place that holds it. In
    short rows apart from each other both at once."""

    def compute(
        cb: ComputeBuilder, call: OpCall, ins: Sequence[Buffer | None], outs: Sequence[Buffer]
    ) -> None:
        (x,), (out,) = ins, outs
        assert x is not None, "a reduction without operand"
        axis, keep, last = _arg_axis(call), bool(call.attrs["keepdims"]), call.attrs["select_last"]
        size = x.shape[axis]
        beside = bounds(product(x.shape[axis + 1 :]))[1]
        apart = 1 < beside < FEW_BESIDE or (beside == 1 and bounds(size)[1] <= SHORT_ROW)
        if isinstance(size, int) and apart:
            return _arg_of_rows(cb, call, x, out, combiner == "max")
        short = isinstance(size, int) and size <= dtypes.i32.max_value  # twice as many lanes
        number = dtypes.i32 if short else dtypes.i64
        nowhere = e.cast(e.Const(-1) if last else e.of_dim(size), number)
        best = cb.alloc("best", x.dtype, out.shape)
        at_best = cb.alloc("at_best", number, out.shape) if short else out

        def element(at: Sequence[Var], r: Sequence[Var]) -> Load:
            return Load(x, source_index(at, r, (axis,), x.rank, keep))

        def place(at: Sequence[Var], r: Sequence[Var]) -> Expr:
            value = element(at, r)
            found = e.equal(value, Load(best, tuple(at)))
            if x.dtype.is_float:
                found = e.Binary("or", found, e.math("isnan", value))
            return e.select(found, e.cast(r[0], number), nowhere)

        cb.reduce(best, (x.shape[axis],), combiner, element, "best")
        cb.reduce(at_best, (x.shape[axis],), "max" if last else "min", place, "place")
        if short:
            cb.map(out, lambda *i: e.cast(Load(at_best, i), out.dtype), "widen")

    return compute


def _arg_of_rows(cb: ComputeBuilder, call: OpCall, x: Buffer, out: Buffer, greatest: bool) -> None:
    """Each row for itself: the best element so far, as an integer in their order, and its place."""
    axis, keep, last = _arg_axis(call), bool(call.attrs["keepdims"]), call.attrs["select_last"]
    rest = (*x.shape[:axis], *x.shape[axis + 1 :])
    rows = product(x.shape[:axis]), product(x.shape[axis + 1 :])
    kind = e.math("ordinal", Load(x, (e.ZERO,) * x.rank)).dtype if x.dtype.is_float else x.dtype
    best = cb.alloc("best", kind, rows), cb.alloc("at_best", dtypes.i32, rows)

    def row(at: Sequence[Var]) -> Stmt:
        def rank(r: Expr) -> Expr:
            value: Expr = Load(x, (*at[:axis], r, *at[axis:]))
            if x.dtype.is_float and not greatest:  # NaN wins in any case
                value = e.Unary("neg", value)
            elif not greatest:
                value = e.Unary("not", value)
            return e.math("ordinal", value) if x.dtype.is_float else value

        at_row = row_numbers(x.shape, axis, at)
        turn = Var(cb.fresh("turn"))
        place, new = turn + 1, Var(cb.fresh("new"), kind)
        better = e.Binary("ge" if last else "gt", new, Load(best[0], at_row))
        take, number = Var(cb.fresh("take"), dtypes.boolean), e.cast(place, dtypes.i32)
        step = Let(take, better, seq(*(
            Store(b, at_row, e.select(take, v, Load(b, at_row)))
            for b, v in zip(best, (new, number), strict=True)
        )))  # fmt: skip
        found = e.cast(Load(best[1], at_row), out.dtype)
        middle = (e.ZERO,) if keep else ()
        return seq(
            Store(best[0], at_row, rank(e.ZERO)),
            Store(best[1], at_row, e.const(0, dtypes.i32)),
            For(turn, e.ZERO, e.of_dim(x.shape[axis]) - 1, "serial", Let(new, rank(place), step)),
            Store(out, (*at[:axis], *middle, *at[axis:]), found),
        )

    cb.each(rest, row, "arg", "spatial")


for _name, _fn in (("argmax", np.argmax), ("argmin", np.argmin)):
    register(
        OpDef(
            _name,
            f"Index of the {'greatest' if _name == 'argmax' else 'least'} element along `axis`: "
            "the first of equal ones, or with `select_last` the last; NaN wins.",
            X, _arg_rule, _arg_reference(_fn), "reduction",
            (Attr("axis", "int", 0), Attr("keepdims", "bool", True),
             Attr("select_last", "bool", False)),
            variants={"direct": Variant(_arg_compute(_name[3:]))},
        )
    )  # fmt: skip


# --- cumulative sums and products -------------------------------------------------------------
_UNITS = {"cumsum": 0, "cumprod": 1}


def _cumsum_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_dtype(call, 0, infer.is_number)
    _arg_axis(call)
    return (call.type(0),)


def _cumsum_reference(call: OpCall, xs: Arrays) -> list[Array]:
    x, axis = wide_array(present(xs)[0]), _arg_axis(call)
    if call.attrs["reverse"]:
        x = np.flip(x, axis)
    unit = _UNITS[call.op.name]
    running = np.cumprod if unit else np.cumsum
    total = running(x, axis=axis, dtype=x.dtype)
    if call.attrs["exclusive"] and x.shape[axis]:
        shifted = np.roll(total, 1, axis)
        shifted[(slice(None),) * axis + (0,)] = unit
        total = shifted
    return [np.flip(total, axis) if call.attrs["reverse"] else total]


# Elements of a step of a running total from which on it is read again where it was stored.
WIDE = 256


def _cumsum_compute(
    cb: ComputeBuilder, call: OpCall, ins: Sequence[Buffer | None], outs: Sequence[Buffer]
) -> None:
    """Element after element along the axis is added to the total of those before it, which is kept
    beside the results, or is the result before where a step has many elements."""
    (x,), (out,) = ins, outs
    assert x is not None, "a reduction without operand"
    axis, t = _arg_axis(call), infer.accumulator(out.dtype)
    inner = product(x.shape[axis + 1 :])
    if t is out.dtype and bounds(inner)[0] >= WIDE:
        _from_results(cb, call, x, out)
    else:
        _with_totals(cb, call, x, out)


def _added(call: OpCall, total: Expr, element: Expr) -> Expr:
    return e.binary("mul" if _UNITS[call.op.name] else "add", total, element)


def _from_results(cb: ComputeBuilder, call: OpCall, x: Buffer, out: Buffer) -> None:
    axis, unit = _arg_axis(call), e.const(_UNITS[call.op.name], out.dtype)
    last = e.of_dim(x.shape[axis]) - 1

    def step(at: Sequence[Var]) -> Stmt:
        turn = at[axis]
        places = [last - w if call.attrs["reverse"] else w for w in (turn, turn - 1)]
        here, before = ((*at[:axis], place, *at[axis + 1 :]) for place in places)
        first = e.equal(turn, 0)
        total, added = e.select(first, unit, Load(out, before)), Load(x, here)
        if call.attrs["exclusive"]:
            return Store(out, here, _added(call, total, e.select(first, unit, Load(x, before))))
        return Store(out, here, _added(call, total, added))

    kinds: list[IterKind] = ["spatial"] * x.rank
    kinds[axis] = "ordered"
    cb.each(x.shape, step, call.op.name, kinds)


def _with_totals(cb: ComputeBuilder, call: OpCall, x: Buffer, out: Buffer) -> None:
    axis, t = _arg_axis(call), infer.accumulator(out.dtype)
    # An axis of one before the others, so that a total is always private to some loop.
    total = cb.alloc("total", t, (1, *x.shape[:axis], *x.shape[axis + 1 :]))
    last = e.of_dim(x.shape[axis]) - 1

    def step(at: Sequence[Var]) -> Stmt:
        turn, rows = at[axis + 1], (*at[: axis + 1], *at[axis + 2 :])
        place = (*at[1 : axis + 1], last - turn if call.attrs["reverse"] else turn, *at[axis + 2 :])
        before, after = (Var(cb.fresh(name), t) for name in ("before", "after"))
        result = e.cast(before if call.attrs["exclusive"] else after, out.dtype)
        stores = seq(Store(total, rows, after), Store(out, place, result))
        unit = e.const(_UNITS[call.op.name], t)
        start = e.select(e.equal(turn, 0), unit, Load(total, rows))
        added = _added(call, before, e.cast(Load(x, place), t))
        return Let(before, start, Let(after, added, stores))

    kinds: list[IterKind] = ["spatial"] * (x.rank + 1)
    kinds[axis + 1] = "ordered"
    cb.each((1, *x.shape), step, call.op.name, kinds)


for _name, _what in (("cumsum", "Sums"), ("cumprod", "Products")):
    register(
        OpDef(
            _name,
            f"{_what} of the elements up to each place along `axis` (`exclusive`: before it; "
            "`reverse`: from the end).",
            X, _cumsum_rule, _cumsum_reference, "reduction",
            (Attr("axis", "int", 0), Attr("exclusive", "bool", False),
             Attr("reverse", "bool", False)),
            variants={"direct": Variant(_cumsum_compute)},
        )
    )  # fmt: skip
