"""Cycles of a core for the instructions of a scheduled kernel, its operands being at hand.

Straight code, that is what unrolled and vectorized loops become, is bound by the slowest of what
executes it: units for arithmetic, ports for loads and stores, the width of issue, the latency of
chains of additions. A value that does not depend on an unrolled loop is computed and loaded once
for all its turns; values that exceed the registers go through memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from math import ceil, prod

from aisc.ir.dataclass import dataclass
from aisc.ir.node import Node, children, distinct
from aisc.ir.target import Target
from aisc.ir.tensor.expr import Binary, Call, Cast, Expr, Load, Select, Unary, Var, variables
from aisc.ir.tensor.stmt import Alloc, For, If, Let, Prefetch, Seq, Stmt, Store, While
from aisc.passes.analysis.cost import extent
from aisc.passes.analysis.turns import Values, access_of, digits_of

# Instructions that one operation becomes, where not one: functions are polynomials of lanes.
FUNCTIONS: Mapping[str, float] = {
    "exp": 14, "log": 18, "tanh": 22, "erf": 24, "sigmoid": 18, "sin": 30, "cos": 30, "sqrt": 6,
    "rsqrt": 8, "pow": 40, "floor": 1, "ceil": 1, "round": 1, "abs": 1,
}  # fmt: skip
UNKNOWN_FUNCTION = 24.0
DIVISION = 5.0
# Instructions that begin in a cycle; loads and stores among them.
ISSUE, LOADS, STORES = 6.0, 2.0, 1.0
# Cycles of a turn of a loop beside its body, and of its last one, which is guessed wrongly.
TURN, LEAVE = 1.0, 15.0
# Instructions of straight code from which on it no longer comes from the decoded ones.
DECODED = 1500
UNKNOWN_TURNS = 16


@dataclass(slots=True)
class Straight:
    """Instructions of straight code, and the cycles of its longest chain of additions."""

    arithmetic: float = 0.0
    loads: float = 0.0
    stores: float = 0.0
    chain: float = 0.0
    live: float = 0.0

    def cycles(self, target: Target) -> float:
        """Cycles that a core needs for it."""
        spilled = max(0.0, self.live + 1 - target.vector_registers)
        loads, stores = self.loads + spilled, self.stores + spilled
        total = self.arithmetic + loads + stores
        front = 1.0 if total < DECODED else 1.5
        units = max(1, target.costs.fma_units)
        bounds = (self.arithmetic / units, loads / LOADS, stores / STORES, total * front / ISSUE)
        return max(*bounds, self.chain)


@dataclass(frozen=True, slots=True)
class _Around:
    """Loops that straight code repeats: by name, their count; the vectorized one."""

    repeated: Mapping[str, int] = field(default_factory=dict)
    lanes: str = ""

    def times(self, names: Iterator[str]) -> int:
        """In how many turns of unrolled loops a value of these names differs."""
        return prod(self.repeated[n] for n in set(names) if n in self.repeated and n != self.lanes)


def cycles(body: Stmt, target: Target, sizes: Values) -> float:
    """Cycles that one core needs for a scheduled body, its operands in the first-level cache."""
    return _cycles(body, target, sizes, _Around())


def _cycles(s: Stmt, t: Target, sizes: Values, around: _Around) -> float:
    """Cycles of a statement: straight code, and the loops in it."""
    code = Straight()
    total = _walk(s, t, sizes, around, code)
    return total + code.cycles(t)


def _walk(s: Stmt, t: Target, sizes: Values, around: _Around, code: Straight) -> float:
    """Cycles of the loops in a statement; what is straight goes to `code`."""
    if isinstance(s, Seq):
        return sum(_walk(part, t, sizes, around, code) for part in s.stmts)
    if isinstance(s, For):
        return _loop(s, t, sizes, around, code)
    if isinstance(s, While):
        return UNKNOWN_TURNS * _cycles(s.body, t, sizes, around)
    if isinstance(s, If):
        other = 0.0 if s.other is None else _walk(s.other, t, sizes, around, Straight())
        return max(_walk(s.then, t, sizes, around, code), other)
    if isinstance(s, Let):
        _count(s.value, t, sizes, around, code)
        return _walk(s.body, t, sizes, around, code)
    if isinstance(s, Store):
        _store(s, t, sizes, around, code)
    elif isinstance(s, Prefetch):
        code.loads += prod(around.repeated.values())
    elif not isinstance(s, Alloc):
        code.arithmetic += 1
    return 0.0


def _loop(f: For, t: Target, sizes: Values, around: _Around, code: Straight) -> float:
    count = extent(f.extent, sizes, UNKNOWN_TURNS)
    if f.kind in ("unroll", "vectorize"):
        lanes = f.var.name if f.kind == "vectorize" else around.lanes
        inner = _Around({**around.repeated, f.var.name: count}, lanes)
        return _walk(f.body, t, sizes, inner, code)
    times = prod(around.repeated.values())
    one = _cycles(f.body, t, sizes, _Around()) + TURN
    return times * (count * one + LEAVE)


def _store(s: Store, t: Target, sizes: Values, around: _Around, code: Straight) -> None:
    """A store and the value it needs."""
    _count(s.value, t, sizes, around, code)
    names = [v.name for i in s.indices for v in variables(i)]
    writes = _vectors(s.buffer.dtype.bytes, around, t, around.lanes in names) * around.times(
        iter(names)
    )
    if s.buffer.space == "register":
        adds = any(isinstance(n, Load) and n.buffer == s.buffer for n in distinct(s.value))
        if adds:
            again = prod(n for v, n in around.repeated.items() if v not in names)
            code.chain = max(code.chain, float(again * t.costs.fma_latency))
            code.live = max(code.live, writes + 1)
    else:
        code.stores += writes


def _count(e: Expr, t: Target, sizes: Values, around: _Around, code: Straight) -> None:
    """Instructions of an expression, each part of it as often as it differs."""
    for n in operations(e):
        names = [v.name for v in variables(n)]
        times = around.times(iter(names))
        if isinstance(n, Load):
            if n.buffer.space != "register":
                code.loads += times * _loads(n, t, sizes, around)
        else:
            vectors = _vectors(n.dtype.bytes, around, t, around.lanes in names)
            code.arithmetic += times * vectors * weight(n)


def operations(e: Expr) -> list[Expr]:
    """The distinct loads and operations of a value, without those of its indices, and without
    products that an addition takes with it."""
    seen: dict[Node, None] = {}
    stack: list[Node] = [e]
    while stack:
        n = stack.pop()
        if n not in seen:
            seen[n] = None
            if not isinstance(n, Load):
                stack.extend(children(n))
    sums = [n for n in seen if isinstance(n, Binary) and n.op in ("add", "sub")]
    fused = {p for n in sums for p in (n.a, n.b) if isinstance(p, Binary) and p.op == "mul"}
    return [n for n in seen if isinstance(n, Expr) and n not in fused]


def weight(n: Expr) -> float:
    """Instructions of one operation."""
    if isinstance(n, Call):
        return FUNCTIONS.get(n.name, UNKNOWN_FUNCTION)
    if isinstance(n, Unary):
        return FUNCTIONS.get(n.op, 1.0)
    if isinstance(n, Binary):
        slow = n.op in ("div", "floordiv", "mod") and n.dtype.name != "i64"
        return DIVISION if slow else 1.0
    return 1.0 if isinstance(n, Cast | Select) else 0.0


def _vectors(item: int, around: _Around, t: Target, along: bool) -> int:
    """Registers that the lanes of a value take."""
    if not along or not around.lanes:
        return 1
    return ceil(around.repeated[around.lanes] * 8 * item / t.vector_bits)


def _loads(n: Load, t: Target, sizes: Values, around: _Around) -> float:
    """Loads of one turn: a vector, one element for all lanes, or one for each."""
    if not around.lanes:
        return 1.0
    count = around.repeated[around.lanes]
    (lane,) = digits_of(around.lanes, max(count, 2), "vectorize", ())
    access = access_of(n.buffer, n.indices, (lane,), sizes, False)
    step = access.steps.get(lane, 0)
    if access.at_random and any(Var(around.lanes) in variables(i) for i in n.indices):
        return float(count)
    if step <= n.buffer.dtype.bytes:
        return float(_vectors(n.buffer.dtype.bytes, around, t, step > 0))
    return float(count)


__all__: Sequence[str] = ["FUNCTIONS", "Straight", "cycles"]
