"""Memories of the machine, and who touched what in them.

Addresses are numbers of the machine's own, so that every access can be checked against what was
allocated. Each memory has a shadow: which bytes hold a value, which wait for an asynchronous copy,
and which thread has last written or read them since which barrier.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Lanes = NDArray[np.int64]

FIRST, PAGE = 0x7F00_0000_0000, 4096
UNTOUCHED, SEVERAL, ATOMIC = -1, -2, -3
SHARED_WINDOW, LOCAL_WINDOW = 1 << 56, 1 << 57  # where generic addresses see them


class Fault(Exception):
    """What a kernel does wrong: `kind` is one of bounds, misaligned, race, uninitialised, pending,
    barrier, unknown, trap, endless."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(f"{kind}: {what}")
        self.kind = kind


@dataclass(slots=True)
class Clock:
    """Where in time each thread is: barriers of its block, meetings of its warp. Threads are
    numbered through; `first` is the number of the first one of those that run."""

    threads: int
    warp: int
    first: int
    block: Lanes
    warps: Lanes


@dataclass(slots=True)
class Shadow:
    """What is known of each granule of a memory. Granules are as small as the smallest access."""

    bytes: int
    known: NDArray[np.bool_]
    granule: int = 16
    launch: int = -1
    pending: NDArray[np.bool_] = field(init=False)
    writer: Lanes = field(init=False)
    written: Lanes = field(init=False)
    met: Lanes = field(init=False)
    reader: Lanes = field(init=False)
    read_block: Lanes = field(init=False)
    read: Lanes = field(init=False)

    @staticmethod
    def of(size: int, known: bool) -> Shadow:
        """That of so many bytes."""
        shadow = Shadow(size, np.full(size, known))
        shadow.pending = np.zeros(size, np.bool_)
        shadow.forget()
        return shadow

    def forget(self) -> None:
        """A new launch: nobody has touched anything."""
        count = -(-self.bytes // self.granule)
        self.writer, self.written, self.met = (np.full(count, UNTOUCHED) for _ in range(3))
        self.reader, self.read_block, self.read = (np.full(count, UNTOUCHED) for _ in range(3))

    def refine(self, size: int) -> None:
        """Make granules as small as an access."""
        if size >= self.granule:
            return
        times = self.granule // size
        count = -(-self.bytes // size)
        for name in ("writer", "written", "met", "reader", "read_block", "read"):
            setattr(self, name, np.repeat(getattr(self, name), times)[:count])
        self.granule = size

    def granules(self, at: Lanes, size: int) -> Lanes:
        """The granules of accesses, one row a thread."""
        self.refine(size)
        count = size // self.granule
        found: Lanes = at[:, None] // self.granule + np.arange(count)
        return found

    def on_read(self, at: Lanes, size: int, who: Lanes, clock: Clock) -> str:
        """Note a read; what is wrong with it."""
        g, who = self.granules(at, size), who[:, None]
        local = who - clock.first
        wrong = self._conflict(self.writer[g], self.written[g], self.met[g], who, clock)
        old, block = self.reader[g], who // clock.threads
        now = clock.block[local]
        fresh = (old == UNTOUCHED) | (self.read[g] < now) & (self.read_block[g] == block)
        same = (old == who) & ~fresh
        self.reader[g] = np.where(fresh | same, who, SEVERAL)
        self.reader[g[(self.reader[g] != who) & (self.reader[g] >= 0)]] = SEVERAL
        spread = (self.read_block[g] != block) & (self.read_block[g] != UNTOUCHED)
        self.read_block[g] = np.where(spread, SEVERAL, block)
        crossed = self.read_block[g]
        self.read_block[g[(crossed != block) & (crossed >= 0)]] = SEVERAL
        self.read[g] = now
        return _pair(wrong, self.writer[g], who, "reads what thread", "wrote")

    def on_write(self, at: Lanes, size: int, who: Lanes, clock: Clock, atomic: bool = False) -> str:
        """Note a write; what is wrong with it."""
        g, who = self.granules(at, size), who[:, None]
        local, block = who - clock.first, who // clock.threads
        wrong = self._conflict(self.writer[g], self.written[g], self.met[g], who, clock)
        if atomic:
            wrong &= self.writer[g] != ATOMIC
        text = _pair(wrong, self.writer[g], who, "writes what thread", "wrote")
        read, others = self.reader[g], self.read_block[g]
        late = (others != block) | (self.read[g] >= clock.block[local])
        unsafe = (read != UNTOUCHED) & (read != who) & late
        text = text or _pair(unsafe, read, who, "overwrites what thread", "reads")
        self.writer[g] = ATOMIC if atomic else who
        self.written[g] = clock.block[local]
        self.met[g] = clock.warps[local]
        twice = not atomic and bool((self.writer[g] != who).any())
        if twice and not text:
            text = _pair(self.writer[g] != who, self.writer[g], who, "writes with thread", "")
        return text

    @staticmethod
    def _conflict(
        writer: Lanes, written: Lanes, met: Lanes, who: Lanes, clock: Clock
    ) -> NDArray[np.bool_]:
        """Whether another thread has written since the last time that both have met."""
        local = who - clock.first
        other = (writer != UNTOUCHED) & (writer != who)
        if not other.any():
            return other
        same_block = (writer // clock.threads == who // clock.threads) | (writer == ATOMIC)
        apart = same_block & (written < clock.block[local])
        same_warp = same_block & (writer // clock.warp == who // clock.warp)
        return other & ~apart & ~(same_warp & (met < clock.warps[local]))


def _pair(wrong: NDArray[np.bool_], other: Lanes, who: Lanes, does: str, did: str) -> str:
    if not wrong.any():
        return ""
    k = tuple(np.argwhere(wrong)[0])
    names = {SEVERAL: "s of several blocks or of this one", ATOMIC: " that is atomic"}
    them = int(other[k])
    return f"thread {int(who[k[0], 0])} {does}{names.get(them, f' {them}')} {did}".rstrip()


@dataclass(slots=True)
class Piece:
    """One allocation."""

    start: int
    data: NDArray[np.uint8]
    shadow: Shadow
    name: str
    writable: bool = True

    @property
    def end(self) -> int:
        return self.start + self.data.size


class Space:
    """A memory of several allocations, with nothing between them."""

    def __init__(self, first: int = FIRST) -> None:
        self.pieces: list[Piece] = []
        self._next = first
        self._starts = np.zeros(0, np.int64)

    def add(self, data: Array, name: str = "", known: bool = True, writable: bool = True) -> int:
        """The address of an array, which stays the memory; its start must suit every access."""
        raw = data.reshape(-1).view(np.uint8)
        start, size = self._next, data.nbytes
        piece = Piece(start, raw, Shadow.of(size, known), name, writable)
        self._next += -(-(size + PAGE) // PAGE) * PAGE
        self.pieces.append(piece)
        self._starts = np.array([p.start for p in self.pieces], np.int64)
        return start

    def allocate(self, size: int, name: str = "", known: bool = False) -> int:
        """The address of new memory, full of a pattern that no result has."""
        return self.add(np.full(size, 0xA5, np.uint8), name, known)

    def free(self, start: int) -> None:
        """Give an allocation back; its addresses are not used again."""
        self.pieces.remove(self.piece(start))
        self._starts = np.array([p.start for p in self.pieces], np.int64)

    def piece(self, address: int) -> Piece:
        """The allocation that an address lies in."""
        k = int(np.searchsorted(self._starts, address, "right")) - 1
        if k < 0 or address > self.pieces[k].end:
            raise Fault("bounds", f"nothing is allocated at {address:#x}")
        return self.pieces[k]

    def find(self, at: Lanes, size: int) -> list[tuple[Piece, NDArray[np.bool_] | None]]:
        """The allocations of accesses, with who accesses each; ``None`` for all."""
        first = self.piece(int(at[0]))
        if ((at >= first.start) & (at + size <= first.end)).all():
            return [(first, None)]
        which = np.searchsorted(self._starts, at, "right") - 1
        found: list[tuple[Piece, NDArray[np.bool_] | None]] = []
        for k in np.unique(which):
            chosen = which == k
            piece = self.pieces[k] if k >= 0 else None
            inside = piece is not None and at[chosen].max() + size <= piece.end
            if piece is None or not inside:
                where = at[chosen].max() - (piece.start if piece else 0)
                name = piece.name if piece else "anything"
                long = piece.data.size if piece else 0
                raise Fault("bounds", f"{size} bytes at {where} of {name}, which has {long}")
            found.append((piece, chosen))
        return found


def words(data: NDArray[np.uint8], width: int) -> Array:
    """Memory as words of so many bytes."""
    kind = np.dtype(f"u{width}")
    return data[: data.size // width * width].view(kind)


def aligned(at: Lanes, size: int) -> None:
    """Refuse addresses that do not suit an access."""
    low = at & (size - 1)
    if low.any():
        wrong = int(at[low != 0][0])
        raise Fault("misaligned", f"{size} bytes at {wrong:#x}")
