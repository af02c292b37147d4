"""Whether accesses lie inside of their buffers: proved from what a function knows of its sizes.

Every index of an access in a lowered function is either tested by the run, because it comes from
data (:func:`aisc.ir.tensor.expr.within`), or proved here to be at least 0 and below the size of its
axis, for all values of iterators and dimensions. Known are the domains of iterators, which are not
empty where something is executed, the bounds of dimensions, the conditions under which an access
stands, and what the function requires of its sizes (:attr:`aisc.ir.tensor.func.Func.requires`),
which its callers test before.

A range of an index is symbolic: dimensions that it is not below, and not above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from math import gcd

from aisc.ir.arith.poly import (
    Dim,
    DimCall,
    Poly,
    SymDim,
    bounds,
    call,
    floordiv,
    maximum,
    minimum,
    product,
    symbol,
    symbols,
)
from aisc.ir.dataclass import dataclass
from aisc.ir.tensor.expr import (
    WITHIN,
    Binary,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Select,
    Unary,
    Var,
    has_loads,
    is_tested,
)
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import Alloc, Block, For, If, Let, Seq, Stmt, Store, While

MAX_BOUNDS = 4  # of one side that are kept
Range = tuple[tuple[Dim, ...], tuple[Dim, ...]]  # (not below, not above)
_NONE: Range = ((), ())
_NEGATED = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "eq": "ne", "ne": "eq"}


@dataclass(frozen=True, slots=True)
class Access:
    """An access of which an index is not known to be inside: the buffer, axis and index."""

    buffer: Buffer
    axis: int
    index: Expr


@dataclass(frozen=True, slots=True)
class Known:
    """What holds at a place: ranges of expressions, and dimensions that are not negative."""

    ranges: Mapping[Expr, Range] = field(default_factory=dict)
    facts: tuple[Dim, ...] = ()
    dims: Mapping[str, SymDim] = field(default_factory=dict)

    # -- building --------------------------------------------------------------------------

    def bind(self, var: Var, low: Expr, extent: Expr) -> Known:
        """An iterator of a domain that is not empty."""
        start, count = self.range(low), self.range(extent)
        highest = tuple(a + b - 1 for a in start[1] for b in count[1])[:MAX_BOUNDS]
        facts = self.facts
        size = self.dim(extent)
        if size is not None and not isinstance(size, int):
            facts = (*facts, size - 1)
        return replace(self, ranges={**self.ranges, var: (start[0], highest)}, facts=facts)

    def let(self, var: Var, value: Expr) -> Known:
        """A name for a value."""
        return replace(self, ranges={**self.ranges, var: self.range(value)})

    def when(self, cond: Expr, holds: bool = True) -> Known:
        """What holds where a condition does, or where it does not."""
        if isinstance(cond, Unary) and cond.op == "not":
            return self.when(cond.a, not holds)
        if not isinstance(cond, Binary):
            return self
        if cond.op == ("and" if holds else "or"):
            return self.when(cond.a, holds).when(cond.b, holds)
        if cond.op == ("or" if holds else "and"):
            return self._either(self.when(cond.a, holds), self.when(cond.b, holds))
        op = cond.op if holds else _NEGATED.get(cond.op, "")
        a, b = (cond.b, cond.a) if op in ("gt", "ge") else (cond.a, cond.b)
        if op in ("lt", "gt", "le", "ge"):
            return self._below(a, b, 1 if op in ("lt", "gt") else 0)
        if op == "eq":
            return self._below(a, b, 0)._below(b, a, 0)
        return self._apart(a, b)._apart(b, a) if op == "ne" else self

    def _either(self, a: Known, b: Known) -> Known:
        """What holds in both of two cases."""
        shared = [f for f in a.facts if f not in self.facts and b.holds(f)]
        shared += [f for f in b.facts if f not in self.facts and a.holds(f)]
        return replace(self, facts=(*self.facts, *dict.fromkeys(shared)))

    def _apart(self, a: Expr, b: Expr) -> Known:
        """With ``a != b``: where one end of what `a` can be is `b`, it is not that end."""
        value = self.dim(b)
        if value is None:
            return self
        low, high = self.range(a)
        if value in low:
            return self._below(b, a, 1)
        return self._below(a, b, 1) if value in high else self

    def _below(self, a: Expr, b: Expr, gap: int) -> Known:
        """With ``a + gap <= b``."""
        low, high = self.range(a), self.range(b)
        table = dict(self.ranges)
        table[a] = (low[0], (*(h - gap for h in high[1]), *low[1])[:MAX_BOUNDS])
        table[b] = ((*(x + gap for x in low[0]), *high[0])[:MAX_BOUNDS], high[1])
        facts = self.facts
        left, right = self.dim(a), self.dim(b)
        if left is not None and right is not None:
            facts = (*facts, right - left - gap)
        return replace(self, ranges=table, facts=facts)

    # -- ranges ----------------------------------------------------------------------------

    def dim(self, e: Expr) -> Dim | None:
        """An expression over dimensions alone as one of them."""
        if isinstance(e, Const) and isinstance(e.value, int):
            return int(e.value)
        if isinstance(e, Var):
            found = self.dims.get(e.name)
            return None if found is None else symbol(found.name, found.lower, found.upper)
        if isinstance(e, Binary):
            a, b = self.dim(e.a), self.dim(e.b)
            if a is None or b is None:
                return None
            if e.op == "add":
                return a + b
            if e.op == "sub":
                return a - b
            if e.op == "mul":
                return a * b
            if e.op in ("floordiv", "mod", "min", "max"):
                if e.op in ("floordiv", "mod") and b == 0:
                    return None
                return call(e.op, a, b)
        return None

    def range(self, e: Expr) -> Range:
        """Dimensions that an i64 expression is not below, and not above."""
        whole = self.dim(e)
        found = _NONE if whole is None else ((whole,), (whole,))
        if whole is None:
            found = self._computed(e)
        more = self.ranges.get(e)
        if more is not None:
            found = ((*more[0], *found[0])[:MAX_BOUNDS], (*more[1], *found[1])[:MAX_BOUNDS])
        return found

    def _computed(self, e: Expr) -> Range:
        if isinstance(e, Call) and e.name == WITHIN:
            return (0,), tuple(h - 1 for h in self.range(e.args[1])[1])
        if isinstance(e, Select):
            a = self.when(e.cond).range(e.then)
            b = self.when(e.cond, holds=False).range(e.other)
            return _pairs(minimum, a[0], b[0]), _pairs(maximum, a[1], b[1])
        if isinstance(e, Unary) and e.op == "neg":
            a = self.range(e.a)
            return tuple(-h for h in a[1]), tuple(-x for x in a[0])
        if isinstance(e, Binary):
            return self._binary(e, self.range(e.a), self.range(e.b))
        return _NONE

    def _binary(self, e: Binary, a: Range, b: Range) -> Range:
        if e.op == "add":
            return _pairs(_add, a[0], b[0]), _pairs(_add, a[1], b[1])
        if e.op == "sub":
            return _pairs(_subtract, a[0], b[1]), _pairs(_subtract, a[1], b[0])
        if e.op == "min":
            return _pairs(minimum, a[0], b[0]), (*a[1], *b[1])[:MAX_BOUNDS]
        if e.op == "max":
            return (*a[0], *b[0])[:MAX_BOUNDS], _pairs(maximum, a[1], b[1])
        factor = self.dim(e.b)
        if e.op == "mul" and factor is None:
            factor, a = self.dim(e.a), b
        if factor is None:
            return _NONE
        if e.op == "mul":
            low, high = (tuple(x * factor for x in side) for side in a)
            if bounds(factor)[0] >= 0:
                return low, high
            return (high, low) if bounds(factor)[1] <= 0 else _NONE
        if e.op in ("floordiv", "mod") and self.holds(factor - 1):
            if e.op == "floordiv":
                return tuple(self.quotient(x, factor) for x in a[0]), tuple(
                    self.quotient(x, factor) for x in a[1]
                )
            inside = any(map(self.holds, a[0]))
            return (0,), (factor - 1, *(a[1] if inside else ()))[:MAX_BOUNDS]
        return _NONE

    def quotient(self, a: Dim, b: Dim) -> Dim:
        """``a // b`` for a positive `b`; ``(q*b - r) // b`` is ``q - 1`` for 0 < r <= b."""
        if isinstance(a, Poly) and not isinstance(b, int):
            rest = dict(a.terms).get((), 0)
            whole = floordiv(a - rest, b)
            if whole * b == a - rest and rest == -1:
                return whole - 1
        return floordiv(a, b)

    # -- proofs ----------------------------------------------------------------------------

    def holds(self, d: Dim) -> bool:
        """Whether a dimension is known not to be negative."""
        if bounds(d)[0] >= 0:
            return True
        if isinstance(d, int):
            return False
        d = self.simpler(d)
        facts = [_reduced(self.simpler(f)) for f in self.facts]
        if isinstance(d, int) or _follows(d, facts):
            return not isinstance(d, int) or d >= 0
        return _follows(d, [*facts, *_of_quotients(d, facts)])

    def simpler(self, d: Dim) -> Dim:
        """A dimension in which minima and maxima with numbers are what the facts make of them."""
        if isinstance(d, int):
            return d
        total: Dim = 0
        for mono, c in d.terms:
            total = total + product((c, *(self._atom(atom) for atom, p in mono for _ in range(p))))
        return total

    def _atom(self, atom: SymDim | DimCall) -> Dim:
        if isinstance(atom, SymDim):
            return symbol(atom.name, atom.lower, atom.upper)
        args = [self.simpler(a) for a in atom.args]
        facts = [_reduced(f) for f in self.facts]
        for number in [a for a in args if isinstance(a, int)]:
            above = [a for a in args if not isinstance(a, int) and _follows(a - number, facts)]
            if atom.op == "max" and above:
                args.remove(number)
            if atom.op == "min":
                args = [a for a in args if a not in above]
        return call(atom.op, *args) if len(args) > 1 else args[0]


