"""Numbers as integers with a scale and a zero point: ``x = (q - zero) * scale``.

Scales and zero points are those of a whole tensor or of each place along an axis. Quantized tensors
are integers like others; these two operators alone say what they stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aisc.ir import dtypes
from aisc.ir.dtypes import DType
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import AttrValue, Value
from aisc.ir.graph.opdef import Array, Arrays, Attr, OpCall, OpDef, Operand, register
from aisc.ir.graph.ops.elementwise import is_narrow
from aisc.ir.graph.shapes import infer
from aisc.ir.graph.special import saturated
from aisc.ir.types import TensorType

_OPERANDS = (Operand("x"), Operand("scale"), Operand("zero", optional=True))
_AXIS = Attr("axis", "int", 1)


def _check_parameters(call: OpCall) -> None:
    """Scale and zero point are single or run along the axis, both alike."""
    infer.check_dtype(call, 1, infer.is_float)
    scale = call.type(1)
    if scale.rank > 1:
        raise call.fail(f"the scale is {scale}, expected one number or a vector")
    if scale.rank == 1:
        axis = infer.normal_axis(call, call.attrs["axis"], call.type(0).rank)
        infer.check_shape(call, 1, (call.type(0).shape[axis],))
    infer.check_shape(call, 2, scale.shape)


def _dequantize_rule(call: OpCall) -> tuple[TensorType, ...]:
    t = infer.check_dtype(call, 0, infer.is_integer)
    _check_parameters(call)
    if t.bits > 32 or (call.has(2) and call.type(2).dtype is not t):
        raise call.fail(f"the quantized type is {t}, the zero point {call.types[2]}")
    return (TensorType(call.type(0).shape, call.type(1).dtype),)


def _quantize_rule(call: OpCall) -> tuple[TensorType, ...]:
    infer.check_dtype(call, 0, infer.is_float)
    _check_parameters(call)
    infer.same_dtype(call, 0, 1)
    to: DType = call.attrs["to"]
    if not to.is_integer or to.bits > 32 or (call.has(2) and call.type(2).dtype is not to):
        raise call.fail(f"the quantized type is {to}, the zero point {call.types[2]}")
    return (TensorType(call.type(0).shape, to),)


def _along(call: OpCall) -> tuple[int, ...]:
    """The shape that lets a vector along the axis broadcast to the operand."""
    axis = infer.normal_axis(call, call.attrs["axis"], call.type(0).rank)
    return (-1, *[1] * (call.type(0).rank - 1 - axis))


def _parameters(call: OpCall, xs: Arrays) -> tuple[Array, Array | None]:
    """Scale and zero point as they broadcast to the operand."""
    scale, zero = xs[1], xs[2] if len(xs) > 2 else None
    assert scale is not None, "a scale is there"
    if scale.ndim == 0:
        return scale, zero
    shape = _along(call)
    return scale.reshape(shape), None if zero is None else zero.reshape(shape)


def _dequantize_reference(call: OpCall, xs: Arrays) -> list[Array]:
    assert xs[0] is not None, "a required operand is absent"
    scale, zero = _parameters(call, xs)
    wide = xs[0].astype(np.int32)
    if zero is not None:
        wide = wide - zero.astype(np.int32)
    value, t = wide.astype(scale.dtype), dtypes.from_numpy(scale.dtype)
    if is_narrow(t):
        return [value.astype(np.float32) * scale.astype(np.float32)]
    return [value * scale]


def _quantize_reference(call: OpCall, xs: Arrays) -> list[Array]:
    assert xs[0] is not None, "a required operand is absent"
    scale, zero = _parameters(call, xs)
    to, x = call.attrs["to"], xs[0]
    if is_narrow(dtypes.from_numpy(x.dtype)):
        x = (x.astype(np.float32) / scale.astype(np.float32)).astype(x.dtype)
        ratio = np.rint(x.astype(np.float32))
    else:
        ratio = np.rint(x / scale)
    y = ratio.astype(sums_of(to).numpy)
    if zero is not None:
        y = y + zero.astype(y.dtype)
    return [saturated(y, to)]


def sums_of(t: DType) -> DType:
    """The float in which a zero point is added to what becomes a `t`."""
    return dtypes.f64 if t.bits >= 32 else dtypes.f32


Put = Callable[..., Value]


def _put(gb: GraphBuilder, call: OpCall) -> Put:
    def op(name: str, *args: Value, **attrs: AttrValue) -> Value:
        return gb.add(name, args, attrs, loc=call.loc)

    return op


def _spread(op: Put, call: OpCall, v: Value) -> Value:
    if v.type.rank == 0:
        return v
    return op("reshape", v, shape=(*v.type.shape, *_along(call)[1:]))


def _dequantize_decompose(
    gb: GraphBuilder, call: OpCall, xs: Sequence[Value | None]
) -> list[Value]:
    op, (x, scale, zero) = _put(gb, call), (*xs, None)[:3]
    assert x is not None and scale is not None, "a required operand is absent"
    wide = op("cast", x, to=dtypes.i32)
    if zero is not None:
        wide = op("sub", wide, _spread(op, call, op("cast", zero, to=dtypes.i32)))
    return [op("mul", op("cast", wide, to=scale.type.dtype), _spread(op, call, scale))]


def _quantize_decompose(gb: GraphBuilder, call: OpCall, xs: Sequence[Value | None]) -> list[Value]:
    op, (x, scale, zero) = _put(gb, call), (*xs, None)[:3]
    assert x is not None and scale is not None, "a required operand is absent"
    to: DType = call.attrs["to"]
    wide = sums_of(to)
    if not _is_all(call, 1, 1):
        x = op("div", x, _spread(op, call, scale))
    y = op("cast", op("round", x), to=wide)
    if zero is not None and not _is_all(call, 2, 0):  # without it there may be a -0, which is 0
        y = op("add", y, _spread(op, call, op("cast", zero, to=wide)))
    return [op("cast", y, to=to)]  # which saturates


def _is_all(call: OpCall, operand: int, value: int) -> bool:
    """Whether an operand is known to be this number."""
    known = call.constants[operand] if len(call.constants) > operand else None
    return known is not None and known.type.size == 1 and bool((known.array == value).all())


register(
    OpDef(
        "dequantize",
        "``(x - zero) * scale`` in the scale's dtype, the difference in i32; scale and zero point "
        "are single, or vectors along `axis`.",
        _OPERANDS, _dequantize_rule, _dequantize_reference, "map", (_AXIS,),
        decompose=_dequantize_decompose,
    )
)  # fmt: skip
register(
    OpDef(
        "quantize",
        "``round(x / scale) + zero`` in the dtype `to`, halves to even, the nearest value where it "
        "does not fit, 0 for NaN; scale and zero point are single, or vectors along `axis`.",
        _OPERANDS, _quantize_rule, _quantize_reference, "map", (Attr("to", "dtype"), _AXIS),
        decompose=_quantize_decompose,
    )
)  # fmt: skip
