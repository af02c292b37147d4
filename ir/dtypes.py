"""Element types: name, width, class, and the numpy type that carries them.

One instance exists per type; compare with ``is`` or ``==``. Low-precision floats are carried by
``ml_dtypes``. ``boolean`` is stored as one byte holding 0 or 1. Types whose kind is *coded* are
bytes of which operators move elements and reinterpret bits, and compute with none.
"""

from __future__ import annotations

from typing import Any, Literal

import ml_dtypes
import numpy as np

from aisc.ir.dataclass import dataclass

Kind = Literal["float", "int", "uint", "bool", "coded"]
# In which types the weights of a model in f32 may be stored.
Precision = Literal["f32", "bf16", "f16"]


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """An element type. ``bits`` is the storage width in bits."""

    name: str
    kind: Kind
    bits: int

    @property
    def bytes(self) -> int:
        """Storage size of one element in bytes."""
        return self.bits // 8

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The numpy dtype that carries this type."""
        return _NUMPY[self.name]

    @property
    def is_float(self) -> bool:
        """True for every floating-point type."""
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        """True for signed and unsigned integers, not for boolean."""
        return self.kind in ("int", "uint")

    @property
    def is_coded(self) -> bool:
        """True for types that nothing computes with."""
        return self.kind == "coded"

    @property
    def min_value(self) -> int | float:
        """Least finite value (``-inf`` is not counted; floats give the most negative finite)."""
        if self.kind == "float":
            return float(_finfo(self).min)
        return -(1 << (self.bits - 1)) if self.kind == "int" else 0

    @property
    def max_value(self) -> int | float:
        """Greatest finite value."""
        if self.kind == "float":
            return float(_finfo(self).max)
        if self.kind == "bool":
            return 1
        return (1 << (self.bits - (self.kind == "int"))) - 1

    @property
    def half_range(self) -> int:
        """Half of the greatest absolute value that an integer type has."""
        return 1 << (self.bits - 2) if self.kind == "int" else 1 << (self.bits - 1)

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[object, ...]:
        return (dtype, (self.name,))


f16 = DType("f16", "float", 16)
bf16 = DType("bf16", "float", 16)
f32 = DType("f32", "float", 32)
f64 = DType("f64", "float", 64)
i8 = DType("i8", "int", 8)
i16 = DType("i16", "int", 16)
i32 = DType("i32", "int", 32)
i64 = DType("i64", "int", 64)
u8 = DType("u8", "uint", 8)
u16 = DType("u16", "uint", 16)
u32 = DType("u32", "uint", 32)
u64 = DType("u64", "uint", 64)
boolean = DType("bool", "bool", 8)

f8e4m3fn = DType("f8e4m3fn", "coded", 8)
f8e4m3fnuz = DType("f8e4m3fnuz", "coded", 8)
f8e5m2 = DType("f8e5m2", "coded", 8)
f8e5m2fnuz = DType("f8e5m2fnuz", "coded", 8)
f8e8m0 = DType("f8e8m0", "coded", 8)
f4e2m1 = DType("f4e2m1", "coded", 8)
int4 = DType("int4", "coded", 8)
uint4 = DType("uint4", "coded", 8)
int2 = DType("int2", "coded", 8)
uint2 = DType("uint2", "coded", 8)

# Types that operators compute with.
ALL: tuple[DType, ...] = (f16, bf16, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64, boolean)
CODED: tuple[DType, ...] = (
    f8e4m3fn,
    f8e4m3fnuz,
    f8e5m2,
    f8e5m2fnuz,
    f8e8m0,
    f4e2m1,
    int4,
    uint4,
    int2,
    uint2,
)
_BY_NAME = {t.name: t for t in (*ALL, *CODED)}
_NUMPY: dict[str, np.dtype[np.generic]] = {
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "i8": np.dtype(np.int8),
    "i16": np.dtype(np.int16),
    "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64),
    "u8": np.dtype(np.uint8),
    "u16": np.dtype(np.uint16),
    "u32": np.dtype(np.uint32),
    "u64": np.dtype(np.uint64),
    "bool": np.dtype(np.bool_),
    "f8e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "f8e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "f8e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "f8e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "f8e8m0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "f4e2m1": np.dtype(ml_dtypes.float4_e2m1fn),
    "int4": np.dtype(ml_dtypes.int4),
    "uint4": np.dtype(ml_dtypes.uint4),
    "int2": np.dtype(ml_dtypes.int2),
    "uint2": np.dtype(ml_dtypes.uint2),
}


def _finfo(t: DType) -> Any:
    return ml_dtypes.finfo(t.numpy)  # type: ignore[no-untyped-call]


_FROM_NUMPY = {v: _BY_NAME[k] for k, v in _NUMPY.items()}


def dtype(name: str) -> DType:
    """The type called `name`; ``KeyError`` when there is none."""
    return _BY_NAME[name]


def exists(name: str) -> bool:
    """Whether there is a type called `name`."""
    return name in _BY_NAME


def from_numpy(np_dtype: np.dtype[np.generic] | type) -> DType:
    """The type carried by a numpy dtype; ``KeyError`` when aisc has no such type."""
    return _FROM_NUMPY[np.dtype(np_dtype)]
