"""What arrays of a case hold: ordinary numbers, small whole ones, extremes, indices."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from aisc.ir.arith.poly import Dim, evaluate
from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType
from aisc.ir.graph.opdef import Array

Style = Literal["plain", "whole", "special"]
FloatParts = tuple[float, ...]
# Not a number, infinities, zeros of both signs, the least and greatest numbers of f16, f32, f64.
SPECIAL: FloatParts = (
    np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, 5.96e-8, 6.1e-5, 65504.0, 1.4e-45, 1e-40,
    1.1754944e-38, 3.4028235e38, -3.4028235e38, 5e-324, 2.2250738585072014e-308, 1e308, 88.8,
    -103.9, 16777217.0, 2.5, -3.5, 709.9,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fill:
    """How an array is filled.

    style: ``whole`` are small whole numbers, on which arithmetic is exact; ``special`` mixes in
    values at the edges of the type. positive: none below 0.1. index: indices in
    ``[-index, index)``, or in ``[0, index)`` for unsigned types.
    """

    style: Style = "plain"
    positive: bool = False
    index: Dim | None = None


def generator(rng: random.Random) -> np.random.Generator:
    """A numpy source of chance that follows from `rng`."""
    return np.random.default_rng(rng.getrandbits(63))


def filled(
    rng: random.Random, shape: Sequence[int], dtype: DType, fill: Fill, dims: Mapping[str, int]
) -> Array:
    """An array of a shape."""
    source = generator(rng)
    with np.errstate(all="ignore"):
        if fill.index is not None:
            return _indices(source, shape, dtype, evaluate(fill.index, dims))
        if dtype.kind == "bool":
            return np.asarray(source.random(tuple(shape)) < 0.5)
        array = (
            _floats(source, shape, fill) if dtype.is_float else _ints(source, shape, dtype, fill)
        )
        return np.asarray(array).astype(dtype.numpy)


def _indices(source: np.random.Generator, shape: Sequence[int], dtype: DType, size: int) -> Array:
    least = max(-size, int(dtype.min_value))
    most = min(size, int(dtype.max_value) + 1)
    if most <= least:
        return np.zeros(tuple(shape), dtype.numpy)
    return np.asarray(source.integers(least, most, tuple(shape))).astype(dtype.numpy)


def _floats(source: np.random.Generator, shape: Sequence[int], fill: Fill) -> Array:
    shape = tuple(shape)
    if fill.style == "whole":
        array = np.asarray(source.integers(-4, 5, shape), np.float64)
    else:
        array = np.asarray(source.standard_normal(shape)) * source.choice([0.3, 1.0, 3.0])
    if fill.positive:
        return np.abs(array) + (1.0 if fill.style == "whole" else 0.1)
    if fill.style == "special":
        chosen = source.choice(SPECIAL, shape)
        array = np.where(source.random(shape) < 0.3, chosen, array)
    return np.asarray(array)


def _ints(source: np.random.Generator, shape: Sequence[int], dtype: DType, fill: Fill) -> Array:
    shape = tuple(shape)
    least = 1 if fill.positive else -9 if dtype.kind == "int" else 0
    array = np.asarray(source.integers(least, 10, shape)).astype(dtype.numpy)
    if fill.style != "special" or fill.positive:
        return array
    low, high = int(dtype.min_value), int(dtype.max_value)
    edges = np.array([low, low + 1, high, high - 1, 0, high // 2], dtype.numpy)
    chosen = source.choice(edges, shape)
    return np.where(source.random(shape) < 0.25, chosen, array)
