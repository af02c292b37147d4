"""A check of a planned entry: threads that are between two barriers do not disturb each other.

The entry is walked with the set of accesses that may have happened since the last barrier, over
branches and loops (no turn, one, several) until nothing is added. It looks at memory, not at names:
buffers of one segment whose places overlap, or may overlap, are the same memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from aisc.ir.node import Node, map_children, walk
from aisc.ir.tensor.expr import Load
from aisc.ir.tensor.first_fit import aligned
from aisc.ir.tensor.func import Buffer, Program
from aisc.ir.tensor.stmt import (
    Alloc,
    Barrier,
    CallKernel,
    Copy,
    HostCall,
    If,
    Reserve,
    Seq,
    Stmt,
    While,
)


@dataclass(frozen=True)
class Access:
    """One step's use of a storage; `everyone` is false for what thread 0 does alone."""

    step: int
    storage: str
    writes: bool
    everyone: bool


@dataclass
class Stretches:
    """Walks one program; `faults` are pairs of steps that may disturb each other."""

    program: Program
    faults: dict[str, None] = field(default_factory=dict)
    steps: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        entry = self.program.entry
        self.parallel = {k.name for k in self.program.kernels if k.attr("parallel", False)}
        self.params = {k.name: k.params for k in self.program.kernels}
        slots = {
            s.var.name: (s.first, s.last)
            for n in walk(entry.body) if isinstance(n, Reserve) for s in n.slots
        }  # fmt: skip
        self.places: dict[str, tuple[str, object, int]] = {}
        buffers = [*entry.params, *(n.buffer for n in walk(entry.body) if isinstance(n, Alloc))]
        for b in buffers:
            if b.name != b.alias_set:
                continue
            if isinstance(b.offset, int):
                size = b.bytes if isinstance(b.bytes, int) else 1 << 60
                self.places[b.name] = (b.base, b.offset, aligned(size))
            else:
                self.places[b.name] = (b.base, slots[str(b.offset)], 0)
        self.walk(entry.body, frozenset())

    # --- memory -------------------------------------------------------------------------------
    def meet(self, a: str, b: str) -> bool:
        """Whether two storages may be the same memory."""
        if a == b:
            return True
        first, second = self.places.get(a), self.places.get(b)
        if first is None or second is None or not first[0].startswith("arena"):
            return False
        if first[0] != second[0]:
            return False
        if isinstance(first[1], tuple) and isinstance(second[1], tuple):  # spans of slots
            (f1, l1), (f2, l2) = first[1], second[1]
            return bool(l1 < f2 or l2 < f1)
        assert isinstance(first[1], int) and isinstance(second[1], int), "one kind a segment"
        return first[1] < second[1] + second[2] and second[1] < first[1] + first[2]

    # --- the walk -----------------------------------------------------------------------------
    def walk(self, s: Stmt, pending: frozenset[Access]) -> frozenset[Access]:
        """What may be going on after `s`."""
        if isinstance(s, Seq):
            for x in s.stmts:
                pending = self.walk(x, pending)
            return pending
        if isinstance(s, Barrier | Reserve):
            return frozenset()
        if isinstance(s, If):
            pending = self.use(s, self.loads(s.cond), pending)
            then = self.walk(s.then, pending)
            return then | (pending if s.other is None else self.walk(s.other, pending))
        if isinstance(s, While):
            while True:
                before = self.use(s, self.loads(s.cond), pending)
                after = before | self.walk(s.body, before)
                if after <= pending:
                    return before
                pending = pending | after
        pending = self.use(s, self.accesses(s), pending)
        return frozenset() if isinstance(s, HostCall) else pending

    def loads(self, n: Node) -> list[tuple[Buffer, bool, bool]]:
        return [(x.buffer, False, True) for x in walk(n) if isinstance(x, Load)]

    def accesses(self, s: Stmt) -> list[tuple[Buffer, bool, bool]]:
        """(buffer, whether it is written, whether by everyone)."""
        if isinstance(s, CallKernel):
            everyone = s.kernel in self.parallel
            pairs = zip(s.args, self.params[s.kernel], strict=True)
            return [(b, p.role not in ("input", "weight"), everyone) for b, p in pairs]
        if isinstance(s, Copy):
            return [(s.src, False, False), (s.dst, True, False)]
        if isinstance(s, HostCall):
            inputs = [(b, False, False) for b in s.inputs if b is not None]
            return inputs + [(b, True, False) for b in s.outputs if not s.binds]
        return self.loads(s)

    def use(
        self, s: Stmt, found: list[tuple[Buffer, bool, bool]], pending: frozenset[Access]
    ) -> frozenset[Access]:
        step = self.steps.setdefault(id(s), len(self.steps))
        mine = frozenset(Access(step, b.alias_set, w, every) for b, w, every in found)
        for a in pending:
            for b in mine:
                apart = a.everyone or b.everyone  # else both are thread 0, one after the other
                # In one step threads work on parts of their own; a step of the last turn is another
                # step, but it is in `pending` only where no barrier lies between.
                if (a.writes or b.writes) and apart and self.meet(a.storage, b.storage):
                    self.faults[f"steps {a.step} and {b.step}: {a.storage} and {b.storage}"] = None
        return pending | mine


def without_barrier(s: Stmt, place: int) -> tuple[Stmt, int]:
    """`s` without its barrier number `place`, and how many barriers it has."""
    count = 0

    def go(n: Stmt) -> Stmt:
        nonlocal count
        if isinstance(n, Barrier):
            count += 1
            return Seq(()) if count == place + 1 else n
        if isinstance(n, Seq | If | While):
            return map_children(n, lambda x: go(x) if isinstance(x, Stmt) else x)
        return n

    return go(s), count
