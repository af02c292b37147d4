"""What accesses cost, by the line of the instruction that makes them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Lanes = NDArray[np.int64]
SECTOR_BYTES, BANK_BYTES = 32, 4


@dataclass(slots=True)
class Line:
    """The accesses of one instruction. requests: one for each warp; needed: sectors, or turns of
    shared memory, that as many bytes take at least; taken: those that they do take."""

    space: str
    write: bool
    bits: int
    requests: int = 0
    needed: int = 0
    taken: int = 0


@dataclass(slots=True)
class Counters:
    """What a launch has done."""

    lines: dict[int, Line] = field(default_factory=dict)
    steps: Counter[str] = field(default_factory=Counter)

    def bank_conflicts(self) -> int:
        """Turns of shared memory beyond those that the bytes need."""
        return sum(x.taken - x.needed for x in self.lines.values() if x.space == "shared")

    def worst_conflict(self) -> float:
        """How many times the turns that the bytes need an access to shared memory takes."""
        found = (x for x in self.lines.values() if x.space == "shared" and x.needed)
        return max((x.taken / x.needed for x in found), default=1.0)

    def sectors(self) -> int:
        """Sectors of global memory that requests take."""
        return sum(x.taken for x in self.lines.values() if x.space == "global")

    def sectors_needed(self) -> int:
        """Those that the bytes would fill."""
        return sum(x.needed for x in self.lines.values() if x.space == "global")

    def widths(self, space: str) -> dict[int, int]:
        """Requests of a space by bits of an access."""
        found: dict[int, int] = {}
        for x in self.lines.values():
            if x.space == space:
                found[x.bits] = found.get(x.bits, 0) + x.requests
        return found

    def note_global(self, line: int, write: bool, size: int, warps: Lanes, at: Lanes) -> None:
        """Requests of warps for global memory."""
        found = self.lines.setdefault(line, Line("global", write, 8 * size))
        if len(at) == 1:
            found.requests, found.needed, found.taken = (
                found.requests + 1, found.needed + 1, found.taken + 1,
            )  # fmt: skip
            return
        owner, start = warps - warps[0], at - at.min()
        span = int(start.max()) + size
        keys = np.unique(owner * span + start)
        active = np.bincount(keys // span)
        sectors = (keys % span + int(at.min()) % SECTOR_BYTES) // SECTOR_BYTES
        found.requests += int((active > 0).sum())
        found.needed += int((-(-active * size // SECTOR_BYTES)).sum())
        pairs = keys // span * (span // SECTOR_BYTES + 2) + sectors  # in order, as the keys are
        found.taken += 1 + int((np.diff(pairs) != 0).sum())

    def note_shared(
        self, line: int, write: bool, size: int, warps: Lanes, lanes: Lanes, at: Lanes,
        shape: tuple[int, int],
    ) -> None:  # fmt: skip
        """Requests of warps for shared memory; `shape`: threads of a warp, and banks. A turn serves
        each bank once; wide accesses take a turn for as many threads as fill the banks."""
        warp, banks = shape
        found = self.lines.setdefault(line, Line("shared", write, 8 * size))
        parts = max(1, size // BANK_BYTES)
        group = warps * parts + lanes * parts // warp
        group -= group.min()
        words = at[:, None] // BANK_BYTES + np.arange(parts)
        span = int(words.max()) + 1
        pairs = np.unique((group[:, None] * span + words).ravel())
        groups, banked = pairs // span, pairs % span % banks
        counts = np.bincount(groups * banks + banked, minlength=(int(groups.max()) + 1) * banks)
        turns = counts.reshape(-1, banks).max(axis=1)
        found.requests += len(np.unique(warps))
        found.needed += int((turns > 0).sum())
        found.taken += int(turns.sum())
