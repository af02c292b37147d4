"""Softmax, layer norms, batch norm and local response normalization."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from aisc.ir.arith.poly import Dim, product
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import AttrValue, Value
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
from aisc.ir.graph.ops.elementwise import wide_array
from aisc.ir.graph.shapes import infer
from aisc.ir.graph.shapes.checks import decide, require
from aisc.ir.tensor import expr as e
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Expr, Load, Var
from aisc.ir.tensor.func import Buffer
from aisc.ir.types import TensorType

X = (Operand("x"),)
_EPSILON = Attr("epsilon", "float", 1e-5)


def _axis(call: OpCall) -> int:
    return infer.normal_axis(call, call.attrs["axis"], call.type(0).rank)


def _float_like(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_dtype(call, 0, infer.is_float)
    _axis(call)
    return (call.type(0),)


# --- softmax ----------------------------------------------------------------------------------
def _softmax_reference(log: bool) -> Callable[[OpCall, Arrays], list[Array]]:
    def reference(call: OpCall, xs: Arrays) -> list[Array]:
        x, axis = wide_array(present(xs)[0]), _axis(call)
        if x.size == 0:
            return [x]
        shifted = x - np.max(x, axis=axis, keepdims=True)
        total = np.sum(np.exp(shifted), axis=axis, keepdims=True)
        return [shifted - np.log(total) if log else np.exp(shifted) / total]

    return reference


def _without(items: Sequence[Expr], axis: int) -> tuple[Expr, ...]:
    return (*items[:axis], *items[axis + 1 :])


def _softmax_compute(log: bool) -> Compute:
    def compute(
        cb: ComputeBuilder, call: OpCall, ins: Sequence[Buffer | None], outs: Sequence[Buffer]
    ) -> None:
        (x,), (out,) = ins, outs
        assert x is not None, "softmax without operand"
        axis, t = _axis(call), infer.accumulator(out.dtype)
        rows = (*x.shape[:axis], *x.shape[axis + 1 :])
        top, total = cb.alloc("top", t, rows), cb.alloc("total", t, rows)
        factor = cb.alloc("log_total" if log else "scale", t, rows)
        scratch = cb.alloc("shifted" if log else "exp", t, x.shape)

        def along(buf: Buffer, at: Sequence[Var], r: Sequence[Var]) -> Expr:
            return e.cast(Load(buf, (*at[:axis], r[0], *at[axis:])), t)

        def shifted(*i: Var) -> Expr:
            value = e.cast(Load(x, i), t) - Load(top, _without(i, axis))
            return value if log else e.math("exp", value)

        def term(at: Sequence[Var], r: Sequence[Var]) -> Expr:
            value = along(scratch, at, r)
            return e.math("exp", value) if log else value

        def per_row(*i: Var) -> Expr:
            return e.math("log", Load(total, i)) if log else e.const(1, t) / Load(total, i)

        def result(*i: Var) -> Expr:
            value, by = Load(scratch, i), Load(factor, _without(i, axis))
            return e.cast(value - by if log else value * by, out.dtype)

        cb.reduce(top, (x.shape[axis],), "max", lambda at, r: along(x, at, r), "max")
        cb.map(scratch, shifted, "shift" if log else "exp")
        cb.reduce(total, (x.shape[axis],), "sum", term, "sum")
        cb.map(factor, per_row, "log" if log else "reciprocal")
        cb.map(out, result, "normalize")

    return compute


for _log in (False, True):
    register(
        OpDef(
            "log_softmax" if _log else "softmax",
            "``x - max - log(sum(exp(x - max)))`` along `axis`." if _log
            else "``exp(x - max) / sum(exp(x - max))`` along `axis`.",
            X, _float_like, _softmax_reference(_log), "reduction", (Attr("axis", "int", -1),),
            variants={"direct": Variant(_softmax_compute(_log))},
        )
    )  # fmt: skip


# --- layer norms ------------------------------------------------------------------------------
def _layer_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_dtype(call, 0, infer.is_float)
    infer.same_dtype(call, *range(len(call.types)))
    x, axis = call.type(0), _axis(call)
    for index in range(1, len(call.types)):
        if not call.has(index):
            continue
        shape, normed = call.type(index).shape, x.shape[axis:]
        pairs = list(zip(shape, normed[len(normed) - len(shape) :], strict=False))
        if len(shape) > len(normed) or any(decide("1==", a, b) is False for a, b in pairs):
            raise call.fail(f"operand {index} is {call.type(index)}, which does not fit {x}")
        for a, b in pairs:
            if a != 1:
                require(call, "==", a, b, f"sizes of operand {index} and of the normalized axes")
    return (x,)


def _layer_reference(centred: bool) -> Callable[[OpCall, Arrays], list[Array]]:
    def reference(call: OpCall, xs: Arrays) -> list[Array]:
        assert xs[0] is not None, "a norm without operand"
        x = wide_array(xs[0])
        axes = tuple(range(_axis(call), x.ndim))
        if centred:
            x = x - np.mean(x, axis=axes, keepdims=True)
        spread = np.mean(x * x, axis=axes, keepdims=True)
        y = x / np.sqrt(spread + np.asarray(call.attrs["epsilon"], x.dtype))
        for index, op in ((1, np.multiply), (2, np.add)):
            operand = xs[index] if index < len(xs) else None
            y = y if operand is None else op(y, wide_array(operand))
        return [y]

    return reference


class _Norm:
    """Blocks of a norm over the axes from `axis` on: mean, mean square, scaled result."""

    def __init__(self, cb: ComputeBuilder, call: OpCall, x: Buffer) -> None:
        self.cb, self.call, self.x, self.axis = cb, call, x, _axis(call)
        self.t = infer.accumulator(x.dtype)
        self.inner = x.shape[self.axis :]
        self.count = e.cast_dim(product(self.inner), self.t)

    def mean(self, name: str, term: Callable[[tuple[Var, ...]], Expr]) -> Buffer:
        """The mean of ``term(index)`` over the inner axes, one value per row."""
        rows = self.x.shape[: self.axis]
        total = self.cb.alloc(f"{name}_sum", self.t, rows)
        result = self.cb.alloc(name, self.t, rows)
        self.cb.reduce(total, self.inner, "sum", lambda at, r: term((*at, *r)), f"{name}_sum")
        self.cb.map(result, lambda *i: Load(total, i) / self.count, name)
        return result

    def centred(self, mean: Buffer | None, index: Sequence[Expr]) -> Expr:
        """The element at `index` less its row's mean."""
        value = e.cast(Load(self.x, tuple(index)), self.t)
        return value if mean is None else value - Load(mean, tuple(index[: self.axis]))

    def operand(self, buf: Buffer, index: Sequence[Expr]) -> Expr:
        """A scale or bias, broadcast to the inner axes."""
        tail = index[len(index) - buf.rank :]
        at = tuple(e.ZERO if d == 1 else i for d, i in zip(buf.shape, tail, strict=True))
        return e.cast(Load(buf, at), self.t)


