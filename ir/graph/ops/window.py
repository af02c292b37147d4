"""Pooling: reductions over a window that slides over the spatial axes, in both data layouts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import reduce
from math import prod
from operator import mul

import numpy as np

from aisc.ir.arith.poly import Dim
from aisc.ir.dtypes import DType
from aisc.ir.graph.opdef import (
    Array,
    Arrays,
    Attr,
    OpCall,
    OpDef,
    Operand,
    Variant,
    present,
    register,
)
from aisc.ir.graph.ops.elementwise import wide_array
from aisc.ir.graph.shapes import infer
from aisc.ir.graph.shapes.spatial import (
    WINDOW_ATTRS,
    Window,
    output_type,
    padded,
    tap_slice,
    window_of,
)
from aisc.ir.tensor import expr as e
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Expr, Load, Var
from aisc.ir.tensor.func import Buffer
from aisc.ir.types import TensorType

_ATTRS = (Attr("kernel_shape", "ints"), *WINDOW_ATTRS, Attr("ceil_mode", "bool", False))


def pool_window(call: OpCall) -> Window:
    """The window of a pool; E203 when a window could lie in the padding alone."""
    kernel = tuple(call.attrs["kernel_shape"])
    if call.type(0).rank != len(kernel) + 2:
        raise call.fail(f"kernel {kernel} does not fit {call.type(0)}", code="E203")
    window = window_of(call, kernel, bool(call.attrs["ceil_mode"]))
    for k, d, b, end in zip(kernel, window.dilations, window.begins, window.ends, strict=True):
        if max(b, end) > (k - 1) * d:
            raise call.fail("a pad is as large as the kernel", code="E203")
    return window


def _rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_rank(call, 0, 3)
    infer.check_dtype(call, 0, infer.is_number)
    window, x = pool_window(call), call.type(0)
    _, channels, _ = window.split(x.shape)
    return (output_type(call, window, x, channels),)


def _float_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_dtype(call, 0, infer.is_float)
    return _rule(call)


def _reduce_reference(call: OpCall, x: Array, fill: float, fn: np.ufunc) -> Array:
    window = pool_window(call)
    x, sizes = padded(x, window, fill)
    total: Array | None = None
    for tap in itertools.product(*map(range, window.kernel)):
        part = x[tap_slice(window, tap, sizes)]
        total = part.copy() if total is None else fn(total, part)
    assert total is not None, "an empty kernel"
    return total


def _lowest(t: DType) -> float | int:
    return -np.inf if t.is_float else t.min_value


def _max_reference(call: OpCall, xs: Arrays) -> list[Array]:
    (x,) = present(xs)
    return [_reduce_reference(call, wide_array(x), _lowest(call.type(0).dtype), np.maximum)]


def _counts(call: OpCall, shape: tuple[int, ...]) -> Array:
    """How many positions each average divides by, broadcastable to the output."""
    window = pool_window(call)
    first = window.first_spatial
    total = np.ones((1,) * len(shape))
    for a in range(window.spatial):
        size = window.output(a, shape[first + a])
        assert isinstance(size, int), "a reference needs sizes"
        low, high = _limits(call, window, a, shape[first + a])
        start = np.arange(max(size, 0)) * window.strides[a] - window.begins[a]
        at = start[:, None] + np.arange(window.kernel[a]) * window.dilations[a]
        count = ((at >= low) & (at < high)).sum(axis=1)
        total = total * count.reshape([-1 if i == first + a else 1 for i in range(len(shape))])
    return total


def _limits(call: OpCall, window: Window, axis: int, size: int) -> tuple[int, int]:
    if call.attrs["count_include_pad"]:
        return -window.begins[axis], size + window.ends[axis]
    return 0, size


def _avg_reference(call: OpCall, xs: Arrays) -> list[Array]:
    x = wide_array(present(xs)[0])
    total = _reduce_reference(call, x, 0, np.add)
    return [total / _counts(call, x.shape).astype(x.dtype)]


def _lp_reference(call: OpCall, xs: Arrays) -> list[Array]:
    x, p = wide_array(present(xs)[0]), call.attrs["p"]
    total = _reduce_reference(call, np.abs(x) ** p, 0, np.add)
    return [total ** np.asarray(1 / p, x.dtype)]


class _Pool:
    """Compute definition: one window reduction, and a map for what follows it."""

    def __init__(self, cb: ComputeBuilder, call: OpCall, ins: Sequence[Buffer | None]) -> None:
        x = ins[0]
        assert x is not None, "a pool without operand"
        self.cb, self.call, self.x, self.window = cb, call, x, pool_window(call)
        _, _, self.sizes = self.window.split(x.shape)

    def starts(self, at: Sequence[Expr]) -> list[Expr]:
        """First input position of a window along each spatial axis, padding taken off."""
        w = self.window
        return [o * w.strides[a] - w.begins[a] for a, o in enumerate(at)]

    def reduce(self, acc: Buffer, combiner: str, outside: Expr) -> None:
        """Combine the window's elements; positions outside the input give `outside`."""
        w = self.window

        def value(index: Sequence[Var], r: Sequence[Var]) -> Expr:
            n, c, at = w.parts(index)
            source = [s + t * d for s, t, d in zip(self.starts(at), r, w.dilations, strict=True)]
            load = self.element(Load(self.x, w.at(n, (c,), source)), acc.dtype)
            return e.select(w.inside(source, self.sizes), load, outside)

        self.cb.reduce(acc, w.kernel, combiner, value, "pool")

    def element(self, value: Expr, t: DType) -> Expr:
        """What is combined for one element: |x|**p for Lp pools, else x."""
        value = e.cast(value, t)
        p = self.call.attrs.get("p")
        if p is None:
            return value
        size = e.Unary("abs", value)
        return size * size if p == 2 else size if p == 1 else e.binary("pow", size, float(p))

    def counts(self, out: Buffer, t: DType) -> list[Expr | Buffer]:
        """The factors of the number of positions that averages divide by: for each spatial axis a
        number, or one for each place in a buffer of its own."""
        w, include = self.window, bool(self.call.attrs["count_include_pad"])
        _, _, places = w.split(out.shape)
        if not w.ceil_mode and (include or not w.is_padded):
            return [e.const(prod(w.kernel), t)]
        return [self._places(a, places[a], include, t) for a in range(w.spatial)]

    def _places(self, a: int, places: Dim, include: bool, t: DType) -> Expr | Buffer:
        w = self.window
        if w.kernel[a] == 1 and not (w.begins[a] or w.ends[a] or w.ceil_mode):
            return e.const(1, t)
        low, step = -w.begins[a] if include else 0, w.dilations[a]
        high = e.of_dim(self.sizes[a]) + (w.ends[a] if include else 0)

        def inside(at: Var) -> Expr:
            start = at * w.strides[a] - w.begins[a]
            first = e.maximum(_ceil(e.Const(low) - start, step), 0) if w.begins[a] else e.ZERO
            return e.cast(e.minimum(_ceil(high - start, step), w.kernel[a]) - first, t)

        found = self.cb.alloc(f"counts{a}", t, (places,))
        self.cb.map(found, inside, f"count{a}")
        return found


