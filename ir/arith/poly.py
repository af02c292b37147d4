"""Dimensions: integers, or polynomials over symbolic dimensions in a normal form.

``Dim = int | Poly``: a polynomial that is constant is always a plain ``int``, so static shapes
cost nothing. A monomial is a sorted tuple of (atom, power); atoms are :class:`SymDim` and
:class:`DimCall` (floordiv, ceildiv, mod, min, max of dimensions that do not reduce).
Division and modulo follow Python: they round towards minus infinity.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Literal, Union

from aisc.ir.dataclass import dataclass

DimKind = Literal["input", "derived", "data"]
Op = Literal["floordiv", "ceildiv", "mod", "min", "max"]


@dataclass(frozen=True, slots=True)
class SymDim:
    """A dimension known only at run time, named, with bounds (``upper=None``: unbounded)."""

    name: str
    kind: DimKind = "input"
    lower: int = 0
    upper: int | None = None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class DimCall:
    """An operation on dimensions that has no simpler form."""

    op: Op
    args: tuple[Dim, ...]

    def __str__(self) -> str:
        return f"{self.op}({', '.join(map(str, self.args))})"


Atom = Union[SymDim, DimCall]
Monomial = tuple[tuple[Atom, int], ...]
Dim = Union[int, "Poly"]
# What a user says of a symbolic dimension: its value, or (least, greatest).
Extent = Union[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Poly:
    """A non-constant polynomial; build it with operators or :func:`symbol`, never directly."""

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Dim) -> Dim:
        return _combine(self, other, 1)

    __radd__ = __add__

    def __sub__(self, other: Dim) -> Dim:
        return _combine(self, other, -1)

    def __rsub__(self, other: Dim) -> Dim:
        return _combine(other, self, -1)

    def __neg__(self) -> Dim:
        return _combine(0, self, -1)

    def __mul__(self, other: Dim) -> Dim:
        acc: dict[Monomial, int] = {}
        for m1, c1 in self.terms:
            for m2, c2 in _terms(other):
                mono = _times(m1, m2)
                acc[mono] = acc.get(mono, 0) + c1 * c2
        return _make(acc)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floordiv(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return mod(self, other)

    def __str__(self) -> str:
        return format_dim(self)


def symbol(name: str, lower: int = 0, upper: int | None = None, kind: DimKind = "input") -> Poly:
    """The polynomial of one fresh symbolic dimension."""
    return of_symbol(SymDim(name, kind, lower, upper))


def of_symbol(s: SymDim) -> Poly:
    """The polynomial of one symbolic dimension."""
    return Poly(((((s, 1),), 1),))


def _terms(d: Dim) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(d, Poly):
        return d.terms
    return (((), d),) if d else ()


def _atom_key(atom: Atom) -> tuple[int, str]:
    return (0 if isinstance(atom, SymDim) else 1, str(atom))


def _times(a: Monomial, b: Monomial) -> Monomial:
    powers: dict[Atom, int] = dict(a)
    for atom, p in b:
        powers[atom] = powers.get(atom, 0) + p
    return tuple(sorted(powers.items(), key=lambda kv: _atom_key(kv[0])))


def _mono_key(m: Monomial) -> tuple[int, tuple[tuple[int, str, int], ...]]:
    return (-sum(p for _, p in m), tuple((*_atom_key(a), p) for a, p in m))


def _make(acc: Mapping[Monomial, int]) -> Dim:
    items = [(m, c) for m, c in acc.items() if c]
    if not items:
        return 0
    if len(items) == 1 and items[0][0] == ():
        return items[0][1]
    return Poly(tuple(sorted(items, key=lambda t: _mono_key(t[0]))))


def _combine(a: Dim, b: Dim, sign: int) -> Dim:
    acc = dict(_terms(a))
    for m, c in _terms(b):
        acc[m] = acc.get(m, 0) + sign * c
    return _make(acc)


def _call(op: Op, *args: Dim) -> Poly:
    return Poly(((((DimCall(op, args), 1),), 1),))


def floordiv(a: Dim, b: Dim) -> Dim:
    """``a // b`` rounded towards minus infinity; exact factors are divided out."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if a == b and bounds(a)[0] > 0:
        return 1
    if isinstance(b, int):
        assert b != 0, "dimension divided by zero"
        whole = {m: c // b for m, c in _terms(a) if c % b == 0}
        rest = {m: c for m, c in _terms(a) if c % b}
        if not rest:
            return _make(whole)
        if list(rest) == [()]:  # only the constant is left over
            whole[()] = whole.get((), 0) + rest[()] // b
            return _make(whole)
        low, high = bounds(_make(rest))
        if b > 0 and low >= 0 and high is not None and high < b:
            return _make(whole)
        return _make(whole) + _nested_floordiv(_make(rest), b)
    quotient = _exact_quotient(a, b)
    return quotient if quotient is not None else _call("floordiv", a, b)


def _nested_floordiv(a: Dim, b: int) -> Dim:
    """``(x // c) // b`` is ``x // (c*b)``."""
    if b > 0 and isinstance(a, Poly) and len(a.terms) == 1 and a.terms[0][1] == 1:
        inner = _division(a.terms[0][0])
        if inner is not None:
            x, c = inner.args
            assert isinstance(c, int), "a division by a number"
            return floordiv(x, c * b)
    return _call("floordiv", a, b)


def _exact_quotient(a: Dim, b: Dim) -> Dim | None:
    """``a / b`` when `b` is a single term that divides every term of `a`, and is positive."""
    divisor = _terms(b)
    if len(divisor) != 1 or bounds(b)[0] <= 0:
        return None
    (mono, coeff), acc = divisor[0], dict[Monomial, int]()
    for m, c in _terms(a):
        powers = dict(m)
        for atom, p in mono:
            powers[atom] = powers.get(atom, 0) - p
        if c % coeff or any(p < 0 for p in powers.values()):
            return None
        acc[tuple((x, powers[x]) for x, _ in m if powers[x])] = c // coeff
    return _make(acc)


def ceildiv(a: Dim, b: Dim) -> Dim:
    """``a / b`` rounded towards plus infinity."""
    if isinstance(a, int) and isinstance(b, int):
        return -(-a // b)
    if isinstance(b, int) and b > 0:
        return floordiv(a + (b - 1), b)
    quotient = _exact_quotient(a, b)
    return quotient if quotient is not None else _call("ceildiv", a, b)


def mod(a: Dim, b: Dim) -> Dim:
    """``a - b * (a // b)``."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    quotient = floordiv(a, b)
    if isinstance(quotient, int) or not _has_call(quotient):
        return a - b * quotient
    return _call("mod", a, b)


def _has_call(d: Dim) -> bool:
    return any(isinstance(atom, DimCall) for m, _ in _terms(d) for atom, _ in m)


def _extreme(op: Literal["min", "max"], args: tuple[Dim, ...]) -> Dim:
    flat: dict[Dim, None] = {}
    for a in args:
        inner = _sole_call(a, op)
        for x in inner if inner is not None else (a,):
            flat[x] = None
    kept = [a for a in flat if not any(b is not a and _dominates(op, b, a) for b in flat)]
    kept = kept or list(flat)[:1]
    if len(kept) == 1:
        return kept[0]
    if all(isinstance(k, int) for k in kept):
        numbers = [k for k in kept if isinstance(k, int)]
        return min(numbers) if op == "min" else max(numbers)
    return _call(op, *sorted(kept, key=str))


def _sole_call(d: Dim, op: str) -> tuple[Dim, ...] | None:
    if isinstance(d, Poly) and len(d.terms) == 1:
        mono, c = d.terms[0]
        if c == 1 and len(mono) == 1 and mono[0][1] == 1:
            atom = mono[0][0]
            if isinstance(atom, DimCall) and atom.op == op:
                return atom.args
    return None


def _dominates(op: str, winner: Dim, loser: Dim) -> bool:
    """`winner` makes `loser` irrelevant in the minimum or maximum; of equal ones one is kept."""
    gap = loser - winner if op == "min" else winner - loser
    low, high = bounds(gap)
    return low > 0 or (low == 0 and (high > 0 or str(winner) < str(loser)))


def minimum(*args: Dim) -> Dim:
    """The least of `args`."""
    return _extreme("min", args)


def maximum(*args: Dim) -> Dim:
    """The greatest of `args`."""
    return _extreme("max", args)


@lru_cache(maxsize=65536)
def bounds(d: Dim) -> tuple[float, float]:
    """Interval that contains every value of `d` (``inf`` where unbounded)."""
    if isinstance(d, int):
        return d, d
    low, high = _sum_bounds(d.terms)
    if any(_division(mono) for mono, _ in d.terms):
        less, more = _bounds_without_divisions(d)
        low, high = max(low, less), min(high, more)
    return low, high


def _division(mono: Monomial) -> DimCall | None:
    """The atom of a monomial that is one floor division by a positive number."""
    if len(mono) == 1 and mono[0][1] == 1 and isinstance(mono[0][0], DimCall):
        atom = mono[0][0]
        if atom.op == "floordiv" and isinstance(atom.args[1], int) and atom.args[1] > 0:
            return atom
    return None


def _bounds_without_divisions(d: Poly) -> tuple[float, float]:
    """Bounds after each ``c * (a // k)`` is written ``c/k * a - c/k * r`` with 0 <= r < k: terms
    in the same symbols cancel, as in ``n - 2*(n//2)``."""
    low = high = 0.0
    acc: dict[Monomial, Fraction] = {}
    todo = [(mono, Fraction(c)) for mono, c in d.terms]
    while todo:
        mono, c = todo.pop()
        atom = _division(mono)
        if atom is None:
            acc[mono] = acc.get(mono, Fraction(0)) + c
            continue
        k = atom.args[1]
        assert isinstance(k, int), "a division by a number"
        todo += [(m, c * f / k) for m, f in _terms(atom.args[0])]
        slack = float(-c * (k - 1) / k)
        low, high = low + min(0.0, slack), high + max(0.0, slack)
    rest = _sum_bounds([(m, c) for m, c in acc.items() if c])
    # The value is a whole number; the margin absorbs the rounding of the fractions.
    low, high = low + rest[0], high + rest[1]
    return (
        math.ceil(low - 1e-9) if math.isfinite(low) else low,
        math.floor(high + 1e-9) if math.isfinite(high) else high,
    )


def _sum_bounds(terms: Iterable[tuple[Monomial, int | Fraction]]) -> tuple[float, float]:
    """Bounds of a sum from the bounds of each term alone."""
    low = high = 0.0
    for mono, c in terms:
        lo, hi = 1.0, 1.0
        for atom, p in mono:
            a_lo, a_hi = _atom_bounds(atom)
            for _ in range(p):
                corners = [_mul(x, y) for x in (lo, hi) for y in (a_lo, a_hi)]
                lo, hi = min(corners), max(corners)
        ends = (_mul(lo, float(c)), _mul(hi, float(c)))
        low, high = low + min(ends), high + max(ends)
    return low, high


def _mul(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _atom_bounds(atom: Atom) -> tuple[float, float]:
    if isinstance(atom, SymDim):
        return atom.lower, math.inf if atom.upper is None else atom.upper
    parts = [bounds(a) for a in atom.args]
    if atom.op == "min":
        return min(p[0] for p in parts), min(p[1] for p in parts)
    if atom.op == "max":
        return max(p[0] for p in parts), max(p[1] for p in parts)
    (a_lo, a_hi), (b_lo, b_hi) = parts
    if b_lo <= 0:
        return -math.inf, math.inf
    if atom.op == "mod":
        return 0, b_hi - 1
    corners = [_quotient(x, y) for x in (a_lo, a_hi) for y in (b_lo, b_hi)]
    return min(math.floor(c) if math.isfinite(c) else c for c in corners), max(
        math.ceil(c) if math.isfinite(c) else c for c in corners
    )


def _quotient(a: float, b: float) -> float:
    if math.isinf(b):
        return 0.0 if math.isfinite(a) else a
    return a / b


def evaluate(d: Dim, env: Mapping[str, int]) -> int:
    """The value of `d` when each symbolic dimension has the value `env` gives its name."""
    value = substitute(d, env)
    if not isinstance(value, int):
        raise KeyError(f"no value for {', '.join(sorted(s.name for s in symbols(value)))}")
    return value


def substitute(d: Dim, env: Mapping[str, Dim]) -> Dim:
    """`d` with named symbolic dimensions replaced."""
    if isinstance(d, int):
        return d
    total: Dim = 0
    for mono, c in d.terms:
        product: Dim = c
        for atom, p in mono:
            value = _substitute_atom(atom, env)
            for _ in range(p):
                product = product * value
        total = total + product
    return total


def _substitute_atom(atom: Atom, env: Mapping[str, Dim]) -> Dim:
    if isinstance(atom, SymDim):
        return env[atom.name] if atom.name in env else Poly(((((atom, 1),), 1),))
    return call(atom.op, *(substitute(a, env) for a in atom.args))


def call(op: str, *args: Dim) -> Dim:
    """Apply a named operation of :class:`DimCall` with simplification."""
    if op == "min":
        return minimum(*args)
    if op == "max":
        return maximum(*args)
    table = {"floordiv": floordiv, "ceildiv": ceildiv, "mod": mod}
    return table[op](*args)


def symbols(d: Dim) -> frozenset[SymDim]:
    """Every symbolic dimension that occurs in `d`."""
    found: set[SymDim] = set()
    for mono, _ in _terms(d):
        for atom, _ in mono:
            if isinstance(atom, SymDim):
                found.add(atom)
            else:
                for a in atom.args:
                    found |= symbols(a)
    return frozenset(found)


def sole_symbol(d: Dim) -> SymDim | None:
    """The symbol of a dimension that is one symbol and nothing else."""
    if isinstance(d, Poly) and len(d.terms) == 1:
        mono, coeff = d.terms[0]
        if coeff == 1 and len(mono) == 1 and mono[0][1] == 1 and isinstance(mono[0][0], SymDim):
            return mono[0][0]
    return None


def difference(a: Dim, b: Dim) -> Dim:
    """``a - b``, with extremes distributed: ``n - max(0, n-1)`` is ``min(n, 1)``."""
    high = _sole_call(b, "max")
    if high is not None:
        return minimum(*(a - x for x in high))
    low = _sole_call(a, "min")
    return a - b if low is None else minimum(*(x - b for x in low))


def symbol_part(d: Dim) -> Dim:
    """`d` without its constant term."""
    return d - dict(_terms(d)).get((), 0)


def least_of(d: Dim) -> tuple[Dim, ...]:
    """The operands of a minimum; none for other dimensions."""
    return _sole_call(d, "min") or ()


def product(dims: tuple[Dim, ...]) -> Dim:
    """The product of `dims`; 1 for none."""
    total: Dim = 1
    for d in dims:
        total = total * d
    return total


def format_dim(d: Dim) -> str:
    """Text of a dimension, e.g. ``n*768+1``; parsed back by the text form."""
    if isinstance(d, int):
        return str(d)
    out = ""
    for mono, c in d.terms:
        factors = [str(atom) for atom, p in mono for _ in range(p)]
        body = "*".join(([str(abs(c))] if abs(c) != 1 or not factors else []) + factors)
        out += ("-" if c < 0 else "+" if out else "") + body
    return out