def _layer_compute(centred: bool) -> Compute:
    def compute(
        cb: ComputeBuilder, call: OpCall, ins: Sequence[Buffer | None], outs: Sequence[Buffer]
    ) -> None:
        x, (out,) = ins[0], outs
        assert x is not None, "a norm without operand"
        norm = _Norm(cb, call, x)
        mean = norm.mean("mean", lambda i: norm.centred(None, i)) if centred else None

        def square(index: tuple[Var, ...]) -> Expr:
            value = norm.centred(mean, index)
            return value * value

        spread = norm.mean("variance" if centred else "mean_square", square)
        epsilon, one = e.const(call.attrs["epsilon"], norm.t), e.const(1, norm.t)
        factor = cb.alloc("factor", norm.t, x.shape[: norm.axis])
        cb.map(factor, lambda *i: one / e.Unary("sqrt", Load(spread, i) + epsilon), "root")

        def result(*i: Var) -> Expr:
            value = norm.centred(mean, i) * Load(factor, i[: norm.axis])
            scale, bias = (ins[k] if k < len(ins) else None for k in (1, 2))
            if scale is not None:
                value = value * norm.operand(scale, i)
            if bias is not None:
                value = value + norm.operand(bias, i)
            return e.cast(value, out.dtype)

        cb.map(out, result, "normalize")

    return compute


