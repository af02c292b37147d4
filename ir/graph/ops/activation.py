"""Activation functions of neural networks: maps of one operand (``prelu``: two)."""

from __future__ import annotations

import math

import numpy as np

from aisc.ir.graph.opdef import Array, Attr, OpCall
from aisc.ir.graph.ops.binary import register_binary
from aisc.ir.graph.ops.elementwise import register_unary
from aisc.ir.graph.shapes import infer
from aisc.ir.graph.special import erf, greater, lesser
from aisc.ir.tensor import expr as e
from aisc.ir.tensor.expr import Expr


def _c(value: float, x: Expr) -> Expr:
    return e.const(value, x.dtype)


def _positive(x: Expr) -> Expr:
    return e.binary("gt", x, _c(0, x))


def _alpha(default: float) -> Attr:
    return Attr("alpha", "float", default)


def _like(value: float, x: Array) -> Array:
    return np.asarray(value, x.dtype)


register_unary(
    "relu", "``max(x, 0)``; NaN stays, and so does -0.",
    lambda _, x: greater(x, _like(0, x)),
    lambda _, x: e.maximum(x, _c(0, x)),
    infer.is_number, traits=("idempotent",),
)  # fmt: skip


def _sigmoid(x: Expr) -> Expr:
    return e.math("sigmoid", x)


# exp of a negative number only, so that nothing overflows on the way.
def _sigmoid_array(x: Array) -> Array:
    t = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, _like(1, x), t) / (1 + t))


register_unary(
    "sigmoid", "``1 / (1 + exp(-x))``.",
    lambda _, x: _sigmoid_array(x), lambda _, x: _sigmoid(x),
)  # fmt: skip
register_unary(
    "silu", "``x * sigmoid(alpha * x)``.",
    lambda call, x: x * _sigmoid_array(x * _like(call.attrs["alpha"], x)),
    lambda call, x: x * _sigmoid(x * _c(call.attrs["alpha"], x)),
    attrs=(_alpha(1.0),),
)  # fmt: skip
register_unary(
    "leaky_relu", "x where ``x >= 0``, else ``alpha * x``.",
    lambda call, x: np.where(x < 0, x * _like(call.attrs["alpha"], x), x),
    lambda call, x: e.select(e.binary("lt", x, _c(0, x)), x * _c(call.attrs["alpha"], x), x),
    attrs=(_alpha(0.01),),
)  # fmt: skip
register_unary(
    "elu", "x where ``x >= 0``, else ``alpha * (exp(x) - 1)``.",
    lambda call, x: np.where(x < 0, np.expm1(x) * _like(call.attrs["alpha"], x), x),
    lambda call, x: e.select(
        e.binary("lt", x, _c(0, x)), e.math("expm1", x) * _c(call.attrs["alpha"], x), x
    ),
    attrs=(_alpha(1.0),),
)  # fmt: skip
register_unary(
    "celu", "``max(0, x) + min(0, alpha * (exp(x / alpha) - 1))``.",
    lambda call, x: np.where(
        x < 0, np.expm1(x / _like(call.attrs["alpha"], x)) * _like(call.attrs["alpha"], x), x
    ),
    lambda call, x: e.select(
        e.binary("lt", x, _c(0, x)),
        e.math("expm1", x / _c(call.attrs["alpha"], x)) * _c(call.attrs["alpha"], x),
        x,
    ),
    attrs=(_alpha(1.0),),
)  # fmt: skip


def _selu_array(call: OpCall, x: Array) -> Array:
    negative = np.expm1(x) * _like(call.attrs["alpha"], x)
    return np.where(x > 0, x, negative) * _like(call.attrs["gamma"], x)


register_unary(
    "selu", "``gamma * x`` where ``x > 0``, else ``gamma * alpha * (exp(x) - 1)``.",
    _selu_array,
    lambda call, x: e.select(
        _positive(x), x, e.math("expm1", x) * _c(call.attrs["alpha"], x)
    ) * _c(call.attrs["gamma"], x),
    attrs=(_alpha(1.67326319217681884765625), Attr("gamma", "float", 1.05070102214813232421875)),
)  # fmt: skip
register_unary(
    "softplus", "``log(1 + exp(x))`` without overflow.",
    lambda _, x: np.maximum(x, _like(0, x)) + np.log1p(np.exp(-np.abs(x))),
    lambda _, x: e.maximum(x, _c(0, x)) + e.math("log1p", e.math("exp", -e.Unary("abs", x))),
)  # fmt: skip
register_unary(
    "softsign", "``x / (1 + |x|)``.",
    lambda _, x: x / (1 + np.abs(x)),
    lambda _, x: x / (_c(1, x) + e.Unary("abs", x)),
)  # fmt: skip


