"""Elementwise functions of one operand: arithmetic, exponentials, trigonometry, predicates.

16-bit floats are computed in f32 and rounded once, in the scalar form and in the reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from aisc.ir import dtypes
from aisc.ir.dtypes import DType
from aisc.ir.graph.opdef import (
    Array,
    Arrays,
    Attr,
    OpCall,
    OpDef,
    Operand,
    Reference,
    Scalar,
    present,
    register,
)
from aisc.ir.graph.shapes import infer
from aisc.ir.graph.special import erf, greater, lesser, saturated
from aisc.ir.tensor import expr as e
from aisc.ir.tensor.expr import Expr, Unary
from aisc.ir.types import TensorType

UnaryExpr = Callable[[OpCall, Expr], Expr]
UnaryArray = Callable[[OpCall, Array], Array]
X = (Operand("x"),)


def is_narrow(t: DType) -> bool:
    """16-bit floats."""
    return t.is_float and t.bits < 32


def wide_scalar(fn: UnaryExpr) -> Scalar:
    """A unary scalar form, computed in f32 for narrower floats."""

    def scalar(call: OpCall, args: Sequence[Expr]) -> Expr:
        t = args[0].dtype
        if is_narrow(t):
            return e.cast(fn(call, e.cast(args[0], dtypes.f32)), t)
        return fn(call, args[0])

    return scalar


def wide_array(x: Array) -> Array:
    """`x`, or its f32 copy when it holds a narrower float."""
    if x.dtype == np.float16 or x.dtype == dtypes.bf16.numpy:
        return x.astype(np.float32)
    return x


def wide_reference(fn: UnaryArray) -> Reference:
    """A unary reference that sees f32 in place of narrower floats."""
    return lambda call, xs: [fn(call, wide_array(present(xs)[0]))]


def register_unary(
    name: str,
    doc: str,
    reference: UnaryArray,
    scalar: UnaryExpr,
    accepts: infer.Accepts = infer.is_float,
    attrs: tuple[Attr, ...] = (),
    result: DType | None = None,
    traits: tuple[str, ...] = (),
) -> OpDef:
    """Register a map of one operand; `result` is the result dtype when it is not the operand's."""

    def rule(call: OpCall) -> tuple[TensorType, ...]:
        t = infer.check_dtype(call, 0, accepts)
        return (TensorType(call.type(0).shape, result or t),)

    form: Scalar = wide_scalar(scalar) if result is None else (lambda call, a: scalar(call, a[0]))
    return register(
        OpDef(
            name, doc, X, rule, wide_reference(reference), "map", attrs,
            scalar=form, traits=frozenset(traits),
        )
    )  # fmt: skip


def _math(name: str, doc: str, fn: Callable[[Array], Array], call_name: str | None = None) -> None:
    register_unary(name, doc, lambda _, x: fn(x), lambda _, x: e.math(call_name or name, x))


def _op(
    name: str, doc: str, fn: Callable[[Array], Array], accepts: infer.Accepts, *traits: str
) -> None:
    register_unary(
        name, doc, lambda _, x: fn(x), lambda _, x: Unary(name, x), accepts, (), None, traits
    )


_op("neg", "``-x``; integers wrap.", np.negative, infer.is_number, "involution")
_op("floor", "The greatest integer not above x.", np.floor, infer.is_float, "idempotent")
_op("ceil", "The least integer not below x.", np.ceil, infer.is_float, "idempotent")
_op("trunc", "x rounded towards zero.", np.trunc, infer.is_float, "idempotent")
_op("round", "The nearest integer, halves to even.", np.rint, infer.is_float, "idempotent")
_op("sqrt", "The square root; NaN below zero.", np.sqrt, infer.is_float)
_op("not", "Logical negation.", np.logical_not, infer.is_bool, "involution")

register_unary(
    "abs", "``|x|``; the least integer stays as it is.",
    lambda _, x: np.abs(x),
    lambda _, x: x if x.dtype.kind == "uint" else Unary("abs", x),
    infer.is_number, traits=("idempotent",),
)  # fmt: skip
register_unary(
    "bitwise_not", "Every bit inverted.",
    lambda _, x: np.invert(x),
    lambda _, x: e.binary("xor", x, e.const(-1, x.dtype)),
    infer.is_integer, traits=("involution",),
)  # fmt: skip

_math("exp", "``e**x``.", np.exp)
_math("log", "The natural logarithm; NaN below zero, -inf at zero.", np.log)
_math("log1p", "``log(1 + x)``, accurate near zero.", np.log1p)
_math("expm1", "``exp(x) - 1``, accurate near zero.", np.expm1)
_math("sin", "Sine of x in radians.", np.sin)
_math("cos", "Cosine of x in radians.", np.cos)
_math("tan", "Tangent of x in radians.", np.tan)
_math("asin", "Arc sine; NaN outside [-1, 1].", np.arcsin)
_math("acos", "Arc cosine; NaN outside [-1, 1].", np.arccos)
_math("atan", "Arc tangent.", np.arctan)
_math("sinh", "Hyperbolic sine.", np.sinh)
_math("cosh", "Hyperbolic cosine.", np.cosh)
_math("tanh", "Hyperbolic tangent.", np.tanh)
_math("asinh", "Inverse hyperbolic sine.", np.arcsinh)
_math("acosh", "Inverse hyperbolic cosine; NaN below 1.", np.arccosh)
_math("atanh", "Inverse hyperbolic tangent; NaN outside [-1, 1].", np.arctanh)
_math("erf", "The error function.", erf)

