"""Weights that are stored in few bits, as the floats that they stand for.

Codes are bytes, floats of 16 bits, or numbers of 2 or 4 bits that lie several in a byte, those of
neighbouring rows, the first in the lowest bits. Whoever reads the floats may compute them as it
goes, so that no more than the codes is ever moved.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim
from aisc.ir.dtypes import DType
from aisc.ir.graph.opdef import (
    Array,
    Arrays,
    Attr,
    OpCall,
    OpDef,
    Operand,
    Variant,
    register,
)
from aisc.ir.graph.shapes import infer
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Expr, Load, Var, binary, cast, of_dim
from aisc.ir.tensor.func import Buffer
from aisc.ir.types import TensorType

BITS = (2, 4, 8)  # of integers
SHORT_FLOATS = (dtypes.bf16, dtypes.f16)
_WIDE = dtypes.i32.bits


def in_a_byte(call: OpCall) -> int:
    """How many rows of codes lie in a row of bytes."""
    bits: int = call.attrs["bits"]
    return 8 // bits if bits else 1


def packed(codes: Array, bits: int) -> Array:
    """Signed integers of few bits in bytes, those of a column that follow each other in one."""
    count = 8 // bits
    rows = -(-codes.shape[-2] // count) * count
    padded = np.zeros((*codes.shape[:-2], rows, codes.shape[-1]), np.uint8)
    padded[..., : codes.shape[-2], :] = codes.astype(np.int8).view(np.uint8) & ((1 << bits) - 1)
    made = np.zeros((*codes.shape[:-2], rows // count, codes.shape[-1]), np.uint8)
    for k in range(count):
        made |= padded[..., k::count, :] << np.uint8(k * bits)
    return made.view(np.int8)


def unpacked(stored: Array, bits: int, rows: int) -> Array:
    """The signed integers of :func:`packed`."""
    count = 8 // bits
    wide = stored.astype(np.int32)
    parts = [(wide << (_WIDE - bits * (k + 1))) >> (_WIDE - bits) for k in range(count)]
    apart = np.stack(parts, axis=-2)
    shape = (*stored.shape[:-2], stored.shape[-2] * count, stored.shape[-1])
    return apart.reshape(shape)[..., :rows, :].astype(np.int8)


def _blocks(call: OpCall) -> int:
    """Rows that share a scale: all of them where no number is given."""
    return int(call.attrs["block"] or max(int(call.attrs["rows"]), 1))


def _rule(call: OpCall) -> tuple[TensorType, ...]:
    codes, bits, rows = call.type(0), call.attrs["bits"], call.attrs["rows"]
    to: DType = call.attrs["to"]
    if to not in (dtypes.f32, dtypes.f64):
        raise call.fail(f"the result is {to}")
    if not bits:
        infer.check_dtype(call, 0, lambda t: t in SHORT_FLOATS)
        if call.has(1) or call.has(2) or rows or call.attrs["block"]:
            raise call.fail("floats of 16 bits have no scales")
        return (TensorType(codes.shape, to),)
    infer.check_dtype(call, 0, lambda t: t is dtypes.i8)
    infer.check_rank(call, 0, 2)
    if bits not in BITS or call.attrs["block"] < 0 or not call.has(1):
        raise call.fail(f"{bits} bits in blocks of {call.attrs['block']}, a scale for each")
    if codes.shape[-2] != -(-rows // in_a_byte(call)):
        raise call.fail(f"{rows} rows of {bits} bits are not {codes}")
    infer.check_dtype(call, 1, lambda t: t is to)
    blocks: Sequence[Dim] = (*codes.shape[:-2], -(-rows // _blocks(call)), codes.shape[-1])
    infer.check_shape(call, 1, blocks)
    if call.has(2):
        infer.check_dtype(call, 2, lambda t: t is dtypes.i8)
        infer.check_shape(call, 2, blocks)
    return (TensorType((*codes.shape[:-2], rows, codes.shape[-1]), to),)


def _reference(call: OpCall, xs: Arrays) -> list[Array]:
    codes, scale, zero = (*xs, None, None)[:3]
    assert codes is not None, "a required operand is absent"
    if scale is None:
        return [codes.astype(call.attrs["to"].numpy)]
    rows, size = call.attrs["rows"], _blocks(call)
    wide = unpacked(codes, call.attrs["bits"], rows).astype(np.int32)
    if zero is not None:
        wide = wide - np.repeat(zero.astype(np.int32), size, axis=-2)[..., :rows, :]
    return [wide.astype(scale.dtype) * np.repeat(scale, size, axis=-2)[..., :rows, :]]


def _integer(call: OpCall, codes: Buffer, at: Sequence[Expr]) -> Expr:
    """The number at a place, as i32: shifted to the top of the word and back. Of two in a byte, the
    upper one is at the top of the byte already."""
    count, bits = in_a_byte(call), call.attrs["bits"]
    if count == 1:
        return cast(Load(codes, tuple(at)), dtypes.i32)
    byte, place = Load(codes, (*at[:-2], at[-2] // count, at[-1])), at[-2] % count
    left: Expr = (count - 1 - place) * bits + (_WIDE - 8)
    right: Expr = of_dim(_WIDE - bits)
    if count == 2:
        left, right = (1 - place) * (_WIDE - bits), (_WIDE - bits) - place * (_WIDE - 8)
    upper = binary("shl", cast(byte, dtypes.i32), cast(left, dtypes.i32))
    return binary("shr", upper, cast(right, dtypes.i32))


def _compute(
    cb: ComputeBuilder, call: OpCall, ins: Sequence[Buffer | None], outs: Sequence[Buffer]
) -> None:
    codes, scale, zero = (*ins, None, None)[:3]
    assert codes is not None, "a required operand is absent"
    size = _blocks(call)

    def value(*at: Var) -> Expr:
        if scale is None:
            return cast(Load(codes, at), call.attrs["to"])
        of_block = (*at[:-2], at[-2] // size, at[-1])
        number = _integer(call, codes, at)
        if zero is not None:
            number = number - cast(Load(zero, of_block), dtypes.i32)
        return cast(number, scale.dtype) * Load(scale, of_block)

    cb.map(outs[0], value, "widen")


register(
    OpDef(
        "widen",
        "Weights ``[..., rows, columns]`` in the dtype `to`: of floats of 16 bits, or of signed "
        "integers of `bits` bits, ``(x - zero) * scale``, with a scale and a zero point for each "
        "`block` rows of a column (0: for all). Of less than 8 bits, those of neighbouring rows "
        "are in a byte, the first in its lowest bits.",
        (Operand("codes"), Operand("scale", optional=True), Operand("zero", optional=True)),
        _rule, _reference, "movement",
        (
            Attr("to", "dtype", dtypes.f32), Attr("bits", "int", 0), Attr("block", "int", 0),
            Attr("rows", "int", 0),
        ),
        variants={"direct": Variant(_compute)},
    )
)  # fmt: skip
