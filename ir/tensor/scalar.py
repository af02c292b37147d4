"""Exact meaning of every scalar operation, as plain Python functions.

One definition for the interpreter and for constant folding: :func:`binary_fn`, :func:`unary_fn`,
:func:`cast_fn` and :func:`call_fn` return functions over Python ints, floats and bools.

Floats travel as Python floats that are values of their dtype. ``+ - * /`` and ``sqrt`` computed
in binary64 and rounded once more to f32 are correctly rounded (53 >= 2*24 + 2; Figueroa, *When is
double rounding innocuous?*, 1995). ``fma`` is not: there the sum is rounded to odd first (Boldo &
Melquiond, 2008). f16 and bf16 are computed in f32, then rounded. Integers wrap; dividing by zero
raises ``ZeroDivisionError``; the least integer divided by -1 wraps to itself. A shift by the
width or more gives 0, or the sign for ``shr`` of a negative number.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from aisc.ir.dtypes import DType

Scalar = Any  # int, float or bool, by the dtype of the operation
Fn1 = Callable[[Scalar], Scalar]
Fn2 = Callable[[Scalar, Scalar], Scalar]


def rounder(dtype: DType) -> Fn1 | None:
    """The rounding of a binary64 result to `dtype`; ``None`` when there is nothing to do."""
    if dtype.name == "f64":
        return None
    cell = memoryview(bytearray(4)).cast("f")

    def to_f32(x: float) -> float:
        cell[0] = x
        return cell[0]

    if dtype.name == "f32":
        return to_f32
    half = np.zeros(1, dtype.numpy)

    def to_half(x: float) -> float:
        with np.errstate(over="ignore"):
            half[0] = to_f32(x)
        return float(half[0])

    return to_half


def wrapper(dtype: DType) -> Fn1:
    """The reduction of a Python integer into the range of an integer dtype."""
    mask = (1 << dtype.bits) - 1
    if dtype.kind == "uint":
        return lambda x: x & mask
    half = 1 << (dtype.bits - 1)

    def wrap(x: int) -> int:
        return x if -half <= x < half else ((x + half) & mask) - half

    return wrap


def finisher(dtype: DType) -> Fn1 | None:
    """Rounding or wrapping of an exact result; ``None`` when there is nothing to do."""
    if dtype.is_float:
        return rounder(dtype)
    return bool if dtype.kind == "bool" else wrapper(dtype)


def divide(a: float, b: float) -> float:
    """IEEE division."""
    try:
        return a / b
    except ZeroDivisionError:
        if a == 0 or a != a:
            return math.nan
        return math.copysign(math.inf, a) * math.copysign(1.0, b)


def minimum(a: Scalar, b: Scalar) -> Scalar:
    """The lesser; the first of equal ones (of zeros with different signs), NaN if either is."""
    return a if a <= b or a != a else b


def maximum(a: Scalar, b: Scalar) -> Scalar:
    """The greater; the first of equal ones (of zeros with different signs), NaN if either is."""
    return a if a >= b or a != a else b


def truncdiv(a: int, b: int) -> int:
    """Integer quotient rounded towards zero."""
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q


def truncmod(a: int, b: int) -> int:
    """Remainder of :func:`truncdiv`: has the sign of `a`."""
    return a - b * truncdiv(a, b)


def _shift(dtype: DType, left: bool) -> Fn2:
    def shift(a: int, b: int) -> int:
        amount = b & ((1 << dtype.bits) - 1)  # a negative amount is a huge one
        if amount >= dtype.bits:
            return -1 if a < 0 and not left else 0
        return a << amount if left else a >> amount

    return shift


def _power(dtype: DType) -> Fn2:
    if dtype.is_float:
        return _guarded(math.pow, np.power)
    modulus = 1 << dtype.bits

    def power(a: int, b: int) -> int:
        if b < 0:  # 1/a^-b truncated
            return (1 if b % 2 == 0 or a == 1 else -1) if a in (1, -1) else 0
        return pow(a, b, modulus)

    return power


_FLOAT = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": divide}
_INT = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "floordiv": operator.floordiv,
    "mod": operator.mod, "truncdiv": truncdiv, "truncmod": truncmod, "div": truncdiv,
    "and": operator.and_, "or": operator.or_, "xor": operator.xor,
}  # fmt: skip
COMPARE: dict[str, Fn2] = {
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
    "eq": operator.eq, "ne": operator.ne,
}  # fmt: skip


def binary_exact(op: str, dtype: DType) -> tuple[Fn2, bool]:
    """The function of a binary operator over operands of `dtype`, and whether its result still
    has to go through :func:`finisher`. ``KeyError`` when the dtype has no such operation."""
    if op in COMPARE:
        return COMPARE[op], False
    if op in ("min", "max"):
        return (minimum if op == "min" else maximum), False
    if op == "pow":
        return _power(dtype), True
    if dtype.is_float:
        return _FLOAT[op], True
    if op in ("shl", "shr"):
        return _shift(dtype, op == "shl"), op == "shl"
    return _INT[op], op not in ("mod", "truncmod", "and", "or", "xor")


def binary_fn(op: str, dtype: DType) -> Fn2:
    """The meaning of ``Binary(op, a, b)`` for operands of `dtype`."""
    exact, unfinished = binary_exact(op, dtype)
    finish = finisher(dtype) if unfinished else None
    return exact if finish is None else lambda a, b: finish(exact(a, b))


def _integral(fn: Callable[[float], int]) -> Fn1:
    """A rounding to whole numbers that keeps infinities, NaN and the sign of zero."""

    def apply(x: float) -> float:
        if not math.isfinite(x) or abs(x) >= 4503599627370496.0:  # 2**52: already whole
            return x
        return math.copysign(float(fn(x)), x)

    return apply


_ROUNDING: dict[str, Fn1] = {
    "floor": _integral(math.floor),
    "ceil": _integral(math.ceil),
    "trunc": _integral(math.trunc),
    "round": _integral(round),
}


def _sqrt(x: float) -> float:
    return math.sqrt(x) if x >= 0 else math.nan


_UNARY: dict[str, Fn1] = {
    "neg": operator.neg,
    "abs": abs,
    "not": operator.invert,
    "sqrt": _sqrt,
}


def unary_fn(op: str, dtype: DType) -> Fn1:
    """The meaning of ``Unary(op, a)`` for an operand of `dtype`."""
    if op in _ROUNDING:
        return _ROUNDING[op] if dtype.is_float else lambda x: x
    if op == "not" and dtype.kind == "bool":
        return operator.not_
    exact = _UNARY[op]
    if dtype.is_float and op in ("neg", "abs"):
        return exact
    finish = finisher(dtype)
    return exact if finish is None else lambda x: finish(exact(x))


def cast_fn(source: DType, target: DType) -> Fn1:
    """Conversion between dtypes. A float outside the range of the integer type becomes its nearest
    value, NaN 0."""
    if source is target:
        return lambda x: x
    if target.kind == "bool":
        return lambda x: x != 0
    if target.is_float:
        return _to_float(source, target)
    if not source.is_float:
        wrap = wrapper(target)
        return lambda x: wrap(int(x))
    low, high = int(target.min_value), int(target.max_value)

    def truncate(x: float) -> int:
        if math.isfinite(x):
            return max(low, min(high, int(x)))
        return high if x > 0 else low if x < 0 else 0

    return truncate


def _to_float(source: DType, target: DType) -> Fn1:
    finish = rounder(target)
    if finish is None:
        return float
    if source.is_float or source.bits <= 32:
        return lambda x: finish(float(x))

    def convert(x: int) -> float:  # 64-bit integers must not be rounded twice
        if -(1 << 53) <= x <= (1 << 53):
            return float(finish(float(x)))
        return float(finish(float(np.asarray([x], source.numpy).astype(np.float32)[0])))

    return convert


def _guarded(fast: Callable[..., float], slow: Callable[..., Any]) -> Callable[..., float]:
    """`fast` from :mod:`math`, falling back to numpy where `math` raises."""

    def call(*args: float) -> float:
        try:
            return fast(*args)
        except (ValueError, OverflowError, ZeroDivisionError):
            with np.errstate(all="ignore"):
                return float(slow(*map(np.float64, args)))

    return call


def _rsqrt(x: float) -> float:
    return divide(1.0, _sqrt(x))


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x > -700.0 else math.exp(x)


_MATH: dict[str, Callable[..., float]] = {
    **{
        name: _guarded(getattr(math, name), getattr(np, name))
        for name in ("exp", "exp2", "expm1", "log", "log2", "log1p", "sin", "cos", "tan")
    },
    **{
        name: _guarded(getattr(math, name), getattr(np, name.replace("a", "arc", 1)))
        for name in ("asin", "acos", "atan", "asinh", "acosh", "atanh")
    },
    **{n: _guarded(getattr(math, n), getattr(np, n)) for n in ("sinh", "cosh", "tanh")},
    "erf": math.erf,
    "rsqrt": _rsqrt,
    "sigmoid": _sigmoid,
}


def _to_odd(a: float, b: float, c: float) -> float:
    """``a*b + c`` rounded to odd in binary64, where ``a*b`` is exact (operands of f32 or less)."""
    p = a * b
    total = p + c
    if not math.isfinite(total):
        return total
    part = total - p
    low = (p - (total - part)) + (c - part)
    if low and not _mantissa_odd(total):
        return math.nextafter(total, math.inf if low > 0 else -math.inf)
    return total


def _mantissa_odd(x: float) -> bool:
    return bool(int(math.ldexp(math.frexp(x)[0], 53)) & 1)


def _fma64(a: float, b: float, c: float) -> float:
    plain = a * b + c
    if not (math.isfinite(a) and math.isfinite(b) and math.isfinite(c)):
        return plain
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return plain if plain == 0 else 0.0
    try:
        return exact.numerator / exact.denominator
    except OverflowError:
        return math.copysign(math.inf, exact)


def _ordinal(dtype: DType) -> Callable[..., Scalar]:
    """The magnitude of a float as an integer of its width, with the sign of the float."""
    kind, most = np.dtype(f"i{dtype.bytes}"), (1 << (dtype.bits - 1)) - 1

    def ordinal(x: Scalar) -> Scalar:
        if x != x:
            return most
        bits = int(np.asarray(x).astype(dtype.numpy).view(kind))
        return bits if bits >= 0 else -(bits & most)

    return ordinal


def call_fn(name: str, dtype: DType) -> Callable[..., Scalar]:
    """The meaning of a call of one of ``MATH_CALLS`` on operands of `dtype`: evaluated in
    binary64 and rounded. ``KeyError`` when there is no such function."""
    if name == "isnan":
        return lambda x: x != x
    if name == "isinf":
        return lambda x: x in (math.inf, -math.inf)
    if name == "ordinal":
        return _ordinal(dtype)
    exact = (_fma64 if dtype.name == "f64" else _to_odd) if name == "fma" else _MATH[name]
    finish = finisher(dtype)
    return exact if finish is None else lambda *args: finish(exact(*args))
