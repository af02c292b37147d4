"""``x[i, a:b:c]`` by numpy's rules for what is known: whole numbers, sizes, slices."""

from __future__ import annotations

from collections.abc import Sequence

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.lang.scope import Item, misfit, shown
from aisc.ir.arith.poly import Dim, Poly, bounds, maximum, minimum
from aisc.ir.graph.core import Value
from aisc.ir.location import Loc

Subscript = Item | tuple[Item | None, ...]


def indexed(em: Emitter, of: Item, items: Sequence[Subscript], at: Loc) -> Item:
    """An element or part of a tensor, or of a list."""
    if isinstance(of, list):
        return _of_list(of, items, at)
    if not isinstance(of, Value):
        raise misfit(f"{shown(of)} has no elements", at=at)
    if len(items) > of.type.rank:
        raise misfit(f"{len(items)} indices for {of.type}", at=at)
    value, axis = of, 0
    for item in items:
        if isinstance(item, tuple):
            value = _sliced(em, value, axis, item, at)
            axis += 1
        elif isinstance(item, Value):
            value = em.op("gather", value, item, axis=axis)
            axis += item.type.rank
        else:
            value = _picked(em, value, axis, item, at)
    return value


def _of_list(of: Item, items: Sequence[Subscript], at: Loc) -> Item:
    assert isinstance(of, list), "a list"
    (item, *more) = items
    if more or not isinstance(item, int) or isinstance(item, bool):
        raise misfit("a list is indexed by one whole number", at=at)
    if not -len(of) <= item < len(of):
        raise misfit(f"index {item} is outside of a list of {len(of)}", at=at)
    return of[item]


def _picked(em: Emitter, value: Value, axis: int, item: Item, at: Loc) -> Value:
    """One place of an axis, which goes."""
    size = value.type.shape[axis]
    if isinstance(item, bool) or not isinstance(item, int | Poly):
        raise misfit(f"an index must be a whole number, got {shown(item)}", at=at)
    negative = isinstance(item, int) and item < 0
    place: Dim = size + item if negative else item
    if isinstance(size, int) and isinstance(place, int) and not 0 <= place < size:
        raise misfit(f"index {shown(item)} is outside of axis {axis} of {value.type}", at=at)
    part = em.slice_axis(value, axis, place, place + 1)
    shape = [d for k, d in enumerate(part.type.shape) if k != axis]
    return em.reshape(part, shape)


def _sliced(em: Emitter, value: Value, axis: int, parts: tuple[Item | None, ...], at: Loc) -> Value:
    """Some places of an axis."""
    size = value.type.shape[axis]
    start, stop, step = parts
    if step is None:
        step = 1
    if not isinstance(step, int) or isinstance(step, bool) or step == 0:
        raise misfit(f"a step must be a whole number but 0, got {shown(step)}", at=at)
    if step < 0 and (start is not None or stop is not None):
        raise misfit("a negative step takes the whole axis: x[::-1]", at=at)
    first: Dim
    last: Dim
    if step < 0:
        first, last = size - 1, -1
    else:
        first = 0 if start is None else bound(start, size, at)
        last = size if stop is None else bound(stop, size, at)
        last = last if stop is None and start is None else maximum(first, last)
    if (first, last, step) == (0, size, 1):
        return value
    rank = value.type.rank
    starts: list[Dim] = [0] * rank
    ends, steps = list(value.type.shape), [1] * rank
    starts[axis], ends[axis], steps[axis] = first, last, step
    return em.op("slice", value, starts=tuple(starts), ends=tuple(ends), steps=tuple(steps))


def bound(item: Item, size: Dim, at: Loc) -> Dim:
    """A bound of a slice: counted from the end where it is negative, clamped to the axis."""
    if isinstance(item, bool) or not isinstance(item, int | Poly):
        raise misfit(f"a bound must be a whole number, got {shown(item)}", at=at)
    place: Dim = size + item if isinstance(item, int) and item < 0 else item
    low = bounds(place)[0]
    return minimum(place if low >= 0 else maximum(place, 0), size)