register_unary(
    "reciprocal", "``1 / x``.",
    lambda _, x: np.reciprocal(x),
    lambda _, x: e.binary("div", e.const(1, x.dtype), x),
)  # fmt: skip


def _sign(call: OpCall, x: Expr) -> Expr:
    one, zero = e.const(1, x.dtype), e.const(0, x.dtype)
    positive = e.binary("gt", x, zero)
    if x.dtype.kind == "uint":
        return e.select(positive, one, zero)
    rest = e.select(e.binary("lt", x, zero), e.const(-1, x.dtype), x)
    return e.select(positive, one, e.select(e.equal(x, zero), zero, rest))


register_unary(
    "sign", "-1, 0 or 1; NaN stays.", lambda _, x: np.sign(x), _sign, infer.is_number,
    traits=("idempotent",),
)  # fmt: skip

register_unary(
    "isnan", "Whether x is NaN.", lambda _, x: np.isnan(x), lambda _, x: e.math("isnan", x),
    result=dtypes.boolean,
)  # fmt: skip


def _isinf(call: OpCall, x: Expr) -> Expr:
    zero, false = e.const(0, x.dtype), e.const(False, dtypes.boolean)
    infinite = e.math("isinf", x)
    signs = [("positive", e.binary("gt", x, zero)), ("negative", e.binary("lt", x, zero))]
    wanted = [c for name, c in signs if call.attrs[name]]
    if len(wanted) == 2:
        return infinite
    return e.logical_and(infinite, wanted[0]) if wanted else e.select(infinite, false, false)


def _isinf_reference(call: OpCall, x: Array) -> Array:
    positive = np.logical_and(bool(call.attrs["positive"]), x > 0)
    negative = np.logical_and(bool(call.attrs["negative"]), x < 0)
    return np.logical_and(np.isinf(x), np.logical_or(positive, negative))


register_unary(
    "isinf", "Whether x is an infinity of one of the wanted signs.", _isinf_reference, _isinf,
    attrs=(Attr("positive", "bool", True), Attr("negative", "bool", True)), result=dtypes.boolean,
)  # fmt: skip


def _cast_rule(call: OpCall) -> tuple[TensorType, ...]:
    source, to = call.type(0).dtype, call.attrs["to"]
    if source.is_coded or to.is_coded:
        raise call.fail(f"{source} and {to} are types that nothing computes with")
    return (TensorType(call.type(0).shape, to),)


def _cast_reference(call: OpCall, xs: Arrays) -> list[Array]:
    (x,) = present(xs)
    to: DType = call.attrs["to"]
    if x.dtype.kind != "b" and to.is_integer and dtypes.from_numpy(x.dtype).is_float:
        return [saturated(x, to)]
    return [x != 0 if to.kind == "bool" else x.astype(to.numpy)]


register(
    OpDef(
        "cast",
        "Conversion to the dtype `to`: floats truncate to integers, the nearest one where they do "
        "not fit, 0 for NaN; integers wrap; bool is != 0.",
        X, _cast_rule, _cast_reference, "map", (Attr("to", "dtype"),),
        scalar=lambda call, a: e.cast(a[0], call.attrs["to"]),
    )
)  # fmt: skip


def _bound(value: float, t: DType) -> float | int:
    """An attribute bound as a value of `t`: integers saturate."""
    if t.is_float:
        return value
    if math.isinf(value):
        return t.max_value if value > 0 else t.min_value
    return max(t.min_value, min(t.max_value, int(value)))


def _clip(call: OpCall, x: Expr) -> Expr:
    low, high = _bound(call.attrs["min"], x.dtype), _bound(call.attrs["max"], x.dtype)
    if low != _bound(-math.inf, x.dtype):
        x = e.maximum(x, e.const(low, x.dtype))
    if high != _bound(math.inf, x.dtype):
        x = e.minimum(x, e.const(high, x.dtype))
    return x


def _clip_reference(call: OpCall, x: Array) -> Array:
    t = dtypes.from_numpy(x.dtype)
    low = np.asarray(_bound(call.attrs["min"], t)).astype(x.dtype)
    high = np.asarray(_bound(call.attrs["max"], t)).astype(x.dtype)
    return lesser(greater(x, low), high)


register_unary(
    "clip", "``min(max(x, min), max)``; NaN stays, `max` wins when the bounds cross.",
    _clip_reference, _clip, infer.is_number,
    (Attr("min", "float", -math.inf), Attr("max", "float", math.inf)), traits=("idempotent",),
)  # fmt: skip
