"""Index arithmetic: linear forms over bound variables, hoisted to the loop where they are known.

Each index expression becomes ``constant + lane part + dynamic terms``; dynamic terms are grouped by
the loop level at which they are known and computed there once (loop-invariant code motion and
common sub-expressions by construction, since LLVM runs no such pass on our code).
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

from aisc.codegen.llvm.writer import Scope, Writer
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import InternalError
from aisc.ir.tensor.expr import Binary, Const, Expr, Var, of_dim, variables
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.linear import Indexer, Linear
from aisc.ir.tensor.visitor import substitute


@dataclass(frozen=True, slots=True)
class Scalar:
    """A variable held in an SSA name that is known from `level` on."""

    ref: str
    level: int


@dataclass(frozen=True, slots=True)
class Lane:
    """A variable that takes ``base + 0 … base + lanes - 1`` over the lanes of a vector."""

    lanes: int


@dataclass(frozen=True, slots=True)
class Parts:
    """A linear form split for addressing: `terms` are (level, SSA name, coefficient)."""

    const: int
    lane: int
    terms: tuple[tuple[int, str, int], ...]

    def is_within(self, buffer: Buffer, lanes: int) -> bool:
        """Whether the elements of all lanes are known ones of a buffer of constant sizes."""
        size = prod(d for d in buffer.shape if isinstance(d, int))
        ends = self.const, self.const + (lanes - 1) * self.lane
        return not self.terms and all(0 <= end < size for end in ends)


class NotLinearInLane(Exception):
    """The expression is no affine function of the lane number."""


class IndexEmitter:
    """Evaluates index expressions of one function."""

    keeps_names = True  # no scalar variable gets another value while it is in reach
    number = "i64"  # what indices are counted in

    def __init__(self, writer: Writer) -> None:
        self.w = writer
        self.index = Indexer()
        self.bound: dict[Var, Scalar | Lane | int] = {}
        self.fixed: dict[Var, Expr] = {}  # unrolled variables and their numbers
        self.named: dict[Expr, tuple[str, Scope]] = {}  # quotients and the like, and where they are
        self.lane_var: Var | None = None

    def bind(self, var: Var, value: Scalar | Lane | int, low: float, high: float) -> None:
        """Give a variable its value and range until :meth:`unbind`; the range of an unrolled one
        is that of the whole loop, so that what is known of expressions is kept over its turns."""
        self.bound[var] = value
        if isinstance(value, int):
            self.fixed[var] = Const(value)
        if self.index.ranges.get(var.name) != (low, high):
            self.index = self.index.bind(var, low, high)

    def unbind(self, var: Var) -> None:
        """Forget a variable; its range is kept, as names are unique."""
        self.bound.pop(var, None)
        self.fixed.pop(var, None)

    def linear(self, expr: Expr) -> Linear:
        """Linear form with unrolled variables replaced by their numbers."""
        form = self.index.linear(expr)
        if not self.fixed or not form.terms:
            return form
        used = [v for v in variables(expr) if v in self.fixed]
        if not used:
            return form
        const, terms = form.const, []
        for mono, c in form.terms:
            number = self.bound.get(mono[0]) if isinstance(mono[0], Var) else None
            if len(mono) == 1 and isinstance(number, int):
                const += c * number
            elif not all(variables(atom).isdisjoint(self.fixed) for atom in mono):
                return self.index.linear(substitute(self.index.build(form), self.fixed))
            else:
                terms.append((mono, c))
        return Linear(tuple(terms), const)

    def settled(self, cond: Expr) -> Expr:
        """A condition with unrolled variables replaced, and decided where ranges do."""
        return self.index.simplify(substitute(cond, self.fixed))

    def parts(self, expr: Expr) -> Parts:
        """Split an index for addressing; :class:`NotLinearInLane` where that is impossible."""
        form = self.linear(expr)
        own, lane, terms = (self.lane_var,), 0, []
        for mono, c in form.terms:
            if mono == own:
                lane += c
                continue
            if self.lane_var is not None and any(self.lane_var in variables(a) for a in mono):
                raise NotLinearInLane
            ref, level = self._monomial(mono)
            terms.append((level, ref, c))
        return Parts(form.const, lane, tuple(terms))

    def scalar(self, expr: Expr) -> str:
        """SSA name or literal of a lane-invariant index."""
        return self.leveled(expr)[0]

    def leveled(self, expr: Expr) -> tuple[str, int]:
        """Like :meth:`scalar`, with the level at which the value is known."""
        parts = self.parts(expr)
        if parts.lane:
            raise NotLinearInLane
        return self.sum(parts.terms, parts.const)

    def sum(self, terms: tuple[tuple[int, str, int], ...], const: int) -> tuple[str, int]:
        """``const + sum(coeff * ref)``, each partial sum at the outermost possible level."""
        total, level, kind = "", 0, self.number
        for at, ref, c in sorted(terms, key=lambda t: t[0]):
            level = max(level, at)
            value = ref if abs(c) == 1 else self.w.shared(f"mul {kind} {ref}, {abs(c)}", "t", at)
            if not total:
                total = value if c > 0 else self.w.shared(f"sub {kind} 0, {value}", "t", at)
            else:
                op = "add" if c > 0 else "sub"
                total = self.w.shared(f"{op} {kind} {total}, {value}", "t", level)
        if not total:
            return str(const), 0
        if const:
            total = self.w.shared(f"add {kind} {total}, {const}", "t", level)
        return total, level

    def _monomial(self, mono: tuple[Expr, ...]) -> tuple[str, int]:
        ref, level = self._atom(mono[0])
        for atom in mono[1:]:
            other, at = self._atom(atom)
            level = max(level, at)
            ref = self.w.shared(f"mul {self.number} {ref}, {other}", "t", level)
        return ref, level

    def _atom(self, atom: Expr) -> tuple[str, int]:
        if isinstance(atom, Var):
            value = self.bound.get(atom)
            if isinstance(value, Scalar):
                return value.ref, value.level
            if isinstance(value, int):
                return str(value), 0
            raise InternalError(f"variable {atom.name} is not bound to a scalar")
        if isinstance(atom, Binary):
            return self._binary(atom)
        return self.data_dependent(atom)

    def data_dependent(self, atom: Expr) -> tuple[str, int]:
        """An index computed from data (a load, cast or select): overridden by the emitter."""
        raise InternalError(f"index of unexpected form: {type(atom).__name__}")

    def _binary(self, e: Binary) -> tuple[str, int]:
        if e.op not in ("floordiv", "mod", "min", "max"):
            return self.data_dependent(e)
        known = self.named.get(e)
        if known is not None and self.w.is_open(known[1]):
            return known[0], known[1].level
        ref, level = self._computed(e)
        if self.keeps_names and self._is_steady(e):
            self.named[e] = ref, self.w.scopes[level]
        return ref, level

    def _is_steady(self, e: Expr) -> bool:
        """Whether an expression has one value in the scope of the variables it is made of."""
        if isinstance(e, Var):
            return isinstance(self.bound.get(e), Scalar)
        if isinstance(e, Binary):
            return self._is_steady(e.a) and self._is_steady(e.b)
        return isinstance(e, Const)

    def _computed(self, e: Binary) -> tuple[str, int]:
        (a, la), (b, lb) = self.leveled(e.a), self.leveled(e.b)
        level = max(la, lb)
        if e.op in ("min", "max"):
            kind = self.number
            name = f"llvm.s{e.op}.{kind}"
            self.w.declare(f"declare {kind} @{name}({kind}, {kind})")
            text = f"call {kind} @{name}({kind} {a}, {kind} {b})"
            return self.w.shared(text, "t", level), level
        low = self.index.bounds(e.a)[0]
        b_low = self.index.bounds(e.b)[0]
        if low >= 0 and b_low > 0:
            op = "udiv" if e.op == "floordiv" else "urem"
            return self.w.shared(f"{op} {self.number} {a}, {b}", "t", level), level
        return self._floor(e.op, a, b, level), level

    def _floor(self, op: str, a: str, b: str, level: int) -> str:
        """Floor division or remainder from LLVM's truncating ones; the divisor is positive."""
        w, kind = self.w, self.number
        rem = w.shared(f"srem {kind} {a}, {b}", "t", level)
        negative = w.shared(f"icmp slt {kind} {rem}, 0", "t", level)
        if op == "mod":
            lifted = w.shared(f"add {kind} {rem}, {b}", "t", level)
            return w.shared(f"select i1 {negative}, {kind} {lifted}, {kind} {rem}", "t", level)
        quotient = w.shared(f"sdiv {kind} {a}, {b}", "t", level)
        lower = w.shared(f"sub {kind} {quotient}, 1", "t", level)
        return w.shared(f"select i1 {negative}, {kind} {lower}, {kind} {quotient}", "t", level)


@lru_cache(maxsize=4096)
def flat_index(buffer: Buffer, indices: tuple[Expr, ...]) -> Expr:
    """The place of an element among those of its buffer; unrolled loops ask for few of them many
    times."""
    flat: Expr = Const(0)
    for i, stride in zip(indices, buffer.strides, strict=True):
        flat = flat + i * of_dim(stride)
    return flat
