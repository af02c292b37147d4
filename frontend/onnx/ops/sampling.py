"""ONNX GridSample: values between the elements of an image, at places that data give."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.onnx.fitting import fitted
from aisc.frontend.onnx.node import Node, onnx_op
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, product
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Value

_MODES = {"bilinear": "linear", "bicubic": "cubic"}
ALPHA = -0.75  # of the cubic kernel (Keys 1981)


@dataclass(frozen=True, slots=True)
class _Tap:
    """Along one axis: the index of an element, its weight (``None`` for 1) and whether it is there
    (``None`` where it always is)."""

    index: Value
    weight: Value | None
    inside: Value | None


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of the image: its size as a scalar, and how places beyond it count."""

    em: Emitter
    size: Value
    padding: str
    corners: bool

    def _op(self, op: str, *values: Value | float) -> Value:
        like = next(v for v in values if isinstance(v, Value))
        operands = (v if isinstance(v, Value) else self.em.like(v, like) for v in values)
        return self.em.op(op, *operands)

    def place(self, x: Value) -> Value:
        """A coordinate from -1 to 1 as a place among the elements."""
        if self.corners:
            return self._op("mul", self._op("mul", self._op("add", x, 1), 0.5), self.last)
        wide = self._op("mul", self._op("add", x, 1), self.size)
        return self._op("mul", self._op("sub", wide, 1), 0.5)

    @property
    def last(self) -> Value:
        """The last place."""
        return self._op("sub", self.size, 1)

    def folded(self, x: Value) -> Value:
        """A place beyond the axis moved into it, as the padding says."""
        if self.padding == "border":
            return self._clamped(x)
        if self.padding != "reflection":
            return x
        low = self.em.like(0.0 if self.corners else -0.5, x)
        span = self._op("max", self.last if self.corners else self.size, 1e-6)
        away = self._op("abs", self._op("sub", x, low))
        turns = self._op("floor", self._op("div", away, span))
        rest = self._op("sub", away, self._op("mul", turns, span))
        half = self._op("mul", turns, 0.5)
        odd = self._op("greater", self._op("sub", half, self._op("floor", half)), 0.25)
        back = self.em.op("where", odd, self._op("sub", span, rest), rest)
        return self._op("add", back, low)

    def _clamped(self, x: Value) -> Value:
        return self._op("min", self._op("max", x, 0), self.last)

    def tap(self, at: Value, weight: Value | None) -> _Tap:
        """The element at a whole place, which may lie outside."""
        inside = None
        if self.padding == "zeros":
            low = self._op("less_equal", self.em.like(0, at), at)
            inside = self.em.op("and", low, self._op("less_equal", at, self.last))
        elif self.padding == "reflection":
            # Whole places reflect to whole ones; the rounding of the borders' halves is undone.
            at = self._op("floor", self._op("add", self.folded(at), 1e-3))
        return _Tap(self.em.cast(self._clamped(at), dtypes.i64), weight, inside)

    def taps(self, x: Value, mode: str) -> list[_Tap]:
        """What a place takes part of."""
        if mode == "nearest":
            return [self.tap(self.folded(self.em.op("round", x)), None)]
        if mode == "linear":
            x = self.folded(x)  # else each element that takes part is folded, as PyTorch does
        first = self.em.op("floor", x)
        t = self._op("sub", x, first)
        if mode == "linear":
            weights = [self._op("sub", 1, t), t]
            return [self.tap(self._op("add", first, k), w) for k, w in enumerate(weights)]
        pairs = [self._cubic(self._op("abs", self._op("sub", t, k))) for k in (-1, 0, 1, 2)]
        far = (0, 3)
        parts = [w[1] if k in far else w[0] for k, w in enumerate(pairs)]
        return [self.tap(self._op("add", first, k - 1), w) for k, w in enumerate(parts)]

    def _cubic(self, d: Value) -> tuple[Value, Value]:
        """The kernel at a distance up to 1, and at one from 1 to 2."""

        def horner(*factors: float) -> Value:
            total = self._op("add", self._op("mul", d, factors[0]), factors[1])
            for f in factors[2:]:
                total = self._op("add", self._op("mul", total, d), f)
            return total

        a = ALPHA
        return horner(a + 2, -(a + 3), 0, 1), horner(a, -5 * a, 8 * a, -4 * a)


@onnx_op("GridSample")
def _grid_sample(em: Emitter, node: Node) -> Value:
    x, grid = node.input(0), node.input(1)
    mode, padding = node.text("mode", "linear"), node.text("padding_mode", "zeros")
    mode, corners = _MODES.get(mode, mode), node.flag("align_corners")
    rank = x.type.rank - 2
    if rank < 1 or grid.type.rank != x.type.rank:
        raise node.malformed(f"a grid {grid.type} does not fit {x.type}")
    reason = f"a grid {grid.type} does not fit {x.type}"
    grid = fitted(em, node, grid, (*grid.type.shape[:-1], rank), reason)
    if mode not in ("nearest", "linear", "cubic") or padding not in (
        "zeros", "border", "reflection",
    ):  # fmt: skip
        raise node.malformed(f"mode '{mode}' with padding '{padding}'")
    x = em.not_empty(x, range(2, x.type.rank))
    grid = em.cast(grid, dtypes.f32) if grid.type.dtype.bits < 32 else grid
    taps: list[list[_Tap]] = []
    for k, size in enumerate(x.type.shape[2:]):
        number = em.cast(em.reshape(em.dims_value([size]), ()), grid.type.dtype)
        axis = _Axis(em, number, padding, corners)
        at = em.slice_axis(grid, rank + 1, rank - 1 - k, rank - k)  # the last axis comes first
        taps.append(axis.taps(axis.place(em.reshape(at, grid.type.shape[:-1])), mode))
    return _weighted(em, x, taps)


def _weighted(em: Emitter, x: Value, taps: Sequence[Sequence[_Tap]]) -> Value:
    """The weighted sum of elements over all combinations of taps of the axes."""
    n, c, *sizes = x.type.shape
    rank = len(sizes)
    last = em.transpose(x, (0, *range(2, rank + 2), 1))
    rows = em.reshape(last, (n, product(tuple(sizes)), c))
    total: Value | None = None
    for chosen in itertools.product(*taps):
        part = _element(em, rows, sizes, chosen)
        total = part if total is None else em.op("add", total, part)
    assert total is not None, "an axis has at least one tap"
    return em.cast(em.transpose(total, (0, rank + 1, *range(1, rank + 1))), x.type.dtype)


def _element(em: Emitter, rows: Value, sizes: Sequence[Dim], chosen: Sequence[_Tap]) -> Value:
    index = chosen[0].index
    for size, tap in zip(sizes[1:], chosen[1:], strict=True):
        wide = em.op("mul", index, em.reshape(em.dims_value([size]), ()))
        index = em.op("add", wide, tap.index)
    column = (*index.type.shape, 1)
    part = em.op("gather_nd", rows, em.reshape(index, column), batch_dims=1)
    for tap in chosen:
        if tap.weight is not None:
            part = em.op("mul", part, em.cast(em.reshape(tap.weight, column), part.type.dtype))
        if tap.inside is not None:
            inside = em.reshape(tap.inside, column)
            part = em.op("where", inside, part, em.like(0, part))
    return part
