"""TensorProto -> Blob. Sizes are checked before anything is allocated; data are viewed, not copied.

External data must lie inside the model's folder (after symbolic links). Large data stay in their
file, which is mapped.
"""

from __future__ import annotations

import os
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aisc.frontend.building.limits import MAX_BYTES, reach
from aisc.frontend.onnx.wire import Contents
from aisc.ir import dtypes
from aisc.ir.blob import Blob
from aisc.ir.diagnostics import error
from aisc.ir.dtypes import DType
from aisc.ir.location import Loc
from aisc.ir.mapped import mapped, part_of

if TYPE_CHECKING:
    from onnx import TensorProto

MAX_RANK = 32

# TensorProto.DataType -> (type, field of typed data, numpy dtype of that field)
_TYPES: dict[int, tuple[DType, str, type[np.generic]]] = {
    1: (dtypes.f32, "float_data", np.float32),
    2: (dtypes.u8, "int32_data", np.int32),
    3: (dtypes.i8, "int32_data", np.int32),
    4: (dtypes.u16, "int32_data", np.int32),
    5: (dtypes.i16, "int32_data", np.int32),
    6: (dtypes.i32, "int32_data", np.int32),
    7: (dtypes.i64, "int64_data", np.int64),
    9: (dtypes.boolean, "int32_data", np.int32),
    10: (dtypes.f16, "int32_data", np.int32),
    11: (dtypes.f64, "double_data", np.float64),
    12: (dtypes.u32, "uint64_data", np.uint64),
    13: (dtypes.u64, "uint64_data", np.uint64),
    16: (dtypes.bf16, "int32_data", np.int32),
    17: (dtypes.f8e4m3fn, "int32_data", np.int32),
    18: (dtypes.f8e4m3fnuz, "int32_data", np.int32),
    19: (dtypes.f8e5m2, "int32_data", np.int32),
    20: (dtypes.f8e5m2fnuz, "int32_data", np.int32),
    21: (dtypes.uint4, "int32_data", np.int32),
    22: (dtypes.int4, "int32_data", np.int32),
    23: (dtypes.f4e2m1, "int32_data", np.int32),
    24: (dtypes.f8e8m0, "int32_data", np.int32),
    25: (dtypes.uint2, "int32_data", np.int32),
    26: (dtypes.int2, "int32_data", np.int32),
}

# Bits of an element where a byte holds several.
_PACKED = {21: 4, 22: 4, 23: 4, 25: 2, 26: 2}


def type_name(code: int) -> str:
    """ONNX's own name of a data type code."""
    from onnx import TensorProto

    names: dict[int, str] = {v: k for k, v in TensorProto.DataType.items()}
    return names.get(code, str(code))


def element_type(code: int, loc: Loc) -> DType:
    """The dtype of an ONNX data type code; E102 for those aisc lacks."""
    if code not in _TYPES:
        raise error("E102", f"element type {type_name(code)} is not supported", loc=loc)
    return _TYPES[code][0]


def onnx_type(t: DType) -> int:
    """The ONNX data type code of a dtype."""
    return next(code for code, entry in _TYPES.items() if entry[0] is t)


