"""Runs a stream by the queues of its units: each goes on until it waits for a token.

So a unit is as far ahead as its tokens let it be, and not where program order would have it. What
each unit knows to be done is carried along with its tokens; every byte of a local memory knows who
wrote and read it last. Whatever goes wrong names instruction, address and layer: units that race
(E507), that wait for ever (E508), bytes that nothing wrote and strides by which elements of a
result overlap (E509), addresses outside of a memory (E502).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aisc.codegen.dsa.assembler import executed
from aisc.codegen.dsa.simulator import execute, memories
from aisc.codegen.dsa.stream import Code, Execution, Place, Signal, Site
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import ExecutionError, execution_error
from aisc.ir.target import Target
from aisc.ir.tensor.tree import places

Array = NDArray[Any]
# What a unit knows: of each unit, how much of the stream it has done, as a place in program order.
Known = dict[str, int]
NEVER = -1


def run_queues(
    stream: Code,
    target: Target,
    args: Sequence[Array],
    executions: Iterable[Execution] | None = None,
) -> None:
    """Run a stream, or `executions` of its sites, on one C-contiguous array per parameter, written
    in place; see the module's docstring for what is found."""
    program = list(stream if executions is None else executions)
    machine = _Machine(stream, program, memories(stream, target, args))
    if target.chip is None or not target.chip.tokens:
        machine.in_order()
        return
    for number, (site, *_) in enumerate(program):
        machine.units.setdefault(stream.sites[site].unit, _Unit()).left.append(number)
    moved = True
    while moved:
        moved = False
        for name in machine.units:
            moved |= machine.advance(name)
    machine.require_end()


@dataclass(slots=True)
class _Unit:
    """A unit: what it has still to do, by place in the program, and what it knows to be done."""

    left: deque[int] = field(default_factory=deque)
    known: Known = field(default_factory=dict)


