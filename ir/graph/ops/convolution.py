"""Convolution in both data layouts, any number of spatial axes, any number of groups.

Weights are OIHW (outputs, inputs / group, spatial...) for NCHW data and HWIO (spatial...,
inputs / group, outputs) for NHWC data.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from aisc.ir.arith.poly import Dim, ceildiv
from aisc.ir.graph.core import GraphNode
from aisc.ir.graph.opdef import Array, Arrays, Attr, OpCall, OpDef, Operand, Variant, register
from aisc.ir.graph.ops.contraction import ACCUMULATOR, counted, factors
from aisc.ir.graph.ops.elementwise import wide_array
from aisc.ir.graph.shapes import infer
from aisc.ir.graph.shapes.checks import require
from aisc.ir.graph.shapes.spatial import (
    WINDOW_ATTRS,
    Window,
    output_type,
    padded,
    tap_slice,
    window_of,
)
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Expr, Load, Var, cast, const, of_dim, select
from aisc.ir.tensor.func import Buffer
from aisc.ir.types import TensorType

# Channels of narrow groups, below which several groups share a vector.
NARROW = 16


def channel_axis(conv: GraphNode) -> int:
    """Axis of the channels in a convolution's result."""
    return conv.output.type.rank - 1 if conv.attr("data_layout") == "NHWC" else 1


def _weight_parts(call: OpCall, shape: Sequence[Dim]) -> tuple[Dim, Dim, tuple[Dim, ...]]:
    """(outputs, inputs per group, kernel) of a weight shape."""
    if call.attrs["data_layout"] == "NHWC":
        return shape[-1], shape[-2], tuple(shape[:-2])
    return shape[0], shape[1], tuple(shape[2:])


def conv_window(call: OpCall) -> Window:
    """The window of a convolution; E204 when the kernel's sizes are not known."""
    _, _, kernel = _weight_parts(call, call.type(1).shape)
    static = tuple(k for k in kernel if isinstance(k, int))
    if len(static) != len(kernel):
        raise call.fail("the kernel's sizes must be known", code="E204")
    return window_of(call, static)


def _rule(call: OpCall) -> tuple[TensorType, ...]:
    rank = infer.check_rank(call, 0, 3)
    infer.check_rank(call, 1, rank, rank)
    infer.check_dtype(call, 0, infer.is_number)
    t = infer.contracted(call, 0, 1)
    if call.has(2) and call.type(2).dtype is not t:
        raise call.fail(f"the bias is {call.type(2).dtype}, the sums are {t}")
    _check_fill(call)
    x, group = call.type(0), call.attrs["group"]
    outputs, inputs, _ = _weight_parts(call, call.type(1).shape)
    window = conv_window(call)
    _, channels, _ = window.split(x.shape)
    if group < 1 or not isinstance(outputs, int) or outputs % group:
        text = f"{outputs} output channels do not split into {group} groups"
        raise call.fail(text, code=infer.size_code(outputs))
    require(call, "==", channels, inputs * group, "channels of the input and of the weight")
    infer.check_shape(call, 2, (outputs,))
    return (TensorType(output_type(call, window, x, outputs).shape, t),)


def _check_fill(call: OpCall) -> None:
    """What the border holds is a value of the input's type; that of floats is zero."""
    fill, t = call.attrs["fill"], call.type(0).dtype
    if fill and (t.is_float or not t.min_value <= fill <= t.max_value):
        raise call.fail(f"a border of {fill} around an image of {t}", code="E203")


