"""Transposed convolution: the gradient of a convolution with respect to its input.

Data are NCHW; the weight is (inputs, outputs / group, spatial...), as in ONNX.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from aisc.ir.arith.poly import Dim
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import AttrValue, Value
from aisc.ir.graph.opdef import Array, Arrays, Attr, OpCall, OpDef, Operand, register
from aisc.ir.graph.ops.elementwise import wide_array
from aisc.ir.graph.shapes import infer
from aisc.ir.graph.shapes.checks import require
from aisc.ir.graph.shapes.spatial import WINDOW_ATTRS, Window, window_of
from aisc.ir.types import TensorType

Emit = Callable[..., Value]


def _window(call: OpCall) -> Window:
    rank = call.type(0).rank
    kernel = infer.static_dims(call, 1, tuple(range(2, rank)))
    return window_of(call, kernel)


def _extra(call: OpCall, window: Window) -> tuple[int, ...]:
    """Elements added at the end of each spatial axis."""
    extra = tuple(call.attrs["output_padding"]) or (0,) * window.spatial
    if len(extra) != window.spatial or min((*extra, 0)) < 0:
        raise call.fail(f"bad output_padding {extra}", code="E203")
    return extra


def _rule(call: OpCall) -> tuple[TensorType, ...]:
    rank = infer.check_rank(call, 0, 3)
    infer.check_rank(call, 1, rank, rank)
    infer.check_dtype(call, 0, infer.is_number)
    t = infer.same_dtype(call, 0, 1, 2)
    if call.attrs["data_layout"] != "NCHW":
        raise call.fail("only NCHW is defined", code="E203")
    window, x, group = _window(call), call.type(0), call.attrs["group"]
    inputs, outputs = infer.static_dims(call, 1, (0, 1))
    require(call, "==", x.shape[1], inputs, "channels of the input and of the weight")
    if group < 1 or inputs % group:
        raise call.fail(f"{x} does not fit {group} groups of the weight {call.type(1)}")
    infer.check_shape(call, 2, (outputs * group,))
    sizes: list[Dim] = []
    for a, extra in enumerate(_extra(call, window)):
        reach = (window.kernel[a] - 1) * window.dilations[a] + 1
        size = (x.shape[a + 2] - 1) * window.strides[a] + (
            reach + extra - window.begins[a] - window.ends[a]
        )
        if isinstance(size, int) and size < 0:
            raise call.fail("the pads remove more than there is")
        require(call, "<=", 0, size, "what the pads leave")
        sizes.append(size)
    return (TensorType((x.shape[0], outputs * group, *sizes), t),)


def _reference(call: OpCall, xs: Arrays) -> list[Array]:
    assert xs[0] is not None, "conv_transpose without input"
    assert xs[1] is not None, "conv_transpose without weight"
    x, w, window = wide_array(xs[0]), wide_array(xs[1]), _window(call)
    (result,), group = _rule(call), call.attrs["group"]
    shape = result.static_shape
    full = [
        max((n - 1) * s + (k - 1) * d + 1, b + out)
        for n, s, k, d, b, out in zip(
            x.shape[2:], window.strides, window.kernel, window.dilations, window.begins, shape[2:],
            strict=True,
        )
    ]  # fmt: skip
    buffer = np.zeros((shape[0], group, w.shape[1], *full), x.dtype)
    grouped = x.reshape(x.shape[0], group, x.shape[1] // group, *x.shape[2:])
    weights = w.reshape(group, w.shape[0] // group, w.shape[1], math.prod(window.kernel))
    for number, tap in enumerate(itertools.product(*map(range, window.kernel))):
        part = np.einsum("ngi...,gio->ngo...", grouped, weights[..., number])
        cut = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s) if n else slice(0, 0)
            for t, d, n, s in zip(tap, window.dilations, x.shape[2:], window.strides, strict=True)
        )
        buffer[(slice(None), slice(None), slice(None), *cut)] += part
    crop = tuple(slice(b, b + n) for b, n in zip(window.begins, shape[2:], strict=True))
    out = buffer[(slice(None), slice(None), slice(None), *crop)].reshape(shape)
    if len(xs) > 2 and xs[2] is not None:
        out = out + wide_array(xs[2]).reshape(-1, *[1] * window.spatial)
    return [out]


def _decompose(gb: GraphBuilder, call: OpCall, xs: Sequence[Value | None]) -> list[Value]:
    """A convolution with the flipped weight. With a stride, one convolution whose channels are the
    phases of the output, which are then put between each other. Kernels with holes take the image
    with zeros between its elements instead."""
    x, w, window = xs[0], xs[1], _window(call)
    assert x is not None, "conv_transpose without input"
    assert w is not None, "conv_transpose without weight"
    bias = xs[2] if len(xs) > 2 else None
    (result,) = _rule(call)
    if 0 in result.shape:  # no window of a convolution would fit
        none = gb.constant(np.zeros((), result.dtype.numpy), "none", call.loc)
        return [gb.add("expand", (none,), {"shape": result.shape}, loc=call.loc)]
    if max(window.strides) > 1 and max(window.dilations) == 1:
        return [_by_phases(gb, call, x, w, bias)]

    def op(name: str, *args: Value, **attrs: AttrValue) -> Value:
        return gb.add(name, args, attrs, loc=call.loc)

    spread = _spread(op, x, window)
    begins = [
        (k - 1) * d - b
        for k, d, b in zip(window.kernel, window.dilations, window.begins, strict=True)
    ]
    ends = [
        (k - 1) * d - e + extra - (s - 1)
        for k, d, e, extra, s in zip(
            window.kernel, window.dilations, window.ends, _extra(call, window), window.strides,
            strict=True,
        )
    ]  # fmt: skip
    padded = op("pad", spread, pads=(0, 0, *begins, 0, 0, *ends))
    inputs = [padded, _flipped(op, w, call.attrs["group"])]
    inputs += [] if bias is None else [bias]
    group, dilations = call.attrs["group"], window.dilations
    return [gb.add("conv", inputs, {"group": group, "dilations": dilations}, loc=call.loc)]


def _by_phases(gb: GraphBuilder, call: OpCall, x: Value, w: Value, bias: Value | None) -> Value:
    """With p = o + pad, the output at p = q*s + r is ``sum over t of x[q - t] * w[t*s + r]``: for
    each of the s phases r a convolution of stride 1 with every s-th tap (Shi et al., "Is the
    deconvolution layer the same as a convolutional layer?", 2016)."""

    def op(name: str, *args: Value, **attrs: AttrValue) -> Value:
        return gb.add(name, args, attrs, loc=call.loc)

    window, group, phases = _window(call), call.attrs["group"], _window(call).strides
    taps = tuple(-(-k // s) for k, s in zip(window.kernel, phases, strict=True))
    (result,), k = _rule(call), window.spatial
    begins, ends = [t - 1 for t in taps], []
    for b, out, size, s, t in zip(
        window.begins, result.shape[2:], x.type.shape[2:], phases, taps, strict=True
    ):
        behind = b + _gap(out, size, s) - t * s  # of output_padding, behind the last phase
        ends.append(t - 1 + max(0, -(-behind // s)))
    image = op("transpose", x, perm=(0, *range(2, k + 2), 1))
    image = op("pad", image, pads=(0, *begins, 0, 0, *ends, 0))
    arguments = [image, _phase_weights(op, w, group, taps, phases)]
    if bias is not None:
        arguments.append(_phase_bias(op, bias, group, math.prod(phases)))
    y = op("conv", *arguments, group=group, data_layout="NHWC")
    return _put_together(op, y, window, group, result.shape)


def _put_together(op: Emit, y: Value, window: Window, group: int, shape: Sequence[Dim]) -> Value:
    """The output of `shape` from its phases, the channels: (n, q..., group, r..., outputs)."""
    n, *sizes, _ = y.type.shape
    k, phases = window.spatial, window.strides
    assert isinstance(shape[1], int), "channels are known"
    outputs = shape[1] // group
    y = op("reshape", y, shape=(n, *sizes, group, *phases, outputs))
    between = [axis for a in range(k) for axis in (1 + a, 2 + k + a)]
    y = op("transpose", y, perm=(0, *between, 1 + k, 2 + 2 * k))
    whole = [q * s for q, s in zip(sizes, phases, strict=True)]
    y = op("reshape", y, shape=(n, *whole, group * outputs))
    ends = [b + d for b, d in zip(window.begins, shape[2:], strict=True)]
    y = op(
        "slice", y,
        starts=(0, *window.begins, 0), ends=(n, *ends, group * outputs), steps=(1,) * (k + 2),
    )  # fmt: skip
    return op("transpose", y, perm=(0, k + 1, *range(1, k + 1)))


def _phase_bias(op: Emit, bias: Value, group: int, phases: int) -> Value:
    """The bias of every output for each of its phases."""
    (every,) = bias.type.static_shape
    split = op("reshape", bias, shape=(group, 1, every // group))
    split = op("expand", split, shape=(group, phases, every // group))
    return op("reshape", split, shape=(every * phases,))


def _gap(out: Dim, size: Dim, stride: int) -> int:
    """How much longer an output is than the strides of all but one element of the input."""
    gap = out - (size - 1) * stride
    assert isinstance(gap, int), "the output grows by the stride"
    return gap


def _phase_weights(
    op: Emit, w: Value, group: int, taps: Sequence[int], phases: Sequence[int]
) -> Value:
    """The weight of :func:`_by_phases`, (taps..., inputs / group, group * phases * outputs):
    zeros behind the last tap, then flipped."""
    inputs, outputs, *kernel = w.type.static_shape
    k = len(kernel)
    behind = [t * s - size for t, s, size in zip(taps, phases, kernel, strict=True)]
    w = op("pad", w, pads=(*[0] * (k + 4), *behind))
    parts = [d for pair in zip(taps, phases, strict=True) for d in pair]
    w = op("reshape", w, shape=(group, inputs // group, outputs, *parts))
    turned = range(3, 3 + 2 * k, 2)
    ends = [-1 if a in turned else d for a, d in enumerate(w.type.static_shape)]
    starts = [w.type.static_shape[a] - 1 if a in turned else 0 for a in range(3 + 2 * k)]
    steps = tuple(-1 if a in turned else 1 for a in range(3 + 2 * k))
    w = op("slice", w, starts=tuple(starts), ends=tuple(ends), steps=steps)
    w = op("transpose", w, perm=(*turned, 1, 0, *(a + 1 for a in turned), 2))
    return op(
        "reshape", w, shape=(*taps, inputs // group, group * math.prod(phases) * outputs)
    )  # fmt: skip


def _spread(op: Emit, x: Value, window: Window) -> Value:
    """`x` with each element followed by (stride - 1) zeros along every spatial axis."""
    if max(window.strides) == 1:
        return x
    n, c, *spatial = x.type.shape
    split = [d for size in spatial for d in (size, 1)]
    ends = [e for s in window.strides for e in (0, s - 1)]
    whole = op("reshape", x, shape=(n, c, *split))
    whole = op("pad", whole, pads=(*[0] * (2 + len(split)), 0, 0, *ends))
    sizes = [size * s for size, s in zip(spatial, window.strides, strict=True)]
    flat = op("reshape", whole, shape=(n, c, *sizes))
    return flat


def _flipped(op: Emit, w: Value, group: int) -> Value:
    """The weight of the equivalent convolution: reversed in space, OIHW."""
    shape = w.type.static_shape
    inputs, outputs, kernel = shape[0], shape[1], shape[2:]
    starts = (0, 0, *(k - 1 for k in kernel))
    ends = (inputs, outputs, *(-1 for _ in kernel))
    reverse = op("slice", w, starts=starts, ends=ends, steps=(1, 1, *(-1 for _ in kernel)))
    split = op("reshape", reverse, shape=(group, inputs // group, outputs, *kernel))
    rest = tuple(range(3, 3 + len(kernel)))
    swapped = op("transpose", split, perm=(0, 2, 1, *rest))
    result = op("reshape", swapped, shape=(group * outputs, inputs // group, *kernel))
    return result


register(
    OpDef(
        "conv_transpose",
        "Every element of x adds the kernel, times it, to the output at its strided place. What is "
        "not finite in x or w may also meet zeros between or behind the elements of the other.",
        (Operand("x"), Operand("w"), Operand("bias", optional=True)),
        _rule, _reference, "contraction",
        (*WINDOW_ATTRS, Attr("group", "int", 1), Attr("output_padding", "ints", ())),
        decompose=_decompose,
    )
)  # fmt: skip
