"""ONNX DFT and STFT as products with tables of cosines and sines."""

from __future__ import annotations

import numpy as np

from aisc.frontend.onnx.emitter import Emitter
from aisc.frontend.onnx.node import Node, onnx_op
from aisc.ir.graph.core import Value

MAX_TABLE = 1 << 24  # elements of a table


def _tables(node: Node, rows: int, length: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of the angles ``2 pi j k / length``."""
    if rows * columns > MAX_TABLE:
        raise node.unsupported(f"a transform of length {length} is too long")
    angles = np.outer(np.arange(rows), np.arange(columns)) % length * (2 * np.pi / length)
    return np.cos(angles), np.sin(angles)


def _transform(
    em: Emitter, node: Node, x: Value, length: int, inverse: bool, onesided: bool
) -> Value:
    """The transform along the last axis but one; the last axis holds real and imaginary parts."""
    size, t = x.type.shape[-2], x.type.dtype
    if not isinstance(size, int) or length < 1:
        raise node.unsupported("the length of the transformed axis must be known")
    axis = x.type.rank - 2
    used = min(size, length // 2 + 1 if inverse and onesided else length)
    x = em.slice_axis(x, axis, 0, used)
    shape = x.type.shape[:-1]
    parts = [
        em.reshape(em.slice_axis(x, axis + 1, k, k + 1), shape)
        for k in range(int(x.type.shape[-1]))  # type: ignore[arg-type]
    ]
    columns = length if inverse or not onesided else length // 2 + 1
    cos, sin = _tables(node, used, length, columns)
    if inverse:
        cos, sin = cos / length, -sin / length
        if onesided:  # every part but the first, and the middle one, stands for two
            twice = np.where((np.arange(used) == 0) | (2 * np.arange(used) == length), 1.0, 2.0)
            cos, sin = cos * twice[:, None], sin * twice[:, None]
    c, s = em.constant(cos, t), em.constant(sin, t)
    real, imaginary = em.op("matmul", parts[0], c), em.op("neg", em.op("matmul", parts[0], s))
    if len(parts) == 2:
        real = em.op("add", real, em.op("matmul", parts[1], s))
        imaginary = em.op("add", imaginary, em.op("matmul", parts[1], c))
    whole = (*real.type.shape, 1)
    found = [real] if inverse and onesided else [real, imaginary]
    return em.op("concat", *(em.reshape(v, whole) for v in found), axis=axis + 1)


@onnx_op("DFT")
def _dft(em: Emitter, node: Node) -> Value:
    x, inverse, onesided = node.input(0), node.flag("inverse"), node.flag("onesided")
    if node.version < 20:
        axis = node.integer("axis", 1)
    else:
        axis = int(em.scalar(node.input(2), "the axis")) if node.has(2) else -2
    rank = x.type.rank
    if not -rank <= axis < rank or axis % rank == rank - 1 or x.type.shape[-1] not in (1, 2):
        raise node.malformed(f"axis {axis} of {x.type}")
    axis %= rank
    size = x.type.shape[axis]
    if not isinstance(size, int):
        raise node.unsupported("the length of the transformed axis must be known")
    length = 2 * (size - 1) if inverse and onesided else size
    if node.has(1):
        length = int(em.scalar(node.input(1), "the length"))
    order = [k for k in range(rank) if k not in (axis, rank - 1)]
    perm = (*order, axis, rank - 1)
    y = _transform(em, node, em.transpose(x, perm), length, inverse, onesided)
    return em.transpose(y, tuple(perm.index(k) for k in range(rank)))


@onnx_op("STFT")
def _stft(em: Emitter, node: Node) -> Value:
    x, hop = node.input(0), int(em.scalar(node.input(1), "the step"))
    window, onesided = node.optional(2), node.flag("onesided", True)
    size = x.type.shape[1] if x.type.rank == 3 else None
    if window is not None and window.type.rank != 1:
        raise node.malformed(f"the window must be a vector, got {window.type}")
    given = None if window is None else window.type.shape[0]
    length = int(em.scalar(node.input(3), "the length")) if node.has(3) else given
    if not isinstance(size, int) or not isinstance(length, int) or hop < 1:
        raise node.unsupported("the lengths of signal and frames must be known")
    if not 0 < length <= size or given not in (None, length):
        raise node.malformed(f"frames of {length} with a window of {given} in {x.type}")
    starts = np.arange(0, size - length + 1, hop)
    at = em.constant(starts[:, None] + np.arange(length))
    frames = em.op("gather", x, at, axis=1)
    if window is not None:
        frames = em.op("mul", frames, em.reshape(em.cast(window, x.type.dtype), (length, 1)))
    return _transform(em, node, frames, length, False, onesided)
