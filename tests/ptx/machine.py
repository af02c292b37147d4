"""The machine: launches of kernels, several blocks of threads at a time.

Threads that stand at the same basic block run it together. Of several blocks of code the first in
the order of :mod:`ptx.syntax` is next, so that threads that part meet again. A thread that comes to
a barrier, or to what its warp does together, waits for the others there; where all wait and none
can go on, the kernel is wrong.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptx import access, arithmetic, together
from ptx.access import Memories
from ptx.counters import Counters
from ptx.memory import FIRST, Clock, Fault, Piece, Shadow, Space
from ptx.state import Layout, Mask, State
from ptx.syntax import ENDS, MEETS, Block, Instruction, Kernel, Module, Name, Variable

Lanes = NDArray[np.int64]
Bools = NDArray[np.bool_]
LANES = 4096  # threads that run together, about


class LaunchFault(Exception):
    """What a kernel did wrong, and where: `kind` as of :class:`ptx.memory.Fault`."""

    def __init__(self, fault: Fault, kernel: str, i: Instruction | None) -> None:
        where = f"line {i.line}: {i.text}: " if i else ""
        super().__init__(f"{kernel}: {where}{fault}")
        self.kind, self.line, self.opcode = fault.kind, i.line if i else 0, i.opcode if i else ""


@dataclass
class Machine:
    """Executes the kernels of a module on a memory. races, count: whether it looks for races, and
    counts what accesses take; limit: basic blocks that a batch of blocks may run."""

    module: Module
    memory: Space
    warp: int = 32
    banks: int = 32
    races: bool = True
    count: bool = True
    limit: int = 1_000_000
    _launches: itertools.count[int] = field(default_factory=itertools.count)

    @cached_property
    def variables(self) -> dict[str, int]:
        """The variables of the module, in memory."""
        found = {}
        for v in self.module.variables:
            if v.space in ("global", "const"):
                assert v.initial is not None, v.name
                data = np.frombuffer(v.initial, np.uint8).copy()
                found[v.name] = self.memory.add(data, v.name, writable=v.space == "global")
        return found

    def launch(
        self, name: str, grid: tuple[int, int, int], args: Sequence[int],
        threads: tuple[int, int, int] | None = None, dynamic: int = 0,
    ) -> Counters:  # fmt: skip
        """Run a kernel to its end, and tell what it took; ``LaunchFault`` for what goes wrong."""
        kernel = self.module.kernels[name]
        size = kernel.threads or threads
        if size is None or (threads is not None and threads != size):
            raise LaunchFault(Fault("unknown", f"{threads} threads of {size}"), name, None)
        if len(args) != len(kernel.params):
            raise LaunchFault(Fault("unknown", f"{len(args)} arguments"), name, None)
        for piece in self.memory.pieces:
            piece.shadow.forget()
        counters, total = Counters(), grid[0] * grid[1] * grid[2]
        for low in range(0, total, step := max(1, LANES // (size[0] * size[1] * size[2]))):
            batch = _Batch(self, kernel, counters, (grid, size), range(low, min(low + step, total)))
            batch.start(args, dynamic)
            batch.run()
        return counters


class _Batch:
    """Some blocks of a grid, running."""

    def __init__(
        self, machine: Machine, kernel: Kernel, counters: Counters,
        shape: tuple[tuple[int, int, int], tuple[int, int, int]], numbers: range,
    ) -> None:  # fmt: skip
        self.machine, self.kernel, self.counters = machine, kernel, counters
        self.grid, self.size = shape
        self.numbers = numbers
        self.threads = self.size[0] * self.size[1] * self.size[2]
        self.count = self.threads * len(numbers)
        self.by_rank = sorted(kernel.blocks, key=lambda b: b.rank)
        self.rank = np.array([b.rank for b in kernel.blocks] + [-1])
        entry = kernel.blocks[0].rank if kernel.blocks else -1
        self.at = np.full(self.count, entry)
        self.alive = np.full(self.count, entry >= 0)
        self.parked = np.zeros(self.count, np.bool_)
        self.now: Instruction | None = None

    def start(self, args: Sequence[int], dynamic: int) -> None:
        """Registers and memories."""
        m, t, blocks = self.machine, self.threads, len(self.numbers)
        padded = -(-t // m.warp) * m.warp
        inside = np.tile(np.arange(t), blocks)
        block = np.repeat(np.array(self.numbers), t)
        who = block * padded + inside
        clock = Clock(padded, m.warp, self.numbers[0] * padded, np.zeros(padded * blocks, np.int64),
                      np.zeros(padded * blocks, np.int64))  # fmt: skip
        shared, local = (self.layout(space, dynamic) for space in ("shared", "local"))
        names = {**m.variables, **shared.offsets, **local.offsets}
        params = {
            name: (k, int(value).to_bytes(max(8, size), "little", signed=value < 0))
            for k, ((name, size), value) in enumerate(zip(self.kernel.params, args, strict=True))
        }
        self.state = State(
            self.kernel, self.count, m.warp, {}, self.specials(inside, block), names, params,
            m.memory, clock, who, who // m.warp,
        )  # fmt: skip
        pieces = [self.piece(shared, blocks, "shared memory"),
                  self.piece(local, self.count, "local memory")]  # fmt: skip
        self.memories = Memories(
            self.state, shared, local, *pieces, self.counters, m.banks, m.races, m.count
        )
        self.memories.committed = np.zeros(self.count, np.int64)

    def layout(self, space: str, dynamic: int) -> Layout:
        """Where the variables lie that the kernel has in a memory."""
        used = {o for b in self.kernel.blocks for i in b.body for o in _names(i.operands)}
        every: list[Variable] = [*self.machine.module.variables, *self.kernel.variables]
        return Layout.of([v for v in every if v.space == space and v.name in used], dynamic)

    @staticmethod
    def piece(layout: Layout, times: int, name: str) -> Piece:
        size = layout.owner.size * times
        return Piece(FIRST, np.full(size, 0xA5, np.uint8), Shadow.of(size, False), name)

    def specials(self, inside: Lanes, block: Lanes) -> dict[str, Any]:
        """Special registers: one number, or one a thread."""
        found: dict[str, Any] = {}
        for name, number, size in (("tid", inside, self.size), ("ctaid", block, self.grid)):
            parts = (number % size[0], number // size[0] % size[1], number // (size[0] * size[1]))
            for axis, part, n in zip("xyz", parts, size, strict=True):
                found[f"%{name}.{axis}"] = part.astype(np.uint32)
                found[f"%n{name}.{axis}"] = np.full(self.count, n, np.uint32)
        lane = (inside % self.machine.warp).astype(np.uint32)
        found["%laneid"], found["%warpid"] = lane, (inside // self.machine.warp).astype(np.uint32)
        found["%WARP_SZ"] = found["WARP_SZ"] = np.full(self.count, self.machine.warp, np.uint32)
        return found

    # -- running -------------------------------------------------------------------------------

    def run(self) -> None:
        """Until every thread has ended."""
        with np.errstate(all="ignore"):
            try:
                for _ in range(self.machine.limit):
                    if not self.step():
                        return
                raise Fault("endless", f"more than {self.machine.limit} basic blocks")
            except Fault as fault:
                raise LaunchFault(fault, self.kernel.name, self.now) from None

    def step(self) -> bool:
        """Run one basic block; whether there was one."""
        ready = self.alive & ~self.parked
        if not ready.any():
            if not self.parked.any():
                return False
            if not self.release():
                raise Fault("barrier", "threads wait for others that do not come")
            return True
        rank = int(self.at[ready].min())
        block, here = self.by_rank[rank], ready & (self.at == rank)
        if block.body and block.body[0].parts[0] in MEETS and not self.together(block, here):
            self.parked |= here
            return True
        self.execute(block, here)
        return True

    def together(self, block: Block, here: Bools) -> bool:
        """Whether all threads are there that take part in the first instruction of a block."""
        self.now = first = block.body[0]
        if _is_barrier(first):
            rows = here.reshape(-1, self.threads)
            return bool((rows.all(axis=1) | ~rows.any(axis=1)).all())
        wanted = self.alive & np.isin(self.state.warps, np.unique(self.state.warps[here]))
        if (wanted == here).all():
            return True
        asked = self.asked(first, here)
        return bool((asked & ~here).sum() == 0)

    def asked(self, i: Instruction, here: Bools) -> Bools:
        """The threads that those who are there name as taking part."""
        s = self.state
        members = s.value(i.operands[-1], "u32") if "sync" in i.parts and i.operands else None
        if i.parts[0] in ("mma", "ldmatrix", "stmatrix") or members is None:
            return self.alive & np.isin(s.warps, np.unique(s.warps[here]))
        masks = np.broadcast_to(members, self.count)
        inside = s.who % s.clock.threads % s.warp
        found = np.zeros(self.count, np.bool_)
        for warp in np.unique(s.warps[here]):
            mine = s.warps == warp
            bits = int(np.bitwise_or.reduce(masks[mine & here]))
            found |= mine & (bits >> inside & 1 == 1)
        return found

    def release(self) -> bool:
        """Let threads go on that all stand at what they do together; whether there are any."""
        moved = False
        for rank in np.unique(self.at[self.parked]):
            block, here = self.by_rank[int(rank)], self.parked & (self.at == rank)
            self.now = block.body[0]
            if _is_barrier(self.now):
                rows = here.reshape(-1, self.threads)
                go = np.repeat(rows.all(axis=1), self.threads)
            else:
                asked = self.asked(self.now, here)
                lacking = np.unique(self.state.warps[asked & ~here])
                go = here & ~np.isin(self.state.warps, lacking)
            if go.any():
                self.parked &= ~go
                self.execute(block, go)
                moved = True
        return moved

    def execute(self, block: Block, here: Bools) -> None:
        """Run a basic block in some threads, and send them on."""
        mask: Mask = None if here.all() else here
        for i in block.body:
            self.now = i
            taken = self.state.guard(i.guard, i.negated, mask) if i.guard else mask
            if i.parts[0] in ENDS:
                self.leave(i, here, taken)
                here = here & ~(here if taken is None else taken)
            elif taken is None or taken.any():
                self.one(i, taken)
        if here.any():
            if block.next < 0:
                raise Fault("unknown", "the end of a kernel without ret")
            self.at[here] = self.rank[block.next]

    def leave(self, i: Instruction, here: Bools, taken: Mask) -> None:
        """Send threads to a label, or end them."""
        going = here if taken is None else taken & here
        if i.parts[0] == "bra":
            target = i.operands[0]
            assert isinstance(target, Name), i.text
            self.at[going] = self.rank[self.kernel.labels[target.name]]
        elif i.parts[0] == "trap" and going.any():
            raise Fault("trap", "the kernel gives up")
        else:
            self.alive[going] = False

    def one(self, i: Instruction, mask: Mask) -> None:
        """Execute an instruction that is no jump."""
        name = i.parts[0]
        plain = arithmetic.HANDLERS.get(name)
        if plain is not None:
            plain(self.state, i, mask)
            return
        if _is_barrier(i):
            self.pass_barrier(i, mask)
            return
        handler = _handler(name)
        lanes = np.arange(self.count) if mask is None else np.flatnonzero(mask)
        handler(self.memories, i, mask, lanes)

    def pass_barrier(self, i: Instruction, mask: Mask) -> None:
        """A new interval between barriers begins."""
        if len(i.operands) > 1 and int(self.state.value(i.operands[1], "u32")) != self.threads:
            raise Fault("unknown", "a barrier of a part of the block")
        going = np.ones(self.count, np.bool_) if mask is None else mask
        clock = self.state.clock
        clock.block[self.state.who[going] - clock.first] += 1


def _is_barrier(i: Instruction) -> bool:
    return i.parts[0] == "barrier" or (i.parts[0] == "bar" and i.parts[1] != "warp")


def _handler(name: str) -> Callable[[Memories, Instruction, Mask, Lanes], None]:
    found = access.HANDLERS.get(name) or together.HANDLERS.get(name)
    if found is None:
        raise Fault("unknown", f"the opcode {name}")
    return found


def _names(operands: Sequence[Any]) -> set[str]:
    """The variables that operands name."""
    found: set[str] = set()
    for o in operands:
        if isinstance(o, Name):
            found.add(o.name)
        elif hasattr(o, "parts"):
            found |= _names(o.parts)
        elif hasattr(o, "base") and isinstance(o.base, Name):
            found.add(o.base.name)
    return found
