"""Windows that move along axes: convolutions and pools."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aisc.ir.arith.poly import Dim, product
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import AttrValue, Value
from aisc.ir.graph.shapes.checks import decide
from aisc.ir.rewrite.rules import Match
from aisc.ir.tensor.expr import Var
from aisc.passes.graph.formulas.body import Access, Body, Place
from aisc.passes.graph.formulas.products import factors
from aisc.passes.graph.formulas.values import Indexed, joined, reshaped, transposed

MAX_SPATIAL = 3


@dataclass(frozen=True, slots=True)
class Window:
    """An axis that a window moves along: the index of the result, that of a place in the window
    (if it has several), how far they move, what is missing before the first and after the last."""

    axis: int
    result: Var
    tap: Var | None
    stride: int
    dilation: int
    begin: int
    end: int

    def length(self, body: Body) -> int:
        """Places of the window."""
        count = 1 if self.tap is None else body.extents[self.tap]
        assert isinstance(count, int), "tested when the window was found"
        return count


@dataclass(frozen=True, slots=True)
class Image:
    """An operand whose axes are moved along, or read as they are, by an index each."""

    access: Access
    plain: tuple[tuple[int, Var], ...]
    windows: tuple[Window, ...]

    @property
    def taps(self) -> list[Var]:
        """Indices of places in the windows."""
        return [w.tap for w in self.windows if w.tap is not None]

    @property
    def results(self) -> list[Var]:
        """Indices of the windows themselves."""
        return [w.result for w in self.windows]

    def attrs(self) -> dict[str, AttrValue]:
        """Attributes of the windows."""
        ends = (w.begin for w in self.windows), (w.end for w in self.windows)
        return {
            "strides": tuple(w.stride for w in self.windows),
            "dilations": tuple(w.dilation for w in self.windows),
            "pads": (*ends[0], *ends[1]),
        }


def image_of(body: Body, x: Access, also_plain: Sequence[Var] = ()) -> Image | None:
    """The image that an access reads, `also_plain` being indices of axes besides those of the
    result that no window moves along; nothing for other accesses."""
    plain, windows = list[tuple[int, Var]](), list[Window]()
    for axis, (place, size) in enumerate(zip(x.places, x.value.type.shape, strict=True)):
        own = place.index
        others = [p for p in x.places if p is not place]
        single = own is not None and not any(own in p.factors for p in others)
        kept = own in body.outer or own in also_plain
        if own is not None and single and kept and decide("==", size, body.extents[own]) is True:
            plain.append((axis, own))
            continue
        window = _window(body, axis, place, size)
        if window is None or (x.outside is None and (window.begin or window.end)):
            return None
        windows.append(window)
    return Image(x, tuple(plain), tuple(windows)) if len(windows) <= MAX_SPATIAL else None


def _window(body: Body, axis: int, place: Place, size: Dim) -> Window | None:
    """The window along an axis; nothing for another sum of indices, where elements are left over
    that a step would reach, or where the run must tell."""
    results = [v for v in place.factors if v in body.outer]
    taps = [v for v in place.factors if v in body.inner]
    if len(results) != 1 or len(taps) > 1 or min(place.factors.values()) < 1:
        return None
    count = body.extents[taps[0]] if taps else 1
    if not isinstance(count, int) or count < 1:
        return None
    stride, dilation = place.factors[results[0]], place.factors[taps[0]] if taps else 1
    last = (body.extents[results[0]] + -1) * stride + (count - 1) * dilation
    begin, end = -place.const, last + place.const - size + 1
    if not isinstance(end, int) or begin < 0 or end <= -stride:
        return None
    tap = taps[0] if taps else None
    return Window(axis, results[0], tap, stride, dilation, begin, max(end, 0))


# --- pools ------------------------------------------------------------------------------------
def maximum(body: Body) -> Indexed | None:
    """``max[r]((x[n, 2 * i + r - 1] else -inf))`` as a pool."""
    return pool(body, "max_pool", -math.inf) if body.combiner == "max" else None


def pool(body: Body, op: str, outside: float) -> Indexed | None:
    """The reduction over windows of an image by an operator that takes `outside` for what lies
    there."""
    x = body.access(body.value)
    if x is None or (x.outside is not None and float(x.outside.value) != outside):
        return None
    image = image_of(body, x) if x.value.type.dtype.is_float else None
    if image is None or set(image.taps) != set(body.inner) or not image.windows:
        return None
    results = (*(v for _, v in image.plain), *image.results)
    if sorted(v.name for v in results) != sorted(v.name for v in body.outer):
        return None
    lengths = tuple(w.length(body) for w in image.windows)
    reach = [(n - 1) * w.dilation for n, w in zip(lengths, image.windows, strict=True)]
    if any(max(w.begin, w.end) > r for w, r in zip(image.windows, reach, strict=True)):
        return None
    attrs = image.attrs() | {"kernel_shape": lengths}
    if op == "avg_pool":
        attrs["count_include_pad"] = True

    def emit(m: Match) -> Value:
        order = [*(a for a, _ in image.plain), *(w.axis for w in image.windows)]
        value = transposed(m, x.value, order)
        batch = max(0, len(image.plain) - 1)
        ones = [1] * len(image.windows)
        value = joined(m, value, [batch, len(image.plain) - batch, *ones])
        made = m.add(op, (value,), attrs)
        return reshaped(m, made, tuple(body.extents[v] for v in results))

    return Indexed(results, emit)


# --- convolutions -----------------------------------------------------------------------------
def convolution(body: Body) -> Indexed | None:
    """``sum[c, r, s]((x[n, c, h + r - 1, w + s - 1] else 0) * k[o, c, r, s])``, whatever the order
    of axes, strides, dilations, borders and groups."""
    found = [body.access(f) for f in factors(body.value)]
    if body.combiner != "sum" or len(found) != 2:
        return None
    for x, k in (found, found[::-1]):
        made = None if x is None or k is None else _Convolution.of(body, x, k)
        if made is not None:
            return Indexed(made.axes, made.emit)
    return None


@dataclass(frozen=True, slots=True)
class _Convolution:
    """A convolution. `batch`, `groups`: indices of the image and of the result, the latter of the
    kernel too; `inner`: of channels that are summed over; `channels`: of those of the result."""

    body: Body
    image: Image
    kernel: Access
    batch: list[Var]
    groups: list[Var]
    inner: list[Var]
    channels: list[Var]

    @classmethod
    def of(cls, body: Body, x: Access, k: Access) -> _Convolution | None:
        """The convolution of an image with a kernel; nothing where they are none."""
        weights = [p.index for p in k.places if p.index is not None]
        summed = [v for v in weights if v in body.inner]
        image = image_of(body, x, summed) if k.is_whole(body.extents) else None
        if image is None or not image.taps or (x.outside is not None and x.outside.value != 0):
            return None
        plain = [v for _, v in image.plain]
        found = cls(
            body,
            image,
            k,
            [v for v in plain if v not in weights],
            [v for v in plain if v in weights and v in body.outer],
            [v for v in plain if v in body.inner],
            [v for v in weights if v in body.outer and v not in plain],
        )
        return found if found._is_complete(weights) else None

    def _is_complete(self, weights: Sequence[Var]) -> bool:
        """Whether every index has its one part, and the number of groups is known."""
        read = [*self.groups, *self.inner, *self.image.taps, *self.channels]
        every = [*self.batch, *read, *self.image.results]
        whole = {*self.body.outer, *self.body.inner}
        extents = self.body.extents
        known = all(isinstance(extents[v], int) for v in (*self.groups, *self.channels))
        parts = len(every) == len(whole) and set(every) == whole and set(read) == {*weights}
        return known and parts

    @property
    def axes(self) -> tuple[Var, ...]:
        """The indices of the result in the operator's order."""
        return (*self.batch, *self.groups, *self.channels, *self.image.results)

    def _size(self, indices: Sequence[Var]) -> Dim:
        return product(tuple(self.body.extents[v] for v in indices))

    def emit(self, m: Match) -> Value:
        """The operator ``conv``."""
        axis = {v: a for a, v in self.image.plain}
        order = [axis[v] for v in (*self.batch, *self.groups, *self.inner)]
        windows = self.image.windows
        x = transposed(m, self.image.access.value, [*order, *(w.axis for w in windows)])
        channels = len(self.groups) + len(self.inner)
        x = joined(m, x, [len(self.batch), channels, *[1] * len(windows)])
        made = m.add("conv", (x, self._kernel(m)), self.image.attrs() | {"group": self._count()})
        return reshaped(m, made, tuple(self.body.extents[v] for v in self.axes))

    def _count(self) -> int:
        count = self._size(self.groups)
        assert isinstance(count, int), "tested when the convolution was found"
        return count

    def _kernel(self, m: Match) -> Value:
        """``[channels of the result, channels of a group, places of the windows]``."""
        own = [p.index for p in self.kernel.places]
        order = [*self.groups, *self.channels, *self.inner, *self.image.taps]
        k = transposed(m, self.kernel.value, [own.index(v) for v in order])
        outside, inside = self._size([*self.groups, *self.channels]), self._size(self.inner)
        lengths = (w.length(self.body) for w in self.image.windows)
        return reshaped(m, k, (outside, inside, *lengths))
