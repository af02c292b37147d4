"""Transposed convolution: the gradient of a convolution with respect to its input.

Data are NCHW; the weight is (inputs, outputs / group, spatial...), as in ONNX.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from aisc.ir.arith.poly import Dim
from aisc.ir.graph import infer
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import AttrValue, Value
from aisc.ir.graph.opdef import Array, Arrays, Attr, OpCall, OpDef, Operand, register
from aisc.ir.graph.ops.elementwise import wide_array
from aisc.ir.graph.spatial import WINDOW_ATTRS, Window, window_of
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
    if x.shape[1] != inputs or group < 1 or inputs % group:
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
    grouped = x.reshape(x.shape[0], group, -1, *x.shape[2:])
    weights = w.reshape(group, -1, w.shape[1], int(np.prod(window.kernel)))
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
    """Spread x with zeros between its elements, then convolve with the flipped weight. Where
    the places of the kernel do not overlap, one product and a rearrangement do."""
    x, w, window = xs[0], xs[1], _window(call)
    assert x is not None, "conv_transpose without input"
    assert w is not None, "conv_transpose without weight"
    if _is_disjoint(call, window):
        return [_as_product(gb, call, x, w, xs[2] if len(xs) > 2 else None)]

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
    inputs += [b for b in xs[2:] if b is not None]
    group, dilations = call.attrs["group"], window.dilations
    return [gb.add("conv", inputs, {"group": group, "dilations": dilations}, loc=call.loc)]


def _is_disjoint(call: OpCall, window: Window) -> bool:
    """Whether each output element comes from one input element, and none is cut off."""
    extra, ones = _extra(call, window), (1,) * window.spatial
    pads = (*window.begins, *window.ends, *extra)
    plain = window.kernel == window.strides and window.dilations == ones
    return plain and not any(pads) and call.attrs["group"] == 1


def _as_product(gb: GraphBuilder, call: OpCall, x: Value, w: Value, bias: Value | None) -> Value:
    """``x[n, at, i] @ w[i, taps * o]``, whose columns are then put in their places."""

    def op(name: str, *args: Value, **attrs: AttrValue) -> Value:
        return gb.add(name, args, attrs, loc=call.loc)

    n, inputs, *at = x.type.shape
    outputs, *kernel = w.type.static_shape[1:]
    k = len(kernel)
    last = (0, *range(2, k + 2), 1)
    columns = op("transpose", w, perm=last)
    taps = math.prod(kernel)
    matrix = op("reshape", columns, shape=(inputs, taps * outputs))
    wide = op("matmul", op("transpose", x, perm=last), matrix)
    if bias is not None:
        every = op("expand", op("reshape", bias, shape=(1, outputs)), shape=(taps, outputs))
        wide = op("add", wide, op("reshape", every, shape=(taps * outputs,)))
    split = op("reshape", wide, shape=(n, *at, *kernel, outputs))
    order = [axis for a in range(k) for axis in (1 + a, 1 + k + a)]
    placed = op("transpose", split, perm=(0, *order, 2 * k + 1))
    sizes = [d * size for d, size in zip(at, kernel, strict=True)]
    whole = op("reshape", placed, shape=(n, *sizes, outputs))
    return op("transpose", whole, perm=(0, k + 1, *range(1, k + 1)))


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
        "Every element of x adds the kernel, times it, to the output at its strided place.",
        (Operand("x"), Operand("w"), Operand("bias", optional=True)),
        _rule, _reference, "contraction",
        (*WINDOW_ATTRS, Attr("group", "int", 1), Attr("output_padding", "ints", ())),
        decompose=_decompose,
    )
)  # fmt: skip
