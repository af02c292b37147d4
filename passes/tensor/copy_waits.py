"""Waits for asynchronous copies: inserted before barriers, and proved sufficient.

before: ``for k { invoke copy(x[…], s[(k + 2) % 3, …]);  … s[k % 3, …];  barrier block }``
after:  ``for k { invoke copy(x[…], s[(k + 2) % 3, …]);  … s[k % 3, …];  await 1;  barrier block }``
A thread waits for what it has asked for, and the barrier tells the others. What a turn of a loop
has asked for may stay under way in as many later turns as touch none of it: integer sets prove that
for so many distances of turns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import Diagnostic, error
from aisc.ir.node import Node, walk
from aisc.ir.target import Target
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import Await, Barrier, For, Invoke, Seq, Stmt, seq
from aisc.ir.tensor.visitor import transform, written_buffers
from aisc.passes.analysis.simt_kernel import COPIES, Kernel
from aisc.passes.tensor.intervals import Pair, Touch, interval_pairs
from aisc.passes.tensor.simt_barriers import Race, RaceError, decide, on_memory

# Turns of a loop whose copies may be under way at a time.
MOST = 7


@dataclass(frozen=True, slots=True)
class InsertWaits:
    """The pass; see the module's docstring. Instructions are those of `target`. Precondition:
    barriers suffice if copies are made at once."""

    target: Target | None = None
    name: str = "insert-waits"

    def run(self, func: Func) -> Func:
        """Apply to one launch; E306 where no wait helps."""
        kernel = Kernel.of(func)
        if not _copies(kernel.body, self.target):
            return func
        kernel = replace(kernel, body=_before_barriers(kernel.body))
        for loop in _steady(kernel.body, self.target):
            kernel = replace(kernel, body=self._relaxed(func, kernel, loop))
        func = kernel.build(func)
        check_waits(func, self.target)
        return func

    def _relaxed(self, func: Func, kernel: Kernel, loop: For) -> Stmt:
        """The body with the wait of a loop for the copies that its next turn needs."""
        pending = 0
        while pending < MOST and _late_race(func, kernel, loop, pending + 1, self.target) is None:
            pending += 1
        if pending == MOST:  # nothing in the loop uses what it copies
            return kernel.body
        body = transform(loop.body, lambda n: Await(pending) if isinstance(n, Await) else n)
        return transform(kernel.body, lambda n: replace(loop, body=body) if n == loop else n)


def check_waits(func: Func, target: Target | None) -> None:
    """Prove that copies are there when anybody uses what they write; E306 with a witness where they
    are not."""
    kernel = Kernel.of(func)
    if not _copies(kernel.body, target):
        return
    watched = frozenset(b.name for b in written_buffers(kernel.body))
    body = transform(kernel.body, _waits_alone)
    for pair in interval_pairs(func, body, watched, on_memory(func, target)):
        if pair.first.late:
            _refuse(func, decide(func, kernel, pair, alone=True))
    steady = _steady(kernel.body, target)
    for loop in steady:
        (wait,) = _waits(loop)
        for distance in range(1, wait.pending + 1):
            _refuse(func, _late_race(func, kernel, loop, distance, target))
    partly = [w for w in _waits(kernel.body) if w.pending]
    if len(partly) > sum(w.pending > 0 for loop in steady for w in _waits(loop)):
        raise error("E306", f"{func.name}: a wait leaves copies under way that nobody waits for")


def _refuse(func: Func, race: Race | None) -> None:
    if race is not None:
        raise RaceError(
            Diagnostic(
                "E306",
                f"{func.name}: a copy into {race.buffer} is not waited for",
                func.loc,
                (str(race), "a wait is needed between the two accesses"),
            ),
            race,
        )


def _copies(s: Stmt, target: Target | None) -> list[Invoke]:
    """The asynchronous copies below a statement."""
    if target is None:
        return []
    every = (n for n in walk(s) if isinstance(n, Invoke))
    return [n for n in every if target.intrinsic(n.intrinsic).unit == COPIES]


def _waits(s: Stmt) -> list[Await]:
    return [n for n in walk(s) if isinstance(n, Await)]


def _before_barriers(s: Stmt) -> Stmt:
    """A wait for all copies before each barrier."""

    def add(n: Node) -> Node:
        return seq(Await(0), n) if isinstance(n, Barrier) and n.scope == "block" else n

    return transform(s, lambda n: seq(*n.stmts) if isinstance(n, Seq) else add(n))


def _waits_alone(n: Node) -> Node:
    """Barriers stand where waits are, and nowhere else."""
    if isinstance(n, Barrier):
        return Seq(())
    return Barrier("block") if isinstance(n, Await) else n


def _steady(body: Stmt, target: Target | None) -> list[For]:
    """Loops that copy and wait at the end of each turn: what was copied before has been waited for,
    and nothing touches afterwards what they have copied."""
    stmts = body.stmts if isinstance(body, Seq) else (body,)
    found = []
    for k, s in enumerate(stmts):
        if not isinstance(s, For) or s.kind != "serial" or not _copies(s, target):
            continue
        inside = s.body.stmts if isinstance(s.body, Seq) else ()
        at_end = len(_waits(s.body)) == 1 and [type(x) for x in inside[-2:]] == [Await, Barrier]
        written = {c.operands[-1].buffer for c in _copies(s, target)}
        after = (n for x in stmts[k + 1 :] for n in walk(x))
        used = any(getattr(n, "buffer", None) in written for n in after)
        if at_end and not used and _settled(stmts[:k], target):
            found.append(s)
    return found


def _settled(stmts: tuple[Stmt, ...], target: Target | None) -> bool:
    """Whether what these copy they wait for."""
    for s in reversed(stmts):
        if s == Await(0):
            return True
        if _copies(s, target):
            return False
    return True


def _late_race(
    func: Func, kernel: Kernel, loop: For, distance: int, target: Target | None
) -> Race | None:
    """What a turn of a loop copies and a later one touches, so many turns behind it."""
    for first, second in _uses(func, loop, target):
        pair = Pair(first, second, (), loop, distance)
        race = decide(func, kernel, pair, alone=True)
        if race is not None:
            return race
    return None


def _uses(func: Func, loop: For, target: Target | None) -> Iterator[tuple[Touch, Touch]]:
    """Copies of a loop, each with all touches of what it writes."""
    watched = frozenset(b.name for b in written_buffers(loop))
    free = transform(loop, lambda n: Seq(()) if isinstance(n, Barrier | Await) else n)
    pairs = interval_pairs(func, free, watched, on_memory(func, target))
    touches = dict.fromkeys(t for p in pairs for t in (p.first, p.second))
    for first in touches:
        if first.late:
            yield from ((first, t) for t in touches if t.buffer == first.buffer)
