"""Which tiles a systolic array computes a product by: all that fit its memories are compared by a
model of how long its units take.

An array whose weights stay needs a cycle for each row and as many for each change of weights, one
whose sums stay a cycle for each step of the depth; what moves in and out
is divided by the widths of the engines. Units work side by side: the busiest one counts, and what
nothing can hide before it starts and after it ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import prod

from aisc.ir.accelerator import ACCUMULATOR, SCRATCHPAD, Accelerator, Dma
from aisc.ir.dataclass import dataclass
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
# The depth that streams into an array whose sums stay, at most.
LONGEST = 256


def best_tiles(forms: Sequence[Form], d: Chooser) -> Tiles:
    """The tiles of a product in one of its forms; E402 where none fit the target's memories."""
    chip = d.target.chip
    if chip is None:
        raise error("E402", f"the description of {d.target.name} has no [array]")
    room = d.target.memory(SCRATCHPAD).bytes, d.target.memory(ACCUMULATOR).bytes
    found = _ranked(tuple(_Product.of(f, chip) for f in forms), chip, room)
    form = forms[0]
    if not found:
        raise error("E402", f"no tile of {form.block.name} fits the memories of {d.target.name}")
    options = [_choice(t) for t in found]
    picked = d.pick(f"{form.block.name}.tiles", options, options[0])
    return found[options.index(picked)]


@lru_cache(maxsize=1024)
def _ranked(
    products: tuple[_Product, ...], chip: Accelerator, room: tuple[int, int]
) -> tuple[Tiles, ...]:
    """The best tiles, by the model, that fit a scratchpad and accumulators of so many bytes."""
    timed = {t: p.time(t, chip) for p in products for t in _fitting(p, chip, room)}
    best = sorted((time, k, t) for k, (t, time) in enumerate(timed.items()))
    return tuple(t for _, _, t in best[:OFFERED])