def _follows(d: Dim, facts: Sequence[Dim]) -> bool:
    """Whether a dimension is not negative because at most two facts are not."""
    if bounds(d)[0] >= 0 or any(bounds(d - f)[0] >= 0 for f in facts):
        return True
    names = symbols(d)
    near = [f for f in facts if names & symbols(f)]
    return any(bounds(d - f - g)[0] >= 0 for f in near for g in facts)


def _of_quotients(d: Poly, facts: Sequence[Dim]) -> Iterator[Dim]:
    """What is not negative because of the quotients in `d`: ``x - c*(x // c)``, and ``x // c``, as
    many times as it stands there, where x is not."""
    for mono, times in d.terms:
        atom = mono[0][0] if len(mono) == 1 and mono[0][1] == 1 else None
        if isinstance(atom, DimCall) and atom.op == "floordiv" and isinstance(atom.args[1], int):
            x, c = atom.args[0], atom.args[1]
            if c > 0:
                yield x - c * floordiv(x, c)
            if c > 0 and times > 0 and _follows(x, facts):
                yield times * floordiv(x, c)


def _reduced(fact: Dim) -> Dim:
    """An integer that is not negative, less a common factor: ``2n - 1`` becomes ``n - 1``."""
    if isinstance(fact, int):
        return fact
    rest = dict(fact.terms).get((), 0)
    factor = gcd(*(c for mono, c in fact.terms if mono))
    return floordiv(fact - rest, factor) + rest // factor


