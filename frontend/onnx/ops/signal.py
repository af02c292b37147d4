"""ONNX DFT as products with tables of cosines and sines, STFT as a convolution with them."""

from __future__ import annotations

import numpy as np

from aisc.frontend.building.axes import along_one
from aisc.frontend.building.emitter import Emitter
from aisc.frontend.onnx.node import Node, onnx_op
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, floordiv, minimum
from aisc.ir.graph.core import Value

MAX_TABLE = 1 << 24  # elements of a table


def _tables(em: Emitter, node: Node, rows: Dim, length: Dim, columns: Dim) -> tuple[Value, Value]:
    """Cosines and sines of the angles ``2 pi j k / length`` in f64; computed by the run where only
    it knows the sizes."""
    if isinstance(rows, int) and isinstance(length, int) and isinstance(columns, int):
        cos, sin = _known_tables(node, rows, length, columns)
        return em.constant(cos), em.constant(sin)
    j, k = em.op("iota", shape=(rows,)), em.op("iota", shape=(columns,))
    turns = em.op("mul", em.reshape(j, (rows, 1)), k)
    whole = em.reshape(em.dims_value([length]), ())
    rest = em.cast(em.op("mod", turns, em.op("max", whole, em.like(1, whole))), dtypes.f64)
    step = em.op("div", em.constant(2 * np.pi, dtypes.f64), em.cast(whole, dtypes.f64))
    angles = em.op("mul", rest, step)
    return em.op("cos", angles), em.op("sin", angles)


