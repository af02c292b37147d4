"""Loops of a scheduled kernel as numbers: how often they turn, and what an address does in a turn.

A loop that was fused of several chooses among them by quotients and remainders; here it is its
digits again, each a loop of its own: ``x[p % 32, k]`` moves with the low digit of ``p`` alone. An
address is a linear form of the digits, found by evaluating it: its value where one digit is 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field

from aisc.ir.arith.poly import Dim, evaluate
from aisc.ir.dataclass import dataclass
from aisc.ir.node import distinct
from aisc.ir.tensor.expr import Binary, Const, Expr, Select, Unary, Var
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.stmt import Stmt

Values = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Digit:
    """A loop, or a part of one: the variable goes by `weight` in each of `count` turns."""

    loop: str
    weight: int
    count: int
    kind: str = "serial"


@dataclass(frozen=True, slots=True)
class Access:
    """What a place in the code reads or writes: bytes from one turn of a digit to the next, for
    those digits that move it. One `at random` lies anywhere in its buffer."""

    buffer: Buffer
    steps: Mapping[Digit, int] = field(hash=False)
    is_write: bool = False
    at_random: bool = False


def value_of(e: Expr, values: Values) -> int | None:
    """An index for values of the loops; names without one are 0. ``None`` for one from data."""
    if isinstance(e, Const):
        return int(e.value)
    if isinstance(e, Var):
        return values.get(e.name, 0)
    if isinstance(e, Select):
        return value_of(e.then, values)
    if isinstance(e, Unary):
        return value_of(e.a, values)
    if not isinstance(e, Binary):
        return None
    a, b = value_of(e.a, values), value_of(e.b, values)
    return None if a is None or b is None else _applied(e.op, a, b)


def _applied(op: str, a: int, b: int) -> int | None:
    if op == "add":
        return a + b
    if op == "sub":
        return a - b
    if op == "mul":
        return a * b
    if op in ("floordiv", "mod"):
        return 0 if b == 0 else a // b if op == "floordiv" else a % b
    if op in ("min", "max"):
        return min(a, b) if op == "min" else max(a, b)
    return None


def digits_of(loop: str, count: int, kind: str, cuts: Iterable[int]) -> list[Digit]:
    """The digits of a loop, the highest first; `cuts` are what it is divided by in its body."""
    found: list[Digit] = []
    weight = 1
    for cut in sorted({c for c in cuts if 1 < c < count}):
        if cut % weight == 0:
            found.append(Digit(loop, weight, cut // weight, kind))
            weight = cut
    found.append(Digit(loop, weight, -(-count // weight), kind))
    return found[::-1]


def cuts_of(body: Stmt) -> dict[str, set[int]]:
    """What each variable is divided by below a statement; digits of digits count for the whole."""
    found: dict[str, set[int]] = {}
    for n in distinct(body):
        if isinstance(n, Binary) and n.op in ("floordiv", "mod") and isinstance(n.b, Const):
            weight, top = int(n.b.value), n.a
            while isinstance(top, Binary) and top.op == "floordiv" and isinstance(top.b, Const):
                weight, top = weight * int(top.b.value), top.a
            if isinstance(top, Var):
                found.setdefault(top.name, set()).add(weight)
    return found


def access_of(
    b: Buffer, indices: Sequence[Expr], around: Sequence[Digit], sizes: Values, is_write: bool
) -> Access:
    """The access of a place within loops."""
    names = {v.name for i in indices for v in distinct(i) if isinstance(v, Var)}
    origin, known = place_of(b, indices, sizes)
    if not known:
        return Access(b, dict.fromkeys(around, b.dtype.bytes), is_write, True)
    steps: dict[Digit, int] = {}
    for d in around:
        if d.count > 1 and d.loop in names:
            moved, _ = place_of(b, indices, {**sizes, d.loop: d.weight})
            if moved != origin:
                steps[d] = abs(moved - origin)
    return Access(b, steps, is_write)


def place_of(b: Buffer, indices: Sequence[Expr], values: Values) -> tuple[int, bool]:
    """The byte of a place in its buffer for values of the loops, and whether that is known: an
    index from data counts as 0."""
    places = [value_of(i, values) for i in indices]
    steps = [_size(s, values) for s in b.strides]
    total = sum((p or 0) * s for p, s in zip(places, steps, strict=True))
    return total * b.dtype.bytes, None not in places


def _size(dim: Dim, sizes: Values) -> int:
    return dim if isinstance(dim, int) else evaluate(dim, sizes)
