"""Whether an element says which iteration touched it: digits of fused loops, symbolic radices too.

A loop that was fused from others takes its values apart again, ``f // s`` and ``f % s``. Where both
are indices of every access, two iterations that touch one element have equal digits, and digits put
together give back the loop's value: ``(f // s) * s + f % s``. So different iterations touch
different elements. Exact integer sets cannot say so when `s` is symbolic, which is why this test
comes before them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from aisc.ir.dataclass import dataclass
from aisc.ir.node import Node, map_children
from aisc.ir.tensor.expr import ONE, Binary, Const, Expr, Var, binary, variables
from aisc.ir.tensor.linear import Indexer, Linear, Monomial, mentions
from aisc.ir.tensor.visitor import substitute

# One index of one access: its low end and how many elements it takes from there.
Window = tuple[Expr, Expr]
# The windows of several accesses along each axis.
Axes = list[tuple[Window, ...]]
Terms = tuple[tuple[Monomial, int], ...]


def axes_of(accesses: Iterable[Sequence[Window]]) -> Axes:
    """The windows of accesses of one buffer by axis, each once."""
    return [tuple(dict.fromkeys(axis)) for axis in zip(*accesses, strict=True)]


def determined(var: Var, axes: Axes, ranges: Indexer, fixed: frozenset[Var]) -> bool:
    """Whether the element determines `var`, for accesses of one buffer given by their windows per
    axis. `fixed` variables have one value in all iterations that are compared."""
    known: dict[Linear, None] = {}
    if _has_digits(var, axes, ranges, fixed, known):
        return True
    together = [tuple((ranges.simplify(low), n) for low, n in axis) for axis in axes]
    return together != axes and _has_digits(var, together, ranges, fixed, known)


def _has_digits(
    var: Var, axes: Axes, ranges: Indexer, fixed: frozenset[Var], known: dict[Linear, None]
) -> bool:
    """Whether digits that the windows of each axis have in common, with those `known` already,
    make up `var`."""
    for axis in axes:
        indices = [(_divided(var, low, ranges, fixed), size) for low, size in axis]
        for aligned in (False, True):
            digits = {_digit(index, size, ranges, aligned) for index, size in indices}
            if len(digits) == 1:
                (digit,) = digits
                if digit is not None:
                    known[digit[0]] = None
                break
    return _follows(var, known, ranges, fixed)


@dataclass(frozen=True, slots=True)
class _Index:
    """``step * own + same + inner + const``, at most `most`: `own` is made of digits of a variable,
    which have `names` there, `same` is fixed, `inner` whatever else there is."""

    own: Terms
    names: Mapping[Var, Expr]
    step: int
    same: Terms
    inner: Terms
    const: int
    most: int | None = None


def _divided(var: Var, low: Expr, ranges: Indexer, fixed: frozenset[Var]) -> _Index | None:
    """The parts of an index that depends on `var`, if that is divided as digits are."""
    table: dict[Expr, Var] = {}
    low, most = _clamped(low)
    form = ranges.linear(_with_names(low, var, fixed, table))
    names = {v: e for e, v in table.items()}
    own = tuple(t for t in form.terms if _over(t[0], names.keys()))
    same = tuple(t for t in form.terms if t not in own and _all_in(t[0], fixed))
    inner = tuple(t for t in form.terms if t not in own and t not in same)
    if not own or not all(_all_in(m, fixed | set(names)) for m, _ in own):
        return None
    step = math.gcd(*(c for _, c in own))
    digits = tuple((m, c // step) for m, c in own)
    return _Index(digits, names, step, same, inner, form.const, most)


def _clamped(low: Expr) -> tuple[Expr, int | None]:
    """An index without the bound that tails are clamped to, and the bound."""
    if isinstance(low, Binary) and low.op == "min" and isinstance(low.b, Const):
        return low.a, int(low.b.value)
    return low, None


def _digit(
    index: _Index | None, extent: Expr, ranges: Indexer, aligned: bool
) -> tuple[Linear, int, Linear] | None:
    """(d, c, rest) for an index ``c*d + rest + inner`` where inner, with the window's extent, stays
    in ``[0, c)``: the element's place determines d. If `aligned`, the constant of the rest is a
    multiple of c, and what it exceeds that by is a part of inner: then places beside each other,
    ``4*d``, ``4*d + 1``, have one rest."""
    if index is None:
        return None
    over = index.const % index.step if aligned else 0
    low_end, high_end = ranges.interval(Linear(index.inner, over))
    if low_end < 0 or high_end + ranges.bounds(extent)[1] - 1 >= index.step:
        return None
    value = substitute(ranges.build(Linear(index.own, 0)), index.names)
    if index.most is not None:  # it must leave all digits as they are: (c*d + r) // c == d
        start = index.step * ranges.bounds(value)[1] + index.const - over
        if index.same or extent != ONE or start > index.most:
            return None
    digit = ranges.linear(value)
    return digit, index.step, Linear(index.same, index.const - over)


def _with_names(e: Expr, var: Var, fixed: frozenset[Var], table: dict[Expr, Var]) -> Expr:
    """`e` with each maximal quotient and remainder of `var` alone, and `var`, given a name, so
    that the ranges of inner loops simplify what is around them."""

    def go(n: Node) -> Node:
        if not isinstance(n, Expr) or not mentions(n, var):
            return n
        digit = isinstance(n, Var) or (isinstance(n, Binary) and n.op in ("floordiv", "mod"))
        if digit and _all_in((n,), fixed | {var}):
            return table.setdefault(n, Var(f"{var.name} digit {len(table)}"))
        return map_children(n, go)

    result = go(e)
    assert isinstance(result, Expr), "an index stays an expression"
    return result


def _over(mono: tuple[Expr, ...], names: AbstractSet[Var]) -> bool:
    return any(v in names for a in mono for v in variables(a))


def _all_in(mono: Iterable[Expr], allowed: AbstractSet[Var]) -> bool:
    return all(v in allowed for a in mono for v in variables(a))


def _follows(var: Var, known: dict[Linear, None], ranges: Indexer, fixed: frozenset[Var]) -> bool:
    """Whether `var` is put together from the digits: x from ``x // e`` and ``x % e``."""
    whole = ranges.linear(var)
    while whole not in known:
        flat = {_flat(ranges.build(form)) for form in known}
        found: list[Linear] = []
        for form in known:
            found += _from_quotient(form, known, ranges, fixed)
            rest = _remainder(form)
            if rest is not None and _flat(rest) in flat:
                found.append(ranges.linear(rest.a))
        new = dict.fromkeys(x for x in found if x not in known)
        if not new:
            return False
        known |= new
    return True