def to_blob(
    tensor: TensorProto, folder: Path | None, loc: Loc, raw: Contents | None = None
) -> Blob:
    """The contents of a tensor; `folder` is where external data may lie, `raw` what was taken out
    of its raw data."""
    t, bits = element_type(tensor.data_type, loc), _PACKED.get(tensor.data_type, 0)
    shape = tuple(tensor.dims)
    if any(d < 0 for d in shape):
        raise error("E103", f"tensor '{tensor.name}' has a negative size: {shape}", loc=loc)
    if len(shape) > MAX_RANK or reach(shape) * t.bytes > MAX_BYTES:
        raise error("E105", f"tensor '{tensor.name}' is too large: {shape} of {t}", loc=loc)
    if tensor.HasField("segment"):
        raise error("E102", f"tensor '{tensor.name}' is stored in segments", loc=loc)
    count = -(-prod(shape) * bits // 8) if bits else prod(shape)
    _check_places(tensor, raw, loc)
    if tensor.data_location == 1:  # EXTERNAL
        flat = _external(tensor, t, count, folder, loc)
    elif raw is not None or tensor.HasField("raw_data"):
        flat = _raw(tensor, t, count, loc, raw)
    else:
        flat = _typed(tensor, t, count, loc)
    if bits:
        flat = unpacked(flat.view(np.uint8), prod(shape), bits).view(t.numpy)
    return Blob(flat.reshape(shape))


def unpacked(packed: np.ndarray[Any, Any], count: int, bits: int) -> np.ndarray[Any, Any]:
    """Codes of few bits, the first in the lowest of each byte, as a byte each."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return np.asarray(((packed[:, None] >> shifts) & ((1 << bits) - 1)).reshape(-1)[:count])


_DATA_FIELDS = (
    "raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data",
    "uint64_data",
)  # fmt: skip


def _check_places(tensor: TensorProto, raw: Contents | None, loc: Loc) -> None:
    """E103 when a tensor has its contents in more than one place."""
    places = [name for name in _DATA_FIELDS if len(getattr(tensor, name))]
    places += ["raw_data"] if raw is not None else []
    places += ["external data"] if tensor.data_location == 1 else []
    if len(places) > 1:
        message = f"tensor '{tensor.name}' has its contents twice"
        raise error("E103", message, f"in {' and in '.join(places)}", loc=loc)


def _raw(
    tensor: TensorProto, t: DType, count: int, loc: Loc, raw: Contents | None
) -> np.ndarray[Any, Any]:
    data = tensor.raw_data if raw is None else part_of(raw)
    _check_count(tensor, len(data), count * t.bytes, "bytes", loc)
    flat = np.frombuffer(data, t.numpy) if count else np.empty(0, t.numpy)
    return _clean_bool(flat, t)


def _clean_bool(flat: np.ndarray[Any, Any], t: DType) -> np.ndarray[Any, Any]:
    """Stored booleans may be any byte; ours are 0 or 1."""
    if t.kind == "bool" and flat.size and int(flat.view(np.uint8).max()) > 1:
        return np.asarray(flat.view(np.uint8) != 0)
    return flat


def _typed(tensor: TensorProto, t: DType, count: int, loc: Loc) -> np.ndarray[Any, Any]:
    _, field, stored = _TYPES[tensor.data_type]
    values = getattr(tensor, field)
    _check_count(tensor, len(values), count, "values", loc)
    data = np.asarray(values, stored) if count else np.empty(0, stored)
    if t in (dtypes.f16, dtypes.bf16):
        return data.astype(np.uint16).view(t.numpy)
    if t.is_coded:
        return data.astype(np.uint8).view(t.numpy)
    return data.astype(t.numpy, copy=False)


def _check_count(tensor: TensorProto, got: int, expected: int, unit: str, loc: Loc) -> None:
    if got != expected:
        notes = (f"expected {expected} {unit}", f"got {got}")
        raise error("E103", f"tensor '{tensor.name}' {list(tensor.dims)}", *notes, loc=loc)


def _external(
    tensor: TensorProto, t: DType, count: int, folder: Path | None, loc: Loc
) -> np.ndarray[Any, Any]:
    def fail(reason: str, *notes: str) -> Exception:
        return error("E104", f"external data of tensor '{tensor.name}': {reason}", *notes, loc=loc)

    entries = {e.key: e.value for e in tensor.external_data}
    place = entries.get("location", "")
    if folder is None:
        raise fail("the model was not read from a file, so it has no folder")
    path = _inside(folder, place)
    if path is None:
        raise fail(f"'{place}' is outside the model's folder")
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(count * t.bytes)))
    except ValueError:
        raise fail("offset or length is no number") from None
    if length != count * t.bytes or offset < 0:
        raise fail("wrong length or offset", f"expected {count * t.bytes} bytes", f"got {length}")
    try:
        size = os.path.getsize(path) if os.path.isfile(path) else -1
    except (OSError, ValueError):
        size = -1
    if size < offset + length:
        raise fail(f"'{place}' is missing or too short", f"needs {offset + length} bytes")
    if count == 0:
        return np.empty(0, t.numpy)
    try:
        flat = mapped(path)[offset : offset + length].view(t.numpy)
    except (OSError, ValueError) as fault:
        raise fail(f"'{place}' cannot be mapped", str(fault)) from None
    return _clean_bool(flat, t)


def _inside(folder: Path, place: str) -> str | None:
    """The real path of `place`, or None when it is empty, malformed or leaves `folder`."""
    if not place or "\0" in place or os.path.isabs(place):
        return None
    root = os.path.realpath(folder)
    path = os.path.realpath(os.path.join(root, place))
    return path if os.path.commonpath([root, path]) == root else None
