"""Instructions that touch memory: loads, stores, atomics, asynchronous copies, addresses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptx.arithmetic import kind_of
from ptx.counters import Counters
from ptx.memory import LOCAL_WINDOW, SHARED_WINDOW, Fault, Piece, aligned, words
from ptx.state import KINDS, Layout, Mask, State
from ptx.syntax import Address, Imm, Instruction, Name, Operand, Several

Array = NDArray[Any]
Lanes = NDArray[np.int64]
SPACES = ("global", "shared", "local", "param", "const")
ORDERED = ("volatile", "relaxed", "acquire", "release")


@dataclass(slots=True)
class Batch:
    """Asynchronous copies of one instruction that have not landed."""

    lanes: Lanes
    to: Lanes
    data: NDArray[np.uint8]
    group: Lanes
    line: int


@dataclass(slots=True)
class Memories:
    """The memories of several blocks: what they share with each other, and each its own."""

    state: State
    shared: Layout
    local: Layout
    shared_piece: Piece
    local_piece: Piece
    counters: Counters
    banks: int
    races: bool
    count: bool
    in_flight: list[Batch] = field(default_factory=list)
    committed: Lanes = field(default_factory=lambda: np.zeros(0, np.int64))

    # -- addresses -----------------------------------------------------------------------------

    def addresses(self, operand: Operand, lanes: Lanes) -> Lanes:
        """The addresses of an operand in brackets."""
        if not isinstance(operand, Address):
            raise Fault("unknown", f"an address {operand}")
        if isinstance(operand.base, Imm):
            return np.full(len(lanes), operand.base.value + operand.offset)
        raw = self.state.value(operand.base, "u64")
        base = raw[lanes] if raw.shape else np.full(len(lanes), raw)
        found: Lanes = base.astype(np.int64) + operand.offset
        return found

    def space(self, i: Instruction, at: Lanes) -> tuple[str, Lanes]:
        """The memory that an instruction names, or that generic addresses lie in."""
        named = next((p.split("::")[0] for p in i.parts if p.split("::")[0] in SPACES), "")
        if named == "const":
            return "global", at
        if named:
            return named, at
        windows = ((LOCAL_WINDOW, "local"), (SHARED_WINDOW, "shared"))
        for low, name in windows:
            inside = at >= low
            if inside.all():
                return name, at - low
            if inside.any():
                raise Fault("unknown", "threads of one access in several memories")
        return "global", at

    def cells(
        self, space: str, at: Lanes, size: int, lanes: Lanes
    ) -> list[tuple[Piece, Lanes, NDArray[np.bool_] | None]]:
        """Where accesses lie: allocations, places in them, and whose they are."""
        aligned(at, size)
        if space == "global":
            found = self.state.memory.find(at, size)
            return [(p, (at if who is None else at[who]) - p.start, who) for p, who in found]
        layout, piece = (
            (self.shared, self.shared_piece)
            if space == "shared"
            else (self.local, self.local_piece)
        )
        if not layout.inside(at, size):
            raise Fault("bounds", f"{size} bytes at {int(at.max())} of {space} memory")
        which = lanes if space == "local" else lanes // (self.state.count // self.blocks)
        return [(piece, which * layout.owner.size + at, None)]

    @property
    def blocks(self) -> int:
        return self.shared_piece.data.size // max(1, self.shared.owner.size)

    # -- reading and writing -------------------------------------------------------------------

    def read(
        self, i: Instruction, space: str, at: Lanes, lanes: Lanes, width: int, count: int
    ) -> list[Array]:
        """Elements, `count` for each thread, as words of so many bytes."""
        size = width * count
        found = [np.zeros(len(lanes), f"u{width}") for _ in range(count)]
        for piece, cell, who in self.cells(space, at, size, lanes):
            chosen = lanes if who is None else lanes[who]
            self.check_read(piece, cell, size, chosen, space, i)
            view = words(piece.data, width)
            for k in range(count):
                got = view[cell // width + k]
                if who is None:
                    found[k] = got
                else:
                    found[k][who] = got
        self.note(i, space, at, lanes, size, False)
        return found

    def write(
        self, i: Instruction, space: str, at: Lanes, lanes: Lanes, values: list[Array]
    ) -> None:
        """Store elements of each thread."""
        width = values[0].dtype.itemsize
        size = width * len(values)
        for piece, cell, who in self.cells(space, at, size, lanes):
            chosen = lanes if who is None else lanes[who]
            self.check_write(piece, cell, size, chosen, space, i)
            view = words(piece.data, width)
            for k, value in enumerate(values):
                view[cell // width + k] = value if who is None else value[who]
        self.note(i, space, at, lanes, size, True)

    def check_read(
        self, piece: Piece, cell: Lanes, size: int, lanes: Lanes, space: str, i: Instruction
    ) -> None:
        if space == "local":
            return
        shadow = piece.shadow
        every = cell[:, None] + np.arange(size)
        if self.in_flight and shadow.pending[every].any():
            raise Fault(
                "pending", f"reads {piece.name} before its asynchronous copy was waited for"
            )
        if not shadow.known[every].all():
            k = int(np.argmin(shadow.known[every].all(axis=1)))
            raise Fault(
                "uninitialised", f"thread {lanes[k]} reads byte {cell[k]} of {piece.name}, "
                "which nothing has written",
            )  # fmt: skip
        if self.races and not any(p in ORDERED for p in i.parts):
            self.complain(piece, shadow.on_read(cell, size, self.state.who[lanes], self.clock))

    def check_write(
        self, piece: Piece, cell: Lanes, size: int, lanes: Lanes, space: str, i: Instruction
    ) -> None:
        if space == "local":
            return
        if not piece.writable:
            raise Fault("bounds", f"writes {piece.name}, which is read only")
        shadow = piece.shadow
        every = cell[:, None] + np.arange(size)
        if self.in_flight and shadow.pending[every].any():
            raise Fault("pending", f"writes {piece.name} while an asynchronous copy is under way")
        shadow.known[every] = True
        if self.races:
            atomic = i.parts[0] in ("atom", "red") or any(p in ORDERED for p in i.parts)
            who = self.state.who[lanes]
            self.complain(piece, shadow.on_write(cell, size, who, self.clock, atomic))

    @property
    def clock(self) -> Any:
        return self.state.clock

    @staticmethod
    def complain(piece: Piece, text: str) -> None:
        if text:
            raise Fault("race", f"{piece.name}: {text}")

    def note(
        self, i: Instruction, space: str, at: Lanes, lanes: Lanes, size: int, write: bool
    ) -> None:
        """Count a request."""
        if not self.count or not len(lanes) or space not in ("global", "shared"):
            return
        s = self.state
        warps = s.warps[lanes]
        if space == "global":
            self.counters.note_global(i.line, write, size, warps, at)
        else:
            inside = s.who[lanes] % s.clock.threads % s.warp
            shape = (s.warp, self.banks)
            self.counters.note_shared(i.line, write, size, warps, inside, at, shape)

    # -- asynchronous copies -------------------------------------------------------------------

    def begin(self, i: Instruction, to: Lanes, data: NDArray[np.uint8], lanes: Lanes) -> None:
        """Poison what a copy will write."""
        (piece, cell, _), size = self.cells("shared", to, data.shape[1], lanes)[0], data.shape[1]
        self.check_write(piece, cell, size, lanes, "shared", i)
        self.note(i, "shared", to, lanes, size, True)
        piece.shadow.pending[cell[:, None] + np.arange(size)] = True
        group = self.committed[lanes].copy()
        self.in_flight.append(Batch(lanes, cell, data, group, i.line))

    def commit(self, lanes: Lanes) -> None:
        """End a group of copies of these threads."""
        self.committed[lanes] += 1

    def wait(self, lanes: Lanes, newest: int, every: bool = False) -> None:
        """Land the copies of these threads but for the newest groups."""
        asked = np.zeros(self.state.count, np.bool_)
        asked[lanes] = True
        shadow, left = self.shared_piece.shadow, []
        for b in self.in_flight:
            old = every | (b.group < self.committed[b.lanes] - newest)
            done = asked[b.lanes] & old
            if done.any():
                cells = b.to[done][:, None] + np.arange(b.data.shape[1])
                self.shared_piece.data[cells] = b.data[done]
                shadow.pending[cells] = False
                who = self.state.who[b.lanes[done]]
                if self.races:
                    text = shadow.on_write(b.to[done], b.data.shape[1], who, self.clock)
                    self.complain(self.shared_piece, text)
            if not done.all():
                keep = ~done
                left.append(Batch(b.lanes[keep], b.to[keep], b.data[keep], b.group[keep], b.line))
        self.in_flight = left


# -- instructions ---------------------------------------------------------------------------------


def _elements(operand: Operand) -> tuple[Operand, ...]:
    return operand.parts if isinstance(operand, Several) else (operand,)


def load(m: Memories, i: Instruction, mask: Mask, lanes: Lanes) -> None:
    kind, results, s = kind_of(i), _elements(i.operands[0]), m.state
    width = KINDS[kind].itemsize
    source = i.operands[1]
    assert isinstance(source, Address), i.text
    if "param" in i.parts and isinstance(source.base, Name) and source.base.name in s.params:
        _, data = s.params[source.base.name]
        for k, result in enumerate(results):
            raw = data[source.offset + k * width : source.offset + (k + 1) * width]
            s.put(result, np.frombuffer(raw, KINDS[kind])[0].reshape(()), mask)
        return
    at = m.addresses(source, lanes)
    space, at = m.space(i, at)
    got = m.read(i, space, at, lanes, width, len(results))
    for result, value in zip(results, got, strict=True):
        full = value
        if mask is not None:
            full = np.zeros(s.count, value.dtype)
            full[lanes] = value
        s.put(result, full.view(KINDS[kind]), mask)


def store(m: Memories, i: Instruction, mask: Mask, lanes: Lanes) -> None:
    kind, s = kind_of(i), m.state
    values = []
    for operand in _elements(i.operands[1]):
        raw = s.value(operand, kind).view(f"u{KINDS[kind].itemsize}")
        values.append(raw[lanes] if raw.shape else np.full(len(lanes), raw))
    space, at = m.space(i, m.addresses(i.operands[0], lanes))
    m.write(i, space, at, lanes, values)


ATOMIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b, "min": min, "max": max, "and": lambda a, b: a & b,
    "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b, "exch": lambda a, b: b,
}  # fmt: skip


def atomic(m: Memories, i: Instruction, mask: Mask, lanes: Lanes) -> None:
    """``atom`` and ``red``: threads in the order of their numbers."""
    gives, kind, s = i.parts[0] == "atom", kind_of(i), m.state
    operands = i.operands[1:] if gives else i.operands
    space, at = m.space(i, m.addresses(operands[0], lanes))
    dtype, size = KINDS[kind], KINDS[kind].itemsize
    values = [np.broadcast_to(s.value(x, kind), s.count)[lanes] for x in operands[1:]]
    old = np.zeros(s.count, dtype)
    for piece, cell, who in m.cells(space, at, size, lanes):
        chosen = lanes if who is None else lanes[who]
        m.check_read(piece, cell, size, chosen, "local", i)
        m.check_write(piece, cell, size, chosen, space, i)
        view = words(piece.data, size).view(dtype)
        mine = np.arange(len(lanes)) if who is None else np.flatnonzero(who)
        for k, place in zip(mine, cell // size, strict=True):
            before = view[place]
            old[lanes[k]] = before
            if "cas" in i.parts:
                view[place] = values[1][k] if before == values[0][k] else before
            else:
                how = next(ATOMIC[p] for p in i.parts if p in ATOMIC)
                view[place] = how(before, values[0][k])
    if gives:
        s.put(i.operands[0], old, mask)


def copy_async(m: Memories, i: Instruction, mask: Mask, lanes: Lanes) -> None:
    """``cp.async`` with its groups and waits."""
    if "bulk" in i.parts:
        raise Fault("unknown", "bulk copies")
    if i.parts[2:] == ("commit_group",):
        return m.commit(lanes)
    if i.parts[2:] == ("wait_all",):
        return m.wait(lanes, 0, every=True)
    if i.parts[2:] == ("wait_group",):
        return m.wait(lanes, int(m.state.value(i.operands[0], "u32")))
    s, size = m.state, int(m.state.value(i.operands[2], "u32"))
    to, source = (m.addresses(x, lanes) for x in i.operands[:2])
    used = np.full(len(lanes), size)
    if len(i.operands) > 3:
        used = np.broadcast_to(s.value(i.operands[3], "u32"), s.count)[lanes].astype(np.int64)
    aligned(to, size)
    aligned(source, size)
    data = np.zeros((len(lanes), size), np.uint8)
    for length in np.unique(used):
        chosen = np.flatnonzero(used == length)
        if not length:
            continue
        for piece, who in s.memory.find(source[chosen], int(length)):
            mine = chosen if who is None else chosen[who]
            cell = source[mine] - piece.start
            m.check_read(piece, cell, int(length), lanes[mine], "global", i)
            data[mine, : int(length)] = piece.data[cell[:, None] + np.arange(length)]
        m.note(i, "global", source[chosen], lanes[chosen], int(length), False)
    m.begin(i, to, data, lanes)
    return None


def address_of(m: Memories, i: Instruction, mask: Mask, lanes: Lanes) -> None:
    """``cvta``: between generic addresses and those of a memory."""
    s, space = m.state, next((p for p in i.parts if p in SPACES), "global")
    window = {"shared": SHARED_WINDOW, "local": LOCAL_WINDOW}.get(space, 0)
    at = s.value(i.operands[1], "u64").astype(np.int64)
    found = at - window if "to" in i.parts else at + window
    s.put(i.operands[0], found.astype(np.uint64), mask)


def nothing(m: Memories, i: Instruction, mask: Mask, lanes: Lanes) -> None:
    """Fences and hints: threads run in an order in which they change nothing."""


def async_handler(m: Memories, i: Instruction, mask: Mask, lanes: Lanes) -> None:
    if len(i.parts) > 1 and i.parts[1] == "async":
        copy_async(m, i, mask, lanes)
    else:
        raise Fault("unknown", i.opcode)


HANDLERS: dict[str, Callable[[Memories, Instruction, Mask, Lanes], None]] = {
    "ld": load, "ldu": load, "st": store, "atom": atomic, "red": atomic, "cp": async_handler,
    "cvta": address_of, "membar": nothing, "fence": nothing, "prefetch": nothing,
    "prefetchu": nothing, "nanosleep": nothing,
}  # fmt: skip
