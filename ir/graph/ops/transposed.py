"""Transposed convolution: the gradient of a convolution with respect to its input.

Data are NCHW or NHWC; the weight is (inputs, outputs / group, spatial...) for both, as in ONNX.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from aisc.ir.arith.poly import Dim, product
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import AttrValue, Value
from aisc.ir.graph.opdef import Array, Arrays, Attr, OpCall, OpDef, Operand, register
from aisc.ir.graph.ops.elementwise import wide_array
from aisc.ir.graph.shapes import infer
from aisc.ir.graph.shapes.checks import require
from aisc.ir.graph.shapes.spatial import WINDOW_ATTRS, Window, window_of
from aisc.ir.types import TensorType

# What part of the multiply-adds of all phases must have a tap, and channels of each to begin with.
SPARSE, ENOUGH_CHANNELS = 1.25, 16
# What folding costs per result and tap, in multiply-adds: where a cache holds all products, and
# where these are more than `MANY`; and the most taps that are worth it.
FOLDED, FOLDED_FAR, MANY = 6, 16, 1 << 18
MOST_TAPS = 64


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
    window, x, group = _window(call), call.type(0), call.attrs["group"]
    batch, channels, spatial = window.split(x.shape)
    inputs, outputs = infer.static_dims(call, 1, (0, 1))
    require(call, "==", channels, inputs, "channels of the input and of the weight")
    if group < 1 or inputs % group:
        raise call.fail(f"{x} does not fit {group} groups of the weight {call.type(1)}")
    infer.check_shape(call, 2, (outputs * group,))
    sizes: list[Dim] = []
    for a, extra in enumerate(_extra(call, window)):
        size = (spatial[a] - 1) * window.strides[a] + (
            window.reach(a) + extra - window.begins[a] - window.ends[a]
        )
        if isinstance(size, int) and size < 0:
            raise call.fail("the pads remove more than there is")
        require(call, "<=", 0, size, "what the pads leave")
        sizes.append(size)
    return (TensorType(window.join(batch, outputs * group, sizes), t),)


def _reference(call: OpCall, xs: Arrays) -> list[Array]:
    assert xs[0] is not None, "conv_transpose without input"
    assert xs[1] is not None, "conv_transpose without weight"
    x, w, window = wide_array(xs[0]), wide_array(xs[1]), _window(call)
    (result,), group = _rule(call), call.attrs["group"]
    if window.channels_last:
        x = np.moveaxis(x, -1, 1)
    shape = result.static_shape
    if window.channels_last:
        shape = (shape[0], shape[-1], *shape[1:-1])
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
    return [np.moveaxis(out, 1, -1) if window.channels_last else out]


def _decompose(gb: GraphBuilder, call: OpCall, xs: Sequence[Value | None]) -> list[Value]:
    """With a stride of 1, see :func:`_unit`. With p = o + pad, the output at p = q*s + r is ``sum
    over t of x[q - t] * w[t*s + r]``: for each of the s phases r one of stride 1 with every s-th
    tap (Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016), all
    in one, whose channels are then put between each other. Kernels with holes take the image with
    zeros between its elements instead."""
    x, w = xs[0], xs[1]
    assert x is not None, "conv_transpose without input"
    assert w is not None, "conv_transpose without weight"
    bias = xs[2] if len(xs) > 2 else None
    (result,) = _rule(call)
    if 0 in result.shape:  # no window of a convolution would fit
        none = gb.constant(np.zeros((), result.dtype.numpy), "none", call.loc)
        return [gb.add("expand", (none,), {"shape": result.shape}, loc=call.loc)]
    form = _Form(gb, call)
    if max(form.window.strides) > 1 and max(form.window.dilations) == 1:
        return [form.by_phases(x, w, bias)]
    return [form.spread(x, w, bias)]


class _Form:
    """The parts of a decomposition, in either layout."""

    def __init__(self, gb: GraphBuilder, call: OpCall) -> None:
        self.gb, self.call, self.window = gb, call, _window(call)
        self.group: int = call.attrs["group"]
        self.last = self.window.channels_last
        _, _, self.sizes = self.window.split(_rule(call)[0].shape)

    def op(self, name: str, *args: Value, **attrs: AttrValue) -> Value:
        """Append a node."""
        return self.gb.add(name, args, attrs, loc=self.call.loc)

    def join(self, n: Dim, c: Dim, spatial: Sequence[Dim]) -> tuple[Dim, ...]:
        """A shape, or other values per axis, in the call's layout."""
        return self.window.join(n, c, spatial)

    def pads(self, begins: Sequence[int], ends: Sequence[int]) -> tuple[Dim, ...]:
        """Pads of the spatial axes, as those of all."""
        return (*self.join(0, 0, begins), *self.join(0, 0, ends))

    def with_bias(self, y: Value, bias: Value | None) -> Value:
        """`y` with a bias for each channel."""
        if bias is None:
            return y
        shape = self.join(1, bias.type.shape[0], (1,) * self.window.spatial)
        return self.op("add", y, self.op("reshape", bias, shape=shape))

    # -- stride 1 --------------------------------------------------------------------------------
    def unit(
        self, x: Value, w: Value, bias: Value | None, pads: Sequence[int], ends: Sequence[int]
    ) -> Value:
        """Stride 1, `pads` before and `ends` behind cut off the result (negative ones added): a
        convolution of the image with a border; or where most of that would be border, as with
        images hardly larger than the kernel, products of every place with all taps, which are
        then added up where they belong."""
        kernel, steps = w.type.static_shape[2:], self.window.dilations
        reach = [(k - 1) * d for k, d in zip(kernel, steps, strict=True)]
        more = [r - b - e for r, b, e in zip(reach, pads, ends, strict=True)]
        if min((*pads, *ends)) >= 0 and self._is_small(x, w, more):
            return self.with_bias(self._folded(x, w, pads, ends), bias)
        begins = [r - b for r, b in zip(reach, pads, strict=True)]
        ends = [r - e for r, e in zip(reach, ends, strict=True)]
        inputs = [self.op("pad", x, pads=self.pads(begins, ends)), self._flipped(w)]
        inputs += [] if bias is None else [bias]
        layout = self.call.attrs["data_layout"]
        return self.op("conv", *inputs, group=self.group, dilations=steps, data_layout=layout)

    def _is_small(self, x: Value, w: Value, more: Sequence[int]) -> bool:
        """Whether a convolution, which has so many `more` results than places along each axis,
        would read so much border that folding products costs less."""
        _, _, sizes = self.window.split(x.type.shape)
        inputs, outputs, *taps = w.type.static_shape
        if self.group > 1 or infer.accumulator(x.type.dtype) is not x.type.dtype:
            return False
        if not all(isinstance(d, int) for d in sizes) or math.prod(taps) > MOST_TAPS:
            return False
        places = math.prod(d for d in sizes if isinstance(d, int))
        results = math.prod(d + r for d, r in zip(sizes, more, strict=True) if isinstance(d, int))
        cost = FOLDED if places * outputs * math.prod(taps) <= MANY else FOLDED_FAR
        return (results - places) * inputs > cost * results

    def _folded(self, x: Value, w: Value, pads: Sequence[int], ends: Sequence[int]) -> Value:
        n, _, sizes = self.window.split(x.type.shape)
        inputs, outputs, *kernel = w.type.static_shape
        places, columns = product(tuple(sizes)), outputs * math.prod(kernel)
        shape: tuple[Dim, ...]
        if self.last:
            taps = self.op("transpose", w, perm=(0, *range(2, w.type.rank), 1))
            taps = self.op("reshape", taps, shape=(inputs, columns))
            rows = self.op("reshape", x, shape=(n, places, inputs))
            z, shape = self.op("matmul", rows, taps), (n, *sizes, *kernel, outputs)
        else:
            taps = self.op("transpose", self.op("reshape", w, shape=(inputs, columns)), perm=(1, 0))
            rows = self.op("reshape", x, shape=(n, inputs, places))
            z, shape = self.op("matmul", taps, rows), (n, outputs, *kernel, *sizes)
        z = self.op("reshape", z, shape=shape)
        return self.op(
            "fold", z, pads=(*pads, *ends), dilations=self.window.dilations,
            data_layout=self.call.attrs["data_layout"],
        )  # fmt: skip

    def _flipped(self, w: Value) -> Value:
        """The weight of the equivalent convolution: reversed in space, OIHW or HWIO."""
        inputs, outputs, *kernel = w.type.static_shape
        starts = (0, 0, *(k - 1 for k in kernel))
        ends = (inputs, outputs, *(-1 for _ in kernel))
        reverse = self.op("slice", w, starts=starts, ends=ends, steps=(1, 1, *(-1 for _ in kernel)))
        group, rest = self.group, tuple(range(3, 3 + len(kernel)))
        split = self.op("reshape", reverse, shape=(group, inputs // group, outputs, *kernel))
        if self.last:
            swapped = self.op("transpose", split, perm=(*rest, 1, 0, 2))
            return self.op("reshape", swapped, shape=(*kernel, inputs // group, group * outputs))
        swapped = self.op("transpose", split, perm=(0, 2, 1, *rest))
        return self.op("reshape", swapped, shape=(group * outputs, inputs // group, *kernel))

    # -- strides ---------------------------------------------------------------------------------
    def spread(self, x: Value, w: Value, bias: Value | None) -> Value:
        """The image with each element followed by (stride - 1) zeros along every spatial axis,
        then as with a stride of 1."""
        window = self.window
        if max(window.strides) > 1:
            n, c, sizes = window.split(x.type.shape)
            split = [d for size in sizes for d in (size, 1)]
            behind = [e for s in window.strides for e in (0, s - 1)]
            x = self.op("reshape", x, shape=self.join(n, c, split))
            none = [0] * len(split)
            x = self.op("pad", x, pads=self.pads(none, behind))
            whole = [size * s for size, s in zip(sizes, window.strides, strict=True)]
            x = self.op("reshape", x, shape=self.join(n, c, whole))
        ends = [
            e + (s - 1) - extra
            for e, s, extra in zip(
                window.ends, window.strides, _extra(self.call, window), strict=True
            )
        ]
        return self.unit(x, w, bias, window.begins, ends)

    def by_phases(self, x: Value, w: Value, bias: Value | None) -> Value:
        """One transposed convolution of stride 1 for all phases, which are then put between each
        other; a kernel shorter than the stride has no taps for the last phases. What lies between
        the pads in no phase is not computed."""
        window = self.window
        phases = [min(k, s) for k, s in zip(window.kernel, window.strides, strict=True)]
        w = self._phase_weights(w, phases)
        cuts, ends, turns = self._phase_pads(x, w)
        begins = [b - c * s for b, c, s in zip(window.begins, cuts, window.strides, strict=True)]
        whole = [q * s for q, s in zip(turns, window.strides, strict=True)]
        more = [b + d - e for b, d, e in zip(begins, self.sizes, whole, strict=True)]
        behind = [d if isinstance(d, int) and d > 0 else 0 for d in more]
        # Where no tap comes there is still the bias.
        full = list(window.strides) == phases and not any(behind)
        none = [0] * window.spatial
        if self._is_sparse(w, phases):
            y = self._one_by_one(x, w, bias if full else None, phases, cuts, ends)
        else:
            inner = self._phase_bias(bias, phases) if bias is not None and full else None
            y = self.unit(x, w, inner, cuts, ends)
        y = self._put_together(y, phases)
        if any(behind):
            y = self.op("pad", y, pads=self.pads(none, behind))
        y = self._cut(y, begins)
        return y if full else self.with_bias(y, bias)

    def _phase_pads(self, x: Value, w: Value) -> tuple[list[int], list[int], list[Dim]]:
        """What is cut off all phases before and behind, and the places of a phase that are left."""
        window, cuts, ends, turns = self.window, list[int](), list[int](), list[Dim]()
        _, _, sizes = window.split(x.type.shape)
        for a, (size, taps) in enumerate(zip(sizes, w.type.static_shape[2:], strict=True)):
            begin, stride = window.begins[a], window.strides[a]
            behind = size + (taps - 1) - (begin + self.sizes[a] + (stride - 1)) // stride
            cuts.append(begin // stride)
            ends.append(max(0, behind) if isinstance(behind, int) else 0)
            turns.append(size + (taps - 1) - cuts[-1] - ends[-1])
        return cuts, ends, turns

    def _is_sparse(self, w: Value, phases: Sequence[int]) -> bool:
        """Whether so many taps of :meth:`_phase_weights` are none that phases are better computed
        each for itself, as with a kernel of 3 and a stride of 2; each needs outputs enough."""
        inputs, outputs, *taps = w.type.static_shape
        every, own = math.prod(taps) * math.prod(phases), math.prod(self.window.kernel)
        enough = min(inputs, outputs // math.prod(phases)) >= ENOUGH_CHANNELS
        return self.group == 1 and enough and every > SPARSE * own

    def _one_by_one(
        self, x: Value, w: Value, bias: Value | None, phases: Sequence[int], cuts: Sequence[int],
        behind: Sequence[int],
    ) -> Value:  # fmt: skip
        """All phases, each with no more taps than it has, as channels."""
        kernel, strides = self.window.kernel, self.window.strides
        inputs, every, *most = w.type.static_shape
        outputs, results = every // math.prod(phases), []
        for number, phase in enumerate(itertools.product(*map(range, phases))):
            own = [-(-(k - r) // s) for k, r, s in zip(kernel, phase, strides, strict=True)]
            part = self.op(
                "slice", w, starts=(0, number * outputs, *[0] * len(own)),
                ends=(inputs, (number + 1) * outputs, *own), steps=(1,) * w.type.rank,
            )  # fmt: skip
            ends = [t - m + e for t, m, e in zip(own, most, behind, strict=True)]
            results.append(self.unit(x, part, bias, cuts, ends))
        return self.op("concat", *results, axis=self.window.channel_axis)

    def _phase_weights(self, w: Value, phases: Sequence[int]) -> Value:
        """The weight of :meth:`by_phases`, (inputs, phases * outputs, taps...), zeros behind the
        last tap."""
        inputs, outputs, *kernel = w.type.static_shape
        taps = [-(-k // s) for k, s in zip(kernel, self.window.strides, strict=True)]
        behind = [t * r - k for t, r, k in zip(taps, phases, kernel, strict=True)]
        w = self.op("pad", w, pads=(*[0] * (len(kernel) + 4), *behind))
        parts = [d for pair in zip(taps, phases, strict=True) for d in pair]
        w = self.op("reshape", w, shape=(inputs, outputs, *parts))
        each = range(2, 2 + 2 * len(kernel), 2)
        w = self.op("transpose", w, perm=(0, *(a + 1 for a in each), 1, *each))
        return self.op("reshape", w, shape=(inputs, math.prod(phases) * outputs, *taps))

    def _phase_bias(self, bias: Value, phases: Sequence[int]) -> Value:
        """The bias of every output for each of its phases."""
        (every,) = bias.type.static_shape
        split = self.op("reshape", bias, shape=(self.group, 1, every // self.group))
        shape = (self.group, math.prod(phases), every // self.group)
        split = self.op("expand", split, shape=shape)
        return self.op("reshape", split, shape=(math.prod(shape),))

    def _put_together(self, y: Value, phases: Sequence[int]) -> Value:
        """The image of its phases, which are channels: (group, phases..., outputs)."""
        n, c, sizes = self.window.split(y.type.shape)
        k, strides = self.window.spatial, self.window.strides
        assert isinstance(c, int), "channels are known"
        outputs = c // (self.group * math.prod(phases))
        channels = (self.group, *phases, outputs)
        if self.last:
            y = self.op("reshape", y, shape=(n, *sizes, *channels))
            between = [axis for a in range(k) for axis in (1 + a, 2 + k + a)]
            y = self.op("transpose", y, perm=(0, *between, 1 + k, 2 + 2 * k))
        else:
            y = self.op("reshape", y, shape=(n, *channels, *sizes))
            between = [axis for a in range(k) for axis in (3 + k + a, 2 + a)]
            y = self.op("transpose", y, perm=(0, 1, 2 + k, *between))
        if list(strides) != phases:
            behind = [e for r, s in zip(phases, strides, strict=True) for e in (0, s - r)]
            y = self.op("pad", y, pads=self._between_pads(behind))
        whole = [q * s for q, s in zip(sizes, strides, strict=True)]
        return self.op("reshape", y, shape=self.join(n, self.group * outputs, whole))

    def _between_pads(self, behind: Sequence[int]) -> tuple[int, ...]:
        """Pads of (n, sizes and phases in turn, group, outputs), or with channels first."""
        none = (0,) * (3 + len(behind))
        ends = (0, *behind, 0, 0) if self.last else (0, 0, 0, *behind)
        return (*none, *ends)

    def _cut(self, y: Value, begins: Sequence[int]) -> Value:
        """What is left between the pads, which begin with so many elements."""
        ends = [b + d for b, d in zip(begins, self.sizes, strict=True)]
        n, c, _ = self.window.split(y.type.shape)
        return self.op(
            "slice", y, starts=self.join(0, 0, begins), ends=self.join(n, c, ends),
            steps=(1,) * y.type.rank,
        )  # fmt: skip


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
