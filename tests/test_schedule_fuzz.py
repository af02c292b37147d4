"""Random loop nests under random schedules: what is accepted keeps the result to the bit, what is
refused with a witness conflicts, every trace replays."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from replay import assert_replays
from schedule_programs import Case, make

from aisc.ir.diagnostics import CompileError
from aisc.ir.node import Node
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import For, Seq
from aisc.ir.tensor.verify_func import verify_func
from aisc.ir.tensor.visitor import buffers_of, substitute, transform
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_ir
from aisc.passes.schedule import schedule as registry
from aisc.passes.schedule.legality import ScheduleError
from aisc.passes.schedule.schedule import Schedule, trace_from_json, trace_to_json
from aisc.passes.schedule.tree import loops_of, places, statements
from aisc.passes.tensor.optimize import optimize

STEPS = 9
Args = tuple[Any, ...]


class Moves:
    """Random arguments for each primitive, from what a function holds."""

    def __init__(self, rng: random.Random, func: Func) -> None:
        self.rng, self.func = rng, func
        self.loops = [f.var.name for f in loops_of(func.body)] or ["none"]
        self.blocks = [p.block.name for p in places(func.body)] or ["none"]
        self.buffers = [b.name for b in buffers_of(func.body)] or ["none"]

    def loop(self) -> str:
        return self.rng.choice(self.loops)

    def block(self) -> str:
        return self.rng.choice(self.blocks)

    def buffer(self) -> str:
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
        return self.rng.randint(low, high)

    def pack(self) -> Args:
        b = self.rng.choice(list(buffers_of(self.func.body)))
        order = list(range(b.rank + 1))
        self.rng.shuffle(order)
        return b.name, self.rng.randint(0, max(0, b.rank - 1)), self.number(), tuple(order)

    def permute(self) -> Args:
        b = self.rng.choice(list(buffers_of(self.func.body)))
        return b.name, tuple(self.rng.sample(range(b.rank), b.rank))

    def point(self) -> int | str:
        names = [v.name for v in self.func.dims]
        if names and self.rng.random() < 0.3:
            return self.rng.choice(["{0} // 2", "{0} - 1", "{0} + 1 - 2 * {0}"]).format(names[0])
        return self.rng.randint(-3, 4)

    def tile(self) -> Args:
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
    "split_iter": lambda m: (m.block(), m.number(0, 2), m.number()),
}
# What moves and joins whole nests needs a fitting place, so it is tried more often.
NAMES = (*MOVES, *("compute_at", "reverse_compute_at", "fuse_loops", "fission", "pipeline") * 3)
# Instructions belong to a target's description (tests/test_dsa.py), variants match few blocks
# (tests/test_winograd.py).
ELSEWHERE = {"tensorize", "variant"}


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


def test_every_primitive_is_tried() -> None:
    registry._load()
    assert set(registry.PRIMITIVES) - ELSEWHERE == set(MOVES)


def backwards(func: Func) -> Func:
    """Parallel and vectorized loops in descending order: their iterations are independent."""

    def turn(n: Node) -> Node:
        if not isinstance(n, For) or n.kind not in ("parallel", "vectorize"):
            return n
        last = n.low + n.low + n.extent - 1
        return For(n.var, n.low, n.extent, n.kind, substitute(n.body, {n.var: last - n.var}))

    return replace(func, body=transform(func.body, turn))


class Run:
    """One case under a random schedule."""

    def __init__(self, seed: int) -> None:
        self.case, self.rng = make(seed)
        verify_func(self.case.func)
        self.expected = self.case.run(self.case.func)
        self.start = self.s = Schedule.of(self.case.func)
        self.refusals = 0

    def step(self) -> None:
        """Try one primitive."""
        moves = Moves(self.rng, self.s.func)
        name = self.rng.choice(NAMES)
        args = MOVES[name](moves)
        try:
            after = self.s.apply(name, *args)
        except CompileError as refusal:
            self.refused(refusal, name, args)
            return
        self.s = after
        verify_func(after.func)
        self.same(after.func, "it")
        kinds = {f.kind for f in loops_of(after.func.body)}
        if kinds & {"parallel", "vectorize"}:
            self.same(backwards(after.func), "its reversed lanes and threads")
            self.same(after.func, "its interleaved threads", nthreads=3)

    def refused(self, why: CompileError, name: str, args: Args) -> None:
        """A refusal is of the schedule's codes, and its witness is real."""
        assert set(why.codes) <= {"E302", "E303", "E304"}, self.told(name, args)
        self.refusals += 1
        if isinstance(why, ScheduleError) and why.witness is not None:
            assert why.codes == ("E303",)
            assert_replays(why.func, why.witness)

    def told(self, name: str, args: Args) -> str:
        return f"{self.s.to_python()}\ns.{name}{args}"

    def same(self, func: Func, what: str, nthreads: int = 1) -> None:
        found = self.case.run(func, self.s.packers, nthreads)
        for name, array in self.expected.items():
            assert np.array_equal(found[name], array), f"{what} differs:\n{self.s.to_python()}"

    def finish(self) -> None:
        """What holds of every schedule."""
        again = trace_from_json(trace_to_json(self.s.trace))
        replayed = self.start.replay(again)
        assert replayed.func == self.s.func
        assert print_ir(replayed.func) == print_ir(self.s.func)
        assert parse_func(print_ir(self.s.func)) == self.s.func
        if not any("." in f.kind for f in loops_of(self.s.func.body)):
            self.same(optimize(self.s.func), "step 8")


def check(seed: int) -> tuple[Case, Schedule]:
    run = Run(seed)
    for _ in range(STEPS):
        run.step()
    run.finish()
    return run.case, run.s


@pytest.mark.parametrize("start", range(0, 400, 10))
def test_random_schedules_keep_the_meaning(start: int) -> None:
    for seed in range(start, start + 10):
        check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 11000, 100))
def test_many_random_schedules_keep_the_meaning(start: int) -> None:
    for seed in range(start, start + 100):
        check(seed)
