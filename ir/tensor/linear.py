"""Index expressions as sums of monomials, with interval bounds and exact division rules.

:class:`Indexer` knows the ranges of variables. It turns an i64 expression into a :class:`Linear`
(monomials over variables and irreducible sub-expressions), and uses bounds to cancel floor
divisions and remainders, e.g. with 0 <= l < 16::

    (16*a + l) // 64  ->  a // 4          (f // 7) * 7 + f % 7  ->  f

The rules are those of integer division of sums (Halide's ``Simplify_Div``); each is checked by
enumeration in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from aisc.ir import dtypes
from aisc.ir.dataclass import dataclass
from aisc.ir.tensor.expr import (
    COMPARISONS,
    FALSE,
    TRUE,
    Binary,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Select,
    Unary,
    Var,
    binary,
    variables,
)

Monomial = tuple[Expr, ...]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Linear:
    """``const + sum(coeff * product(monomial))``, terms in a deterministic order."""

    terms: tuple[tuple[Monomial, int], ...]
    const: int

    @property
    def is_const(self) -> bool:
        """True when no term is left."""
        return not self.terms

    def coeff(self, var: Var) -> int | None:
        """Constant coefficient of `var`; ``None`` if `var` also occurs in another way."""
        found = 0
        for mono, c in self.terms:
            if mono == (var,):
                found = c
            elif any(mentions(atom, var) for atom in mono):
                return None
        return found


def mentions(expr: Expr, var: Var) -> bool:
    """Whether `var` occurs in `expr`."""
    return var in variables(expr)


def operands(expr: Expr) -> tuple[Expr, ...]:
    """Direct operands of an expression (indices of a load)."""
    if isinstance(expr, Binary):
        return (expr.a, expr.b)
    if isinstance(expr, Unary | Cast):
        return (expr.a,)
    if isinstance(expr, Select):
        return (expr.cond, expr.then, expr.other)
    if isinstance(expr, Load):
        return expr.indices
    return expr.args if isinstance(expr, Call) else ()


def sort_key(expr: Expr) -> str:
    """A deterministic order of atoms: variables by name, then other expressions by text."""
    if isinstance(expr, Var):
        return expr.name
    try:
        return expr._sort_key
    except AttributeError:
        if isinstance(expr, Const):
            key = f"~{expr.value}"
        else:
            inner = ",".join(map(sort_key, operands(expr)))
            head = getattr(expr, "op", None) or getattr(expr, "name", type(expr).__name__)
            key = f"~{head}({inner})"
        object.__setattr__(expr, "_sort_key", key)
        return key


class Indexer:
    """Simplifies index expressions under the ranges ``name -> (least, greatest)``."""

    def __init__(self, ranges: Mapping[str, Interval] | None = None) -> None:
        self.ranges: dict[str, Interval] = dict(ranges or {})
        self._linear: dict[Expr, Linear] = {}
        self._simple: dict[Expr, Expr] = {}
        self._outer: Indexer | None = None
        self._own: Var | None = None

    def bind(self, var: Var, low: float, high: float) -> Indexer:
        """A copy that also knows the range of `var`; what does not mention it is found once for
        both."""
        inside = Indexer({**self.ranges, var.name: (low, high)})
        inside._outer, inside._own = self, var
        return inside

    def _home(self, expr: Expr) -> Indexer:
        """The outermost one that knows as much about an expression."""
        home, mentioned = self, variables(expr)
        while home._outer is not None and home._own not in mentioned:
            home = home._outer
        return home

    # -- linear form -------------------------------------------------------------------------

    def linear(self, expr: Expr) -> Linear:
        """The linear form of an i64 expression."""
        if isinstance(expr, Const):
            return Linear((), int(expr.value))
        known = self._linear.get(expr)
        if known is None:
            home = self._home(expr)
            if home is not self:
                known = home.linear(expr)
            else:
                terms: dict[Monomial, int] = {}
                const = self._collect(expr, 1, terms)
                known = _freeze(terms, const)
            self._linear[expr] = known
        return known

    def _collect(self, expr: Expr, factor: int, acc: dict[Monomial, int]) -> int:
        """Add ``factor * expr`` to `acc`; returns the constant part."""
        if isinstance(expr, Const):
            return factor * int(expr.value)
        if isinstance(expr, Binary):
            if expr.op == "add":
                return self._collect(expr.a, factor, acc) + self._collect(expr.b, factor, acc)
            if expr.op == "sub":
                return self._collect(expr.a, factor, acc) + self._collect(expr.b, -factor, acc)
            lin = self._binary(expr)
            if lin is not None:
                for mono, c in lin.terms:
                    acc[mono] = acc.get(mono, 0) + factor * c
                return factor * lin.const
        if isinstance(expr, Unary) and expr.op == "neg":
            return self._collect(expr.a, -factor, acc)
        atom = self._atom(expr)
        acc[(atom,)] = acc.get((atom,), 0) + factor
        return 0

    def _binary(self, expr: Binary) -> Linear | None:
        if expr.op == "mul":
            return _multiply(self.linear(expr.a), self.linear(expr.b))
        if expr.op in ("floordiv", "mod"):
            divisor = self.linear(expr.b)
            if divisor.is_const and divisor.const > 0:
                rule = self._floordiv if expr.op == "floordiv" else self._mod
                return rule(self.linear(expr.a), divisor.const)
        if expr.op in ("min", "max"):
            a, b = self.linear(expr.a), self.linear(expr.b)
            low, high = self.interval(_subtract(a, b))
            if high <= 0:
                return a if expr.op == "min" else b
            if low >= 0:
                return b if expr.op == "min" else a
        return None

    def _atom(self, expr: Expr) -> Expr:
        """An irreducible expression with simplified operands."""
        if isinstance(expr, Binary):
            return Binary(expr.op, self.simplify(expr.a), self.simplify(expr.b))
        if isinstance(expr, Load):
            return Load(expr.buffer, tuple(self.simplify(i) for i in expr.indices))
        if isinstance(expr, Select):
            cond = self.simplify(expr.cond)
            return Select(cond, self.simplify(expr.then), self.simplify(expr.other))
        return expr

    def _floordiv(self, a: Linear, d: int) -> Linear:
        whole, rest = _split_multiples(a, d)
        low, high = self.interval(rest)
        if low >= 0 and high < d:
            return whole
        if math.isfinite(low) and low // d == high // d:
            return Linear(whole.terms, whole.const + int(low // d))
        for g in _step_candidates(rest, d):
            coarse, fine = _split_multiples(rest, g)
            f_low, f_high = self.interval(fine)
            if f_low >= 0 and f_high < g:
                atom = binary("floordiv", self.build(coarse), Const(d // g))
                if d // g == 1:
                    return _add(whole, coarse)
                return _add(whole, self._floordiv_atom(atom))
        return _add(whole, self._floordiv_atom(binary("floordiv", self.build(rest), Const(d))))

    @staticmethod
    def _floordiv_atom(atom: Expr) -> Linear:
        if isinstance(atom, Const):
            return Linear((), int(atom.value))
        return Linear((((atom,), 1),), 0)

    def _mod(self, a: Linear, d: int) -> Linear:
        _, rest = _split_multiples(a, d, keep_scale=True)
        low, high = self.interval(rest)
        if low >= 0 and high < d:
            return rest
        if math.isfinite(low) and low // d == high // d:
            return Linear(rest.terms, rest.const - d * int(low // d))
        for g in _step_candidates(rest, d):
            coarse, fine = _split_multiples(rest, g)
            f_low, f_high = self.interval(fine)
            if f_low >= 0 and f_high < g and d // g > 1:
                inner = self._mod_atom(coarse, d // g)
                return _add(_scale(inner, g), fine)
        return self._mod_atom(rest, d)

    def _mod_atom(self, rest: Linear, d: int) -> Linear:
        """``rest - d * (rest // d)``, so that divisions and remainders of one term cancel."""
        quotient = self._floordiv_plain(rest, d)
        return _add(rest, _scale(quotient, -d))

    def _floordiv_plain(self, rest: Linear, d: int) -> Linear:
        low, high = self.interval(rest)
        if low >= 0 and high < d:
            return Linear((), 0)
        return self._floordiv_atom(binary("floordiv", self.build(rest), Const(d)))

    # -- bounds ------------------------------------------------------------------------------

    def interval(self, lin: Linear) -> Interval:
        """Bounds of a linear form; a remainder ``x - d*(x//d)`` is recognised as [0, d)."""
        low = high = float(lin.const)
        remaining: Iterable[tuple[Monomial, int]] = lin.terms
        if any(_is_quotient(mono[0]) for mono, _ in lin.terms):
            table = dict(lin.terms)
            for mono, c in lin.terms:
                found = self._remainder(mono, c, table)
                if found is not None:
                    low, high = low + found[0], high + found[1]
            remaining = table.items()
        for mono, c in remaining:
            lo, hi = self._monomial(mono)
            ends = (_mul(lo, c), _mul(hi, c))
            low, high = low + min(ends), high + max(ends)
        return low, high

    def _remainder(self, mono: Monomial, c: int, remaining: dict[Monomial, int]) -> Interval | None:
        """Take ``s*(x - d*(x//d))`` out of `remaining`, whose value lies in [0, s*(d-1)]."""
        if len(mono) != 1 or mono not in remaining:
            return None
        atom = mono[0]
        if not (isinstance(atom, Binary) and atom.op == "floordiv" and isinstance(atom.b, Const)):
            return None
        d = int(atom.b.value)
        if d <= 0 or c % d:
            return None
        scale = -c // d
        inner = self.linear(atom.a)
        for m, k in inner.terms:
            if remaining.get(m) != k * scale:
                return None
        for m, _ in inner.terms:
            del remaining[m]
        del remaining[mono]
        ends = (0, scale * (d - 1))
        shift = -scale * inner.const
        return min(ends) + shift, max(ends) + shift

    def _monomial(self, mono: Monomial) -> Interval:
        lo, hi = 1.0, 1.0
        for atom in mono:
            a, b = self._atom_interval(atom)
            if mono == (atom,):
                return float(min(a, b)), float(max(a, b))
            corners = [_mul(x, y) for x in (lo, hi) for y in (a, b)]
            lo, hi = min(corners), max(corners)
        return lo, hi

    def _atom_interval(self, atom: Expr) -> Interval:
        if isinstance(atom, Var):
            return self.ranges.get(atom.name, (-math.inf, math.inf))
        if isinstance(atom, Binary):
            a, b = self.bounds(atom.a), self.bounds(atom.b)
            if atom.op == "floordiv" and b[0] == b[1] and b[0] > 0:
                return _floor(a[0] / b[0]), _floor(a[1] / b[0])
            if atom.op == "mod" and b[0] > 0:
                return 0, b[1] - 1
            if atom.op == "min":
                return min(a[0], b[0]), min(a[1], b[1])
            if atom.op == "max":
                return max(a[0], b[0]), max(a[1], b[1])
        if isinstance(atom, Select):
            a, b = self.bounds(atom.then), self.bounds(atom.other)
            return min(a[0], b[0]), max(a[1], b[1])
        return -math.inf, math.inf

    def bounds(self, expr: Expr) -> Interval:
        """Bounds of an i64 expression."""
        return self.interval(self.linear(expr))

    # -- rebuilding --------------------------------------------------------------------------

    def build(self, lin: Linear) -> Expr:
        """The linear form as an expression, positive terms first."""
        total: Expr | None = None
        ordered = sorted(lin.terms, key=lambda t: t[1] < 0)
        for mono, c in ordered:
            term: Expr = mono[0]
            for atom in mono[1:]:
                term = Binary("mul", term, atom)
            if abs(c) != 1:
                term = Binary("mul", term, Const(abs(c)))
            if total is None:
                total = term if c > 0 else Binary("sub", Const(0), term)
            else:
                total = Binary("add" if c > 0 else "sub", total, term)
        if total is None:
            return Const(lin.const)
        if lin.const == 0:
            return total
        return Binary("add" if lin.const > 0 else "sub", total, Const(abs(lin.const)))

    def simplify(self, expr: Expr) -> Expr:
        """An equal, simpler expression; conditions that the ranges decide become constants."""
        if isinstance(expr, Const | Var) or expr.dtype not in (dtypes.i64, dtypes.boolean):
            return expr
        known = self._simple.get(expr)
        if known is None:
            home = self._home(expr)
            known = self._simplified(expr) if home is self else home.simplify(expr)
            self._simple[expr] = known
        return known

    def _simplified(self, expr: Expr) -> Expr:
        simple = expr
        if expr.dtype is dtypes.i64:
            simple = self.build(self.linear(expr))
        elif isinstance(expr, Binary):
            if expr.op in COMPARISONS and expr.a.dtype is dtypes.i64:
                simple = self._comparison(expr)
            elif expr.op in ("and", "or") and expr.dtype is dtypes.boolean:
                simple = self._logic(expr)
        return expr if simple == expr else simple  # what is known of it is kept

    def _comparison(self, expr: Binary) -> Expr:
        low, high = self.interval(_subtract(self.linear(expr.a), self.linear(expr.b)))
        verdict = {
            "lt": (high < 0, low >= 0),
            "le": (high <= 0, low > 0),
            "gt": (low > 0, high <= 0),
            "ge": (low >= 0, high < 0),
            "eq": (low == high == 0, high < 0 or low > 0),
            "ne": (high < 0 or low > 0, low == high == 0),
        }[expr.op]
        if verdict[0]:
            return TRUE
        if verdict[1]:
            return FALSE
        return Binary(expr.op, self.simplify(expr.a), self.simplify(expr.b))

    def _logic(self, expr: Binary) -> Expr:
        a, b = self.simplify(expr.a), self.simplify(expr.b)
        absorbing, neutral = (FALSE, TRUE) if expr.op == "and" else (TRUE, FALSE)
        if absorbing in (a, b):
            return absorbing
        if a == neutral:
            return b
        return a if b == neutral else Binary(expr.op, a, b)

    def proves(self, cond: Expr) -> bool:
        """Whether the ranges imply `cond`."""
        return self.simplify(cond) == TRUE


def _is_quotient(atom: Expr) -> bool:
    return isinstance(atom, Binary) and atom.op == "floordiv" and isinstance(atom.b, Const)


def _freeze(terms: Mapping[Monomial, int], const: int) -> Linear:
    kept = [(m, c) for m, c in terms.items() if c]
    if len(kept) > 1:
        kept.sort(key=_term_key)
    return Linear(tuple(kept), const)


def _term_key(term: tuple[Monomial, int]) -> tuple[str, ...]:
    return tuple(map(sort_key, term[0]))


def _add(a: Linear, b: Linear) -> Linear:
    terms = dict(a.terms)
    for m, c in b.terms:
        terms[m] = terms.get(m, 0) + c
    return _freeze(terms, a.const + b.const)


def _scale(a: Linear, k: int) -> Linear:
    return Linear(tuple((m, c * k) for m, c in a.terms), a.const * k) if k else Linear((), 0)


def _subtract(a: Linear, b: Linear) -> Linear:
    return _add(a, _scale(b, -1))


def _multiply(a: Linear, b: Linear) -> Linear:
    if not a.terms or not b.terms:
        return _scale(a, b.const) if not b.terms else _scale(b, a.const)
    terms: dict[Monomial, int] = {}
    parts_a = [*a.terms, ((), a.const)]
    parts_b = [*b.terms, ((), b.const)]
    for m1, c1 in parts_a:
        for m2, c2 in parts_b:
            mono = tuple(sorted(m1 + m2, key=sort_key)) if m1 and m2 else m1 or m2
            terms[mono] = terms.get(mono, 0) + c1 * c2
    const = terms.pop((), 0)
    return _freeze(terms, const)


def _split_multiples(a: Linear, d: int, keep_scale: bool = False) -> tuple[Linear, Linear]:
    """(quotient of the part divisible by `d`, the rest); constants are split with floor."""
    scale = d if keep_scale else 1
    whole = [(m, c // d * scale) for m, c in a.terms if c % d == 0]
    rest = [(m, c) for m, c in a.terms if c % d]
    return Linear(tuple(whole), a.const // d * scale), Linear(tuple(rest), a.const % d)


def _step_candidates(rest: Linear, d: int) -> list[int]:
    """Common steps of the coarse terms that divide `d`, greatest first."""
    steps = {math.gcd(c, d) for _, c in rest.terms}
    return sorted((g for g in steps if 1 < g <= d), reverse=True)


def _mul(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _floor(x: float) -> float:
    return math.floor(x) if math.isfinite(x) else x
