"""Convolutions whose windows lie mostly in the padding.

Dilated kernels over small images, as in the pyramids of segmentation networks, have taps that see
the image from a few places or from none. Those that see nothing are dropped; where others see
little, each tap is a convolution of its own, over what it sees.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import AttrValue, Value
from aisc.ir.graph.opdef import call_of
from aisc.ir.graph.ops.convolution import conv_window
from aisc.ir.graph.shapes.spatial import Window
from aisc.ir.rewrite.rules import Match, rule

# The part of windows and taps that must see the image, and input channels, for one convolution
# not to be better as several: each writes results, or adds to them.
WORTH_WHOLE, LEAST_CHANNELS = 0.6, 32


@dataclass(frozen=True, slots=True)
class _Axis:
    """A spatial axis of a convolution of known sizes."""

    size: int
    results: int
    kernel: int
    stride: int
    dilation: int
    begin: int

    def seen(self, tap: int) -> tuple[int, int]:
        """The results for which a tap lies in the image, from the first to behind the last."""
        offset = tap * self.dilation - self.begin
        low = max(0, -(offset // self.stride))
        high = min(self.results, (self.size - 1 - offset) // self.stride + 1)
        return (low, high) if low < high else (0, 0)

    @property
    def taps(self) -> tuple[int, int]:
        """The taps that see anything, from the first to behind the last."""
        found = [t for t in range(self.kernel) if self.seen(t) != (0, 0)]
        return (found[0], found[-1] + 1) if found else (0, 0)

    @property
    def part(self) -> float:
        """The part of windows and taps that sees the image."""
        each = [high - low for low, high in map(self.seen, range(self.kernel))]
        return sum(each) / max(1, self.kernel * self.results)


@dataclass(frozen=True, slots=True)
class _Image:
    """A convolution with its axes, where all sizes are known."""

    m: Match
    window: Window
    axes: tuple[_Axis, ...]

    def place(self, axis: int) -> int:
        """The axis of the image that is spatial axis `axis`."""
        return self.window.first_spatial + axis

    def cut(self, v: Value, place: int, low: int, high: int) -> Value:
        """`v` from `low` to `high` along an axis."""
        starts, ends = [0] * v.type.rank, list(v.type.shape)
        starts[place], ends[place] = low, high
        if starts[place] == 0 and ends[place] == v.type.shape[place]:
            return v
        attrs: dict[str, AttrValue] = {
            "starts": tuple(starts), "ends": tuple(ends), "steps": (1,) * v.type.rank
        }  # fmt: skip
        return self.m.add("slice", (v,), attrs)

    def taps(self, w: Value, axis: int, low: int, high: int) -> Value:
        """Some taps of the weight along a spatial axis."""
        return self.cut(w, axis if self.window.channels_last else axis + 2, low, high)

    def attrs(self, axis: int, begin: int, end: int) -> dict[str, AttrValue]:
        """The convolution's attributes with other pads along an axis."""
        begins, ends = list(self.window.begins), list(self.window.ends)
        begins[axis], ends[axis] = begin, end
        return {**self.m.node.attr_map, "pads": (*begins, *ends)}


def _image(m: Match) -> _Image | None:
    """A convolution of known sizes among zeros with finite constant weights: what is not finite
    meets the zeros of the padding."""
    window = conv_window(call_of(m.node))
    blob = m.constant(m.node.inputs[1])
    if not window.is_padded or blob is None or not np.isfinite(blob.array).all():
        return None
    if m.node.attr_map.get("fill", 0):
        return None
    _, _, sizes = window.split(m.node.input_values[0].type.shape)
    _, _, results = window.split(m.node.output.type.shape)
    axes = [
        _Axis(d, n, k, s, step, b)
        for d, n, k, s, step, b in zip(
            sizes, results, window.kernel, window.strides, window.dilations, window.begins,
            strict=True,
        )
        if isinstance(d, int) and isinstance(n, int) and d > 0 and n > 0
    ]  # fmt: skip
    return _Image(m, window, tuple(axes)) if len(axes) == window.spatial else None


@rule("conv")
def drop_taps(m: Match) -> Sequence[Value] | None:
    """``conv(x, w[0:3], pads=[9, 9]) -> conv(x, w[1:2])`` where the other taps lie in the padding
    for every result."""
    image = _image(m)
    for a, axis in enumerate(image.axes if image else ()):
        first, behind = axis.taps
        if behind == 0 or (first, behind) == (0, axis.kernel):
            continue
        assert image is not None, "it has axes"
        x, w = m.node.input_values[:2]
        low = first * axis.dilation - axis.begin
        high = (axis.results - 1) * axis.stride + (behind - 1) * axis.dilation - axis.begin + 1
        x = image.cut(x, image.place(a), max(0, low), min(axis.size, high))
        w = image.taps(w, a, first, behind)
        attrs = image.attrs(a, max(0, -low), max(0, high - axis.size))
        return (m.add("conv", (x, w, *m.node.inputs[2:]), attrs),)
    return None


@rule("conv")
def split_taps(m: Match) -> Sequence[Value] | None:
    """``conv(x, w[0:3], dilations=[12]) -> conv(x, w[1:2]) + pad(conv(x[:4], w[0:1])) + …`` where
    most taps see little of the image."""
    image = _image(m)
    if image is None or m.node.attr("group") != 1:
        return None
    _, inputs, _ = image.window.split(m.node.input_values[0].type.shape)
    least = min(image.axes, key=lambda axis: axis.part)
    a = image.axes.index(least)
    if not isinstance(inputs, int) or inputs < LEAST_CHANNELS or least.part > WORTH_WHOLE:
        return None
    total: Value | None = None
    # The tap that sees most comes first: the bias is its own.
    for tap in sorted(range(least.kernel), key=lambda t: least.seen(t)[0] - least.seen(t)[1]):
        part = _tap(image, a, tap, m.node.inputs[2:] if total is None else ())
        if part is not None:
            total = part if total is None else m.add("add", (total, part))
    return None if total is None else (total,)


def _tap(image: _Image, a: int, tap: int, bias: Sequence[Value | None]) -> Value | None:
    """The convolution of one tap along an axis, among zeros; nothing where it sees nothing."""
    axis, m = image.axes[a], image.m
    x, w = m.node.input_values[:2]
    low, high = axis.seen(tap)
    if low == high or (bias and (low, high) != (0, axis.results)):
        return None if low == high else _with_bias(image, a, tap, bias)
    start = low * axis.stride + tap * axis.dilation - axis.begin
    x = image.cut(x, image.place(a), start, start + (high - low - 1) * axis.stride + 1)
    y = m.add("conv", (x, image.taps(w, a, tap, tap + 1), *bias), image.attrs(a, 0, 0))
    if (low, high) == (0, axis.results):
        return y
    rank, place = y.type.rank, image.place(a)
    pads = [0] * (2 * rank)
    pads[place], pads[rank + place] = low, axis.results - high
    return m.add("pad", (y,), {"pads": tuple(pads)})


def _with_bias(image: _Image, a: int, tap: int, bias: Sequence[Value | None]) -> Value | None:
    """One tap that does not see all of the image, and the bias everywhere."""
    part = _tap(image, a, tap, ())
    (b,) = bias
    if part is None or b is None:
        return part
    window = image.window
    shape = window.join(1, b.type.shape[0], (1,) * window.spatial)
    return image.m.add("add", (part, image.m.add("reshape", (b,), {"shape": shape})))


RULES = (drop_taps, split_taps)
