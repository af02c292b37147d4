"""Floats of 16 bits on targets without instructions for them: arithmetic is that of f32, and the
conversions are integer arithmetic.

LLVM would call functions of the compiler's run time, which a process need not have. Rounding is to
nearest, ties to even, once; denormal numbers, infinities and NaN are kept (as quiet NaN). The
branch-free forms are those of F. Giesen's *half to float done quick* (2012).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aisc.codegen.llvm.types import vector_type
from aisc.ir import dtypes
from aisc.ir.dtypes import DType

if TYPE_CHECKING:
    from aisc.codegen.llvm.types import Val
    from aisc.codegen.llvm.vector_math import MathEmitter

_NATIVE = {dtypes.f16: "half", dtypes.bf16: "bfloat"}  # LLVM's names, where it converts
_MAGIC = 112 << 23  # the difference of the exponents' biases, as bits of f32


def widened(m: MathEmitter, v: Val) -> Val:
    """The same numbers in f32."""
    if m.converts(v.dtype):
        short, long = (vector_type(s, v.lanes) for s in (_NATIVE[v.dtype], "float"))
        native = m.w.let(f"bitcast {v.text} to {short}")
        return m.let(f"fpext {short} {native} to {long}", dtypes.f32, v.lanes)
    bits = m.convert(m.bitcast(v, dtypes.u16), dtypes.u32)
    if v.dtype is dtypes.bf16:
        return m.bitcast(_shifted(m, "shl", bits, 16), dtypes.f32)
    sign = _shifted(m, "shl", _masked(m, bits, 0x8000), 16)
    size = _shifted(m, "shl", _masked(m, bits, 0x7FFF), 13)
    scaled = m.binary("mul", m.bitcast(size, dtypes.f32), m.const(2.0**112, size, dtypes.f32))
    special = m.compare("ge", size, m.const(0x7C00 << 13, size))
    number = m.bitcast(scaled, dtypes.u32)
    whole = m.binary("or", number, m.const(0x7F800000, number))
    return m.bitcast(m.binary("or", m.select(special, whole, number), sign), dtypes.f32)


def narrowed(m: MathEmitter, v: Val, to: DType) -> Val:
    """Numbers of f32 in 16 bits."""
    if m.converts(to):
        short, stored = (vector_type(s, v.lanes) for s in (_NATIVE[to], "i16"))
        native = m.w.let(f"fptrunc {v.text} to {short}")
        return m.let(f"bitcast {short} {native} to {stored}", to, v.lanes)
    bits = m.bitcast(v, dtypes.u32)
    made = _to_bf16(m, v, bits) if to is dtypes.bf16 else _to_f16(m, bits)
    return m.bitcast(m.convert(made, dtypes.u16), to)


def _to_bf16(m: MathEmitter, v: Val, bits: Val) -> Val:
    """The upper half, after half of a unit in the last place has been added, less one if even."""
    odd = _masked(m, _shifted(m, "shr", bits, 16), 1)
    rounded = m.binary("add", m.binary("add", bits, m.const(0x7FFF, bits)), odd)
    quiet = m.binary("or", bits, m.const(0x400000, bits))
    chosen = m.select(m.call("isnan", (v,), dtypes.boolean), quiet, rounded)
    return _shifted(m, "shr", chosen, 16)


def _to_f16(m: MathEmitter, bits: Val) -> Val:
    sign = _shifted(m, "shr", _masked(m, bits, 0x80000000), 16)
    size = _masked(m, bits, 0x7FFFFFFF)
    odd = _masked(m, _shifted(m, "shr", size, 13), 1)
    moved = m.binary("add", m.binary("sub", size, m.const(_MAGIC - 0xFFF, size)), odd)
    normal = _shifted(m, "shr", moved, 13)
    # The addition leaves the digits of a denormal number in the lowest bits, rounded.
    magic = m.const(0.5, size, dtypes.f32)
    added = m.bitcast(m.binary("add", m.bitcast(size, dtypes.f32), magic), dtypes.u32)
    denormal = m.binary("sub", added, m.const(0x3F000000, size))
    small = m.compare("lt", size, m.const(113 << 23, size))
    nan = m.compare("gt", size, m.const(0x7F800000, size))
    special = m.select(nan, m.const(0x7E00, size), m.const(0x7C00, size))
    large = m.compare("ge", size, m.const(143 << 23, size))
    number = m.select(large, special, m.select(small, denormal, normal))
    return m.binary("or", number, sign)


def _shifted(m: MathEmitter, op: str, v: Val, by: int) -> Val:
    """A shift by a literal that is less than the width."""
    name = {"shl": "shl", "shr": "lshr"}[op]
    return m.let(f"{name} {v.text}, {m.const(by, v).ref}", v.dtype, v.lanes)


def _masked(m: MathEmitter, v: Val, mask: int) -> Val:
    return m.binary("and", v, m.const(mask, v))
