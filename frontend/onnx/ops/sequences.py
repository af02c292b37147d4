"""ONNX operators along sequences of different lengths, and caches of sequences."""

from __future__ import annotations

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.onnx.node import Node, onnx_op
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, maximum
from aisc.ir.graph.core import Value


def _places(em: Emitter, x: Value, axis: int) -> Value:
    """0, 1, 2, … along an axis, of size 1 along the others."""
    shape = tuple(d if k == axis else 1 for k, d in enumerate(x.type.shape))
    return em.reshape(em.op("iota", shape=(x.type.shape[axis],)), shape)


def _along(em: Emitter, v: Value, x: Value, axis: int, below: Dim) -> Value:
    """A vector as i64 along one axis of `x`, of size 1 along the others; its elements must be at
    least 0 and less than `below`."""
    if v.type.rank != 1:
        v = em.reshape(v, (v.type.size,))
    v = em.assume(em.cast(v, dtypes.i64), (x.type.shape[axis],))
    v = em.op("within", v, size=(below,))
    return em.reshape(v, tuple(d if k == axis else 1 for k, d in enumerate(x.type.shape)))


@onnx_op("ReverseSequence")
def _reverse_sequence(em: Emitter, node: Node) -> Value:
    x, time, batch = node.input(0), node.integer("time_axis"), node.integer("batch_axis", 1)
    if x.type.rank < 2 or {time, batch} != {0, 1}:
        raise node.malformed(f"time axis {time} and batch axis {batch} of {x.type}")
    place = _places(em, x, time)
    length = _along(em, node.input(1), x, batch, x.type.shape[time] + 1)
    back = em.op("sub", em.op("sub", length, em.like(1, length)), place)
    index = em.op("where", em.op("less", place, length), back, place)
    return em.op("gather_elements", x, em.op("expand", index, shape=x.type.shape), axis=time)


@onnx_op("TensorScatter")
def _tensor_scatter(em: Emitter, node: Node) -> Value:
    past, update, mode = node.input(0), node.input(1), node.text("mode", "linear")
    rank, axis = past.type.rank, node.integer("axis", -2)
    if not -rank <= axis < rank or axis % rank == 0 or update.type.rank != rank:
        raise node.malformed(f"axis {axis} of {past.type}, updated by {update.type}")
    axis %= rank
    if mode not in ("linear", "circular"):
        raise node.malformed(f"mode '{mode}'")
    place = _places(em, past, axis)
    room, new_places = past.type.shape[axis], update.type.shape[axis]
    size = em.reshape(em.dims_value([room]), ())
    count = em.reshape(em.dims_value([new_places]), ())
    offset = place
    if node.has(2):
        below = room if mode == "circular" else room - new_places + 1
        offset = em.op("sub", place, _along(em, node.input(2), past, 0, below))
    if mode == "circular":  # the remainder of a negative number is not negative
        offset = em.op("mod", offset, size)
    zero, last = em.like(0, offset), em.op("sub", count, em.like(1, count))
    new = em.op("and", em.op("less_equal", zero, offset), em.op("less", offset, count))
    index = em.op("max", em.op("min", offset, last), zero)
    shape = list(update.type.shape)
    shape[axis] = past.type.shape[axis]
    # Of no new elements none is taken, but the place is looked at.
    some = tuple(maximum(0, 1 - new_places) if k == axis else 0 for k in range(rank))
    update = em.op("pad", update, pads=((0,) * rank + some), mode="constant")
    taken = em.op("gather_elements", update, em.op("expand", index, shape=tuple(shape)), axis=axis)
    return em.op("where", new, taken, past)
