"""``x[i, a:b, ..., None, mask, places]`` by numpy's rules, read and written.

A key is brought to one item for each axis: a whole number, size or number of the run; a slice; an
array of places. What is written becomes a new value of the array: the parts of it that stay, and
the new ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from aisc.frontend.arrays.choosing import true_places
from aisc.frontend.arrays.context import Context
from aisc.frontend.arrays.values import Tensor, is_size, misfit, refused, shown
from aisc.frontend.building.sizes import stepped_slice
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, Poly, bounds, ceildiv, maximum, minimum
from aisc.ir.graph.core import Value
from aisc.ir.graph.shapes.checks import decide

FULL = slice(None)


def read_item(c: Context, t: Tensor, key: Any) -> Tensor:
    """``t[key]``; a view of the array where the key has no places."""
    v = c.read(t)
    mask = _whole_mask(c, v, key)
    if mask is not None:
        rank = mask.type.rank
        flat = c.em.reshape(v, (mask.type.size, *v.type.shape[rank:]))
        return c.new(c.em.op("gather", flat, true_places(c, mask), axis=0))
    items = _per_axis(c, v, key)
    made = _picked(c, v, items)
    if t.weak or made.type.rank == 0 or any(_is_places(x) for x in items):
        return c.new(made)
    root = t.base or t
    return Tensor(
        made,
        c.frame,
        frozen="it is a view of another array",
        base=root,
        writes=c.state.writes.get(root, 0),
    )


def write_item(c: Context, t: Tensor, key: Any, item: Any) -> None:
    """``t[key] = item``."""
    v = c.read(t)
    new = c.em.cast(c.value(item), v.type.dtype)
    mask = _whole_mask(c, v, key)
    if mask is not None:
        write_value(c, t, _masked(c, v, mask, new))
        return
    items = [x for x in _per_axis(c, v, key) if x is not None]
    places = [k for k, x in enumerate(items) if _is_places(x)]
    singles = [k for k, x in enumerate(items) if _is_single(x)]
    together = singles == list(range(len(singles))) and all(
        x == FULL for x in items[len(singles) :]
    )
    if len(places) > 1 or (singles and together):
        made = _scattered(c, v, items, new)
    else:
        made = _written(c, v, items, new)
    write_value(c, t, made)


def write_value(c: Context, t: Tensor, made: Value) -> None:
    """Let an array hold something else, for all who name it."""
    if t.frozen or t.weak:
        why = t.frozen or "it is a number"
        raise refused(
            f"this array cannot be written: {why}", "work on a copy: a = a.copy()", loc=c.loc
        )
    if t.base is not None:
        raise refused("a view cannot be written", "write to the array itself", loc=c.loc)
    c.state.contents[t] = c.new(made)
    c.state.writes[t] = c.state.writes.get(t, 0) + 1


# --- keys ---------------------------------------------------------------------------------------
def _whole_mask(c: Context, v: Value, key: Any) -> Value | None:
    """A key that is an array of bools over the first axes."""
    if not isinstance(key, Tensor) or key.value.type.dtype is not dtypes.boolean:
        return None
    if key.weak or key.value.type.rank == 0:
        raise refused("a number as a mask is not supported", "use if, or np.where", loc=c.loc)
    mask = c.read(key)
    fits = mask.type.rank <= v.type.rank
    if not fits or any(
        decide("==", a, b) is False for a, b in zip(mask.type.shape, v.type.shape, strict=False)
    ):
        raise misfit(f"a mask of {mask.type} for {v.type}", loc=c.loc)
    return mask


def _per_axis(c: Context, v: Value, key: Any) -> list[Any]:
    """One item for each axis, and ``None`` for new ones."""
    items = list(key) if isinstance(key, tuple) else [key]
    items = [c.tensor(x) if isinstance(x, list) else x for x in items]
    taken = sum(x is not None and x is not Ellipsis for x in items)
    if taken > v.type.rank:
        raise misfit(f"{taken} indices for {v.type}", loc=c.loc)
    dots = [k for k, x in enumerate(items) if x is Ellipsis]
    if len(dots) > 1:
        raise misfit("an index has one '...'", loc=c.loc)
    at = dots[0] if dots else len(items)
    rest = items[at + 1 :] if dots else []
    return [_checked(c, x) for x in (*items[:at], *(FULL,) * (v.type.rank - taken), *rest)]


def _checked(c: Context, x: Any) -> Any:
    if x is None or isinstance(x, slice) or is_size(x):
        return x
    if isinstance(x, Tensor):
        d = x.value.type.dtype
        if d is dtypes.boolean and x.value.type.rank == 1:
            return c.new(true_places(c, c.read(x)))
        if d.is_integer:
            return x
    raise misfit(
        f"an index must be a whole number, a slice or an array of such, got {shown(x)}", loc=c.loc
    )


def _is_places(x: Any) -> bool:
    """Whether an index is an array of places, or a number of the run, which joins them."""
    return isinstance(x, Tensor) and x.value.type.rank > 0


# --- reading ------------------------------------------------------------------------------------
def _picked(c: Context, v: Value, items: Sequence[Any]) -> Value:
    places = [k for k, x in enumerate(items) if _is_places(x)]
    joined = places and any(_is_single(x) for x in items)
    if len(places) > 1 or joined:
        return _picked_together(c, v, items)
    axis = 0
    for item in items:
        if item is None:
            v = c.em.reshape(v, (*v.type.shape[:axis], 1, *v.type.shape[axis:]))
            axis += 1
        elif isinstance(item, slice):
            v = _sliced(c, v, axis, item)
            axis += 1
        elif _is_places(item):
            v = c.em.op("gather", v, _places(c, item), axis=axis)
            axis += item.value.type.rank
        else:
            v = one_place(c, v, axis, item)
    return v


def _is_single(x: Any) -> bool:
    return is_size(x) or (isinstance(x, Tensor) and x.value.type.rank == 0)


def _places(c: Context, x: Any) -> Value:
    return c.em.cast(c.value(x), dtypes.i64)


def _picked_together(c: Context, v: Value, items: Sequence[Any]) -> Value:
    """Several arrays of places, which are broadcast against each other; their axes stand first, or
    where they were if they were neighbours."""
    for axis, item in enumerate(items):  # slices first
        if item is None:
            v = c.em.reshape(v, (*v.type.shape[:axis], 1, *v.type.shape[axis:]))
        elif isinstance(item, slice):
            v = _sliced(c, v, axis, item)
    together = [k for k, x in enumerate(items) if x is not None and not isinstance(x, slice)]
    rest = [k for k in range(v.type.rank) if k not in together]
    moved = c.em.transpose(v, [*together, *rest])
    index = _tuples(c, [items[k] for k in together], [v.type.shape[k] for k in together])
    made = c.em.op("gather_nd", moved, index)
    count = index.type.rank - 1
    first = together[0]
    if together == list(range(first, first + len(together))) and first:
        made = c.em.transpose(
            made,
            [*range(count, count + first), *range(count), *range(count + first, made.type.rank)],
        )
    return made


def _tuples(c: Context, items: Sequence[Any], sizes: Sequence[Dim]) -> Value:
    """Index tuples along a new last axis."""
    values = [_places(c, x) for x in items]
    whole = values[0]
    for v in values[1:]:
        whole = c.em.op("add", whole, v)
    shape = whole.type.shape
    spread = [c.em.reshape(c.em.stretch(v, shape), (*shape, 1)) for v in values]
    return spread[0] if len(spread) == 1 else c.em.op("concat", *spread, axis=len(shape))


def one_place(c: Context, v: Value, axis: int, item: Any) -> Value:
    """One place of an axis, which goes."""
    size = v.type.shape[axis]
    if isinstance(item, Tensor):
        known = c.em.known(c.read(item))
        if known is not None:
            item = known.reshape(-1)[0]
    if isinstance(item, Tensor) or (isinstance(item, Poly) and bounds(item)[0] < 0):
        return c.em.op("gather", v, c.em.reshape(_places(c, item), ()), axis=axis)
    place: Dim = size + item if isinstance(item, int) and item < 0 else item
    if isinstance(size, int) and isinstance(place, int) and not 0 <= place < size:
        raise misfit(f"index {item} is outside of an axis of {size}", loc=c.loc)
    part = c.em.slice_axis(v, axis, place, place + 1)
    return c.em.reshape(part, [d for k, d in enumerate(part.type.shape) if k != axis])


def _sliced(c: Context, v: Value, axis: int, s: slice) -> Value:
    """A part of an axis."""
    size = v.type.shape[axis]
    step = 1 if s.step is None else s.step
    ends = [c.em.known(c.read(x)) if isinstance(x, Tensor) else x for x in (s.start, s.stop)]
    parts = [x.reshape(-1)[0] if isinstance(x, np.ndarray) else x for x in ends]
    open_ends = any(
        e is None and isinstance(x, Tensor) for e, x in zip(ends, (s.start, s.stop), strict=True)
    )
    if (
        open_ends
        or isinstance(step, Tensor)
        or any(isinstance(p, Poly) and bounds(p)[0] < 0 for p in parts)
    ):
        return _sliced_at_run_time(c, v, axis, s)
    if not isinstance(step, int) or isinstance(step, bool) or step == 0:
        raise misfit(f"a step must be a whole number other than 0, got {shown(step)}", loc=c.loc)
    for p in parts:
        if p is not None and not is_size(p):
            raise misfit(f"a bound must be a whole number, got {shown(p)}", loc=c.loc)
    start, stop = parts
    first, last = (_forwards if step > 0 else _backwards)(start, stop, size)
    if (first, last, step) == (0, size, 1):
        return v
    count = maximum(ceildiv(last - first, step) if step > 0 else ceildiv(first - last, -step), 0)
    if count == 0:
        first, last, step = 0, 0, 1
    starts: list[Dim] = [0] * v.type.rank
    stops, steps = list(v.type.shape), [1] * v.type.rank
    starts[axis], stops[axis], steps[axis] = first, last, step
    return c.em.op("slice", v, starts=tuple(starts), ends=tuple(stops), steps=tuple(steps))


def _forwards(start: Dim | None, stop: Dim | None, size: Dim) -> tuple[Dim, Dim]:
    first = 0 if start is None else _clamped(start, size)
    last = size if stop is None else _clamped(stop, size)
    return first, last if stop is None and start is None else maximum(first, last)


def _clamped(at: Dim, size: Dim) -> Dim:
    if isinstance(at, int) and at < 0:
        at = maximum(size + at, 0)
    return minimum(at, size)


def _backwards(start: Dim | None, stop: Dim | None, size: Dim) -> tuple[Dim, Dim]:
    """First and last of a slice with a negative step; -1 is before the first element."""

    def place(at: Dim) -> Dim:
        if isinstance(at, int) and at < 0:
            at = size + at
        return minimum(maximum(at, -1), size - 1)

    first = size - 1 if start is None else place(start)
    last = -1 if stop is None else place(stop)
    return first, minimum(first, last)


def _sliced_at_run_time(c: Context, v: Value, axis: int, s: slice) -> Value:
    """A part between bounds of the run."""
    step = 1 if s.step is None else s.step
    size = v.type.shape[axis]
    down = isinstance(step, int) and step < 0
    defaults = (size - 1 if down else 0, -(1 << 62) if down else size)
    given = [d if x is None else x for x, d in zip((s.start, s.stop), defaults, strict=True)]
    values = [c.em.reshape(_places(c, x), (1,)) for x in (*given, step)]
    return stepped_slice(c.em, v, axis, *values)


# --- writing ------------------------------------------------------------------------------------
def _masked(c: Context, v: Value, mask: Value, new: Value) -> Value:
    rank = mask.type.rank
    wide = c.em.reshape(mask, (*mask.type.shape, *(1,) * (v.type.rank - rank)))
    if new.type.rank > v.type.rank - rank:
        if new.type.rank != 1 or rank != v.type.rank:
            raise refused(
                "writing an array of several axes by a mask is not supported",
                "choose with np.where",
                loc=c.loc,
            )
        places = true_places(c, mask)
        flat = c.em.op(
            "scatter_nd",
            c.em.reshape(v, (v.type.size,)),
            _column(c, places),
            _as_many(c, new, places),
        )
        return c.em.reshape(flat, v.type.shape)
    return c.em.op("where", wide, new, v)


def _column(c: Context, places: Value) -> Value:
    return c.em.reshape(places, (*places.type.shape, 1))


def _as_many(c: Context, new: Value, places: Value) -> Value:
    return c.em.stretch(
        c.em.assume(new, places.type.shape) if new.type.shape != (1,) else new, places.type.shape
    )


def _written(c: Context, v: Value, items: Sequence[Any], new: Value) -> Value:
    """`v` with a part replaced, axis by axis: the part along the first axis that the key names is
    taken, replaced inside, and put back."""
    axis = next((k for k, x in enumerate(items) if x != FULL or isinstance(x, Tensor)), None)
    if axis is None:
        return c.em.stretch(_fitted(c, new, v.type.shape), v.type.shape)
    if axis:
        return _written_inside(c, v, items, new, axis)
    item, rest = items[0], items[1:]
    single = _is_single(item)
    part = one_place(c, v, 0, item) if single else _picked(c, v, [item])
    inner = list(rest) if single else [FULL, *rest]
    replaced = _written(c, part, inner, new)
    if isinstance(item, slice) and item.step in (None, 1) and not _is_open(item):
        first, last = _forwards(item.start, item.stop, v.type.shape[0])
        pieces = (
            c.em.slice_axis(v, 0, 0, first),
            replaced,
            c.em.slice_axis(v, 0, last, v.type.shape[0]),
        )
        kept = [p for p in pieces if p.type.shape[0] != 0]
        return kept[0] if len(kept) == 1 else c.em.op("concat", *kept, axis=0) if kept else v
    if isinstance(item, slice):
        size = v.type.shape[0]
        places = _sliced(c, c.em.op("iota", shape=(size,)), 0, item)
        return c.em.op("scatter_nd", v, _column(c, places), replaced)
    if single:
        index = c.em.reshape(_places(c, item), (1, 1))
        return c.em.op("scatter_nd", v, index, c.em.reshape(replaced, (1, *replaced.type.shape)))
    return c.em.op("scatter_nd", v, _column(c, _places(c, item)), replaced)


def _is_open(s: slice) -> bool:
    return any(
        isinstance(x, Tensor) or (isinstance(x, Poly) and bounds(x)[0] < 0)
        for x in (s.start, s.stop)
    )


def _written_inside(c: Context, v: Value, items: Sequence[Any], new: Value, axis: int) -> Value:
    """As :func:`_written` where the first axes are whole: these come last meanwhile."""
    rank = v.type.rank
    shape = _shape_of(c, v, items)
    wide = c.em.stretch(_fitted(c, new, shape), shape)
    turned = c.em.transpose(v, [*range(axis, rank), *range(axis)])
    inner = wide.type.rank - axis
    goes = c.em.transpose(wide, [*range(axis, axis + inner), *range(axis)])
    made = _written(c, turned, [*items[axis:], *(FULL,) * axis], goes)
    return c.em.transpose(made, [*range(rank - axis, rank), *range(rank - axis)])


def _shape_of(c: Context, v: Value, items: Sequence[Any]) -> tuple[Dim, ...]:
    return _picked(c, v, items).type.shape


def _fitted(c: Context, new: Value, shape: Sequence[Dim]) -> Value:
    """A new part without leading axes of size 1 that the place has not."""
    extra = new.type.rank - len(shape)
    if extra > 0:
        if any(d != 1 for d in new.type.shape[:extra]):
            raise misfit(f"{new.type} does not fit a part of {len(shape)} axes", loc=c.loc)
        return c.em.reshape(new, new.type.shape[extra:])
    for a, b in zip(new.type.shape[::-1], list(shape)[::-1], strict=False):
        if a != 1 and decide("==", a, b) is False:
            sizes = ", ".join(map(str, shape))
            raise misfit(f"{new.type} does not fit a part of ({sizes})", loc=c.loc)
    return new


def _scattered(c: Context, v: Value, items: Sequence[Any], new: Value) -> Value:
    """`v` with elements replaced at tuples of places."""
    together = [k for k, x in enumerate(items) if not isinstance(x, slice)]
    if together != list(range(len(together))) or any(x != FULL for x in items[len(together) :]):
        raise refused(
            "writing by several arrays and slices is not supported",
            "write the rows one after the other",
            loc=c.loc,
        )
    index = _tuples(c, [items[k] for k in together], v.type.shape[: len(together)])
    shape = (*index.type.shape[:-1], *v.type.shape[len(together) :])
    return c.em.op("scatter_nd", v, index, c.em.stretch(_fitted(c, new, shape), shape))
