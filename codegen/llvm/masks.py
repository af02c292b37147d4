"""Conditions over lanes: which of them a statement executes.

What the number of the lane decides alone is a literal, which is known while code is made; what
holds in the first lanes, or in all but these, is a mask made of their number by scalar
instructions; where masks are vectors, by a comparison of this number with those of the lanes.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce

from aisc.codegen.llvm.index import IndexEmitter, NotLinearInLane
from aisc.codegen.llvm.types import Val
from aisc.codegen.llvm.vector_math import MathEmitter
from aisc.codegen.llvm.writer import Writer
from aisc.ir import dtypes
from aisc.ir.tensor.expr import COMPARISONS, Binary, Const, Expr, Load, Select, Var, variables
from aisc.ir.tensor.stmt import If
from aisc.ir.tensor.tree import conjuncts
from aisc.ir.tensor.visitor import substitute

ORDERS = ("lt", "le", "gt", "ge")
# Pieces of a vector that are stored sooner than by a mask.
FEW_PIECES = 3
COMPARED = {name: getattr(operator, name) for name in COMPARISONS}


class MaskEmitter(IndexEmitter):
    """Makes such conditions."""

    math: MathEmitter

    def __init__(self, writer: Writer) -> None:
        super().__init__(writer)
        self.lanes = 1
        self.mask: Val | None = None  # i1 vector: lanes that are executed
        self._constant: dict[str, tuple[bool, ...]] = {}  # masks that are literals

    def decided(self, op: str, a: Val, b: Val) -> Val | None:
        """``a op b`` where one of two conditions is a literal, or both are constant lanes."""
        neutral, deciding = ("true", "false") if op == "and" else ("false", "true")
        for one, other in ((a, b), (b, a)):
            if one.ref == neutral:
                return other
            if one.ref == deciding:
                return one
        if a.lanes == b.lanes > 1 and op == "and":
            known = self.constant_lanes(a), self.constant_lanes(b)
            return self._and(a, b) if None not in known else None
        return None

    def known_comparison(self, e: Binary) -> Val | None:
        """A comparison of indices that lanes need not compute, or that ranges decide in the turn of
        unrolled loops at hand."""
        mask = self.lanes_where(e) if self.lane_var is not None else None
        if mask is not None or e.op not in COMPARISONS or e.a.dtype is not dtypes.i64:
            return mask
        test = self.settled(e) if self.fixed else e
        if isinstance(test, Const):
            return Val("true" if test.value else "false", dtypes.boolean)
        return None if self.number == "i64" else self._of_indices(e)

    def _of_indices(self, e: Binary) -> Val | None:
        """A comparison of indices where these are shorter than other values of their type."""
        if not self.is_index(e.a) or not self.is_index(e.b):
            return None
        try:
            (a, first), (b, second) = self.leveled(e.a), self.leveled(e.b)
        except NotLinearInLane:
            return None
        order = e.op if e.op in ("eq", "ne") else f"s{e.op}"
        text = f"icmp {order} {self.number} {a}, {b}"
        return Val(self.w.shared(text, "c", max(first, second)), dtypes.boolean)

    def lanes_where(self, e: Binary) -> Val | None:
        """A comparison of indices that lanes need not compute."""
        if e.op not in COMPARISONS or e.a.dtype is not dtypes.i64:
            return None
        if not self.is_index(e.a) or not self.is_index(e.b):
            return None
        fixed = self.fixed_lanes(e)
        if fixed is not None or e.op not in ORDERS:
            return fixed
        return self.first_lanes(e)

    def alike_first(self, e: Select) -> Select:
        """What all lanes have in common decides first, of the conditions of a load: ``select(a &
        b[l], x, z) -> select(a, select(b[l], x, z), z)``. It chooses an address, and masks remain
        what the lane and the border say."""
        conds, then = conjuncts(e.cond), e.then
        while isinstance(then, Select) and then.other == e.other:
            conds, then = [*conds, *conjuncts(then.cond)], then.then
        if (
            self.lane_var is None
            or not isinstance(then, Load)
            or not all(map(self._is_order, conds))
        ):
            return e
        varying = [c for c in conds if self.lane_var in variables(c)]
        alike = [c for c in conds if c not in varying]
        if not varying or not alike or self.lane_var not in variables(e.cond):
            return e
        inner = Select(reduce(_both, varying), then, e.other)
        return Select(reduce(_both, alike), inner, e.other)

    def branch_first(self, s: If) -> If:
        """What all lanes have in common is jumped over where masks are vectors, and stores with
        them slow: ``if a & b[l]: s -> if a: if b[l]: s``."""
        conds = conjuncts(s.cond)
        varying = [c for c in conds if self.lane_var in variables(c)]
        alike = [c for c in conds if c not in varying]
        if not varying or not alike or s.other is not None or self.math.has_bit_masks:
            return s
        return If(reduce(_both, alike), If(reduce(_both, varying), s.then))

    def _is_order(self, e: Expr) -> bool:
        """Whether a condition compares indices."""
        if not isinstance(e, Binary) or e.op not in COMPARISONS:
            return False
        return self.is_index(e.a) and self.is_index(e.b)

    def opposite(self, cond: Val) -> Val:
        """Logical not; of a literal a literal."""
        known = self.constant_lanes(cond) if cond.lanes > 1 else None
        if known is None:
            return self.math.negate(cond)
        return self.literal_mask(tuple(not x for x in known))

    def _and(self, a: Val, b: Val) -> Val:
        first, second = self.constant_lanes(a), self.constant_lanes(b)
        if a.lanes > 1 and first is not None and second is not None:
            both = tuple(x and y for x, y in zip(first, second, strict=True))
            return self.literal_mask(both, spread=True)
        return Val(self.w.let(f"and {a.text}, {b.ref}"), dtypes.boolean, a.lanes)

    def is_index(self, e: Expr) -> bool:
        """Whether an i64 expression uses only loop variables and dimensions."""
        if isinstance(e, Var):
            return e in self.bound
        if isinstance(e, Binary):
            plain = e.op in ("add", "sub", "mul", "floordiv", "mod", "min", "max")
            return plain and self.is_index(e.a) and self.is_index(e.b)
        return isinstance(e, Const)

    def fixed_lanes(self, e: Binary) -> Val | None:
        """A comparison of indices that the number of the lane decides, as a literal."""
        form, lane = self.linear(e.a - e.b), self.lane_var
        if lane is None or any(variables(a) != {lane} for mono, _ in form.terms for a in mono):
            return None
        step = form.coeff(lane)
        gaps = [form.const + (step or 0) * k for k in range(self.lanes)]
        if step is None:
            gap = self.index.build(form)
            at = [self.index.linear(substitute(gap, {lane: Const(k)})) for k in range(self.lanes)]
            if not all(x.is_const for x in at):
                return None
            gaps = [x.const for x in at]
        found = [_holds(e.op, g) for g in gaps]
        live = self.constant_lanes(self.mask)
        alike = {x for x, used in zip(found, live or (), strict=False) if used}
        return self.literal_mask(tuple(found) if len(alike) != 1 else (*alike,) * self.lanes)

    def literal_mask(self, lanes: tuple[bool, ...], spread: bool = False) -> Val:
        """Lanes as a literal; a scalar where they are alike, unless they are to be `spread`."""
        if len(set(lanes)) == 1 and not spread:
            return Val("true" if lanes[0] else "false", dtypes.boolean)
        ref = "<" + ", ".join(f"i1 {int(x)}" for x in lanes) + ">"
        self._constant[ref] = lanes
        return Val(ref, dtypes.boolean, len(lanes))

    def constant_lanes(self, mask: Val | None) -> tuple[bool, ...] | None:
        """Which lanes a mask lets execute, if that is known; all without one."""
        return (True,) * self.lanes if mask is None else self._constant.get(mask.ref)

    def first_lanes(self, e: Binary) -> Val | None:
        """A comparison of indices that holds in the first lanes alone, as in the last vector of a
        row, or in all but the first: a mask from their number, by scalar instructions; ``None``
        for other comparisons."""
        low, high = (e.a, e.b) if e.op in ("lt", "le") else (e.b, e.a)
        count = high - low + (1 if e.op in ("le", "ge") else 0)
        try:
            parts = self.parts(count)
        except NotLinearInLane:
            return None
        n, step = self.lanes, abs(parts.lane)
        if not step or n not in ((8, 16, 32) if self.math.has_bit_masks else (4, 8, 16, 32)):
            return None
        # c - step * lane > 0 holds below c / step, rounded up; c + step * lane > 0 fails there for
        # step - c, rounded down.
        kind, (number, level) = self.number, self.sum(parts.terms, parts.const)
        if parts.lane > 0:
            number = self.w.shared(f"sub {kind} {step}, {number}", "n", level)
        elif step > 1:
            number = self.w.shared(f"add {kind} {number}, {step - 1}", "n", level)
        most = n * step + (step - 1 if parts.lane < 0 else 0)
        for bound, other in (("smin", most), ("smax", 0)):
            name = f"llvm.{bound}.{kind}"
            self.w.declare(f"declare {kind} @{name}({kind}, {kind})")
            number = self.w.shared(
                f"call {kind} @{name}({kind} {number}, {kind} {other})", "n", level
            )
        if step > 1:
            number = self.w.shared(f"udiv {kind} {number}, {step}", "n", level)
        below = self._bits_below if self.math.has_bit_masks else self._vector_below
        return below(number, level, parts.lane > 0)

    def _vector_below(self, number: str, level: int, negated: bool) -> Val:
        """The mask of so many first lanes, or of the others, as a vector: LLVM compares where a
        mask is used, of 32 bits a lane, and what it compares is made outside of the loop."""
        n = self.lanes
        kind = f"<{n} x i32>"
        short = number
        if self.number == "i64":
            short = self.w.shared(f"trunc i64 {number} to i32", "n", level)
        first = self.w.shared(f"insertelement {kind} poison, i32 {short}, i64 0", "n", level)
        text = f"shufflevector {kind} {first}, {kind} poison, {kind} zeroinitializer"
        all_ = self.w.shared(text, "n", level)
        lanes = ", ".join(f"i32 {k}" for k in range(n))
        order = "sle" if negated else "sgt"
        mask = self.w.shared(f"icmp {order} {kind} {all_}, <{lanes}>", "m", level)
        return Val(mask, dtypes.boolean, n)

    def _bits_below(self, number: str, level: int, negated: bool) -> Val:
        """The mask of so many first lanes, or of the others."""
        n = self.lanes
        above = self.w.shared(f"shl i64 1, {number}", "m", level)
        bits = self.w.shared(f"sub i64 {above}, 1", "m", level)
        if negated:
            bits = self.w.shared(f"xor i64 {bits}, -1", "m", level)
        short = self.w.shared(f"trunc i64 {bits} to i{n}", "m", level)
        mask = self.w.shared(f"bitcast i{n} {short} to <{n} x i1>", "m", level)
        return Val(mask, dtypes.boolean, n)


def pieces_of(live: Sequence[bool]) -> list[tuple[int, int]]:
    """Runs of lanes that are live, in pieces of powers of two: the first lane and the length."""
    found, lane = list[tuple[int, int]](), 0
    while lane < len(live):
        count = 1 if live[lane] else 0
        while count and lane + 2 * count <= len(live) and all(live[lane : lane + 2 * count]):
            count *= 2
        if count:
            found.append((lane, count))
        lane += count or 1
    return found


def _holds(op: str, gap: int) -> bool:
    """Whether ``a op b`` for integers with this difference."""
    return bool(COMPARED[op](gap, 0))


def _both(a: Expr, b: Expr) -> Expr:
    return Binary("and", a, b)
