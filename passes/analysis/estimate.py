"""How long a scheduled kernel takes on a target, by its description: the analytical model.

Two sides that overlap: what the core executes (:mod:`aisc.passes.analysis.instructions`), and what
comes from beyond each level of the cache (:mod:`aisc.passes.analysis.footprint`) at the rate of
the level behind it. The longest decides; of the others a part is not hidden. Nothing here is
fitted to a machine: rates are those of the description, and where it has none, usual ones.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log2

from aisc.ir.dataclass import dataclass
from aisc.ir.node import distinct
from aisc.ir.target import Memory, Target
from aisc.ir.tensor.expr import Load
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import Alloc, For, If, Let, Seq, Stmt, Store, While
from aisc.ir.tensor.tree import statements
from aisc.ir.text.printer import print_ir
from aisc.passes.analysis.cost import extent
from aisc.passes.analysis.footprint import Nest, fetched
from aisc.passes.analysis.instructions import UNKNOWN_TURNS, cycles
from aisc.passes.analysis.turns import Access, Digit, Values, access_of, cuts_of, digits_of

# Bytes of a cycle that each level gives, where the description does not say.
USUAL_RATES = {"L2": 32.0, "L3": 12.0}
# The part of the time beside the longest that nothing hides.
EXPOSED = 0.3
# Cycles until other threads have begun, and until all have ended.
FORK = 2500.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """Cycles of one run. executed: of a core, were all operands at hand; moved: bytes that come
    from each level behind the first, by its name; waited: the cycles that takes; share: of the
    work of all threads, that of the busiest."""

    cycles: float
    executed: float
    moved: tuple[tuple[str, float], ...]
    waited: tuple[float, ...]
    share: float

    @property
    def bound(self) -> str:
        """What the time mostly goes to: `core`, or the level that the bytes come from."""
        longest = max((w for w in self.waited), default=0.0)
        if self.executed >= longest:
            return "core"
        return self.moved[self.waited.index(longest)][0]


def estimate(func: Func, target: Target, threads: int = 1, sizes: Values | None = None) -> Estimate:
    """The time of a kernel after step 8; `sizes`: values of its dimensions, others are small."""
    known = {**{v.name: UNKNOWN_TURNS for v in func.dims}, **(sizes or {})}
    share = _share(func.body, threads, known)
    executed = cycles(func.body, target, known) * share
    nest = nest_of(func, known)
    moved, waited = [], []
    for cache, behind in _levels(target):
        at_once = min(threads, target.cores) if behind.name != "L2" else 1
        total = fetched(nest, cache.bytes)
        moved.append((behind.name, total))
        waited.append(total * share / behind.bandwidth * (at_once**0.5 if at_once > 1 else 1.0))
    sides = sorted((executed, *waited))
    fork = FORK if share < 1 else 0.0
    return Estimate(
        sides[-1] + EXPOSED * sum(sides[:-1]) + fork, executed, tuple(moved), tuple(waited), share
    )


def _levels(target: Target) -> list[tuple[Memory, Memory]]:
    """Each cache, and the memory behind it with its rate."""
    names = ("L1", "L2", "L3")
    caches = [m for n in names for m in target.memories if m.name == n]
    caches = caches or [target.first_cache, target.second_cache]
    lanes = target.vector_bits / 32
    far = 2 * lanes * target.costs.fma_units / max(1, target.costs.byte_work)
    far = target.rates.get("read_memory", far)
    found = []
    for cache, behind in zip(caches, [*caches[1:], Memory("memory", 1 << 60, far)], strict=True):
        rate = behind.bandwidth or USUAL_RATES.get(behind.name, far)
        found.append((cache, Memory(behind.name, behind.bytes, rate)))
    return found


def _share(body: Stmt, threads: int, sizes: Values) -> float:
    """The part of the work that the busiest thread does."""
    if threads < 2:
        return 1.0
    counts = [
        extent(s.extent, sizes, UNKNOWN_TURNS)
        for s in statements(body)
        if isinstance(s, For) and s.kind == "parallel"
    ]
    if not counts:
        return 1.0
    return max(ceil(n / threads) / max(1, n) for n in counts)


def parts_of(func: Func, target: Target, sizes: Values | None = None) -> list[tuple[str, float]]:
    """The nests of a kernel one after the other: the text of each, and the cycles that a core
    needs for it, were all operands at hand."""
    known = {**{v.name: UNKNOWN_TURNS for v in func.dims}, **(sizes or {})}
    several = func.body.stmts if isinstance(func.body, Seq) else (func.body,)
    loops = [s for s in several if isinstance(s, For)]
    return [(print_ir(replace(func, body=s)), cycles(s, target, known)) for s in loops]


def nest_of(func: Func, sizes: Values) -> Nest:
    """The accesses of a kernel by the digits of its loops."""
    return Nest(None, tuple(_parts(func.body, (), sizes, cuts_of(func.body))))


def _parts(
    s: Stmt, around: tuple[Digit, ...], sizes: Values, cuts: dict[str, set[int]]
) -> list[Nest]:
    if isinstance(s, Seq):
        return [n for part in s.stmts for n in _parts(part, around, sizes, cuts)]
    if isinstance(s, For):
        count = extent(s.extent, sizes, UNKNOWN_TURNS)
        digits = digits_of(s.var.name, count, s.kind, cuts.get(s.var.name, ()))
        inner = _parts(s.body, (*around, *digits), sizes, cuts)
        for d in reversed(digits):
            inner = [Nest(d, tuple(inner))]
        return inner
    if isinstance(s, If):
        other = [] if s.other is None else _parts(s.other, around, sizes, cuts)
        return _parts(s.then, around, sizes, cuts) + other
    if isinstance(s, Let | While):
        return _parts(s.body, around, sizes, cuts)
    if isinstance(s, Store):
        return [Nest(None, (), tuple(_accesses(s, around, sizes)))]
    return []


def _accesses(s: Store, around: tuple[Digit, ...], sizes: Values) -> list[Access]:
    loads = [n for n in distinct(s.value) if isinstance(n, Load)]
    found = [access_of(n.buffer, n.indices, around, sizes, False) for n in loads]
    return [*found, access_of(s.buffer, s.indices, around, sizes, True)]


def features(
    func: Func, target: Target, threads: int = 1, sizes: Values | None = None
) -> list[float]:
    """What a learned model sees of a scheduled kernel: the parts of its estimate and the form of
    its nest, logarithms where sizes differ by orders."""
    e = estimate(func, target, threads, sizes)
    loops = [s for s in statements(func.body) if isinstance(s, For)]
    unrolled = [extent(f.extent, {}, UNKNOWN_TURNS) for f in loops if f.kind == "unroll"]
    lanes = [extent(f.extent, {}, UNKNOWN_TURNS) for f in loops if f.kind == "vectorize"]
    kept = [s.buffer for s in statements(func.body) if isinstance(s, Alloc)]
    numbers = [e.cycles, e.executed, *(n for _, n in e.moved), *e.waited]
    return [
        *(log2(1 + n) for n in numbers),
        *(w / max(e.cycles, 1.0) for w in (e.executed, *e.waited)),
        float(len(loops)), float(sum(f.kind == "parallel" for f in loops)),
        log2(1 + sum(unrolled)), float(max(unrolled, default=1)),
        float(max(lanes, default=1)), float(len(kept)), e.share,
    ]  # fmt: skip
