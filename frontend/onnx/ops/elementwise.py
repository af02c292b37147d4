"""ONNX maps: arithmetic, comparisons, logic, activations, casts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.onnx import coded
from aisc.frontend.onnx.fitting import fitted
from aisc.frontend.onnx.node import Handler, Node, onnx_op
from aisc.frontend.onnx.tensors import element_type
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import Value

_UNARY = {
    "Abs": "abs", "Acos": "acos", "Acosh": "acosh", "Asin": "asin", "Asinh": "asinh",
    "Atan": "atan", "Atanh": "atanh", "BitwiseNot": "bitwise_not", "Ceil": "ceil", "Cos": "cos",
    "Cosh": "cosh", "Erf": "erf", "Exp": "exp", "Floor": "floor", "IsNaN": "isnan", "Log": "log",
    "Mish": "mish", "Neg": "neg", "Not": "not", "Reciprocal": "reciprocal", "Relu": "relu",
    "Round": "round", "Sigmoid": "sigmoid", "Sign": "sign", "Sin": "sin", "Sinh": "sinh",
    "Softplus": "softplus", "Softsign": "softsign", "Sqrt": "sqrt", "Tan": "tan", "Tanh": "tanh",
}  # fmt: skip
_BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "And": "and", "Or": "or",
    "Xor": "xor", "BitwiseAnd": "and", "BitwiseOr": "or", "BitwiseXor": "xor", "Equal": "equal",
    "Less": "less", "Greater": "greater", "LessOrEqual": "less_equal",
    "GreaterOrEqual": "greater_equal",
}  # fmt: skip
_VARIADIC = {"Sum": "add", "Max": "max", "Min": "min"}


def _unary(op: str) -> Handler:
    return lambda em, node: em.op(op, node.input(0))


def old_broadcast(em: Emitter, node: Node) -> tuple[Value, Value]:
    """Both operands; before opset 7 the second is aligned at `axis` when `broadcast` is set."""
    a, b = node.input(0), node.input(1)
    if node.version >= 7:
        return a, b
    axis = node.attr("axis", "int")
    if not node.flag("broadcast"):
        reason = f"{a.type} and {b.type} differ without broadcast"
        return a, fitted(em, node, b, a.type.shape, reason)
    if axis is None:
        return a, b
    start = axis + a.type.rank if axis < 0 else axis
    trailing = a.type.rank - start - b.type.rank
    if start < 0 or trailing < 0:
        raise node.malformed(f"axis {axis} does not fit {a.type} and {b.type}")
    return a, em.reshape(b, (*b.type.shape, *[1] * trailing))


def _binary(op: str) -> Handler:
    return lambda em, node: em.op(op, *old_broadcast(em, node))


def _variadic(op: str) -> Handler:
    def handler(em: Emitter, node: Node) -> Value:
        total, *rest = node.all_inputs()
        for value in rest:
            total = em.op(op, total, value)
        return total

    return handler


for _name, _op in _UNARY.items():
    onnx_op(_name)(_unary(_op))
for _name, _op in _BINARY.items():
    onnx_op(_name)(_binary(_op))
for _name, _op in _VARIADIC.items():
    onnx_op(_name)(_variadic(_op))


@onnx_op("Mean")
def _mean(em: Emitter, node: Node) -> Value:
    values = node.all_inputs()
    total = _variadic("add")(em, node)
    assert isinstance(total, Value), "a sum has one result"
    return em.op("div", total, em.like(len(values), total))


@onnx_op("Identity")
def _identity(em: Emitter, node: Node) -> Value:
    return node.input(0)


@onnx_op("BitCast")
def _bit_cast(em: Emitter, node: Node) -> Value:
    return em.op("bitcast", node.input(0), to=element_type(node.integer("to"), node.loc))


@onnx_op("Dropout")
def _dropout(em: Emitter, node: Node) -> Sequence[Value]:
    for name in ("ratio", "is_test", "seed"):
        node.attr(name, "float" if name == "ratio" else "int")
    training = node.has(2) and node.version >= 12 and em.scalar(node.input(2), "training_mode")
    if training and not (node.has(1) and em.scalar(node.input(1), "the ratio") == 0):
        raise node.unsupported("training mode is not supported")
    x = node.input(0)
    if not any(node.outputs[1:]):
        return (x,)
    mask = np.asarray(True) if node.version >= 10 else np.ones((), x.type.dtype.numpy)
    return x, em.filled(x.type.shape, mask)


@onnx_op("Pow")
def _pow(em: Emitter, node: Node) -> Value:
    base, exponent = old_broadcast(em, node)
    t = base.type.dtype
    if exponent.type.dtype is t:
        return em.op("pow", base, exponent)
    if t.is_float and exponent.type.dtype.bits <= 32:
        return em.op("pow", base, em.cast(exponent, t))
    wide = dtypes.f64
    return em.cast(em.op("pow", em.cast(base, wide), em.cast(exponent, wide)), t)


@onnx_op("Mod")
def _mod(em: Emitter, node: Node) -> Value:
    a, b = node.input(0), node.input(1)
    fmod = node.flag("fmod")
    if a.type.dtype.is_float and not fmod:
        if node.version < 28:
            raise node.malformed("floats need fmod=1")
        rest, zero = em.op("fmod", a, b), em.like(0, a)
        signs = em.op("xor", em.op("less", rest, zero), em.op("less", b, zero))
        wrong = em.op("and", signs, em.op("not", em.op("equal", rest, zero)))
        return em.op("where", wrong, em.op("add", rest, b), rest)
    return em.op("fmod" if fmod else "mod", a, b)


@onnx_op("BitShift")
def _shift(em: Emitter, node: Node) -> Value:
    direction = node.text("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise node.malformed(f"direction '{direction}'")
    return em.op(f"shift_{direction.lower()}", node.input(0), node.input(1))


@onnx_op("IsInf")
def _isinf(em: Emitter, node: Node) -> Value:
    positive, negative = node.flag("detect_positive", True), node.flag("detect_negative", True)
    return em.op("isinf", node.input(0), positive=positive, negative=negative)


@onnx_op("Where")
def _where(em: Emitter, node: Node) -> Value:
    return em.op("where", node.input(0), node.input(1), node.input(2))


_CAST_NAMES = {
    "FLOAT": 1, "UINT8": 2, "INT8": 3, "UINT16": 4, "INT16": 5, "INT32": 6, "INT64": 7,
    "STRING": 8, "BOOL": 9, "FLOAT16": 10, "DOUBLE": 11, "UINT32": 12, "UINT64": 13,
}  # fmt: skip


def _cast_to(em: Emitter, node: Node, to: DType) -> Value:
    saturate, rounding = node.flag("saturate", True), node.text("round_mode", "up")
    if rounding not in ("up", "down", "nearest"):
        raise node.malformed(f"there is no rounding '{rounding}'")
    return coded.cast(em, node.input(0), to, saturate, rounding)


@onnx_op("Cast")
def _cast(em: Emitter, node: Node) -> Value:
    code = _CAST_NAMES.get(node.text("to"), 0) if node.version < 6 else node.integer("to")
    return _cast_to(em, node, element_type(code, node.loc))


@onnx_op("CastLike")
def _cast_like(em: Emitter, node: Node) -> Value:
    return _cast_to(em, node, node.input(1).type.dtype)


@onnx_op("Clip", until=10)
def _clip_attrs(em: Emitter, node: Node) -> Value:
    low, high = node.number("min", -math.inf), node.number("max", math.inf)
    return em.op("clip", node.input(0), min=low, max=high)


@onnx_op("Clip", since=11)
def _clip(em: Emitter, node: Node) -> Value:
    x = node.input(0)
    for bound in (node.optional(1), node.optional(2)):
        if bound is not None and isinstance(bound.type.size, int) and bound.type.size != 1:
            raise node.malformed(f"a bound must be one number, got {bound.type}")
    low, high = (em.array(node.optional(i)) for i in (1, 2))
    known = all(not node.has(i) or em.array(node.optional(i)) is not None for i in (1, 2))
    if known and x.type.dtype.is_float:
        bounds = [math.nan if b is None else float(b.reshape(())) for b in (low, high)]
        if not any(b is not None and math.isnan(float(b.reshape(()))) for b in (low, high)):
            least = -math.inf if low is None else bounds[0]
            return em.op("clip", x, min=least, max=math.inf if high is None else bounds[1])
    if node.has(1):
        x = em.op("max", x, node.input(1))
    return em.op("min", x, node.input(2)) if node.has(2) else x


def _with_alpha(op: str, default: float) -> Handler:
    return lambda em, node: em.op(op, node.input(0), alpha=node.number("alpha", default))


for _name, _op, _default in (
    ("LeakyRelu", "leaky_relu", 0.01), ("Elu", "elu", 1.0), ("Celu", "celu", 1.0),
    ("ThresholdedRelu", "thresholded_relu", 1.0), ("Swish", "silu", 1.0),
):  # fmt: skip
    onnx_op(_name)(_with_alpha(_op, _default))


@onnx_op("Selu")
def _selu(em: Emitter, node: Node) -> Value:
    old = node.version < 6
    alpha = node.number("alpha", 1.6732 if old else 1.67326319217681884765625)
    gamma = node.number("gamma", 1.0507 if old else 1.05070102214813232421875)
    return em.op("selu", node.input(0), alpha=alpha, gamma=gamma)


@onnx_op("HardSigmoid")
def _hard_sigmoid(em: Emitter, node: Node) -> Value:
    alpha, beta = node.number("alpha", 0.2), node.number("beta", 0.5)
    return em.op("hard_sigmoid", node.input(0), alpha=alpha, beta=beta)


@onnx_op("HardSwish")
def _hard_swish(em: Emitter, node: Node) -> Value:
    return em.op("hard_swish", node.input(0))


@onnx_op("Shrink")
def _shrink(em: Emitter, node: Node) -> Value:
    lambd, bias = node.number("lambd", 0.5), node.number("bias", 0.0)
    return em.op("shrink", node.input(0), lambd=lambd, bias=bias)


@onnx_op("Gelu", "com.microsoft::Gelu")
def _gelu(em: Emitter, node: Node) -> Value:
    return em.op("gelu", node.input(0), approximate=node.text("approximate", "none"))


@onnx_op("com.microsoft::FastGelu")
def _fast_gelu(em: Emitter, node: Node) -> Value:
    x = node.input(0)
    x = em.op("add", x, node.input(1)) if node.has(1) else x
    return em.op("gelu", x, approximate="tanh")


@onnx_op("PRelu")
def _prelu(em: Emitter, node: Node) -> Value:
    x, slope = node.input(0), node.input(1)
    rank, channels = slope.type.rank, x.type.shape[1] if x.type.rank > 1 else 1
    if rank == 1 and x.type.rank > 2 and slope.type.shape in ((channels,), (1,)):
        # Before opset 7 a vector is one slope per channel; later it may only broadcast so.
        trailing: tuple[Dim, ...] = (1,) * (x.type.rank - 2)
        if node.version < 7 or slope.type.shape[0] not in (1, x.type.shape[-1]):
            slope = em.reshape(slope, (*slope.type.shape, *trailing))
    return em.op("prelu", x, slope)