def _from_quotient(
    form: Linear, known: Mapping[Linear, None], ranges: Indexer, fixed: frozenset[Var]
) -> list[Linear]:
    """x, where the form is ``x // e`` and ``x % e`` is known, for an e of any form."""
    quotient = _quotient(form)
    if quotient is None or not _all_in((quotient.b,), fixed):
        return []
    rest = ranges.linear(binary("mod", quotient.a, quotient.b))
    return [ranges.linear(quotient.a)] if rest in known else []


def _remainder(form: Linear) -> Binary | None:
    """``x // e`` for a form ``x - e*(x // e)``, which is how ``x % e`` is written."""
    if form.const or len(form.terms) != 2:
        return None
    for (x, one), (mono, c) in (form.terms, form.terms[::-1]):
        q = mono[0]
        if (
            isinstance(q, Binary) and q.op == "floordiv" and q.b == Const(-c)
            and one == 1 and len(mono) == 1 and x == (q.a,)
        ):  # fmt: skip
            return q
    return None


def _flat(e: Expr) -> Expr:
    """A quotient of a quotient by constants as one: ``x // a // b`` is ``x // (a*b)``."""
    while isinstance(e, Binary) and e.op == "floordiv" and isinstance(e.a, Binary):
        inner = e.a
        if inner.op != "floordiv" or not (isinstance(e.b, Const) and isinstance(inner.b, Const)):
            break
        e = Binary("floordiv", inner.a, Const(int(inner.b.value) * int(e.b.value)))
    return e


def _quotient(form: Linear) -> Binary | None:
    """The floor division that a form consists of."""
    if form.const == 0 and len(form.terms) == 1:
        mono, c = form.terms[0]
        if c == 1 and len(mono) == 1 and isinstance(mono[0], Binary) and mono[0].op == "floordiv":
            return mono[0]
    return None
