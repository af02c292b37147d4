"""Names of LLVM types and literals for aisc's element types."""

from __future__ import annotations

import struct
from functools import cache

import numpy as np

from aisc.ir import dtypes
from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType

# Floats of 16 bits are integers in registers, too: machines without instructions for them would
# convert them wherever a vector of them is moved, by functions of LLVM's run time.
_SCALAR = {"f16": "i16", "bf16": "i16", "f32": "float", "f64": "double", "bool": "i1"}


def scalar_type(dtype: DType) -> str:
    """Register type of one element; bool is ``i1``."""
    return _SCALAR.get(dtype.name) or f"i{dtype.bits}"


def memory_type(dtype: DType) -> str:
    """Type of an element in memory: bool is one byte."""
    return "i8" if dtype.kind == "bool" else scalar_type(dtype)


def memory_suffix(dtype: DType) -> str:
    """The element part of an overloaded intrinsic's name, for memory types."""
    name = memory_type(dtype)
    return name if name.startswith("i") else dtype.name


def is_short(dtype: DType) -> bool:
    """Whether a type is a float of 16 bits."""
    return dtype.is_float and dtype.bits == 16


def vector_type(scalar: str, lanes: int) -> str:
    """``<lanes x scalar>``, or the scalar itself for one lane."""
    return scalar if lanes == 1 else f"<{lanes} x {scalar}>"


def literal(value: float | int | bool, dtype: DType) -> str:
    """A constant of a scalar type, exact to the bit."""
    if dtype.kind == "bool":
        return "true" if value else "false"
    if not dtype.is_float:
        number = int(value)
        if dtype.kind == "uint" and number >> (dtype.bits - 1):
            number -= 1 << dtype.bits
        return str(number)
    if is_short(dtype):
        return str(np.array(value, dtype.numpy).view(np.int16).item())
    rounded = float(np.float32(value)) if dtype.name == "f32" else float(value)
    return f"0x{struct.unpack('<Q', struct.pack('<d', rounded))[0]:016X}"


@cache
def constants(values: bytes) -> str:
    """A vector of f32 constants, given as the bytes of f64: text that many look-ups share."""
    numbers = (literal(v, dtypes.f32) for (v,) in struct.iter_unpack("<d", values))
    listed = ", ".join(f"float {n}" for n in numbers)
    return f"<{len(values) // 8} x float> <{listed}>"


@cache
def _register_type(name: str, bits: int, lanes: int) -> str:
    return vector_type(_SCALAR.get(name) or f"i{bits}", lanes)


@dataclass(frozen=True, slots=True)
class Val:
    """An SSA name or literal, its element type and number of lanes (1: scalar)."""

    ref: str
    dtype: DType
    lanes: int = 1

    @property
    def type(self) -> str:
        """LLVM type of the value."""
        return _register_type(self.dtype.name, self.dtype.bits, self.lanes)

    @property
    def text(self) -> str:
        """Type and name, as operands are written."""
        return f"{self.type} {self.ref}"


def known_integer(v: Val) -> int | None:
    """The number that a literal of an integer type is, also in all lanes; ``None`` for others and
    for those below 0."""
    if not v.dtype.is_integer:
        return None
    text = v.ref.removeprefix("splat (").removesuffix(")").rpartition(" ")[2]
    return int(text) if text.isdigit() else None