def _known_tables(
    node: Node, rows: int, length: int, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    if rows * columns > MAX_TABLE:
        raise node.unsupported(f"a transform of length {length} is too long")
    angles = np.outer(np.arange(rows), np.arange(columns)) % length * (2 * np.pi / length)
    return np.cos(angles), np.sin(angles)


def _transform(
    em: Emitter, node: Node, x: Value, length: Dim, inverse: bool, onesided: bool
) -> Value:
    """The transform along the last axis but one; the last axis holds real and imaginary parts."""
    size, t = x.type.shape[-2], x.type.dtype
    if isinstance(length, int) and length < 1:
        raise node.malformed(f"a transform of length {length}")
    axis, half = x.type.rank - 2, floordiv(length, 2) + 1
    used = minimum(size, half if inverse and onesided else length)
    x = em.slice_axis(x, axis, 0, used)
    shape = x.type.shape[:-1]
    parts = [
        em.reshape(em.slice_axis(x, axis + 1, k, k + 1), shape)
        for k in range(int(x.type.shape[-1]))  # type: ignore[arg-type]
    ]
    columns = length if inverse or not onesided else half
    c, s = _tables(em, node, used, length, columns)
    if inverse:
        factor = _shares(em, used, length, onesided)
        c, s = em.op("mul", c, factor), em.op("neg", em.op("mul", s, factor))
    c, s = em.cast(c, t), em.cast(s, t)
    real, imaginary = em.op("matmul", parts[0], c), em.op("neg", em.op("matmul", parts[0], s))
    if len(parts) == 2:
        real = em.op("add", real, em.op("matmul", parts[1], s))
        imaginary = em.op("add", imaginary, em.op("matmul", parts[1], c))
    whole = (*real.type.shape, 1)
    found = [real] if inverse and onesided else [real, imaginary]
    return em.op("concat", *(em.reshape(v, whole) for v in found), axis=axis + 1)


def _shares(em: Emitter, used: Dim, length: Dim, onesided: bool) -> Value:
    """The factor of each part of an inverse transform, as a column of f64: one part in `length`,
    but two for parts that stand for another one as well."""
    whole = em.cast(em.dims_value([length]), dtypes.f64)
    share = em.op("div", em.like(1.0, whole), whole)
    if not onesided:
        return em.reshape(share, (1, 1))
    k = em.op("iota", shape=(used,))
    zero, twice = em.like(0, k), em.op("add", k, k)
    alone = em.op("equal", k, zero)
    alone = em.op("or", alone, em.op("equal", twice, em.dims_value([length])))
    count = em.op("where", alone, em.constant(1.0, dtypes.f64), em.constant(2.0, dtypes.f64))
    return em.reshape(em.op("mul", count, share), (used, 1))


@onnx_op("DFT")
def _dft(em: Emitter, node: Node) -> Value:
    x, inverse, onesided = node.input(0), node.flag("inverse"), node.flag("onesided")
    rank, given = x.type.rank, None
    length = em.dims(node.input(1), "the length") if node.has(1) else None
    if length is not None and len(length) != 1:
        raise node.malformed("the length must be one number")

    def along(inner: Emitter, v: Value, axis: int) -> Value:
        size = v.type.shape[axis]
        wanted = 2 * (size - 1) if inverse and onesided else size
        wanted = wanted if length is None else length[0]
        order = [k for k in range(rank) if k not in (axis, rank - 1)]
        perm = (*order, axis, rank - 1)
        y = _transform(inner, node, inner.transpose(v, perm), wanted, inverse, onesided)
        return inner.transpose(y, tuple(perm.index(k) for k in range(rank)))

    if node.version < 20:
        axis = node.integer("axis", 1)
    elif node.has(2) and em.known(node.input(2)) is None:
        axis, given = 0, node.input(2)
    else:
        axis = int(em.scalar(node.input(2), "the axis")) if node.has(2) else -2
    if not -rank <= axis < rank or axis % rank == rank - 1 or x.type.shape[-1] not in (1, 2):
        raise node.malformed(f"axis {axis} of {x.type}")
    if given is None:
        return along(em, x, axis % rank)
    wide = em.cast(given, dtypes.i64)
    negative = em.op("less", wide, em.like(0, wide))
    axis_ = em.op("where", negative, em.op("add", wide, em.like(rank, wide)), wide)
    return along_one(em, x, axis_, rank - 1, along)


@onnx_op("STFT")
def _stft(em: Emitter, node: Node) -> Value:
    """A convolution along the signal whose kernels are the windowed waves."""
    x, hop = node.input(0), int(em.scalar(node.input(1), "the step"))
    window, onesided = node.optional(2), node.flag("onesided", True)
    if window is not None and window.type.rank != 1:
        raise node.malformed(f"the window must be a vector, got {window.type}")
    given = None if window is None else window.type.shape[0]
    length = int(em.scalar(node.input(3), "the length")) if node.has(3) else given
    if x.type.rank != 3 or x.type.shape[2] not in (1, 2) or hop < 1:
        raise node.malformed(f"frames of {x.type} with a step of {hop}")
    if not isinstance(length, int):
        raise node.unsupported("the length of the frames must be known")
    size = x.type.shape[1]
    short = isinstance(size, int) and size < length
    if length < 1 or short or (isinstance(given, int) and given != length):
        raise node.malformed(f"frames of {length} with a window of {given} in {x.type}")
    bins, parts, t = length // 2 + 1 if onesided else length, x.type.shape[2], x.type.dtype
    cos, sin = (w.T for w in _known_tables(node, length, length, bins))
    # Rows give the real parts of all bins, then the imaginary ones, of each part of the signal.
    waves = [np.stack([cos, -sin]), np.stack([sin, cos])][: int(str(parts))]
    kernel = em.constant(np.stack(waves, axis=2).reshape(2 * bins, len(waves), length), t)
    if window is not None:
        scale = em.assume(em.cast(window, t), (length,))
        kernel = em.op("mul", kernel, em.reshape(scale, (1, 1, length)))
    y = em.op("conv", em.transpose(x, (0, 2, 1)), kernel, strides=(hop,))
    n, _, frames = y.type.shape
    return em.transpose(em.reshape(y, (n, 2, bins, frames)), (0, 3, 2, 1))