def _add(a: Dim, b: Dim) -> Dim:
    return a + b


def _subtract(a: Dim, b: Dim) -> Dim:
    return a - b


def _pairs(
    fn: Callable[[Dim, Dim], Dim], a: tuple[Dim, ...], b: tuple[Dim, ...]
) -> tuple[Dim, ...]:
    return tuple(dict.fromkeys(fn(x, y) for x in a for y in b))[:MAX_BOUNDS]


def known_of(func: Func) -> Known:
    """What holds in a function from the start."""
    dims = {s.name: s for b in _buffers(func) for d in b.shape for s in symbols(d)}
    known = Known(dims={**{v.name: SymDim(v.name) for v in func.dims}, **dims})
    for cond in func.requires:
        known = known.when(cond)
    return known


def unproved(func: Func) -> list[Access]:
    """The accesses of a lowered function that are neither tested nor proved to be inside."""
    return list(_in_stmt(func.body, known_of(func)))


def _buffers(func: Func) -> Iterator[Buffer]:
    yield from func.params
    stack: list[Stmt] = [func.body]
    while stack:
        s = stack.pop()
        if isinstance(s, Alloc):
            yield s.buffer
        elif isinstance(s, Seq):
            stack += s.stmts
        elif isinstance(s, For | While | Let):
            stack.append(s.body)
        elif isinstance(s, If):
            stack += [s.then, *([s.other] if s.other else [])]


