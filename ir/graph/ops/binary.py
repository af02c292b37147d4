"""Elementwise functions of two and three operands with numpy broadcasting.

16-bit floats are computed in f32 and rounded once: for + - * / that equals direct rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aisc.ir import dtypes
from aisc.ir.dtypes import DType
from aisc.ir.graph.opdef import (
    Array,
    Arrays,
    OpCall,
    OpDef,
    Operand,
    Scalar,
    present,
    register,
)
from aisc.ir.graph.ops.elementwise import is_narrow, wide_array
from aisc.ir.graph.shapes import infer
from aisc.ir.graph.special import greater, lesser, saturated
from aisc.ir.tensor import expr as e
from aisc.ir.tensor.expr import Binary, Expr
from aisc.ir.types import TensorType

BinaryExpr = Callable[[OpCall, Expr, Expr], Expr]
BinaryArray = Callable[[OpCall, Array, Array], Array]
AB = (Operand("a"), Operand("b"))


def _wide(fn: BinaryExpr, keep: bool) -> Scalar:
    def scalar(call: OpCall, args: Sequence[Expr]) -> Expr:
        a, b = args
        if keep or not is_narrow(a.dtype):
            return fn(call, a, b)
        return e.cast(fn(call, e.cast(a, dtypes.f32), e.cast(b, dtypes.f32)), a.dtype)

    return scalar


def register_binary(
    name: str,
    doc: str,
    reference: BinaryArray,
    scalar: BinaryExpr,
    accepts: infer.Accepts = infer.is_number,
    result: DType | None = None,
    traits: tuple[str, ...] = (),
) -> OpDef:
    """Register a broadcasting map of two operands of one dtype."""

    def rule(call: OpCall) -> tuple[TensorType, ...]:
        infer.check_dtype(call, 0, accepts)
        t = infer.same_dtype(call, 0, 1)
        shape = infer.broadcast(call, call.type(0).shape, call.type(1).shape)
        return (TensorType(shape, result or t),)

    def evaluate(call: OpCall, xs: Arrays) -> list[Array]:
        a, b = present(xs)
        return [reference(call, wide_array(a), wide_array(b))]

    return register(
        OpDef(
            name, doc, AB, rule, evaluate, "map",
            scalar=_wide(scalar, keep=result is not None), traits=frozenset(traits),
        )
    )  # fmt: skip


def _op(
    name: str, doc: str, op: str, fn: Callable[[Array, Array], Array], accepts: infer.Accepts,
    *traits: str, result: DType | None = None,
) -> None:  # fmt: skip
    register_binary(
        name, doc, lambda _, a, b: fn(a, b), lambda _, a, b: Binary(op, a, b),
        accepts, result, traits,
    )  # fmt: skip


def truncated_quotient(a: Array, b: Array) -> Array:
    """Integer division rounded towards zero; INT_MIN / -1 wraps. ``ZeroDivisionError``."""
    _require_divisors(a, b)
    quotient = np.floor_divide(a, b)
    inexact = np.multiply(quotient, b) != a
    return np.where(inexact & ((a < 0) != (b < 0)) & (b != 0), quotient + 1, quotient)


def _require_divisors(a: Array, b: Array) -> None:
    """No integer is divided by zero."""
    if b.dtype.kind in "iu" and a.size and not np.all(b):
        raise ZeroDivisionError("an integer was divided by zero")


def _remainder(fn: Callable[..., Array]) -> Callable[[OpCall, Array, Array], Array]:
    """A remainder, of integers by no zero."""

    def apply(call: OpCall, a: Array, b: Array) -> Array:
        _require_divisors(a, b)
        return fn(a, b)

    return apply


def _div_array(call: OpCall, a: Array, b: Array) -> Array:
    return truncated_quotient(a, b) if a.dtype.kind in "iu" else np.divide(a, b)


_op("add", "``a + b``; integers wrap.", "add", np.add, infer.is_number, "commutative")
_op("sub", "``a - b``; integers wrap.", "sub", np.subtract, infer.is_number)
_op("mul", "``a * b``; integers wrap.", "mul", np.multiply, infer.is_number, "commutative")
register_binary(
    "div", "``a / b``; integers truncate towards zero, and division by zero is an error.",
    _div_array,
    lambda _, a, b: Binary("div" if a.dtype.is_float else "truncdiv", a, b),
)  # fmt: skip
_op("min", "The lesser, the first of equal ones; NaN if either is.", "min", lesser,
    infer.is_number)  # fmt: skip
_op("max", "The greater, the first of equal ones; NaN if either is.", "max", greater,
    infer.is_number)  # fmt: skip


def _pow(call: OpCall, a: Expr, b: Expr) -> Expr:
    if a.dtype.is_float:
        return Binary("pow", a, b)
    wide = Binary("pow", e.cast(a, dtypes.f64), e.cast(b, dtypes.f64))
    return e.cast(wide, a.dtype)


def _pow_array(call: OpCall, a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.power(a, b)
    powers = np.power(a.astype(np.float64), b.astype(np.float64))
    return saturated(powers, dtypes.from_numpy(a.dtype))


register_binary(
    "pow", "``a ** b``; integers through f64, truncated and saturated.", _pow_array, _pow
)
register_binary(
    "mod", "The remainder with the divisor's sign (integers).",
    _remainder(np.mod), lambda _, a, b: Binary("mod", a, b), infer.is_integer,
)  # fmt: skip


def _fmod(call: OpCall, a: Expr, b: Expr) -> Expr:
    if a.dtype.is_integer:
        return Binary("truncmod", a, b)
    # In f64 the quotient and the product of f32 operands are exact enough to subtract.
    x, y = e.cast(a, dtypes.f64), e.cast(b, dtypes.f64)
    rest = e.math("fma", -e.Unary("trunc", x / y), y, x)
    size = e.Unary("abs", rest)
    zero = e.logical_and(e.equal(x, 0.0), e.Unary("not", e.math("isnan", rest)))
    signed = e.select(zero, x, e.select(x < 0.0, -size, size))
    plain = e.logical_and(e.math("isinf", y), e.Unary("not", e.math("isinf", x)))
    return e.cast(e.select(plain, x, signed), a.dtype)


register_binary(
    "fmod", "The remainder with the dividend's sign, as C's fmod (quotients below 2^28 in f32).",
    _remainder(np.fmod), _fmod,
)  # fmt: skip

_op("and", "Logical (bool) or bitwise (integers) conjunction.", "and", np.bitwise_and,
    infer.is_bits, "commutative", "idempotent")  # fmt: skip
_op("or", "Logical (bool) or bitwise (integers) disjunction.", "or", np.bitwise_or,
    infer.is_bits, "commutative", "idempotent")  # fmt: skip
_op("xor", "Logical (bool) or bitwise (integers) difference.", "xor", np.bitwise_xor,
    infer.is_bits, "commutative")  # fmt: skip
_op("shift_left", "``a << b``.", "shl", np.left_shift, infer.is_integer)
_op("shift_right", "``a >> b``.", "shr", np.right_shift, infer.is_integer)
_op("equal", "Whether a and b are equal; NaN never is.", "eq", np.equal, infer.is_computed,
    "commutative", result=dtypes.boolean)  # fmt: skip
_op("less", "``a < b``.", "lt", np.less, infer.is_number, result=dtypes.boolean)
_op("less_equal", "``a <= b``.", "le", np.less_equal, infer.is_number, result=dtypes.boolean)
_op("greater", "``a > b``.", "gt", np.greater, infer.is_number, result=dtypes.boolean)
_op("greater_equal", "``a >= b``.", "ge", np.greater_equal, infer.is_number,
    result=dtypes.boolean)  # fmt: skip


def _where_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_dtype(call, 0, infer.is_bool)
    t = infer.same_dtype(call, 1, 2)
    shapes = [call.type(i).shape for i in range(3)]
    return (TensorType(infer.broadcast(call, *shapes), t),)


def _where_reference(call: OpCall, xs: Arrays) -> list[Array]:
    cond, a, b = present(xs)
    return [np.where(cond, a, b)]


register(
    OpDef(
        "where",
        "`a` where `condition` holds, else `b`; all three broadcast.",
        (Operand("condition"), Operand("a"), Operand("b")),
        _where_rule, _where_reference, "map",
        scalar=lambda call, x: e.select(x[0], x[1], x[2]),
    )
)  # fmt: skip
