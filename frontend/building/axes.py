"""Axes that only the run knows: how many there are is known, which they are is not.

They become a vector over all axes of a tensor: a mask, or a parameter of each axis.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.building.regions import Inline, Region, either
from aisc.ir import dtypes
from aisc.ir.diagnostics import error
from aisc.ir.graph.core import Value


def spread(em: Emitter, axes: Value, items: Value, default: int | Value, rank: int) -> Value:
    """A vector over `rank` axes: `items` at `axes`, which may count from the end, else `default`.
    An axis out of range is an error of the run."""
    if not isinstance(default, Value):
        default = em.constant(np.full(rank, default), dtypes.i64)
    wide = [em.reshape(em.cast(v, dtypes.i64), (v.type.size,)) for v in (axes, items)]
    return em.op("scatter_elements", default, *wide, axis=0)


def mask(em: Emitter, axes: Value, rank: int) -> Value:
    """Which of `rank` axes are among `axes`, as a vector of bools."""
    ones = em.filled((axes.type.size,), np.ones((), np.int64))
    return em.cast(spread(em, axes, ones, 0, rank), dtypes.boolean)


def count_of(em: Emitter, axes: Value) -> int:
    """How many axes a vector (or scalar) gives; E204 when that is not known."""
    size = axes.type.size
    if not isinstance(size, int):
        raise error("E204", "how many axes there are must be known", loc=em.loc)
    return size


def others(em: Emitter, chosen: Value, count: int) -> Value:
    """The numbers of the `count` axes that a mask does not have, in order."""
    return em.op("true_places", em.op("not", chosen), size=(count,))


def without_axes(em: Emitter, x: Value, axes: Value) -> Value:
    """`x` without axes that have size 1, which the run tests."""
    rank = x.type.rank
    left = rank - count_of(em, axes)
    if left < 0:
        raise error("E103", f"{rank - left} axes to leave out of {x.type}", loc=em.loc)
    shape = em.dims_value(list(x.type.shape))
    kept = em.op("gather", shape, others(em, mask(em, axes, rank), left), axis=0)
    return em.reshape(x, em.dims(kept, "the sizes"))


def with_axes(em: Emitter, x: Value, axes: Value) -> Value:
    """`x` with new axes of size 1."""
    rank = x.type.rank + count_of(em, axes)
    new = mask(em, axes, rank)
    if x.type.rank == 0:
        return em.reshape(x, (1,) * rank)
    old = em.op("cumsum", em.cast(em.op("not", new), dtypes.i64), axis=0)
    at = em.op("max", em.op("sub", old, em.like(1, old)), em.like(0, old))
    sizes = em.op("gather", em.dims_value(list(x.type.shape)), at, axis=0)
    return em.reshape(x, em.dims(em.op("where", new, em.like(1, sizes), sizes), "the sizes"))


def along_each(
    em: Emitter, x: Value, chosen: Value, step: Callable[[Emitter, Value, int], Value]
) -> Value:
    """``step(em, x, axis)`` for one axis after the other, where the mask `chosen` has it."""
    for axis in range(x.type.rank):
        flag = em.reshape(em.slice_axis(chosen, 0, axis, axis + 1), ())

        def arm(region: Region | Inline, here: bool, v: Value = x, k: int = axis) -> list[Value]:
            inner = region.capture(v)
            return [step(region.em, inner, k) if here else inner]

        (x,) = either(em, flag, arm)
    return x


def along_one(
    em: Emitter, x: Value, axis: Value, count: int, step: Callable[[Emitter, Value, int], Value]
) -> Value:
    """``step(em, x, axis)`` for the one axis, of the first `count`, that the run gives."""
    flags = mask(em, axis, count)

    def chosen(outer: Emitter, v: Value, given: Value, k: int) -> Value:
        if k == count - 1:
            return step(outer, v, k)
        flag = outer.reshape(outer.slice_axis(given, 0, k, k + 1), ())

        def arm(region: Region | Inline, here: bool) -> list[Value]:
            inner, more = region.capture(v), region.capture(given)
            return [step(region.em, inner, k) if here else chosen(region.em, inner, more, k + 1)]

        return either(outer, flag, arm)[0]

    return chosen(em, x, flags, 0)
