"""Which units of an accelerator use a bank of a memory at the same time.

A memory of several banks lies in them one after the other; each serves as many rows in a cycle as
it has ports. What more units want at a time is no fault, as they wait for each other, but costs
cycles that a tile in another bank would not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from aisc.codegen.dsa.assembler import executed
from aisc.codegen.dsa.stream import Code, Execution, Place, Site
from aisc.codegen.dsa.timing import timing
from aisc.ir.dataclass import dataclass
from aisc.ir.target import Memory, Target

# Instructions of each unit that are looked back at.
BEFORE = 64


@dataclass(frozen=True, slots=True)
class Conflict:
    """An instruction that meets others at a bank: its text, that of the one that it meets longest
    and for how many cycles, the address, and the layer."""

    instruction: str
    other: str
    memory: str
    bank: int
    address: int
    cycles: int
    layer: str

    def __str__(self) -> str:
        return (
            f"bank {self.bank} of {self.memory} is wanted for {self.cycles} cycles by "
            f"{self.instruction} at {self.address:#06x} and by {self.other}; layer {self.layer}"
        )


@dataclass(frozen=True, slots=True)
class _Use:
    """A unit uses a bank for some cycles."""

    unit: str
    line: str
    start: int
    end: int


def conflicts(stream: Code, target: Target) -> list[Conflict]:
    """Those of a stream, in program order: where more units want a bank than it has ports."""
    found: list[Conflict] = []
    uses: dict[tuple[str, int], dict[str, deque[_Use]]] = {}

    def look(site: Site, execution: Execution, start: int, end: int) -> None:
        if end <= start:
            return
        for place, offset, memory in _local(site, execution, target):
            for bank in _banks(place, offset, site, execution, memory):
                mine = _Use(site.unit, executed(site, execution), start, end)
                others = uses.setdefault((place.name, bank), {})
                met = [
                    max(theirs, key=lambda u: _overlap(u, mine))
                    for unit, theirs in others.items()
                    if unit != mine.unit and any(_overlap(u, mine) > 0 for u in theirs)
                ]
                if len(met) >= memory.ports:
                    found.append(_conflict(stream.layer, (place.name, bank), offset, mine, met))
                others.setdefault(mine.unit, deque(maxlen=BEFORE)).append(mine)

    timing(stream, target, look=look)
    return found


def _conflict(
    layer: str, at: tuple[str, int], address: int, mine: _Use, met: list[_Use]
) -> Conflict:
    other = max(met, key=lambda u: _overlap(u, mine))
    return Conflict(mine.line, other.line, *at, address, _overlap(other, mine), layer)


def _overlap(a: _Use, b: _Use) -> int:
    return min(a.end, b.end) - max(a.start, b.start)


def _local(site: Site, execution: Execution, target: Target) -> Iterator[tuple[Place, int, Memory]]:
    """Operands in memories of several banks."""
    for place, offset in zip(site.places, execution[2], strict=True):
        memory = target.memory(place.name) if place.local else None
        if memory is not None and memory.banks > 1:
            yield place, offset, memory


def _banks(place: Place, offset: int, site: Site, execution: Execution, memory: Memory) -> range:
    """The banks in which an operand lies."""
    shape = place.shape(dict(zip(site.dims, execution[1], strict=True)))
    if 0 in shape:
        return range(0)
    last = offset + sum((n - 1) * s for n, s in zip(shape, place.strides, strict=True))
    size = -(-memory.bytes // memory.banks)
    return range(offset // size, last // size + 1)


__all__ = ["Conflict", "conflicts"]
