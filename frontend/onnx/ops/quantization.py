"""ONNX quantization: ``quantize`` and ``dequantize`` where scales are those of a tensor or an axis,
plain arithmetic where they are blocked; products of quantized values are products of integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.onnx import coded, stored
from aisc.frontend.onnx.node import Node, onnx_op
from aisc.frontend.onnx.ops.linear import convolve, less_zero_point
from aisc.frontend.onnx.tensors import element_type, unpacked
from aisc.ir import dtypes
from aisc.ir.blob import Blob
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import Value


def _along(em: Emitter, node: Node, x: Value, parameter: Value, axis: int, block: int) -> Value:
    """A scale or zero point shaped to broadcast to `x`: per tensor (one element, whatever the
    axis), along `axis`, or blocked."""
    shape, rank = parameter.type.shape, x.type.rank
    if shape == () or (shape == (1,) and not block):
        return em.reshape(parameter, ())
    if not -rank <= axis < rank:
        raise node.malformed(f"axis {axis} does not fit {x.type}")
    axis = axis % rank
    if block:
        return _blocked(em, node, x, parameter, axis, block)
    if parameter.type.rank != 1:
        raise node.malformed(f"a scale or zero point {parameter.type}")
    return em.reshape(parameter, (*shape, *[1] * (rank - 1 - axis)))


def _blocked(em: Emitter, node: Node, x: Value, parameter: Value, axis: int, block: int) -> Value:
    """Each element of `parameter` repeated `block` times along `axis`, cut to `x`'s size."""
    shape = parameter.type.shape
    if parameter.type.rank != x.type.rank:
        raise node.malformed(f"blocked parameter {parameter.type} for {x.type}")
    split = em.reshape(parameter, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
    wide = em.op("expand", split, shape=(*shape[: axis + 1], block, *shape[axis + 1 :]))
    flat = em.reshape(wide, (*shape[:axis], shape[axis] * block, *shape[axis + 1 :]))
    return em.slice_axis(flat, axis, 0, x.type.shape[axis])


def _parameters(
    em: Emitter, node: Node, x: Value, scale: Value, zero: Value | None, axis: int, t: DType
) -> list[Value] | None:
    """The operands of the operators for integers of type `t`: scale and zero point single or along
    the axis; ``None`` for what they do not take."""
    found = [scale] if zero is None else [scale, zero]
    if not t.is_integer or t.bits > 32 or (zero is not None and zero.type.dtype is not t):
        return None
    rank = x.type.rank
    single = [p.type.shape in ((), (1,)) for p in found]
    if all(single):
        return [x, *(em.reshape(p, ()) for p in found)]
    if any(single) or any(p.type.rank != 1 for p in found) or not -rank <= axis < rank:
        return None
    return [x, *found]


def dequantize(
    em: Emitter, node: Node, x: Value, scale: Value, zero: Value | None, axis: int, block: int = 0
) -> Value:
    """``(x - zero) * scale`` in the scale's dtype; the difference is exact in i32."""
    inputs = None if block else _parameters(em, node, x, scale, zero, axis, x.type.dtype)
    if inputs is not None:
        return em.op("dequantize", *inputs, axis=axis % max(x.type.rank, 1))
    exact = x.type.dtype if x.type.dtype.is_float else dtypes.i32
    wide = em.cast(x, exact)
    if zero is not None:
        wide = em.op("sub", wide, _along(em, node, x, em.cast(zero, exact), axis, block))
    factor = _along(em, node, x, scale, axis, block)
    return em.op("mul", em.cast(wide, scale.type.dtype), factor)


def quantize(
    em: Emitter, node: Node, x: Value, scale: Value, zero: Value | None, t: DType, axis: int,
    block: int = 0, saturate: bool = True,
) -> Value:  # fmt: skip
    """``saturate(round(x / scale) + zero)``, halves to even; floats of few bits are not rounded
    to integers, and may be what stands for more than they hold."""
    fitting = em.cast(scale, x.type.dtype)
    inputs = None if block else _parameters(em, node, x, fitting, zero, axis, t)
    if inputs is not None:
        return em.op("quantize", *inputs, to=t, axis=axis % max(x.type.rank, 1))
    factor = _along(em, node, x, em.cast(scale, x.type.dtype), axis, block)
    wide = dtypes.f64 if t.bits >= 32 else dtypes.f32
    y = em.op("div", x, factor)
    y = em.cast(y if coded.is_float(t) else em.op("round", y), wide)
    if zero is not None:
        point = em.cast(coded.decoded(em, zero), wide)
        y = em.op("add", y, _along(em, node, x, point, axis, block))
    if coded.is_float(t):
        return coded.cast(em, y, t, saturate)
    low, high = coded.limits(t) if t.is_coded else (t.min_value, t.max_value)
    return coded.cast(em, em.op("clip", y, min=float(low), max=float(high)), t)


@onnx_op("DequantizeLinear")
def _dequantize(em: Emitter, node: Node) -> Value:
    axis, block = node.integer("axis", 1), node.integer("block_size")
    code = node.integer("output_dtype")
    x, scale, zero = node.input(0), node.input(1), node.optional(2)
    y = stored.dequantized(em, x, scale, zero, axis, block)
    if y is None:
        zero = None if zero is None else coded.decoded(em, zero)
        y = dequantize(em, node, coded.decoded(em, x), scale, zero, axis, block)
    return em.cast(y, element_type(code, node.loc)) if code else y


@onnx_op("QuantizeLinear")
def _quantize(em: Emitter, node: Node) -> Value:
    axis, block, code = node.integer("axis", 1), node.integer("block_size"), 2
    code = node.integer("output_dtype") or code
    saturate = node.flag("saturate", True)
    if node.integer("precision") not in (0, 1):
        raise node.unsupported("a precision other than float32")
    x, scale, zero = node.input(0), node.input(1), node.optional(2)
    t = element_type(code, node.loc) if zero is None else zero.type.dtype
    x = em.cast(x, dtypes.f32) if x.type.dtype.is_integer else x
    return quantize(em, node, x, scale, zero, t, axis, block, saturate)


@onnx_op("DynamicQuantizeLinear")
def _dynamic(em: Emitter, node: Node) -> Sequence[Value]:
    """u8 with the range of x stretched to hold 0."""
    x = node.input(0)
    axes, zero = tuple(range(x.type.rank)), em.like(0, x)
    high = em.op("max", em.op("reduce_max", x, axes=axes, keepdims=False), zero)
    low = em.op("min", em.op("reduce_min", x, axes=axes, keepdims=False), zero)
    scale = em.op("div", em.op("sub", high, low), em.like(255, x))
    start = em.op("round", em.op("neg", em.op("div", low, scale)))
    point = em.cast(em.op("clip", start, min=0.0, max=255.0), dtypes.u8)
    return quantize(em, node, x, scale, point, dtypes.u8, 0), scale, point


@onnx_op("QLinearMatMul")
def _qlinear_matmul(em: Emitter, node: Node) -> Value:
    """An exact i32 product, scaled per row or column, and quantized again."""
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = (node.input(i) for i in range(8))
    rows, columns = less_zero_point(em, a, a_zero, -2), less_zero_point(em, b, b_zero, -1)
    y = em.cast(em.op("matmul", rows, columns, accumulator="i32"), dtypes.f32)
    factors = [_along(em, node, v, em.cast(s, dtypes.f32), axis, 0)
               for v, s, axis in ((a, a_scale, -2), (b, b_scale, -1))]  # fmt: skip
    y = em.op("mul", y, em.op("mul", *factors))
    return quantize(em, node, em.cast(y, scale.type.dtype), scale, zero, zero.type.dtype, -2)


@onnx_op("QLinearConv")
def _qlinear_conv(em: Emitter, node: Node) -> Value:
    """An exact i32 convolution, scaled per output channel, and quantized again."""
    x, x_scale, x_zero, w, w_scale, w_zero, scale, zero = (node.input(i) for i in range(8))
    image, kernel = less_zero_point(em, x, x_zero, 1), less_zero_point(em, w, w_zero, 0)
    y = em.cast(convolve(em, node, image, kernel, node.optional(8), "i32"), dtypes.f32)
    both = em.op("mul", em.reshape(x_scale, ()), w_scale)
    y = em.op("mul", y, _along(em, node, y, both, 1, 0))
    return quantize(em, node, y, scale, zero, zero.type.dtype, 1)


@onnx_op("com.microsoft::MatMulNBits")
def _matmul_of_few_bits(em: Emitter, node: Node) -> Value:
    """A product with weights ``[N, blocks, bytes]`` of `bits` each, with a scale and, packed like
    them, a zero point for every block of K; without one it is the middle of the range."""
    inner, columns = node.integer("K"), node.integer("N")
    bits, block = node.integer("bits", 4), node.integer("block_size")
    node.integer("accuracy_level")
    if bits not in (2, 4, 8) or block < 1 or inner < 1 or columns < 1:
        raise node.malformed(f"{bits} bits in blocks of {block}, {columns} x {inner}")
    if node.has(4):
        raise node.unsupported("an order of groups")
    blocks = -(-inner // block)
    w = _few_bits(em, node, 1, columns, blocks * block, bits)[:, :inner]
    zero = np.full((columns, blocks), 1 << (bits - 1), np.uint8)
    if node.has(3):
        per_row = -(-blocks * bits // 8) * 8 // bits
        zero = _few_bits(em, node, 3, columns, per_row, bits)[:, :blocks]
    scale = em.reshape(node.input(2), (columns, blocks))
    factor = em.array(scale)
    if factor is not None and factor.dtype == np.float32:
        codes = w.T.astype(np.int16)
        weights = stored.matrix(em, codes, factor.T, zero.T, block, bits, 0)
    else:
        parts = [em.blob(Blob(np.ascontiguousarray(a))) for a in (w, zero)]
        wide = dequantize(em, node, parts[0], scale, parts[1], 1, block)
        weights = em.transpose(wide, (1, 0))
    y = em.op("matmul", node.input(0), weights)
    return em.op("add", y, node.input(5)) if node.has(5) else y


def _few_bits(
    em: Emitter, node: Node, operand: int, rows: int, columns: int, bits: int
) -> np.ndarray[Any, Any]:
    """A constant operand of packed numbers, each row from a byte on."""
    packed = em.array(node.input(operand))
    if packed is None or packed.dtype != np.uint8:
        raise node.unsupported("weights or zero points that are no constant bytes")
    if packed.size * 8 != rows * columns * bits:
        raise node.malformed(f"operand {operand} has {packed.size} bytes")
    return unpacked(packed.reshape(-1), rows * columns, bits).reshape(rows, columns)