class _Bytes:
    """The last writer of each byte of a memory, and its last reader of each unit: as places in the
    program."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.written = np.full(size, NEVER, np.int64)
        self.read: dict[str, NDArray[np.int64]] = {}

    def read_by(self, unit: str) -> NDArray[np.int64]:
        """The last reads of a unit."""
        return self.read.setdefault(unit, np.full(self.size, NEVER, np.int64))


class _Machine:
    """Memories, units and tokens while a program runs."""

    def __init__(self, stream: Code, program: list[Execution], held: dict[str, Array]) -> None:
        self.stream, self.program, self.held = stream, program, held
        self.units: dict[str, _Unit] = {}
        self.tokens: dict[str, deque[Known]] = {}
        self.bytes = {n: _Bytes(held[n].size) for n in stream.memory}

    def in_order(self) -> None:
        """Run everything as units do that wait for addresses by themselves."""
        for number, (site, *_) in enumerate(self.program):
            found = self.stream.sites[site]
            assert isinstance(found, Site), "a chip without tokens has no signals"
            self._execute("", _Unit(), number, found)

    def advance(self, name: str) -> bool:
        """Let a unit go on until it waits; whether it did anything."""
        unit, moved = self.units[name], False
        while unit.left and self._step(name, unit, unit.left[0]):
            unit.left.popleft()
            moved = True
        return moved

    def _step(self, name: str, unit: _Unit, number: int) -> bool:
        site = self.stream.sites[self.program[number][0]]
        if isinstance(site, Site):
            self._execute(name, unit, number, site)
            unit.known[name] = number
            return True
        tokens = self.tokens.setdefault(site.queue.name, deque())
        if site.gives:
            if len(tokens) >= site.queue.depth:
                return False
            tokens.append(dict(unit.known))
            return True
        if not tokens:
            return False
        for other, done in tokens.popleft().items():
            unit.known[other] = max(done, unit.known.get(other, NEVER))
        return True

    def _execute(self, name: str, unit: _Unit, number: int, site: Site) -> None:
        """One instruction, when its operands are seen to be right."""
        execution = self.program[number]
        dims = dict(zip(site.dims, execution[1], strict=True))
        (block,) = (p.block for p in places(site.intrinsic.semantics.body))
        read = {r.buffer.name for r in block.reads}
        touched: list[tuple[Place, NDArray[np.int64]]] = []
        for place, offset in zip(site.places, execution[2], strict=True):
            at = _addresses(place, offset, dims)
            if place.written and np.unique(at).size < at.size:
                strides = "/".join(map(str, place.strides))
                self._fail("E509", number, f"elements of its result overlap by strides {strides}",
                           place, offset)  # fmt: skip
            if place.local and at.min(initial=0) >= 0 and at.max(initial=0) < self._size(place):
                self._look(name, unit, number, place, at, place.param.name in read)
                touched.append((place, at))
        try:
            execute(site, execution, self.held)
        except ExecutionError as fault:
            what = fault.diagnostics[0]
            raise execution_error(what.code, what.message, *what.notes, self._where()) from None
        for place, at in touched:
            memory = self.bytes[place.name]
            if place.written:
                memory.written[at] = number
            if place.param.name in read:
                memory.read_by(name)[at] = number

    def _size(self, place: Place) -> int:
        return self.bytes[place.name].size

    def _look(
        self, name: str, unit: _Unit, number: int, place: Place, at: NDArray[np.int64], read: bool
    ) -> None:
        """Whether what is read was written, and everything else at these bytes is known to be
        done."""
        memory = self.bytes[place.name]
        writers = memory.written[at]
        if read and (writers == NEVER).any():
            first = int(at[writers == NEVER][0])
            self._fail("E509", number, "it reads what nothing has written", place, first)
        self._require_known(name, unit, number, place, at, writers, "writes")
        if place.written:
            for other, times in memory.read.items():
                if other != name:
                    self._require_known(name, unit, number, place, at, times[at], "reads")

    def _require_known(
        self, name: str, unit: _Unit, number: int, place: Place, at: NDArray[np.int64],
        times: NDArray[np.int64], does: str,
    ) -> None:  # fmt: skip
        for before in np.unique(times[times != NEVER]) if name else ():
            other = self._unit_of(int(before))
            if other != name and unit.known.get(other, NEVER) < before:
                first = int(at[times == before][0])
                line = executed(self.stream.sites[self.program[before][0]], self.program[before])
                self._fail(
                    "E507", number, f"{other} {does} it by {line}, and no token orders the two",
                    place, first,
                )  # fmt: skip

    def _unit_of(self, number: int) -> str:
        return self.stream.sites[self.program[number][0]].unit

    def require_end(self) -> None:
        """E508 where a unit has not come to its end, or tokens are left."""
        waiting = {n: u.left[0] for n, u in self.units.items() if u.left}
        for name, number in waiting.items():
            signal = self.stream.sites[self.program[number][0]]
            assert isinstance(signal, Signal), "only tokens are waited for"
            unit, queue = self.units[name], signal.queue
            other, does = (queue.taker, "takes") if signal.gives else (queue.giver, "gives")
            then = next((k for k in unit.left if self._is_instruction(k)), None)
            notes = [f"{name} stands at {signal.name}, and {other} never {does} one"]
            notes += [] if then is None else [f"behind it: {self._line(then)}"]
            what = f"{', '.join(waiting)} wait for ever"
            raise execution_error("E508", what, *notes, self._where())
        left = [n for n, tokens in self.tokens.items() if tokens]
        if left:
            what = f"tokens are left in {', '.join(left)}"
            raise execution_error("E508", what, "the next kernel takes them", self._where())

    def _is_instruction(self, number: int) -> bool:
        return isinstance(self.stream.sites[self.program[number][0]], Site)

    def _line(self, number: int) -> str:
        execution = self.program[number]
        return f"{number}: {executed(self.stream.sites[execution[0]], execution)}"

    def _where(self) -> str:
        return f"layer {self.stream.layer}, kernel {self.stream.name}"

    def _fail(self, code: str, number: int, what: str, place: Place, address: int) -> None:
        at = f"{place.name}:{address:#06x}"
        notes = (f"at {at}, operand {place.param.name}", self._where())
        raise execution_error(code, f"{self._line(number)}: {what}", *notes)


def _addresses(place: Place, offset: int, dims: dict[str, int]) -> NDArray[np.int64]:
    """All bytes of an operand."""
    shape = place.shape(dims)
    if not prod(shape):
        return np.zeros(0, np.int64)
    at = np.arange(place.param.dtype.bytes, dtype=np.int64) + offset
    for n, stride in zip(shape, place.strides, strict=True):
        at = np.add.outer(np.arange(n, dtype=np.int64) * stride, at)
    return at.reshape(-1)
