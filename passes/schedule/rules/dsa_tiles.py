"""Which tiles a systolic array computes a product by: all that fit its memories are compared by a
model of how long its units take.

The array needs a cycle for each row and as many for each change of weights; what moves in and out
is divided by the widths of the engines. Units work side by side: the busiest one counts, and what
nothing can hide before it starts and after it ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from math import prod

from aisc.ir.accelerator import ACCUMULATOR, SCRATCHPAD, Accelerator
from aisc.ir.diagnostics import error
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.variants.systolic import Tiles
from aisc.passes.schedule.variants.systolic_form import Form, Side, size_of

# Options that are offered to a search.
OFFERED = 16
# The part of the work of other units that the busiest one does not hide.
EXPOSED = 8
# Sizes of blocks that are looked at.
BLOCKS = 6
# Tiles of weights in a request, and requests that have room in the scratchpad.
TOGETHER, RING = 8, 4


def best_tiles(form: Form, d: Chooser) -> Tiles:
    """The tiles of a product; E402 where none fit the memories of the target."""
    chip = d.target.chip
    if chip is None:
        raise error("E402", f"the description of {d.target.name} has no [array]")
    room = d.target.memory(SCRATCHPAD).bytes, d.target.memory(ACCUMULATOR).bytes
    found = _ranked(_Product.of(form, chip), chip, room)
    if not found:
        raise error("E402", f"no tile of {form.block.name} fits the memories of {d.target.name}")
    options = [_choice(t) for t in found]
    picked = d.pick(f"{form.block.name}.tiles", options, options[0])
    return found[options.index(picked)]


@lru_cache(maxsize=1024)
def _ranked(product: _Product, chip: Accelerator, room: tuple[int, int]) -> tuple[Tiles, ...]:
    """The best tiles, by the model, that fit a scratchpad and accumulators of so many bytes."""
    fitting = dict.fromkeys(_fitting(product, chip, room))
    timed = sorted((product.time(t, chip), k, t) for k, t in enumerate(fitting))
    return tuple(t for _, _, t in timed[:OFFERED])


def _choice(t: Tiles) -> tuple[int, ...]:
    return t.p, t.q, t.columns, t.deep, t.data, t.sums


@dataclass(frozen=True, slots=True)
class _Axis:
    """Rows along a side: how many, and what a block of some reads."""

    total: int
    stride: int = 1
    window: int = 1
    walks: bool = False

    @staticmethod
    def of(side: Side | None) -> _Axis:
        """Of a side of a product."""
        if side is None:
            return _Axis(1)
        window = 1 + sum(c * (size_of(r) - 1) for r, c in side.window.items())
        return _Axis(size_of(side.axis), side.stride, window, side.is_window)

    def needed(self, rows: int) -> int:
        """Rows of the data for some of the results."""
        return self.stride * (rows - 1) + self.window if self.walks else rows


@dataclass(frozen=True, slots=True)
class _Product:
    """The sizes of a product, in elements and in tiles, and bytes of its elements."""

    outer: int
    p: _Axis
    q: _Axis
    n: int
    k: int
    window: int
    sums: int
    tiles_n: int
    tiles_k: int
    data_bytes: int
    weight_bytes: int
    sum_bytes: int
    out_bytes: int

    @staticmethod
    def of(form: Form, chip: Accelerator) -> _Product:
        """Of a contraction."""
        n, k = size_of(form.n), size_of(form.k)
        out = form.out if form.consumer is None else form.consumer.writes[0].buffer
        return _Product(
            prod(map(size_of, form.outer)), _Axis.of(form.p), _Axis.of(form.q), n, k,
            prod(map(size_of, form.window)), prod(map(size_of, form.sums)),
            -(-n // chip.array.columns), -(-k // chip.array.rows),
            form.data.dtype.bytes, form.weights.dtype.bytes, form.accumulator.bytes,
            out.dtype.bytes,
        )  # fmt: skip

    def time(self, t: Tiles, chip: Accelerator) -> int:
        """Cycles by the model."""
        rows, width = chip.array.rows, {m.name: m for m in chip.dmas}
        blocks = -(-self.p.total // t.p) * -(-self.q.total // t.q)
        size = t.p * t.q
        steps = self.tiles_n * self.tiles_k * self.window * self.sums
        array = 0
        for p, p_count in _parts(self.p.total, t.p):
            for q, q_count in _parts(self.q.total, t.q):
                array += p_count * q_count * steps * max(p * q, rows)
        if chip.array.weight_buffers == 1:
            array += blocks * steps * (2 * rows + chip.array.columns - 2)
        # Moved per row of a tile: the engine moves whole rows of the array, or of columns.
        times = -(-self.tiles_n // t.columns) if self._again(t) else 1
        deep = self.tiles_k * self.sums
        tile = self.p.needed(t.p) * self.q.needed(t.q)
        load = width.get("load")
        beats = 1 if load is None else -(-min(self.k, rows) * self.data_bytes // load.width)
        latency = 0 if load is None else load.latency
        moved = blocks * times * deep * tile * beats
        w = min(self.n, t.width) * self.weight_bytes
        w_beats = 1 if load is None else -(-w // load.width)
        moved += blocks * self.tiles_n * self.window * self.sums * self.k * w_beats
        moved += blocks * self.tiles_n * size
        store = width.get("store")
        beats = 1 if store is None else -(-min(self.n, t.width) * self.out_bytes // store.width)
        out = blocks * self.tiles_n * size * beats
        first = tile * min(t.deep, self.tiles_k) + latency
        last = size * t.columns * beats
        # What one tile alone cannot hide.
        apart = 0 if t.data > 1 else (moved * tile * t.deep * times * blocks) // max(1, moved)
        apart += 0 if t.sums > 1 else out
        busiest = max(array, moved, out)
        others = (array + moved + out - busiest) // EXPOSED
        return self.outer * (busiest + others + apart) + first + last

    def _again(self, t: Tiles) -> bool:
        """Whether the data of a block of rows is loaded for each block of columns."""
        return t.deep < self.tiles_k or self.sums > 1

    def bytes(self, t: Tiles) -> tuple[int, int]:
        """What lies in the scratchpad, and in the accumulators."""
        tile = self.p.needed(t.p) * self.q.needed(t.q) * t.depth * self.data_bytes
        weights = t.weights * t.group * t.depth * t.width * self.weight_bytes
        sums = t.sums * t.columns * t.p * t.q * t.width * self.sum_bytes
        return t.data * t.deep * tile + weights, sums


def _parts(total: int, size: int) -> Iterator[tuple[int, int]]:
    """Sizes of the parts of a total, with how many there are."""
    if total // size:
        yield size, total // size
    if total % size:
        yield total % size, 1


def _even(total: int) -> list[int]:
    """Sizes of parts into which a total is divided evenly, largest first."""
    return sorted({-(-total // n) for n in range(1, total + 1)}, reverse=True)


def _fitting(product: _Product, chip: Accelerator, room: tuple[int, int]) -> Iterator[Tiles]:
    """Tiles that the memories hold: for each division of columns and depth the largest blocks of
    rows, as smaller ones load more."""
    array = chip.array

    def fits(t: Tiles) -> bool:
        return all(a <= b for a, b in zip(product.bytes(t), room, strict=True))

    for deep in _even(product.tiles_k)[:BLOCKS]:
        group = _group(deep, deep == product.tiles_k)
        for columns in _even(product.tiles_n):
            for data, sums in ((2, 2), (2, 1), (1, 1)):
                tiles = (
                    Tiles(array.rows, array.columns, p, q, columns, deep, group, data, RING,
                          array.weight_buffers, sums)
                    for q in _even(product.q.total)[:BLOCKS]
                    for p in _even(product.p.total)
                )  # fmt: skip
                yield from islice(filter(fits, tiles), BLOCKS)


def _group(deep: int, whole: bool) -> int:
    """Tiles of weights that one request loads: few, so that requests run ahead of the array."""
    if whole:
        return min(deep, TOGETHER)
    return next(n for n in range(min(deep, TOGETHER), 0, -1) if deep % n == 0)