def _in_stmt(s: Stmt, known: Known) -> Iterator[Access]:
    if isinstance(s, Seq):
        for x in s.stmts:
            yield from _in_stmt(x, known)
    elif isinstance(s, For):
        yield from _in_stmt(s.body, known.bind(s.var, s.low, s.extent))
    elif isinstance(s, Block):
        for it, value in zip(s.iters, s.bindings, strict=True):
            inner = known.bind(it.var, Const(0), it.extent)
            known = replace(inner, ranges={**inner.ranges, it.var: _both(
                inner.ranges[it.var], known.range(value))})  # fmt: skip
        for part in (s.init, s.body):
            if part is not None:
                yield from _in_stmt(part, known)
    elif isinstance(s, If):
        yield from _in_expr(s.cond, known)
        yield from _in_stmt(s.then, known.when(s.cond))
        if s.other is not None:
            yield from _in_stmt(s.other, known.when(s.cond, holds=False))
    elif isinstance(s, While):
        yield from _in_expr(s.cond, known)
        yield from _in_stmt(s.body, known.when(s.cond))
    elif isinstance(s, Let):
        yield from _in_expr(s.value, known)
        yield from _in_stmt(s.body, known.let(s.var, s.value))
    elif isinstance(s, Store):
        yield from _in_access(s.buffer, s.indices, known)
        yield from _in_expr(s.value, known)


def _both(a: Range, b: Range) -> Range:
    return (*a[0], *b[0])[:MAX_BOUNDS], (*a[1], *b[1])[:MAX_BOUNDS]


def _in_expr(e: Expr, known: Known) -> Iterator[Access]:
    if not has_loads(e):
        return
    if isinstance(e, Load):
        yield from _in_access(e.buffer, e.indices, known)
    elif isinstance(e, Select):
        yield from _in_expr(e.cond, known)
        yield from _in_expr(e.then, known.when(e.cond))
        yield from _in_expr(e.other, known.when(e.cond, holds=False))
    elif isinstance(e, Binary):
        yield from _in_expr(e.a, known)
        yield from _in_expr(e.b, known)
    elif isinstance(e, Unary | Cast):
        yield from _in_expr(e.a, known)
    elif isinstance(e, Call):
        for a in e.args:
            yield from _in_expr(a, known)


def _in_access(b: Buffer, indices: tuple[Expr, ...], known: Known) -> Iterator[Access]:
    for axis, (index, size) in enumerate(zip(indices, b.shape, strict=True)):
        yield from _in_expr(index, known)
        if is_tested(index):
            continue
        low, high = known.range(index)
        below = any(known.holds(size - 1 - h) for h in high)
        if not below or not any(map(known.holds, low)):
            yield Access(b, axis, index)
