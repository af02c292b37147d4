"""Numbers in few bits: scales and zero points, and weights by output channel."""

from __future__ import annotations

import numpy as np

from aisc.ir.dataclass import dataclass
from aisc.quantization.network import Array
from aisc.quantization.settings import Activations

# The least scale: what is scaled and back stays a normal float, and so do products of scales.
LEAST = 2.0**-50


@dataclass(frozen=True, slots=True)
class Affine:
    """``x = (q - zero) * scale``: single, or vectors along an axis."""

    scale: Array
    zero: Array


def of_range(low: float, high: float, kind: Activations) -> Affine:
    """The scale and zero point of a range that holds 0, which an integer stands for exactly."""
    if kind == "i8":
        scale = np.float32(max(-low, high, LEAST) / 127)
        return Affine(np.array(scale), np.array(0, np.int8))
    scale = np.float32(max((high - low) / 255, LEAST))
    zero = np.clip(np.rint(-low / float(scale)), 0, 255)
    return Affine(np.array(scale), np.array(zero, np.uint8))


def quantize_weights(w: Array, axis: int | None, greatest: int) -> tuple[Array, Affine]:
    """Weights as signed bytes up to `greatest`, with a scale for each place of an axis, or one."""
    axes = tuple(k for k in range(w.ndim) if k != axis)
    most = np.abs(w).max(axis=axes, initial=0.0)
    scale = np.maximum(most / greatest, LEAST).astype(np.float32)
    wide = scale if axis is None else scale.reshape([-1 if k == axis else 1 for k in range(w.ndim)])
    q = np.clip(np.rint(w / wide), -greatest, greatest).astype(np.int8)
    return q, Affine(scale, np.zeros(scale.shape, np.int8))


def dequantized(q: Array, by: Affine, axis: int | None) -> Array:
    """What the integers stand for."""
    shape = [-1 if k == axis else 1 for k in range(q.ndim)] if by.scale.ndim else []
    wide = q.astype(np.float32) - by.zero.reshape(shape).astype(np.float32)
    return np.asarray(wide * by.scale.reshape(shape))
