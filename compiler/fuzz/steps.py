"""Random arguments for the schedule primitives, from what a function holds.

A new primitive gets a line in :data:`MOVES`; a test holds that none is missing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import For, Seq
from aisc.ir.tensor.tree import loops_of, places, statements
from aisc.ir.tensor.visitor import buffers_of

Args = tuple[Any, ...]


class Moves:
    """Random arguments for each primitive, from what a function holds."""

    def __init__(self, rng: random.Random, func: Func) -> None:
        self.rng, self.func = rng, func
        self.loops = [f.var.name for f in loops_of(func.body)] or ["none"]
        self.blocks = [p.block.name for p in places(func.body)] or ["none"]
        self.buffers = [b.name for b in buffers_of(func.body)] or ["none"]

    def loop(self) -> str:
        """Any loop."""
        return self.rng.choice(self.loops)

    def block(self) -> str:
        """Any block."""
        return self.rng.choice(self.blocks)

    def buffer(self) -> str:
        """Any buffer."""
        return self.rng.choice(self.buffers)

    def around(self) -> tuple[str, str]:
        """A block and a loop around it."""
        found = [p for p in places(self.func.body) if p.loops]
        if not found:
            return self.block(), self.loop()
        place = self.rng.choice(found)
        return place.block.name, self.rng.choice(place.loops).var.name

    def some(self, most: int) -> tuple[str, ...]:
        """Distinct loops around one block, or any loops."""
        block, _ = self.around()
        loops = [
            f.var.name for p in places(self.func.body) if p.block.name == block for f in p.loops
        ]
        if self.rng.random() < 0.1:
            loops = self.loops
        return tuple(self.rng.sample(loops, min(len(loops), self.rng.randint(1, most))))

    def either(self) -> tuple[str, str]:
        """A block, and a loop around it or any."""
        return self.around() if self.rng.random() < 0.6 else (self.block(), self.loop())

    def consumer(self) -> tuple[str, str]:
        """A block, and a loop around one that writes what it reads."""
        return self._linked(True)

    def producer(self) -> tuple[str, str]:
        """A block, and a loop around one that reads what it writes."""
        return self._linked(False)

    def _linked(self, back: bool) -> tuple[str, str]:
        found = []
        for p in places(self.func.body):
            mine = p.block.reads if back else p.block.writes
            for q in places(self.func.body):
                others = q.block.writes if back else q.block.reads
                if p is not q and {r.buffer for r in mine} & {r.buffer for r in others}:
                    found += [(p.block.name, f.var.name) for f in q.loops]
        if not found or self.rng.random() < 0.2:
            return self.block(), self.loop()
        return self.rng.choice(found)

    def sequence(self) -> tuple[str, str]:
        """A loop over a sequence, and a block in it."""
        found = [f for f in loops_of(self.func.body) if isinstance(f.body, Seq)]
        if not found:
            return self.around()[::-1]
        loop = self.rng.choice(found)
        return loop.var.name, self.rng.choice([p.block.name for p in places(loop)])

    def source(self) -> tuple[str, str]:
        """A block and a buffer that it reads."""
        found = [
            (p.block.name, r.buffer.name) for p in places(self.func.body) for r in p.block.reads
        ]
        return self.rng.choice(found) if found else (self.block(), self.buffer())

    def number(self, low: int = 1, high: int = 4) -> int:
        """A small number."""
        return self.rng.randint(low, high)

    def pack(self) -> Args:
        """A buffer, an axis of it to split, a factor and an order."""
        b = self.rng.choice(list(buffers_of(self.func.body)))
        order = list(range(b.rank + 1))
        self.rng.shuffle(order)
        return b.name, self.rng.randint(0, max(0, b.rank - 1)), self.number(), tuple(order)

    def permute(self) -> Args:
        """A buffer and an order of its axes."""
        b = self.rng.choice(list(buffers_of(self.func.body)))
        return b.name, tuple(self.rng.sample(range(b.rank), b.rank))

    def point(self) -> int | str:
        """Where to divide a loop: a number, or text over a symbolic size."""
        names = [v.name for v in self.func.dims]
        if names and self.rng.random() < 0.3:
            return self.rng.choice(["{0} // 2", "{0} - 1", "{0} + 1 - 2 * {0}"]).format(names[0])
        return self.rng.randint(-3, 4)

    def tile(self) -> Args:
        """Loops from outside to inside, and a size for each."""
        loops = self.some(2)
        found = [f.var.name for f in loops_of(self.func.body) if f.var.name in loops]
        return tuple(found), tuple(self.number() for _ in found)


SPACES = ("register", "global", "stack")
MOVES: dict[str, Callable[[Moves], Args]] = {
    "split": lambda m: (m.loop(), m.number()),
    "tile": Moves.tile,
    "fuse": lambda m: m.rng.choice(_nested(m.func)),
    "reorder": lambda m: m.some(4),
    "predicate": lambda m: (m.loop(), m.number()),
    "unroll": lambda m: (m.loop(),),
    "vectorize": lambda m: (m.loop(),),
    "parallel": lambda m: (m.loop(),),
    "annotate": lambda m: (m.loop(), "hint", 1),
    "bind": lambda m: (m.loop(), m.rng.choice(["block.x", "block.y"])),
    "partition": lambda m: (m.loop(), *(m.point() for _ in range(m.number(1, 2)))),
    "fission": Moves.sequence,
    "fuse_loops": lambda m: m.rng.choice(_siblings(m.func)),
    "inline": lambda m: (m.block(),),
    "compute_at": Moves.producer,
    "reverse_compute_at": Moves.consumer,
    "clamp_tail": lambda m: (*m.either(), m.number(2, 5), m.rng.random() < 0.5),
    "decompose_reduction": Moves.either,
    "split_chunks": lambda m: (*m.either(), m.number(2, 4)),
    "rfactor": Moves.either,
    "set_scope": lambda m: (m.buffer(), m.rng.choice(SPACES)),
    "cache_write": lambda m: (m.block(), m.rng.choice(SPACES)),
    "cache_read": lambda m: (*m.source(), m.rng.choice(SPACES)),
    "pack": Moves.pack,
    "permute": Moves.permute,
    "pipeline": lambda m: m.sequence() if m.rng.random() < 0.7 else m.either()[::-1],
    "prefetch": lambda m: (*m.source(), m.around()[1], m.number(0, 2)),
    "stream_store": lambda m: (m.block(), m.buffer()),
    "pad_reduction": lambda m: (*m.either(), m.number(2, 4)),
    "remove_unread": lambda m: (m.block(),),
    "split_iter": lambda m: (m.block(), m.number(0, 2), m.number()),
    "split_axis": lambda m: (m.buffer(), m.number(0, 2), m.number()),
    "fuse_iters": lambda m: (m.block(), m.number(0, 2)),
    "fuse_axes": lambda m: (m.buffer(), m.number(0, 2)),
    "prefetch_next": lambda m: (*m.source(), *m.rng.choice(_nested(m.func))),
}


def _nested(func: Func) -> list[Args]:
    found = [(f.var.name, f.body.var.name) for f in loops_of(func.body) if isinstance(f.body, For)]
    return found or [("none", "none")]


def _siblings(func: Func) -> list[Args]:
    """Pairs of loops of one sequence that follow each other."""
    found = []
    for s in statements(func.body):
        if isinstance(s, Seq):
            loops = [x.var.name for x in s.stmts if isinstance(x, For)]
            found += list(pairwise(loops))
    return found or [("none", "none")]