_NORM_ATTRS = (Attr("axis", "int", -1), _EPSILON)
register(
    OpDef(
        "layer_norm",
        "``(x - mean) / sqrt(variance + epsilon) * scale + bias`` over the axes from `axis` on.",
        (Operand("x"), Operand("scale", optional=True), Operand("bias", optional=True)),
        _layer_rule, _layer_reference(True), "reduction", _NORM_ATTRS,
        variants={"direct": Variant(_layer_compute(True))},
    )
)  # fmt: skip
register(
    OpDef(
        "rms_norm", "``x / sqrt(mean(x * x) + epsilon) * scale`` over the axes from `axis` on.",
        (Operand("x"), Operand("scale", optional=True)),
        _layer_rule, _layer_reference(False), "reduction", _NORM_ATTRS,
        variants={"direct": Variant(_layer_compute(False))},
    )
)  # fmt: skip


# --- norms over channels ----------------------------------------------------------------------
def _channel_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_dtype(call, 0, infer.is_float)
    infer.same_dtype(call, *range(len(call.types)))
    channels = call.type(0).shape[_axis(call)]
    for index in range(1, len(call.types)):
        infer.check_shape(call, index, (channels,))
    return (call.type(0),)


def _spread(shape: Sequence[Dim], axis: int) -> tuple[Dim, ...]:
    """The shape that makes a vector over `axis` broadcast to `shape`."""
    return tuple(d if i == axis else 1 for i, d in enumerate(shape))


def _required(xs: Sequence[Value | None]) -> list[Value]:
    found = [x for x in xs if x is not None]
    assert len(found) == len(xs), "a required operand is absent"
    return found


def _batch_reference(call: OpCall, xs: Arrays) -> list[Array]:
    x, *rest = map(wide_array, present(xs))
    axis = _axis(call)
    shape = [-1 if i == axis else 1 for i in range(x.ndim)]
    scale, bias, mean, variance = (r.reshape(shape) for r in rest)
    factor = scale / np.sqrt(variance + np.asarray(call.attrs["epsilon"], x.dtype))
    return [x * factor + (bias - mean * factor)]


def _batch_decompose(gb: GraphBuilder, call: OpCall, xs: Sequence[Value | None]) -> list[Value]:
    """``x * k + (bias - mean * k)`` with ``k = scale / sqrt(variance + epsilon)``."""
    x, scale, bias, mean, variance = _required(xs)

    def op(name: str, *args: Value, **attrs: AttrValue) -> Value:
        return gb.add(name, args, attrs, loc=call.loc)

    epsilon = np.asarray(call.attrs["epsilon"]).astype(x.type.dtype.numpy)
    root = op("sqrt", op("add", variance, gb.constant(epsilon, "epsilon", call.loc)))
    factor = op("div", scale, root)
    offset = op("sub", bias, op("mul", mean, factor))
    shape = _spread(x.type.shape, _axis(call))
    scaled = op("mul", x, op("reshape", factor, shape=shape))
    return [op("add", scaled, op("reshape", offset, shape=shape))]


register(
    OpDef(
        "batch_norm",
        "``(x - mean) / sqrt(variance + epsilon) * scale + bias`` per channel along `axis`.",
        (Operand("x"), Operand("scale"), Operand("bias"), Operand("mean"), Operand("variance")),
        _channel_rule, _batch_reference, "map", (Attr("axis", "int", 1), _EPSILON),
        decompose=_batch_decompose,
    )
)  # fmt: skip


def _group_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_rank(call, 0, 2)
    (x,), groups = _channel_rule(call), call.attrs["groups"]
    channels = x.shape[1]
    if not isinstance(channels, int) or groups < 1 or channels % groups:
        text = f"{channels} channels do not split into {groups} groups"
        raise call.fail(text, code=infer.size_code(channels))
    return (x,)