def _choice(t: Tiles) -> tuple[int, ...]:
    return t.p, t.q, t.columns, t.deep, t.data, t.sums, t.packed


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
    taps: int
    window: int
    sums: int
    tiles_n: int
    data_bytes: int
    weight_bytes: int
    sum_bytes: int
    out_bytes: int

    @staticmethod
    def of(form: Form, chip: Accelerator) -> _Product:
        """Of a contraction."""
        n, k = size_of(form.n), form.depth
        taps = 1 if form.packed is None else size_of(form.packed)
        out = form.out if form.consumer is None else form.consumer.writes[0].buffer
        return _Product(
            prod(map(size_of, form.outer)), _Axis.of(form.p), _Axis.of(form.q), n, k, taps,
            prod(map(size_of, form.window)), prod(map(size_of, form.sums)),
            -(-n // chip.array.columns),
            form.data.dtype.bytes, form.weights.dtype.bytes, form.accumulator.bytes,
            out.dtype.bytes,
        )  # fmt: skip

    def tiles_k(self, t: Tiles) -> int:
        """Tiles of the depth."""
        return -(-self.k // t.depth)

    def time(self, t: Tiles, chip: Accelerator) -> int:
        """Cycles by the model."""
        tile = self.p.needed(t.p) * self.q.needed(t.q)
        array, moved, out = self._array(t, chip), self._loaded(t, tile, chip), self._stored(t, chip)
        load = chip.dma("load")
        first = tile * min(t.deep, self.tiles_k(t)) + (0 if load is None else load.latency)
        last = out // (self._blocks(t) * -(-self.tiles_n // t.columns))
        # What a single tile cannot hide.
        apart = 0 if t.data > 1 else self._data_beats(t, tile, chip)
        apart += 0 if t.sums > 1 else out
        busiest = max(array, moved, out)
        others = (array + moved + out - busiest) // EXPOSED
        return self.outer * (busiest + others + apart) + first + last

    def _blocks(self, t: Tiles) -> int:
        return -(-self.p.total // t.p) * -(-self.q.total // t.q)

    def _array(self, t: Tiles, chip: Accelerator) -> int:
        """Cycles of the array."""
        rows, steps = chip.array.rows, self.tiles_n * self.window * self.sums
        if not t.cells:
            return self._blocks(t) * steps * self.k
        steps *= self.tiles_k(t)
        found = 0
        for p, p_count in _parts(self.p.total, t.p):
            for q, q_count in _parts(self.q.total, t.q):
                found += p_count * q_count * steps * max(p * q, rows)
        if t.cells == 1:  # the next weights wait for the rows that use the last ones
            found += self._blocks(t) * steps * (2 * rows + chip.array.columns - 2)
        return found

    def _data_beats(self, t: Tiles, tile: int, chip: Accelerator) -> int:
        """What the data of all blocks takes: the engine moves whole rows of tiles."""
        again = t.deep < self.tiles_k(t) or self.sums > 1
        times = -(-self.tiles_n // t.columns) if again else 1
        if self.taps > 1:
            each = self.taps * _beats(self.k // self.taps * self.data_bytes, chip.dma("load"))
        else:
            each = self.tiles_k(t) * _beats(
                min(self.k, t.depth) * self.data_bytes, chip.dma("load")
            )
        return self._blocks(t) * times * self.sums * tile * each

    def _loaded(self, t: Tiles, tile: int, chip: Accelerator) -> int:
        """Cycles of what comes in: data, weights, biases."""
        row = _beats(min(self.n, t.width) * self.weight_bytes, chip.dma("load"))
        weights = self.window * self.sums * self.k * row
        each = self.tiles_n * (weights + t.p * t.q)
        return self._data_beats(t, tile, chip) + self._blocks(t) * each

    def _stored(self, t: Tiles, chip: Accelerator) -> int:
        """Cycles of what leaves."""
        row = _beats(min(self.n, t.width) * self.out_bytes, chip.dma("store"))
        return self._blocks(t) * self.tiles_n * t.p * t.q * row

    def bytes(self, t: Tiles) -> tuple[int, int]:
        """What lies in the scratchpad, and in the accumulators."""
        tile = self.p.needed(t.p) * self.q.needed(t.q) * t.depth * self.data_bytes
        weights = t.weights * t.group * t.depth * t.width * self.weight_bytes
        sums = t.sums * t.columns * t.p * t.q * t.width * self.sum_bytes
        return t.data * t.deep * tile + weights, sums


def _beats(row: int, engine: Dma | None) -> int:
    """Cycles that an engine needs for a row of so many bytes."""
    return 1 if engine is None else -(-row // engine.width)


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
    array, still = chip.array, chip.array.dataflow == "OS"
    depths = [d for d in _even(product.k) if d <= LONGEST][:2] if still else [array.rows]
    most_p, most_q = (1, array.rows) if still else (product.p.total, product.q.total)
    sides = [
        (p, q)
        for q in [n for n in _even(product.q.total) if n <= most_q][:BLOCKS]
        for p in [n for n in _even(product.p.total) if n <= most_p]
    ]

    def fits(t: Tiles) -> bool:
        return all(a <= b for a, b in zip(product.bytes(t), room, strict=True))

    for depth, columns in itertools.product(depths, _even(product.tiles_n)):
        whole = -(-product.k // depth)
        for deep in _even(whole)[: 1 if product.taps > 1 else BLOCKS]:
            group = deep if product.taps > 1 else _group(deep, deep == whole)
            for data, sums in ((2, 2), (2, 1), (1, 1)):
                cells = 0 if still else array.weight_buffers
                tiles = (
                    Tiles(
                        depth,
                        array.columns,
                        p,
                        q,
                        columns,
                        deep,
                        group,
                        data,
                        RING,
                        cells,
                        sums,
                        int(product.taps > 1),
                    )
                    for p, q in sides
                )
                yield from itertools.islice(filter(fits, tiles), BLOCKS)


def _group(deep: int, whole: bool) -> int:
    """Tiles of weights that one request loads: few, so that requests run ahead of the array."""
    if whole:
        return min(deep, TOGETHER)
    return next(n for n in range(min(deep, TOGETHER), 0, -1) if deep % n == 0)
