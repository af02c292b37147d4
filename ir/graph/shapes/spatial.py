"""Geometry of windows that slide over spatial axes: convolutions and pools.

With `data_layout` NCHW a tensor is (batch, channels, spatial...), with NHWC (batch, spatial...,
channels), for any number of spatial axes. Pads are given as all begins, then all ends.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aisc.ir.arith.poly import Dim, bounds, ceildiv, floordiv, minimum
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.opdef import Array, Attr, OpCall
from aisc.ir.graph.shapes.checks import require
from aisc.ir.tensor.expr import Binary, Const, Expr, logical_and, of_dim
from aisc.ir.types import TensorType

WINDOW_ATTRS = (
    Attr("strides", "ints", ()),
    Attr("pads", "ints", ()),
    Attr("dilations", "ints", ()),
    Attr("data_layout", "str", "NCHW", ("NCHW", "NHWC")),
)


@dataclass(frozen=True, slots=True)
class Window:
    """A sliding window: per spatial axis the kernel size, stride, dilation and both pads."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    channels_last: bool
    ceil_mode: bool = False

    @property
    def spatial(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def is_padded(self) -> bool:
        """True when any pad is not zero."""
        return any(self.begins) or any(self.ends)

    @property
    def channel_axis(self) -> int:
        """Position of the channels."""
        return self.spatial + 1 if self.channels_last else 1

    @property
    def first_spatial(self) -> int:
        """Position of the first spatial axis."""
        return 1 if self.channels_last else 2

    def split(self, items: Sequence[Dim]) -> tuple[Dim, Dim, tuple[Dim, ...]]:
        """(batch, channels, spatial) of a shape."""
        first = self.first_spatial
        return items[0], items[self.channel_axis], tuple(items[first : first + self.spatial])

    def join(self, n: Dim, c: Dim, spatial: Sequence[Dim]) -> tuple[Dim, ...]:
        """A shape in this layout."""
        return (n, *spatial, c) if self.channels_last else (n, c, *spatial)

    def at(self, n: Expr, c: Sequence[Expr], spatial: Sequence[Expr]) -> tuple[Expr, ...]:
        """Indices in this layout; the channel may have several coordinates."""
        return (n, *spatial, *c) if self.channels_last else (n, *c, *spatial)

    def parts(self, index: Sequence[Expr]) -> tuple[Expr, Expr, tuple[Expr, ...]]:
        """(batch, channel, spatial) of indices in this layout."""
        first = self.first_spatial
        return index[0], index[self.channel_axis], tuple(index[first : first + self.spatial])

    def output(self, axis: int, size: Dim) -> Dim:
        """Output size along a spatial axis.

        In `ceil_mode` the last window may reach past the padded end, but must start before it.
        """
        stride = self.strides[axis]
        room = size + (self.begins[axis] + self.ends[axis] - self.reach(axis))
        if not self.ceil_mode:
            return floordiv(room, stride) + 1
        return minimum(ceildiv(room, stride) + 1, ceildiv(size + self.begins[axis], stride))

    def source(self, axis: int, out: Expr, tap: Expr) -> Expr:
        """Input index (before padding is taken off) that window position `out` reads at `tap`."""
        return out * self.strides[axis] + tap * self.dilations[axis]

    def reach(self, axis: int) -> int:
        """Places from the first to the last tap."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def inside(self, positions: Sequence[Expr], sizes: Sequence[Dim], beyond: bool = False) -> Expr:
        """Whether every position lies in ``[0, size)``; trivially true tests are left out. Those
        along the last axis may be `beyond` the end of what is padded."""
        tests: list[Expr] = []
        for axis, (p, size) in enumerate(zip(positions, sizes, strict=True)):
            if self.begins[axis] > 0:
                tests.append(Binary("ge", p, Const(0)))
            if self.ends[axis] > 0 or self.ceil_mode or (beyond and axis == len(sizes) - 1):
                tests.append(Binary("lt", p, of_dim(size)))
        return logical_and(*tests)


def window_of(call: OpCall, kernel: tuple[int, ...], ceil_mode: bool = False) -> Window:
    """The window of a call; E203 on attributes of the wrong length or sign."""
    k = len(kernel)
    strides = tuple(call.attrs.get("strides", ())) or (1,) * k
    dilations = tuple(call.attrs["dilations"]) or (1,) * k
    pads = tuple(call.attrs["pads"]) or (0,) * (2 * k)
    if len(strides) != k or len(dilations) != k or len(pads) != 2 * k:
        raise call.fail(f"strides, dilations or pads do not fit {k} spatial axes", code="E203")
    if min((*kernel, *strides, *dilations, 1)) < 1 or min((*pads, 0)) < 0:
        raise call.fail("sizes must be positive and pads not negative", code="E203")
    last = call.attrs["data_layout"] == "NHWC"
    return Window(kernel, strides, dilations, pads[:k], pads[k:], last, ceil_mode)


def output_type(call: OpCall, window: Window, x: TensorType, channels: Dim) -> TensorType:
    """The type of a window operator's result; E201 when a window does not fit its input."""
    n, _, spatial = window.split(x.shape)
    sizes = [window.output(a, d) for a, d in enumerate(spatial)]
    for size, given in zip(sizes, spatial, strict=True):
        if bounds(size)[1] <= 0 and bounds(given)[0] > 0:
            raise call.fail(f"the window does not fit an input of size {given}")
        require(call, "<=", 0, _at_least_zero(size), f"windows over a size of {given}")
    return TensorType(window.join(n, channels, [_at_least_zero(s) for s in sizes]), x.dtype)


def _at_least_zero(size: Dim) -> Dim:
    return max(size, 0) if isinstance(size, int) else size


def padded(x: Array, window: Window, fill: float) -> tuple[Array, tuple[int, ...]]:
    """`x` padded with `fill` so that every window is inside, and the output sizes (reference)."""
    first = window.first_spatial
    pad = [(0, 0)] * x.ndim
    sizes = []
    for a in range(window.spatial):
        size = window.output(a, x.shape[first + a])
        assert isinstance(size, int), "a reference needs sizes"
        size = max(size, 0)
        reach = window.reach(a)
        end = max(0, (size - 1) * window.strides[a] + reach - x.shape[first + a] - window.begins[a])
        pad[first + a] = (window.begins[a], end)
        sizes.append(size)
    return np.pad(x, pad, constant_values=fill), tuple(sizes)


def tap_slice(window: Window, tap: Sequence[int], sizes: Sequence[int]) -> tuple[slice, ...]:
    """The slice of a padded input that all windows read at one position `tap` of the kernel."""
    cut = []
    for a, (t, size) in enumerate(zip(tap, sizes, strict=True)):
        start, step = t * window.dilations[a], window.strides[a]
        cut.append(slice(start, start + max(size - 1, 0) * step + min(size, 1), step))
    lead = (slice(None),) * window.first_spatial
    return (*lead, *cut)