def _group_reference(call: OpCall, xs: Arrays) -> list[Array]:
    x, scale, bias = map(wide_array, present(xs))
    groups = call.attrs["groups"]
    grouped = x.reshape(x.shape[0], groups, math.prod(x.shape[1:]) // groups)
    grouped = grouped - grouped.mean(axis=2, keepdims=True)
    spread = np.mean(grouped * grouped, axis=2, keepdims=True)
    y = grouped / np.sqrt(spread + np.asarray(call.attrs["epsilon"], x.dtype))
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return [y.reshape(x.shape) * scale.reshape(shape) + bias.reshape(shape)]


def _group_decompose(gb: GraphBuilder, call: OpCall, xs: Sequence[Value | None]) -> list[Value]:
    """Reshape to (n, groups, rest), normalize the rest, scale per channel: before the shape is that
    of x again where each channel is a group, so that one nest does both."""
    x, scale, bias = _required(xs)
    n, channels, *spatial = x.type.shape
    groups: int = call.attrs["groups"]
    assert isinstance(channels, int), "a static number of channels"

    def op(name: str, *args: Value, **attrs: AttrValue) -> Value:
        return gb.add(name, args, attrs, loc=call.loc)

    def scaled(y: Value) -> Value:
        shape = _spread(y.type.shape, 1)
        y = op("mul", y, op("reshape", scale, shape=shape))
        return op("add", y, op("reshape", bias, shape=shape))

    rest = product((channels // groups, *spatial))
    grouped = op("reshape", x, shape=(n, groups, rest))
    normal = op("layer_norm", grouped, axis=2, epsilon=call.attrs["epsilon"])
    if groups == channels:
        return [op("reshape", scaled(normal), shape=x.type.shape)]
    return [scaled(op("reshape", normal, shape=x.type.shape))]


register(
    OpDef(
        "group_norm",
        "Each of `groups` channel groups (axis 1) of a sample is normalized over its channels and "
        "all further axes, then scaled and shifted per channel.",
        (Operand("x"), Operand("scale"), Operand("bias")),
        _group_rule, _group_reference, "reduction",
        (Attr("axis", "int", 1), Attr("groups", "int"), _EPSILON), decompose=_group_decompose,
    )
)  # fmt: skip


# --- local response normalization -------------------------------------------------------------
def _lrn_window(call: OpCall) -> tuple[int, int]:
    """Channels before and after the middle one."""
    size: int = call.attrs["size"]
    return (size - 1) // 2, size - 1 - (size - 1) // 2


def _lrn_rule(call: OpCall) -> tuple[TensorType, ...]:
    if call.attrs["size"] < 1:
        raise call.fail("the size must be positive", code="E203")
    return _float_like(call)


def _lrn_reference(call: OpCall, xs: Arrays) -> list[Array]:
    x, axis = wide_array(present(xs)[0]), _axis(call)
    pad = [(0, 0)] * x.ndim
    pad[axis] = _lrn_window(call)
    squares = np.pad(x * x, pad)
    total = np.zeros_like(x)
    for k in range(call.attrs["size"]):
        total = total + np.take(squares, np.arange(k, k + x.shape[axis]), axis=axis)
    alpha = np.asarray(call.attrs["alpha"] / call.attrs["size"], x.dtype)
    base = np.asarray(call.attrs["bias"], x.dtype) + alpha * total
    return [x / base ** np.asarray(call.attrs["beta"], x.dtype)]


def _lrn_compute(
    cb: ComputeBuilder, call: OpCall, ins: Sequence[Buffer | None], outs: Sequence[Buffer]
) -> None:
    (x,), (out,) = ins, outs
    assert x is not None, "lrn without operand"
    axis, t, size = _axis(call), infer.accumulator(out.dtype), call.attrs["size"]
    before, _ = _lrn_window(call)
    total = cb.alloc("square_sum", t, x.shape)

    def square(at: Sequence[Var], r: Sequence[Var]) -> Expr:
        channel = at[axis] + r[0] - before
        value = e.cast(Load(x, (*at[:axis], channel, *at[axis + 1 :])), t)
        inside = e.logical_and(channel >= 0, channel < e.of_dim(x.shape[axis]))
        return e.select(inside, value * value, e.const(0, t))

    def result(*i: Var) -> Expr:
        base = e.const(call.attrs["alpha"] / size, t) * Load(total, i)
        base = e.const(call.attrs["bias"], t) + base
        return e.cast(e.cast(Load(x, i), t) / e.binary("pow", base, call.attrs["beta"]), out.dtype)

    cb.reduce(total, (size,), "sum", square, "squares")
    cb.map(out, result, "normalize")


register(
    OpDef(
        "lrn",
        "``x / (bias + alpha / size * sum of x**2 over `size` neighbours along `axis`) ** beta``.",
        X, _lrn_rule, _lrn_reference, "window",
        (Attr("size", "int"), Attr("alpha", "float", 1e-4), Attr("beta", "float", 0.75),
         Attr("bias", "float", 1.0), Attr("axis", "int", 1)),
        variants={"direct": Variant(_lrn_compute)},
    )
)  # fmt: skip