def _ceil(value: Expr, step: int) -> Expr:
    return (value + (step - 1)) // step


def _max_compute(
    cb: ComputeBuilder, call: OpCall, ins: Sequence[Buffer | None], outs: Sequence[Buffer]
) -> None:
    t = outs[0].dtype
    _Pool(cb, call, ins).reduce(outs[0], "max", e.const(_lowest(t), t))


def _avg_compute(
    cb: ComputeBuilder, call: OpCall, ins: Sequence[Buffer | None], outs: Sequence[Buffer]
) -> None:
    (out,), pool = outs, _Pool(cb, call, ins)
    t = infer.accumulator(out.dtype)
    acc = cb.alloc("acc", t, out.shape)
    counts = pool.counts(out, t)
    pool.reduce(acc, "sum", e.const(0, t))

    def value(*index: Var) -> Expr:
        _, _, at = pool.window.parts(index)
        factors = (Load(c, (at[a],)) if isinstance(c, Buffer) else c for a, c in enumerate(counts))
        return e.cast(Load(acc, index) / reduce(mul, factors), out.dtype)

    cb.map(out, value, "average")


def _lp_compute(
    cb: ComputeBuilder, call: OpCall, ins: Sequence[Buffer | None], outs: Sequence[Buffer]
) -> None:
    (out,), pool, p = outs, _Pool(cb, call, ins), call.attrs["p"]
    t = infer.accumulator(out.dtype)
    acc = cb.alloc("acc", t, out.shape)
    pool.reduce(acc, "sum", e.const(0, t))

    def value(*index: Var) -> Expr:
        total = Load(acc, index)
        root = e.Unary("sqrt", total) if p == 2 else e.binary("pow", total, 1 / p)
        return e.cast(total if p == 1 else root, out.dtype)

    cb.map(out, value, "root")


register(
    OpDef(
        "max_pool", "The greatest element of each window; the padding never wins.",
        (Operand("x"),), _rule, _max_reference, "window", _ATTRS,
        variants={"direct": Variant(_max_compute)},
    )
)  # fmt: skip
register(
    OpDef(
        "avg_pool",
        "The mean of each window, over the positions inside the input, or inside the padded "
        "input with `count_include_pad`.",
        (Operand("x"),), _float_rule, _avg_reference, "window",
        (*_ATTRS, Attr("count_include_pad", "bool", False)),
        variants={"direct": Variant(_avg_compute)},
    )
)  # fmt: skip
register(
    OpDef(
        "lp_pool", "``(sum of |x|**p)**(1/p)`` over each window.",
        (Operand("x"),), _float_rule, _lp_reference, "window", (*_ATTRS, Attr("p", "int", 2)),
        variants={"direct": Variant(_lp_compute)},
    )
)  # fmt: skip
