"""Types of which the compiler moves elements and computes with none: floats of 8 and 4 bits, and
integers of less than 8. Casts to and from them are arithmetic on their bits, native like any other.
"""

from __future__ import annotations

import numpy as np

from aisc.frontend.building.emitter import Emitter
from aisc.ir import dtypes
from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import Value

_LEAST_BITS, _SIGN = 23, 31  # of a float of 32 bits: its fraction, and where its sign is


@dataclass(frozen=True, slots=True)
class _Float:
    """A float of few bits: of its fraction, in all, what is added to its exponents, the codes of
    the greatest number, of what is too large for it, and of what is none."""

    fraction: int
    bits: int
    bias: int
    greatest: int
    beyond: int
    none: int
    unsigned_zero: bool = False


_FLOATS = {
    "f8e4m3fn": _Float(3, 8, 7, 0x7E, 0x7F, 0x7F),
    "f8e4m3fnuz": _Float(3, 8, 8, 0x7F, 0x80, 0x80, True),
    "f8e5m2": _Float(2, 8, 15, 0x7B, 0x7C, 0x7F),
    "f8e5m2fnuz": _Float(2, 8, 16, 0x7F, 0x80, 0x80, True),
    "f4e2m1": _Float(1, 4, 1, 0x7, 0x7, 0x8),
}
_INTEGERS = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2}


def is_float(t: DType) -> bool:
    """Whether a type is a float of few bits."""
    return t.name in _FLOATS or t is dtypes.f8e8m0


def cast(em: Emitter, x: Value, to: DType, saturate: bool = True, rounding: str = "up") -> Value:
    """`x` as `to`, of which either may have few bits. Floats that are too large become the greatest
    number, or, if they shall not `saturate`, what the type has for that; integers lose their upper
    bits. `rounding` is that to powers of 2: up, down or nearest."""
    if x.type.dtype is to:
        return x
    if x.type.dtype.is_coded:
        return cast(em, decoded(em, x), to, saturate, rounding)
    if to is dtypes.f8e8m0:
        return _power(em, em.cast(x, dtypes.f32), saturate, rounding)
    if to.name in _FLOATS:
        return _encoded_float(em, em.cast(x, dtypes.f32), to, _FLOATS[to.name], saturate)
    if to.name in _INTEGERS:
        return _encoded_integer(em, x, to, _INTEGERS[to.name])
    return em.cast(x, to)


def decoded(em: Emitter, x: Value) -> Value:
    """The values of a type of few bits, as f32 or as integers of 8 bits."""
    t = x.type.dtype
    if not t.is_coded:
        return x
    codes = em.op("bitcast", x, to=dtypes.u8)
    bits = _INTEGERS.get(t.name) or (_FLOATS[t.name].bits if t.name in _FLOATS else 8)
    if bits < 8:
        codes = em.op("and", codes, em.like((1 << bits) - 1, codes))
    if is_float(t):
        values = np.arange(1 << bits, dtype=np.uint8).view(t.numpy).astype(np.float32)
        return em.op("gather", em.blob(Blob(values)), em.cast(codes, dtypes.i64), axis=0)
    if t.name.startswith("u"):
        return codes
    middle = em.like(1 << (bits - 1), codes)
    turned = em.op("bitcast", em.op("xor", codes, middle), to=dtypes.i8)
    return em.op("sub", turned, em.like(1 << (bits - 1), turned))


def limits(t: DType) -> tuple[int, int]:
    """The least and the greatest integer of a type of few bits."""
    bits = _INTEGERS[t.name]
    return (
        (0, (1 << bits) - 1)
        if t.name.startswith("u")
        else (-1 << (bits - 1), (1 << (bits - 1)) - 1)
    )


def _encoded_integer(em: Emitter, x: Value, to: DType, bits: int) -> Value:
    """Integers of few bits: the lowest of each number."""
    if x.type.dtype.is_float:
        x = em.cast(x, dtypes.i32)
    codes = em.cast(x, dtypes.u8)
    return em.op("bitcast", em.op("and", codes, em.like((1 << bits) - 1, codes)), to=to)


def _encoded_float(em: Emitter, x: Value, to: DType, f: _Float, saturate: bool) -> Value:
    """Floats of few bits, halves to even: from the bits of numbers that are normal in the type, and
    as multiples of its least number from others."""
    bits = em.op("bitcast", x, to=dtypes.u32)

    def n(value: int) -> Value:
        return em.like(value, bits)

    size, drop = em.op("and", bits, n((1 << _SIGN) - 1)), _LEAST_BITS - f.fraction
    odd = em.op("and", em.op("shift_right", size, n(drop)), n(1))
    up = em.op("add", em.op("add", size, n((1 << (drop - 1)) - 1)), odd)
    normal = em.op("sub", em.op("shift_right", up, n(drop)), n((127 - f.bias) << f.fraction))
    x_size = em.op("abs", x)
    steps = em.op("mul", x_size, em.like(2.0 ** (f.bias - 1 + f.fraction), x))
    small = em.cast(em.op("round", steps), dtypes.u32)
    is_small = em.op("less", x_size, em.like(2.0 ** (1 - f.bias), x))
    code = em.op("where", is_small, small, normal)
    sign = em.op("shift_left", em.op("shift_right", bits, n(_SIGN)), n(f.bits - 1))
    if f.unsigned_zero:
        sign = em.op("where", em.op("equal", code, n(0)), n(0), sign)
    beyond = n(f.greatest if saturate else f.beyond)
    large = em.op("greater", code, n(f.greatest))
    code = em.op("or", em.op("where", large, beyond, code), sign)
    code = em.op("where", em.op("equal", x, x), code, n(f.none))
    return em.op("bitcast", em.cast(code, dtypes.u8), to=to)


def _power(em: Emitter, x: Value, saturate: bool, rounding: str) -> Value:
    """Powers of 2 from -127 to 127, and 255 for what is none: the exponents of positive floats."""
    bits = em.op("bitcast", x, to=dtypes.u32)

    def n(value: int) -> Value:
        return em.like(value, bits)

    size, half = em.op("and", bits, n((1 << _SIGN) - 1)), 1 << (_LEAST_BITS - 1)
    up = {"up": 2 * half - 1, "nearest": half, "down": 0}[rounding]
    code = em.op("shift_right", em.op("add", size, n(up)), n(_LEAST_BITS))
    # Below the least normal number there is one power, and what is nearer to it than to 0.
    least = em.op("less_equal", size, n(half))
    code = em.op("where", least, n(0), code)
    none = n(0xFF)
    code = em.op("where", em.op("greater", code, n(0xFE)), n(0xFE) if saturate else none, code)
    if not saturate:
        code = em.op("where", em.op("less", size, n(half)), none, code)
    code = em.op("where", em.op("equal", x, x), code, none)
    return em.op("bitcast", em.cast(code, dtypes.u8), to=dtypes.f8e8m0)
