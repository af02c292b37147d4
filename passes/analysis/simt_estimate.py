"""How long a kernel takes on a SIMT machine, by its description: the analytical model for GPUs.

What a warp accesses is found by evaluating addresses for its lanes: sectors of global memory, and
how many words of shared memory fall into one bank. A block then needs what its busiest part needs:
arithmetic, issue, shared memory, global memory; as many blocks as fit a multiprocessor hide each
other's latency (the model of Hong & Kim, *An analytical model for a GPU architecture*, 2009, with
what is counted taken from the code itself).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from math import ceil, prod

from aisc.ir.dataclass import dataclass
from aisc.ir.target import Target
from aisc.ir.tensor.expr import Expr, Load, variables
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import Alloc, Barrier, For, If, Invoke, Let, Seq, Stmt, Store, While
from aisc.ir.tensor.tree import places, statements
from aisc.passes.analysis.cost import extent
from aisc.passes.analysis.instructions import UNKNOWN_TURNS, operations, weight
from aisc.passes.analysis.simt_kernel import launches, of_warp
from aisc.passes.analysis.turns import Values, place_of

SECTOR, BANKS, WORD = 32, 32, 4
# Cycles from asking global memory to having it, and of a barrier; threads that a multiprocessor
# holds; registers of a thread beside its tile. Where a description has limits, they hold instead.
LATENCY, BARRIER, RESIDENT, OWN_REGISTERS = 500, 30, 2048, 24
LAUNCH = 2000.0


@dataclass(frozen=True, slots=True)
class SimtEstimate:
    """Cycles of a launch. For one block: instructions of its warps, cycles of shared memory,
    sectors of global memory; occupancy: warps that a multiprocessor holds, of those that it could;
    conflicts: accesses of shared memory that a conflict-free kernel would need, over those here."""

    cycles: float
    instructions: float
    shared: float
    sectors: float
    occupancy: float
    conflicts: float
    bound: str


@dataclass(slots=True)
class _Counts:
    """What one warp does."""

    arithmetic: float = 0.0
    accesses: float = 0.0
    shared: float = 0.0
    ideal: float = 0.0
    sectors: float = 0.0
    waits: float = 0.0
    barriers: float = 0.0
    other: float = 0.0
    matrices: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Where:
    """The loops around: turns of those that repeat code, and the unrolled ones."""

    turns: float = 1.0
    unrolled: Mapping[str, int] = field(default_factory=dict)

    @property
    def all(self) -> float:
        """How often code runs that depends on all loops."""
        return self.turns * prod(self.unrolled.values())

    def times(self, e: Expr | Store) -> float:
        """How often code with these values runs: not again for unrolled loops that it does not
        depend on."""
        parts = e.indices if isinstance(e, Store | Load) else (e,)
        names = {v.name for p in parts for v in variables(p)}
        return self.turns * prod(n for v, n in self.unrolled.items() if v in names)


def simt_estimate(func: Func, target: Target, sizes: Values | None = None) -> SimtEstimate:
    """The time of a kernel after step 8, by the numbers of the description: that of its launches
    together, which are bound by what the longest is bound by."""
    parts = [_of_launch(part, target, sizes) for part in launches(func)]
    longest = max(parts, key=lambda e: e.cycles)
    return SimtEstimate(
        sum(e.cycles for e in parts), sum(e.instructions for e in parts),
        sum(e.shared for e in parts), sum(e.sectors for e in parts),
        longest.occupancy, longest.conflicts, longest.bound,
    )  # fmt: skip


def _of_launch(func: Func, target: Target, sizes: Values | None) -> SimtEstimate:
    known = {**{v.name: UNKNOWN_TURNS for v in func.dims}, **(sizes or {})}
    shape = dict.fromkeys(("block.x", "block.y", "block.z", "thread.x", "thread.y", "thread.z"), 1)
    for s in statements(func.body):
        if isinstance(s, For) and s.kind in shape:
            shape[s.kind] = max(shape[s.kind], extent(s.extent, known, UNKNOWN_TURNS))
    lanes = _lanes(func, shape, target)
    warp = int(target.limits.get("warp", 32))
    threads = prod(n for k, n in shape.items() if k.startswith("thread"))
    warps, blocks = ceil(threads / warp), prod(n for k, n in shape.items() if k.startswith("block"))
    counts = _Counts()
    _walk(func.body, known, lanes, _Where(), counts)
    return _combined(func, target, counts, warps, warp, blocks)


def _combined(
    func: Func, target: Target, c: _Counts, warps: int, warp: int, blocks: int
) -> SimtEstimate:
    rate = target.rates.get("fma_f32", 128.0) / warp  # warp instructions in a cycle
    held = [s.buffer for s in statements(func.body) if isinstance(s, Alloc)]
    shared = sum(_bytes(b) for b in held if b.space == "shared")
    registers = OWN_REGISTERS + sum(_bytes(b) // WORD for b in held if b.space == "register")
    resident = _resident(target, warps, warp, shared, registers)
    instructions = warps * (c.arithmetic + c.accesses + c.other)
    bandwidth = _bandwidth(target, "global", 1900.0) / max(1, target.cores)
    sides = {
        "arithmetic": warps * c.arithmetic / rate,
        "matrix": warps * sum(n * _cycles(name, target) for name, n in c.matrices.items()),
        "issue": instructions / rate,
        "shared": warps * c.shared * warp * WORD / _bandwidth(target, "shared", 128.0),
        "global": warps * c.sectors * SECTOR / bandwidth,
    }
    at_once = min(resident, ceil(blocks / max(1, target.cores)))
    waiting = (c.waits * LATENCY + c.barriers * BARRIER) / max(1, at_once)
    bound = max(sides, key=lambda k: sides[k])
    busiest = sides[bound]
    one = max(busiest, waiting) + 0.2 * min(busiest, waiting)
    turns = ceil(blocks / max(1, target.cores))
    most = target.limits.get("threads_per_multiprocessor", RESIDENT) / warp
    return SimtEstimate(
        LAUNCH + turns * one, instructions, warps * c.shared, warps * c.sectors,
        min(1.0, resident * warps / most), c.ideal / c.shared if c.shared else 1.0,
        "latency" if waiting > busiest else bound,
    )  # fmt: skip


def _cycles(name: str, target: Target) -> float:
    """Cycles for which an instruction keeps a multiprocessor: its multiply-adds by their rate."""
    (place,) = places(target.intrinsic(name).semantics.body)
    return prod(extent(f.extent, {}, 1) for f in place.loops) / target.rates.get(name, 1.0)


def _resident(target: Target, warps: int, warp: int, shared: int, registers: int) -> int:
    """Blocks that a multiprocessor holds at a time."""
    most = int(target.limits.get("threads_per_multiprocessor", RESIDENT)) // warp
    found = [most // max(1, warps)]
    if shared:
        room = next((m.bytes for m in target.memories if m.name == "shared"), 48 << 10)
        room = int(target.limits.get("shared_per_multiprocessor", room))
        found.append(room // shared)
    file = next((m.bytes for m in target.memories if m.name == "register"), 256 << 10)
    found.append(file // (WORD * registers * warps * warp))
    return max(1, min(found))


def _bandwidth(target: Target, name: str, usual: float) -> float:
    return next((m.bandwidth for m in target.memories if m.name == name and m.bandwidth), usual)


def _bytes(b: Buffer) -> int:
    return prod(d for d in b.shape if isinstance(d, int)) * b.dtype.bytes


def _lanes(func: Func, shape: Mapping[str, int], target: Target) -> list[dict[str, int]]:
    """The thread indices of each lane of the first warp, by the names that loops give them."""
    names: dict[str, set[str]] = {}
    for s in statements(func.body):
        if isinstance(s, For) and s.kind.startswith("thread"):
            names.setdefault(s.kind, set()).add(s.var.name)
    x, y = shape["thread.x"], shape["thread.y"]
    found = []
    for lane in range(min(int(target.limits.get("warp", 32)), prod(shape.values()))):
        at = {"thread.x": lane % x, "thread.y": lane // x % y, "thread.z": lane // (x * y)}
        found.append({n: at[k] for k, group in names.items() for n in group})
    return found or [{}]


def _walk(s: Stmt, sizes: Values, lanes: list[dict[str, int]], at: _Where, c: _Counts) -> None:
    if isinstance(s, Seq):
        for part in s.stmts:
            _walk(part, sizes, lanes, at, c)
    elif isinstance(s, For):
        _loop(s, sizes, lanes, at, c)
    elif isinstance(s, While):
        _walk(s.body, sizes, lanes, _Where(at.turns * UNKNOWN_TURNS, at.unrolled), c)
    elif isinstance(s, If):
        c.other += at.turns
        _walk(s.then, sizes, lanes, at, c)
        if s.other is not None:
            _walk(s.other, sizes, lanes, at, c)
    elif isinstance(s, Let):
        _walk(s.body, sizes, lanes, at, c)
    elif isinstance(s, Barrier):
        c.barriers += at.turns if s.scope == "block" else 0
    elif isinstance(s, Store):
        _store(s, sizes, lanes, at, c)
    elif isinstance(s, Invoke):
        _instruction(s, sizes, lanes, at, c)


def _instruction(
    s: Invoke, sizes: Values, lanes: list[dict[str, int]], at: _Where, c: _Counts
) -> None:
    """One of a warp that works on registers, or one on memory."""
    memory = [r for r in s.operands if r.buffer.space in ("global", "shared")]
    if not memory:
        c.matrices[s.intrinsic] = c.matrices.get(s.intrinsic, 0.0) + at.all
    for r in memory:
        bytes_ = r.buffer.dtype.bytes * prod(extent(e, sizes, 1) for e in r.extent)
        each = at.times(Load(r.buffer, r.low))
        c.accesses += each
        total = bytes_ if of_warp(s) else bytes_ * len(lanes)
        if r.buffer.space == "shared":  # layouts of such instructions have no conflicts
            c.shared += each * ceil(total / (BANKS * WORD))
            c.ideal += each * ceil(total / (BANKS * WORD))
        else:
            places = {place_of(r.buffer, r.low, {**sizes, **lane})[0] for lane in lanes}
            touched = {(p + k) // SECTOR for p in places for k in (0, bytes_ - 1)}
            c.sectors += each * max(len(touched), ceil(bytes_ / SECTOR))


def _loop(f: For, sizes: Values, lanes: list[dict[str, int]], at: _Where, c: _Counts) -> None:
    count = extent(f.extent, sizes, UNKNOWN_TURNS)
    if f.kind.startswith(("block", "thread")):
        _walk(f.body, sizes, lanes, at, c)
    elif f.kind in ("unroll", "vectorize"):
        _walk(f.body, sizes, lanes, _Where(at.turns, {**at.unrolled, f.var.name: count}), c)
    else:
        before = c.sectors
        _walk(f.body, sizes, lanes, _Where(at.turns * count, at.unrolled), c)
        c.other += 2 * at.turns * count
        if c.sectors > before:  # a turn waits for what it asks global memory for
            c.waits += at.turns * count


def _store(s: Store, sizes: Values, lanes: list[dict[str, int]], at: _Where, c: _Counts) -> None:
    for n in operations(s.value):
        if isinstance(n, Load):
            _access(n, n.buffer, at.times(n), sizes, lanes, c)
        else:
            c.arithmetic += at.times(n) * weight(n)
    _access(s, s.buffer, at.times(s), sizes, lanes, c)


def _access(
    n: Load | Store, b: Buffer, times: float, sizes: Values, lanes: list[dict[str, int]], c: _Counts
) -> None:
    """An access of a warp: its sectors, or the turns that its banks need."""
    if b.space in ("register", "warp"):
        return
    c.accesses += times
    places = [place_of(b, n.indices, {**sizes, **lane})[0] for lane in lanes]
    if b.space == "shared":
        words: dict[int, set[int]] = {}
        for p in places:
            words.setdefault(p // WORD % BANKS, set()).add(p // WORD)
        c.shared += times * max(len(w) for w in words.values())
        c.ideal += times * ceil(len(set(places)) * b.dtype.bytes / (BANKS * WORD))
    else:
        c.sectors += times * len({p // SECTOR for p in places})