def _hard_sigmoid(call: OpCall, x: Expr) -> Expr:
    line = x * _c(call.attrs["alpha"], x) + _c(call.attrs["beta"], x)
    return e.minimum(e.maximum(line, _c(0, x)), _c(1, x))


def _hard_sigmoid_array(call: OpCall, x: Array) -> Array:
    line = x * _like(call.attrs["alpha"], x) + _like(call.attrs["beta"], x)
    return lesser(greater(line, _like(0, x)), _like(1, x))


_LINE = (_alpha(0.2), Attr("beta", "float", 0.5))
register_unary(
    "hard_sigmoid", "``min(max(alpha * x + beta, 0), 1)``.",
    _hard_sigmoid_array, _hard_sigmoid, attrs=_LINE,
)  # fmt: skip
register_unary(
    "hard_swish", "``x * hard_sigmoid(x)`` with the slope `alpha` and offset `beta`.",
    lambda call, x: x * _hard_sigmoid_array(call, x),
    lambda call, x: x * _hard_sigmoid(call, x),
    attrs=(_alpha(1 / 6), Attr("beta", "float", 0.5)),
)  # fmt: skip
register_unary(
    "thresholded_relu", "x where ``x > alpha``, else 0.",
    lambda call, x: np.where(x > _like(call.attrs["alpha"], x), x, _like(0, x)),
    lambda call, x: e.select(e.binary("gt", x, _c(call.attrs["alpha"], x)), x, _c(0, x)),
    attrs=(_alpha(1.0),),
)  # fmt: skip


def _shrink(call: OpCall, x: Expr) -> Expr:
    limit, bias = _c(call.attrs["lambd"], x), _c(call.attrs["bias"], x)
    high = e.select(e.binary("gt", x, limit), x - bias, _c(0, x))
    return e.select(e.binary("lt", x, -limit), x + bias, high)


def _shrink_array(call: OpCall, x: Array) -> Array:
    limit, bias = _like(call.attrs["lambd"], x), _like(call.attrs["bias"], x)
    return np.where(x < -limit, x + bias, np.where(x > limit, x - bias, _like(0, x)))


register_unary(
    "shrink", "``x + bias`` below ``-lambd``, ``x - bias`` above ``lambd``, else 0.",
    _shrink_array, _shrink, infer.is_float,
    (Attr("lambd", "float", 0.5), Attr("bias", "float", 0.0)),
)  # fmt: skip


def _gelu(call: OpCall, x: Expr) -> Expr:
    if call.attrs["approximate"] == "none":
        inner = e.math("erf", x * _c(math.sqrt(0.5), x))
    else:
        cubic = x + _c(0.044715, x) * x * x * x
        inner = e.math("tanh", _c(math.sqrt(2 / math.pi), x) * cubic)
    return _c(0.5, x) * x * (_c(1, x) + inner)


def _gelu_array(call: OpCall, x: Array) -> Array:
    if call.attrs["approximate"] == "none":
        inner = erf(x * _like(math.sqrt(0.5), x))
    else:
        cubic = x + _like(0.044715, x) * x * x * x
        inner = np.tanh(_like(math.sqrt(2 / math.pi), x) * cubic)
    return np.asarray(_like(0.5, x) * x * (1 + inner))


register_unary(
    "gelu", "``x * Phi(x)``, Phi the normal distribution, by erf or the tanh formula.",
    _gelu_array, _gelu,
    attrs=(Attr("approximate", "str", "none", ("none", "tanh")),),
)  # fmt: skip
register_unary(
    "mish", "``x * tanh(softplus(x))``.",
    lambda _, x: x * np.tanh(np.maximum(x, _like(0, x)) + np.log1p(np.exp(-np.abs(x)))),
    lambda _, x: x * e.math(
        "tanh",
        e.maximum(x, _c(0, x)) + e.math("log1p", e.math("exp", -e.Unary("abs", x))),
    ),
)  # fmt: skip
register_binary(
    "prelu", "x where ``x >= 0``, else ``x * slope``; the slope broadcasts.",
    lambda _, x, slope: np.where(x < 0, x * slope, x),
    lambda _, x, slope: e.select(e.binary("lt", x, _c(0, x)), x * slope, x),
    infer.is_number,
)  # fmt: skip
