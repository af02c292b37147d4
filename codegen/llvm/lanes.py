"""Lanes with Python operators: formulas of the elementary functions read as formulas.

A :class:`Lanes` is an LLVM value (scalar or vector) with the emitter that adds instructions to
it. Plain numbers become literals with as many lanes. Nothing is contracted: `a * b + c` is two
roundings, :func:`fma` one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Union

from aisc.codegen.llvm.types import Val
from aisc.ir import dtypes
from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType

if TYPE_CHECKING:
    from aisc.codegen.llvm.vector_math import MathEmitter

LanesLike = Union["Lanes", float, int]


@dataclass(frozen=True, slots=True)
class Lanes:
    """A value under computation. Comparisons give lanes of bool; integers wrap."""

    m: MathEmitter
    v: Val

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self.v.dtype

    @property
    def single(self) -> bool:
        """Whether this is binary32 (else binary64, or an integer)."""
        return self.v.dtype is dtypes.f32

    def of(self, x: LanesLike) -> Lanes:
        """`x` as lanes like these."""
        return x if isinstance(x, Lanes) else Lanes(self.m, self.m.const(x, self.v))

    def _binary(self, op: str, a: LanesLike, b: LanesLike) -> Lanes:
        return Lanes(self.m, self.m.binary(op, self.of(a).v, self.of(b).v))

    def _compare(self, op: str, b: LanesLike) -> Lanes:
        return Lanes(self.m, self.m.compare(op, self.v, self.of(b).v))

    def __add__(self, b: LanesLike) -> Lanes:
        return self._binary("add", self, b)

    def __radd__(self, b: LanesLike) -> Lanes:
        return self._binary("add", b, self)

    def __sub__(self, b: LanesLike) -> Lanes:
        return self._binary("sub", self, b)

    def __rsub__(self, b: LanesLike) -> Lanes:
        return self._binary("sub", b, self)

    def __mul__(self, b: LanesLike) -> Lanes:
        return self._binary("mul", self, b)

    def __rmul__(self, b: LanesLike) -> Lanes:
        return self._binary("mul", b, self)

    def __truediv__(self, b: LanesLike) -> Lanes:
        return self._binary("div", self, b)

    def __rtruediv__(self, b: LanesLike) -> Lanes:
        return self._binary("div", b, self)

    def __neg__(self) -> Lanes:
        return Lanes(self.m, self.m.unary("neg", self.v))

    def __abs__(self) -> Lanes:
        return Lanes(self.m, self.m.unary("abs", self.v))

    def __and__(self, b: LanesLike) -> Lanes:
        return self._binary("and", self, b)

    def __or__(self, b: LanesLike) -> Lanes:
        return self._binary("or", self, b)

    def __xor__(self, b: LanesLike) -> Lanes:
        return self._binary("xor", self, b)

    def __invert__(self) -> Lanes:
        return Lanes(self.m, self.m.unary("not", self.v))

    def __lshift__(self, by: LanesLike) -> Lanes:
        return self._shift("shl", by)

    def __rshift__(self, by: LanesLike) -> Lanes:
        return self._shift("ashr" if self.dtype.kind == "int" else "lshr", by)

    def _shift(self, name: str, by: LanesLike) -> Lanes:
        """Shifts here are always by less than the width."""
        text = f"{name} {self.v.text}, {self.of(by).v.ref}"
        return Lanes(self.m, self.m.let(text, self.dtype, self.v.lanes))

    def __lt__(self, b: LanesLike) -> Lanes:
        return self._compare("lt", b)

    def __le__(self, b: LanesLike) -> Lanes:
        return self._compare("le", b)

    def __gt__(self, b: LanesLike) -> Lanes:
        return self._compare("gt", b)

    def __ge__(self, b: LanesLike) -> Lanes:
        return self._compare("ge", b)

    def eq(self, b: LanesLike) -> Lanes:
        """Lane-wise equality (``==`` compares the values' names)."""
        return self._compare("eq", b)

    def ne(self, b: LanesLike) -> Lanes:
        """Lane-wise inequality; true for NaN."""
        return self._compare("ne", b)

    def sqrt(self) -> Lanes:
        """Correctly rounded square root."""
        return Lanes(self.m, self.m.unary("sqrt", self.v))

    def round(self) -> Lanes:
        """Nearest integer, ties to even."""
        return Lanes(self.m, self.m.unary("round", self.v))

    def trunc(self) -> Lanes:
        """Integer part."""
        return Lanes(self.m, self.m.unary("trunc", self.v))

    def copysign(self, sign: Lanes) -> Lanes:
        """This magnitude with the sign of `sign`."""
        return Lanes(self.m, self.m.intrinsic("copysign", (self.v, sign.v)))

    def signed_as(self, x: Lanes) -> Lanes:
        """This number, which has no sign, with that of `x`: less than :meth:`copysign` takes."""
        sign = x.of(-0.0).bits()
        return (self.bits() | (x.bits() & sign)).from_bits()

    def bits(self) -> Lanes:
        """The representation of a float as a signed integer."""
        return Lanes(self.m, self.m.bitcast(self.v, dtypes.i32 if self.single else dtypes.i64))

    def from_bits(self) -> Lanes:
        """The float with this representation."""
        to = dtypes.f32 if self.dtype.bits == 32 else dtypes.f64
        return Lanes(self.m, self.m.bitcast(self.v, to))

    def convert(self, to: DType) -> Lanes:
        """The value in another type."""
        return Lanes(self.m, self.m.convert(self.v, to))


def fma(a: Lanes, b: LanesLike, c: LanesLike) -> Lanes:
    """``a*b + c`` rounded once."""
    return Lanes(a.m, a.m.fma(a.v, a.of(b).v, a.of(c).v))


def where(cond: Lanes, a: LanesLike, b: LanesLike) -> Lanes:
    """`a` where `cond` holds, else `b`; one of them must be lanes."""
    like = a if isinstance(a, Lanes) else b
    assert isinstance(like, Lanes), "one arm must be lanes"
    return Lanes(like.m, like.m.select(cond.v, like.of(a).v, like.of(b).v))


def element(table: tuple[int, ...], place: Lanes) -> Lanes:
    """The element of a table in memory for each lane; `place` is within it, of 64 bits."""
    return Lanes(place.m, place.m.element(table, place.v))


def branch(
    rare: Lanes, there: Callable[[], Sequence[Lanes]], usual: Sequence[Lanes]
) -> list[Lanes]:
    """What `there` computes when any lane is `rare`, else `usual`: code that is jumped over."""
    taken = rare.m.branch(rare.v, lambda: [x.v for x in there()], [x.v for x in usual])
    return [Lanes(rare.m, v) for v in taken]


def polynomial(x: Lanes, coefficients: tuple[float, ...]) -> Lanes:
    """``c[0] + c[1] x + c[2] x^2 + ...`` by Horner's rule with fused multiply-adds.

    Vector code has many independent chains (one per unrolled vector), so the latency of Horner's
    rule is hidden and its fewer instructions and roundings win over Estrin's."""
    total = x.of(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = fma(total, x, c)
    return total
