"""How large the numbers get that a kernel counts with, as dimensions: whether 32 bits hold them.

Numbers of 64 bits take two registers of a device, and several instructions for each that is done
with them. A kernel counts in 32 bits if everything that it computes on the way to an address stays
below a bound: of sizes that are known this is known, of others it is a condition for each launch.
"""

from __future__ import annotations

from dataclasses import field
from math import isfinite

from aisc.ir.arith.poly import Dim, Poly, symbol
from aisc.ir.dataclass import dataclass
from aisc.ir.tensor.expr import Binary, Expr, Var
from aisc.ir.tensor.linear import Indexer, Linear

# What every number stays below: sums and differences of two such have 32 bits.
MOST = 1 << 30


class TooWide(Exception):
    """A kernel counts in 64 bits, or goes by data that nobody bounds."""


@dataclass(slots=True)
class Magnitudes:
    """Bounds of indices. dims: what is known of dimensions; last: ends of loops; assumed: what a
    dimension must not exceed."""

    dims: dict[Var, float] = field(default_factory=dict)
    last: dict[Var, Expr] = field(default_factory=dict)
    assumed: dict[Dim, int] = field(default_factory=dict)
    _known: dict[Expr, Dim] = field(default_factory=dict)

    def require(self, form: Linear, index: Indexer) -> None:
        """Note that a sum must be below the bound; ``TooWide`` where it is not."""
        self.assume(self.of(form, index), MOST - 1)

    def assume(self, size: Dim, most: int) -> None:
        """Note that a dimension must not exceed a number; ``TooWide`` where it does."""
        if not isinstance(size, int):
            self.assumed[size] = min(most, self.assumed.get(size, most))
        elif size > most:
            raise TooWide(size)

    def of(self, form: Linear, index: Indexer) -> Dim:
        """The greatest absolute value of a sum and of its parts."""
        total: Dim = abs(form.const)
        for mono, c in form.terms:
            product: Dim = abs(c)
            for atom in mono:
                product = product * self._atom(atom, index)
            total = total + product
        return total

    def _atom(self, atom: Expr, index: Indexer) -> Dim:
        if isinstance(atom, Var):
            return self._variable(atom, index)
        known = self._known.get(atom)
        if known is None:
            known = self._known[atom] = self._computed(atom, index)
        return known

    def _variable(self, v: Var, index: Indexer) -> Dim:
        low, high = index.ranges.get(v.name, (0.0, float("inf")))
        if isfinite(low) and isfinite(high):
            return int(max(abs(low), abs(high)))
        if v in self.dims:
            return symbol(v.name)
        if v not in self.last:
            raise TooWide(v.name)
        return self.of(index.linear(self.last[v]), index)

    def _computed(self, e: Expr, index: Indexer) -> Dim:
        if not isinstance(e, Binary) or e.op not in ("floordiv", "mod", "min", "max"):
            raise TooWide(e)
        a, b = (self.of(index.linear(x), index) for x in (e.a, e.b))
        if e.op in ("min", "max"):
            return a + b
        return b if e.op == "mod" else a

    def conditions(self) -> tuple[tuple[Dim, int], ...]:
        """What must hold, without what follows from the rest."""
        found: list[tuple[Dim, int]] = []
        for size, most in sorted(self.assumed.items(), key=lambda x: (x[1], str(x[0]))):
            if any(most >= n and _at_most(size, d) for d, n in found):
                continue
            found = [(d, n) for d, n in found if not (n >= most and _at_most(d, size))]
            found.append((size, most))
        return tuple(found)


def _at_most(a: Dim, b: Dim) -> bool:
    """Whether each term of `a` is one of `b`: dimensions are never below 0."""
    if not isinstance(a, Poly) or not isinstance(b, Poly):
        return False
    others = dict(b.terms)
    own = dict(a.terms)
    return all(c <= others.get(m, 0) for m, c in own.items()) and all(
        c >= 0 for m, c in others.items() if m not in own
    )
