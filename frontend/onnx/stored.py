"""Constant matrices in few bits stay so: as ``widen`` of codes, with scales for blocks of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from aisc.frontend.building.emitter import Emitter
from aisc.ir.blob import Blob
from aisc.ir.graph.core import Value
from aisc.ir.graph.ops.widening import BITS, packed

Array = np.ndarray[Any, Any]


def dequantized(
    em: Emitter, x: Value, scale: Value, zero: Value | None, axis: int, block: int
) -> Value | None:
    """A constant matrix of less than 8 bits, or with a scale for each `block` places along an
    axis; ``None`` for anything else."""
    values, factor = em.array(x), em.array(scale)
    points = None if zero is None else em.array(zero)
    if values is None or factor is None or (zero is not None and points is None):
        return None
    if values.ndim != 2 or not -2 <= axis < 2 or not (block or x.type.dtype.is_coded):
        return None
    bits, low = _range(x.type.dtype.name)
    if not bits or values.size == 0 or factor.dtype != np.float32:
        return None
    turned = axis % 2 == (1 if block else 0)  # places of the axis that has blocks become rows
    found = _laid_out(factor, points, block, turned, values.shape)
    if found is None:
        return None
    codes = values.astype(np.int16).T if turned else values.astype(np.int16)
    made = matrix(em, codes, *found, block, bits, low)
    return em.transpose(made, (1, 0)) if turned else made


def _range(name: str) -> tuple[int, int]:
    """Bits of an integer type, and its least value; none for other types."""
    digits = name.lstrip("uint")
    bits = int(digits) if digits.isdigit() and int(digits) in BITS else 0
    return bits, 0 if name.startswith("u") else -(1 << bits >> 1)


def _laid_out(
    factor: Array, points: Array | None, block: int, turned: bool, shape: tuple[int, ...]
) -> tuple[Array, Array | None] | None:
    """Scales and zero points as matrices of a row for each block of rows."""
    rows, columns = shape[::-1] if turned else shape
    blocks = -(-rows // block) if block else 1

    def fitted(a: Array) -> Array | None:
        if block:
            a = a.T if turned else a
            return a if a.shape == (blocks, columns) else None
        single = a.size == 1 or a.shape == (columns,)
        return np.broadcast_to(a.reshape(1, -1), (1, columns)) if single else None

    scale = fitted(factor)
    zero = None if points is None else fitted(points.astype(np.int16))
    if scale is None or (points is not None and zero is None):
        return None
    return scale, zero


def matrix(
    em: Emitter, codes: Array, scale: Array, zero: Array | None, block: int, bits: int, low: int
) -> Value:
    """The floats of integers ``[rows, columns]`` of a type of `bits` bits whose least value is
    `low`: signed ones are stored, and no zero points where all of them are 0."""
    move = -(1 << (bits - 1)) - low
    points = np.zeros(scale.shape, np.int16) if zero is None else zero.astype(np.int16)
    points = (points + move).astype(np.int8)
    stored = packed((codes + move).astype(np.int8), bits)
    parts = [stored, np.ascontiguousarray(scale, np.float32)]
    parts += [points] if points.any() else []
    operands = [em.blob(Blob(np.ascontiguousarray(a))) for a in parts]
    return em.op("widen", *operands, bits=bits, block=block, rows=codes.shape[0])
