"""How long a stream of instructions takes: every unit works by itself.

Instructions are handed out in order, one at a time, to the queue of their unit, and wait there for
the unit and for their operands: what another unit writes must be there, what it still reads must
not be overwritten. Where units pass tokens, they wait for these instead, each of which is there
when all that its giver did before is. An instruction keeps its unit for its `cost`; what it writes
is there `latency` later. A DMA engine has so many requests under way.

Without overlap each instruction waits for the one before: what the array then takes is what an
array takes that fills, streams and drains for every tile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aisc.codegen.backend import Watch
from aisc.codegen.dsa.stream import Code, Execution, Place, Signal, Site
from aisc.ir.accelerator import CELLS
from aisc.ir.dataclass import dataclass
from aisc.ir.target import Target
from aisc.ir.tensor.tree import places

# Bytes whose times are kept together: one in small memories, where tiles are small, too.
SMALL, GRANULE = 1 << 15, 4
# What a unit waits for beside other units: instructions, and its engine.
QUEUE, REQUESTS = "queue", "requests"
Look = Callable[[Site, Execution, int, int], None]


@dataclass(frozen=True, slots=True)
class Timing:
    """What a stream takes: `cycles` from the first instruction to the last result, and those of the
    array without any overlap; cycles that each unit works, and that it waits, by what for: a unit
    whose results or operands it needs, a full `queue`, `requests` of its engine under way;
    executions by instruction; multiply-adds; bytes from and to global memory."""

    cycles: int
    serial: int
    busy: Mapping[str, int]
    waits: Mapping[str, Mapping[str, int]]
    counts: Mapping[str, int]
    macs: int
    loaded: int
    stored: int


@dataclass(slots=True)
class _Unit:
    """A unit in time: when it is free, how long it worked, and waited for what, when all that it
    did is there, the starts of what its queue held, and the results under way."""

    depth: int
    outstanding: int
    free: int = 0
    busy: int = 0
    waits: dict[str, int] = field(default_factory=dict)
    done: int = 0
    starts: deque[int] = field(default_factory=deque)
    results: deque[int] = field(default_factory=deque)

    def wait(self, until: int, why: str) -> None:
        """Be free no sooner than at some time."""
        if until > self.free:
            self.waits[why] = self.waits.get(why, 0) + until - self.free
            self.free = until


@dataclass(slots=True)
class _Tokens:
    """When the tokens of a queue were given that are there, and when the last ones were taken."""

    depth: int
    given: deque[int] = field(default_factory=deque)
    taken: deque[int] = field(default_factory=deque)

    def room(self) -> int:
        """When there is room for one more."""
        if len(self.given) + len(self.taken) < self.depth:
            return 0
        return self.taken.popleft() if self.taken else 0


class _Memory:
    """When parts of a local memory were last written and read, by unit."""

    def __init__(self, size: int) -> None:
        self.granule = 1 if size <= SMALL else GRANULE
        self.size = -(-size // self.granule)
        self.written: dict[str, NDArray[np.int64]] = {}
        self.read: dict[str, NDArray[np.int64]] = {}

    def of(self, table: dict[str, Any], unit: str) -> NDArray[np.int64]:
        """The times of a unit."""
        if unit not in table:
            table[unit] = np.zeros(self.size, np.int64)
        found: NDArray[np.int64] = table[unit]
        return found


def timing(
    stream: Code,
    target: Target,
    resident: bool = False,
    watch: Watch | None = None,
    look: Look | None = None,
) -> Timing:
    """The time of a stream on its target; `resident`: as if what moves from and to global memory
    took none; `watch`: see :meth:`aisc.codegen.backend.Timed.time`; `look` is told of every
    instruction with when its unit begins and ends it."""
    return _Clock(stream, target, resident, watch, look).run()


class _Clock:
    """Runs a stream in time."""

    def __init__(
        self, stream: Code, target: Target, resident: bool, watch: Watch | None, look: Look | None
    ) -> None:
        self.stream, self.target, self.resident = stream, target, resident
        self.watch, self.look = watch, look
        self.memories = {n: _Memory(target.memory(n).bytes) for n in stream.memory}
        self.units: dict[str, _Unit] = {}
        for site in stream.sites:
            self.units.setdefault(site.unit, self._unit(site.unit))
        self.array = {s.unit for s in stream.sites if isinstance(s, Site) and _is_of_array(s)}
        self.tokens: dict[str, _Tokens] = {}
        self.costs: dict[tuple[int, tuple[int, ...]], tuple[int, int, int, int, int]] = {}
        self.now = self.last = self.serial = self.macs = self.loaded = self.stored = 0
        self.counts: dict[str, int] = {}
        self.steps = [
            self._step(k, site) if isinstance(site, Site) else self._signal(site)
            for k, site in enumerate(stream.sites)
        ]

    def _unit(self, name: str) -> _Unit:
        chip = self.target.chip
        dma = next((d for d in chip.dmas if d.name == name), None) if chip else None
        return _Unit(chip.queue(name) if chip else 8, dma.outstanding if dma else 0)

    def run(self) -> Timing:
        """All instructions."""
        for number, args, offsets in self.stream:
            self.steps[number](args, offsets)
        serial = max(0, self.serial - 1)
        return Timing(
            self.last, serial, {n: u.busy for n, u in self.units.items()},
            {n: dict(u.waits) for n, u in self.units.items()}, dict(sorted(self.counts.items())),
            self.macs, self.loaded, self.stored,
        )  # fmt: skip

    def _cost(self, number: int, args: tuple[int, ...]) -> tuple[int, int, int, int, int]:
        """Cycles of the unit, cycles until results, multiply-adds, bytes loaded and stored."""
        key = number, args
        if key not in self.costs:
            site = self.stream.sites[number]
            assert isinstance(site, Site), "a signal takes no time"
            dims = dict(zip(site.dims, args, strict=True))
            empty = any(0 in p.shape(dims) for p in site.places)
            empty |= self.resident and not all(p.local for p in site.places)
            cost = 0 if empty else site.intrinsic.cycles(*args)
            late = 0 if empty else site.intrinsic.latency_after(*args)
            moved = [
                (p.written, prod(p.shape(dims)) * p.param.dtype.bytes)
                for p in site.places if not p.local
            ]  # fmt: skip
            loaded = sum(n for written, n in moved if not written)
            stored = sum(n for written, n in moved if written)
            self.costs[key] = cost, late, _macs(site, dims), loaded, stored
        return self.costs[key]

    def _step(self, number: int, site: Site) -> Callable[[tuple[int, ...], tuple[int, ...]], None]:
        """What an execution of a site does to the clock."""
        name, own = site.name, site.intrinsic.unit
        unit, checks = self.units[own], self._checks(site)
        on_array, watch, look = own in self.array, self.watch, self.look

        def step(args: tuple[int, ...], offsets: tuple[int, ...]) -> None:
            cost, late, macs, loaded, stored = self._cost(number, args)
            if len(unit.starts) >= unit.depth:
                self.now = max(self.now, unit.starts.popleft())
            spans = [(k, *span(args, offsets[k])) for k, span, *_ in checks]
            ready, why = self.now, QUEUE
            for (_, low, high), (_, _, earlier, _) in zip(spans, checks, strict=True):
                for other, times in earlier():
                    there = int(times[low:high].max(initial=0))
                    if there > ready:
                        ready, why = there, other
            if unit.outstanding and len(unit.results) >= unit.outstanding:
                there = unit.results.popleft()
                if there > ready:
                    ready, why = there, REQUESTS
            unit.wait(ready, why)
            start = unit.free
            end = start + cost
            result = end + late
            unit.free, unit.busy, unit.done = end, unit.busy + cost, max(unit.done, result)
            unit.starts.append(start)
            if unit.outstanding:
                unit.results.append(result)
            for (_, low, high), (_, _, _, mine) in zip(spans, checks, strict=True):
                times, written = mine
                times[low:high] = result if written else end
            self.last = max(self.last, result)
            if watch is not None and result > start:
                watch(own, name, start, end if cost else result)
            if look is not None:
                look(site, (number, args, offsets), start, end)
            if on_array:
                self.serial += cost + late
            self.macs += macs
            self.loaded += loaded
            self.stored += stored
            self.counts[name] = self.counts.get(name, 0) + 1

        return step

    def _signal(self, signal: Signal) -> Callable[[tuple[int, ...], tuple[int, ...]], None]:
        """A unit gives a token when all that it did is there, or waits for one."""
        unit, queue = self.units[signal.unit], signal.queue
        tokens = self.tokens.setdefault(queue.name, _Tokens(queue.depth))

        def give(args: tuple[int, ...], offsets: tuple[int, ...]) -> None:
            unit.wait(tokens.room(), queue.taker)
            tokens.given.append(max(unit.free, unit.done))

        def take(args: tuple[int, ...], offsets: tuple[int, ...]) -> None:
            unit.wait(tokens.given.popleft(), queue.giver)
            tokens.taken.append(unit.free)

        return give if signal.gives else take

    def _checks(self, site: Site) -> list[tuple[Any, ...]]:
        """For each operand in a local memory: its number, its span, what it waits for, and where
        its own time is kept; nothing where tokens are waited for."""
        if self.target.chip is not None and self.target.chip.tokens:
            return []
        found = []
        own = site.intrinsic.unit
        for k, p in enumerate(site.places):
            if not p.local:
                continue
            memory = self.memories[p.name]

            def earlier(memory: _Memory = memory, written: bool = p.written) -> list[Any]:
                times = [x for x in memory.written.items() if x[0] != own]
                if written:
                    times += [x for x in memory.read.items() if x[0] != own]
                return times

            table = memory.written if p.written else memory.read
            found.append(
                (
                    k,
                    _span(p, site.dims, memory.granule),
                    earlier,
                    (memory.of(table, own), p.written),
                )
            )
        return found


def _span(
    p: Place, dims: tuple[str, ...], granule: int
) -> Callable[[tuple[int, ...], int], tuple[int, int]]:
    """First and last granule of an operand, from values of dimensions and its offset."""
    places = [n if isinstance(n, int) else dims.index(n) for n in p.sizes]
    fixed = [isinstance(n, int) for n in p.sizes]
    parts = list(zip(places, fixed, p.strides, strict=True))
    size = p.param.dtype.bytes

    def span(args: tuple[int, ...], offset: int) -> tuple[int, int]:
        end = offset + size
        for n, known, stride in parts:
            count = n if known else args[n]
            if count == 0:
                return 0, 0
            end += (count - 1) * stride
        return offset // granule, -(-end // granule)

    return span


def _is_of_array(site: Site) -> bool:
    """Whether an instruction sums up products, or gives the cells their weights."""
    (place,) = places(site.intrinsic.semantics.body)
    cells = any(p.local and p.name == CELLS and p.written for p in site.places)
    return bool(place.block.combiner) or cells


def _macs(site: Site, dims: Mapping[str, int]) -> int:
    """Multiply-adds of an execution: points of a block that sums up."""
    (place,) = places(site.intrinsic.semantics.body)
    if not place.block.combiner:
        return 0
    names = (getattr(it.extent, "name", None) for it in place.block.iters)
    values = (getattr(it.extent, "value", 1) for it in place.block.iters)
    return prod(dims.get(n, int(v)) if n else int(v) for n, v in zip(names, values, strict=True))