def _reference(call: OpCall, xs: Arrays) -> list[Array]:
    assert xs[0] is not None, "conv without input"
    assert xs[1] is not None, "conv without weight"
    window, (x, w) = conv_window(call), factors(call, xs[0], xs[1], xs[1].size)
    if window.channels_last:
        w = np.moveaxis(w, (-1, -2), (0, 1))
    else:
        x = np.moveaxis(x, 1, -1)
    last = Window(window.kernel, window.strides, window.dilations, window.begins, window.ends, True)
    group = call.attrs["group"]
    x, sizes = padded(x, last, call.attrs["fill"])
    x = x.reshape(*x.shape[:-1], group, x.shape[-1] // group)
    w = w.reshape(group, w.shape[0] // group, *w.shape[1:])
    out = np.zeros((group, x.shape[0], *sizes, w.shape[1]), x.dtype)
    for tap in itertools.product(*map(range, last.kernel)):
        part = np.moveaxis(x[tap_slice(last, tap, sizes)], -2, 0)
        flat = part.reshape(group, math.prod(part.shape[1:-1]), part.shape[-1])
        taps = w.reshape(*w.shape[:3], math.prod(w.shape[3:]))
        taken = taps[..., np.ravel_multi_index(tap, last.kernel)]
        out += np.matmul(flat, np.swapaxes(taken, 1, 2)).reshape(out.shape)
    out = np.moveaxis(out, 0, -2)
    out = out.reshape(*out.shape[:-2], out.shape[-2] * out.shape[-1])
    out = counted(call, out)
    if len(xs) > 2 and xs[2] is not None:
        out = out + wide_array(xs[2])
    return [out if window.channels_last else np.moveaxis(out, -1, 1)]


class _Direct:
    """The direct algorithm: pad, reduce over (kernel, input channels), ungroup, add the bias."""

    def __init__(self, cb: ComputeBuilder, call: OpCall, w: Buffer, out: Buffer) -> None:
        self.cb, self.w, self.out = cb, w, out
        self.window, self.fill = conv_window(call), call.attrs["fill"]
        self.group: int = call.attrs["group"]
        self.acc_type = infer.accumulator(out.dtype)
        outputs, self.inputs, _ = _weight_parts(call, w.shape)
        assert isinstance(outputs, int), "the number of output channels is static"
        self.per_group = outputs // self.group

    def pad(self, x: Buffer) -> Buffer:
        """`x` with a border of `fill`, in a scratch buffer; `x` itself when nothing is padded."""
        window = self.window
        if not window.is_padded and not self.in_phases:
            return x
        n, c, spatial = window.split(x.shape)
        sizes = [d + (b + e) for d, b, e in zip(spatial, window.begins, window.ends, strict=True)]
        if self.in_phases:
            sizes[-1:] = [min(self.step, window.reach(-1)), ceildiv(sizes[-1], self.step)]
        out = self.cb.alloc("padded", x.dtype, window.join(n, c, sizes))

        def value(n: Expr, c: Expr, at: Sequence[Expr]) -> Expr:
            source = [p - b for p, b in zip(at, window.begins, strict=True)]
            load = Load(x, window.at(n, (c,), source))
            inside = window.inside(source, spatial, self.in_phases)
            return select(inside, load, const(self.fill, x.dtype))

        def in_phase(*index: Var) -> Expr:
            n, c, *at, phase, turn = index
            return value(n, c, [*at, turn * self.step + phase])

        def plain(*index: Var) -> Expr:
            return value(*window.parts(index))

        self.cb.map(out, in_phase if self.in_phases else plain, "pad")
        return out

    @property
    def step(self) -> int:
        """How far windows lie apart in a row."""
        return self.window.strides[-1]

    @property
    def in_phases(self) -> bool:
        """Whether rows are copied so that places a stride apart lie together: the vectors of a
        kernel with channels first."""
        return self.step > 1 and not self.window.channels_last

    def weight(self, o: Expr, i: Expr, taps: Sequence[Expr]) -> Expr:
        """The weight of output channel `o`, input channel `i` of its group, as accumulator."""
        at = (*taps, i, o) if self.window.channels_last else (o, i, *taps)
        return cast(Load(self.w, at), self.acc_type)

    def read(self, x: Buffer, n: Expr, c: Expr, at: Sequence[Expr], taps: Sequence[Expr]) -> Expr:
        """The padded input under tap `taps` of the window at `at`, as accumulator."""
        places = [
            self.window.source(a, o, t) for a, (o, t) in enumerate(zip(at, taps, strict=True))
        ]
        if self.in_phases:
            tap = taps[-1] * self.window.dilations[-1]
            places[-1:] = [tap % self.step, at[-1] + tap // self.step]
        return cast(Load(x, self.window.at(n, (c,), places)), self.acc_type)

    def reduce(self, x: Buffer, acc: Buffer) -> None:
        """The convolution of one group, a depthwise one, or one of narrow groups."""
        inputs = of_dim(self.inputs)
        depthwise = self.is_depthwise

        def term(index: Sequence[Var], r: Sequence[Var]) -> Expr:
            n, o, at = self.window.parts(index)
            taps, i = (r, const(0)) if depthwise else self.taps_and_input(r)
            first = o if depthwise else o // self.per_group * inputs
            source = first if depthwise else i if self.group == 1 else first + i
            return self.read(x, n, source, at, taps) * self.weight(o, i, taps)

        extents = self.window.kernel if depthwise else self.extents
        self.cb.reduce(acc, extents, "sum", term, "conv")

    @property
    def extents(self) -> tuple[Dim, ...]:
        """Kernel and input channels, those last that lie closer together in the image: its next
        elements are in cache then."""
        kernel = self.window.kernel
        return (*kernel, self.inputs) if self.window.channels_last else (self.inputs, *kernel)

    def taps_and_input(self, r: Sequence[Var]) -> tuple[Sequence[Var], Var]:
        """Tap and input channel of a reduction over :attr:`extents`."""
        return (r[:-1], r[-1]) if self.window.channels_last else (r[1:], r[0])

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel is convolved for itself."""
        return self.group > 1 and self.inputs == self.per_group == 1

    @property
    def is_narrow(self) -> bool:
        """Whether a vector holds the channels of several whole groups."""
        sizes = self.per_group, self.inputs
        even = all(isinstance(s, int) and 0 < s < NARROW and NARROW % s == 0 for s in sizes)
        return self.window.channels_last and self.group > 1 and even

    def reduce_groups(self, x: Buffer, acc: Buffer) -> None:
        """Grouped form: a scratch with (group, channel of the group) in place of the channel."""
        window, per = self.window, self.per_group
        n, _, spatial = window.split(self.out.shape)
        shape = (
            (n, *spatial, self.group, per)
            if window.channels_last
            else (n, self.group, per, *spatial)
        )
        grouped = self.cb.alloc("grouped", self.acc_type, shape)
        first = window.first_spatial if window.channels_last else 3

        def term(index: Sequence[Var], r: Sequence[Var]) -> Expr:
            at = index[first : first + window.spatial]
            g, o = index[-2:] if window.channels_last else index[1:3]
            taps, i = self.taps_and_input(r)
            value = self.read(x, index[0], g * of_dim(self.inputs) + i, at, taps)
            return value * self.weight(g * per + o, i, taps)

        def copy(*index: Var) -> Expr:
            i, c, at = window.parts(index)
            return Load(grouped, window.at(i, (c // per, c % per), at))

        self.cb.reduce(grouped, self.extents, "sum", term, "conv")
        self.cb.map(acc, copy, "ungroup")

    def finish(self, acc: Buffer, bias: Buffer | None) -> None:
        """Add the bias and round to the output's dtype."""
        if acc is self.out:
            return

        def value(*index: Var) -> Expr:
            total: Expr = Load(acc, index)
            if bias is not None:
                _, c, _ = self.window.parts(index)
                total = total + cast(Load(bias, (c,)), self.acc_type)
            return cast(total, self.out.dtype)

        self.cb.map(self.out, value, "bias" if bias is not None else "narrow")


def _compute(
    cb: ComputeBuilder, call: OpCall, ins: Sequence[Buffer | None], outs: Sequence[Buffer]
) -> None:
    x, w = ins[0], ins[1]
    assert x is not None, "conv without input"
    assert w is not None, "conv without weight"
    bias, (out,) = ins[2] if len(ins) > 2 else None, outs
    conv = _Direct(cb, call, w, out)
    source = conv.pad(x)
    direct = bias is None and conv.acc_type is out.dtype
    acc = out if direct else cb.alloc("acc", conv.acc_type, out.shape)
    if conv.group == 1 or conv.is_depthwise or conv.is_narrow:
        conv.reduce(source, acc)
    else:
        conv.reduce_groups(source, acc)
    conv.finish(acc, bias)


register(
    OpDef(
        "conv",
        "Cross-correlation of x with w over the spatial axes, plus a bias per output channel. The "
        "border of `pads` holds `fill`; `accumulator` is the type of sum, bias and result, if not "
        "the operands'.",
        (Operand("x"), Operand("w"), Operand("bias", optional=True)),
        _rule, _reference, "contraction", 
        (*WINDOW_ATTRS, Attr("group", "int", 1), ACCUMULATOR, Attr("fill", "int", 0)),
        variants={"direct": Variant(_compute)},
    )
)  # fmt: skip
