"""Operators on what is known while a network is built: numbers, sizes, texts, truth values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from aisc.frontend.lang.scope import Static, misfit, shown
from aisc.ir.arith import poly
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.graph.shapes.checks import decide
from aisc.ir.location import Loc
from aisc.ir.types import MAX_SIZE

_LARGEST = 1 << 62
_ON_NUMBERS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b, "floordiv": lambda a, b: a // b, "mod": lambda a, b: a % b,
    "pow": lambda a, b: a**b, "less": lambda a, b: a < b, "less_equal": lambda a, b: a <= b,
    "greater": lambda a, b: a > b, "greater_equal": lambda a, b: a >= b,
}  # fmt: skip
_ON_SIZES: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
    "floordiv": poly.floordiv, "mod": poly.mod,
}  # fmt: skip

# Of sizes and numbers; some are names of operators on tensors, too.
FUNCTIONS = ("ceildiv", "max", "min")


class Undecided(CompileError):
    """E109: only the run knows how sizes compare."""

    def __init__(self, message: str, at: Loc) -> None:
        super().__init__(misfit(message, at=at).diagnostics)


def unary(op: str, a: Static, at: Loc) -> Static:
    """``-a`` or ``not a``."""
    if op == "not" and isinstance(a, bool):
        return not a
    if op == "neg" and isinstance(a, int | float | poly.Poly) and not isinstance(a, bool):
        return -1 * a
    raise misfit(f"{op} does not take {shown(a)}", at=at)


def binary(op: str, a: Static, b: Static, at: Loc) -> Static:
    """``a op b``; E109 where they do not go together, also as :class:`Undecided`."""
    if op in ("equal", "not_equal"):
        return _equal(a, b, at) is (op == "equal")
    if op in ("and", "or") and isinstance(a, bool) and isinstance(b, bool):
        return (a and b) if op == "and" else (a or b)
    if op == "add" and isinstance(a, list) and isinstance(b, list):
        return [*a, *b]
    if any(isinstance(x, poly.Poly) for x in (a, b)):
        return _of_sizes(op, a, b, at)
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (a, b))
    if not numbers or op not in _ON_NUMBERS:
        raise misfit(f"{op} does not take {shown(a)} and {shown(b)}", at=at)
    assert isinstance(a, int | float) and isinstance(b, int | float), "numbers"
    if op == "pow" and isinstance(a, int) and (b < 0 or abs(b) * math.log2(abs(a) + 2) > 62):
        a = float(a)
    try:
        found: Static = _ON_NUMBERS[op](a, b)
    except (ZeroDivisionError, OverflowError) as fault:
        raise misfit(f"{op} of {shown(a)} and {shown(b)}: {fault}", at=at) from None
    if isinstance(found, complex) or (isinstance(found, int) and abs(found) > _LARGEST):
        raise misfit(f"{op} of {shown(a)} and {shown(b)} is no number that aisc knows", at=at)
    return found


def _equal(a: Static, b: Static, at: Loc) -> bool:
    if any(isinstance(x, poly.Poly) for x in (a, b)):
        if not all(isinstance(x, poly.Poly | int) for x in (a, b)):
            return False
        decided = decide("==", a, b)  # type: ignore[arg-type]
        if decided is None:
            raise Undecided(f"whether {shown(a)} and {shown(b)} are equal is not known yet", at)
        return decided
    return type(a) is type(b) and a == b if isinstance(a, bool) or isinstance(b, bool) else a == b


def is_function(name: str, args: Sequence[object]) -> bool:
    """Whether a call is of what is known: sizes and numbers alone."""
    if name == "ceildiv":
        return True
    known = all(isinstance(a, int | float | poly.Poly) and not isinstance(a, bool) for a in args)
    return name in FUNCTIONS and known and bool(args)


def function(name: str, args: Sequence[object], at: Loc) -> Static:
    """``min(a, b, …)``, ``max`` and ``ceildiv(a, b)`` of numbers or sizes."""
    numbers: list[Any] = list(args)
    whole = all(isinstance(a, int | poly.Poly) and not isinstance(a, bool) for a in numbers)
    found: Static | None = None
    if name == "ceildiv" and whole and len(numbers) == 2:
        a, b = numbers
        if isinstance(b, int):
            return binary("floordiv", a + (b - 1), b, at)
        found = _quotient(poly.ceildiv, a, b, at)
    elif name in ("min", "max") and whole:
        found = poly.minimum(*numbers) if name == "min" else poly.maximum(*numbers)
    elif name in ("min", "max") and not any(isinstance(a, poly.Poly) for a in numbers):
        found = min(numbers) if name == "min" else max(numbers)
    if found is None:
        takes = " and ".join(map(shown, numbers))
        raise misfit(f"{name} does not take {takes}", "it takes sizes: min(n, 8)", at=at)
    return found


def _quotient(op: Callable[[Any, Any], Any], a: Any, b: Any, at: Loc) -> Static:
    """Of sizes of which the second is at least 1."""
    if poly.bounds(b)[0] < 1:
        hint = f"say that it is at least 1: max({shown(b)}, 1)"
        raise misfit(f"a size is divided by a positive one, got {shown(b)}", hint, at=at)
    result: Static = op(a, b)
    return result


def _of_sizes(op: str, a: Static, b: Static, at: Loc) -> Static:
    if op in ("less", "less_equal", "greater", "greater_equal"):
        x, y = (b, a) if op.startswith("greater") else (a, b)
        low, high = poly.bounds(poly.difference(y, x))  # type: ignore[arg-type]
        strict = op in ("less", "greater")
        if low > 0 or (low == 0 and not strict):
            return True
        if high < 0 or (high == 0 and strict):
            return False
        raise Undecided(f"{op} of {shown(a)} and {shown(b)} is not known yet", at)
    if op not in _ON_SIZES or not all(isinstance(x, poly.Poly | int) for x in (a, b)):
        raise misfit(f"{op} does not take {shown(a)} and {shown(b)}", at=at)
    if op in ("floordiv", "mod"):
        return _quotient(_ON_SIZES[op], a, b, at)
    result: Static = _ON_SIZES[op](a, b)
    return result


def as_size(item: object, at: Loc) -> poly.Dim:
    """A size: a whole number that is not negative, or of a symbol; E109 for anything else, E105
    beyond what aisc can address."""
    if isinstance(item, poly.Poly):
        return item
    if isinstance(item, int) and not isinstance(item, bool) and item >= 0:
        if item > MAX_SIZE:
            raise error("E105", f"the size {item} is too large", f"at most {MAX_SIZE}", loc=at)
        return item
    raise misfit(f"a size must be a whole number from 0 on, got {shown(item)}", at=at)  # type: ignore[arg-type]
