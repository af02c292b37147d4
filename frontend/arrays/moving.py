"""Functions that rearrange elements: shapes, orders of axes, joining and cutting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aisc.frontend.arrays.arithmetic import elementwise
from aisc.frontend.arrays.context import Context
from aisc.frontend.arrays.reductions import axes_of, axis_of
from aisc.frontend.arrays.registry import array_method, numpy_function
from aisc.frontend.arrays.values import Tensor, misfit
from aisc.frontend.building.sizes import what_is_left
from aisc.ir.arith.poly import Dim, floordiv, minimum, mod, product
from aisc.ir.graph.core import Value
from aisc.ir.graph.shapes.checks import decide


@numpy_function("reshape")
def reshape(
    c: Context, a: Any, shape: Any = None, order: str = "C", newshape: Any = None
) -> Tensor:
    """``np.reshape`` in the order of C."""
    if order != "C":
        raise misfit("arrays have the order of C", loc=c.loc)
    return _reshaped(c, a, c.dims_of(shape if newshape is None else newshape, "a size"))


@array_method("reshape")
def reshape_method(c: Context, a: Any, *shape: Any, order: str = "C") -> Tensor:
    """``a.reshape(2, 3)``, ``a.reshape((2, 3))``."""
    given = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    return reshape(c, a, given, order)


def _reshaped(c: Context, a: Any, shape: Sequence[Dim]) -> Tensor:
    v, dims = c.value(a), list(shape)
    if sum(d == -1 for d in dims) > 1:
        raise misfit("a shape has one -1", loc=c.loc)
    if -1 in dims:
        rest = what_is_left(v.type.shape, [d for d in dims if d != -1])
        if rest is None:
            others = product(tuple(d for d in dims if d != -1))
            if isinstance(others, int) and isinstance(v.type.size, int):
                raise misfit(f"{v.type} has no whole size left for -1", loc=c.loc)
            rest = floordiv(v.type.size, others)
        dims[dims.index(-1)] = rest
    if decide("==", product(tuple(dims)), v.type.size) is False:
        sizes = ", ".join(map(str, dims))
        raise misfit(f"{v.type} cannot have the shape ({sizes})", loc=c.loc)
    return c.new(c.em.reshape(v, dims))


@numpy_function("ravel", method=True)
@array_method("flatten")
def ravel(c: Context, a: Any, order: str = "C") -> Tensor:
    """``np.ravel``."""
    v = c.value(a)
    return c.new(c.em.reshape(v, (v.type.size,)))


@numpy_function("transpose")
def transpose(c: Context, a: Any, axes: Any = None) -> Tensor:
    """``np.transpose``."""
    v = c.value(a)
    if axes is None:
        return c.new(c.em.transpose(v, tuple(range(v.type.rank))[::-1]))
    perm = tuple(axis_of(c, k, v.type.rank) for k in axes)
    if sorted(perm) != list(range(v.type.rank)):
        raise misfit(f"axes {axes} are no order of {v.type.rank} axes", loc=c.loc)
    return c.new(c.em.transpose(v, perm))


@array_method("transpose")
def transpose_method(c: Context, a: Any, *axes: Any) -> Tensor:
    """``a.transpose(1, 0)``."""
    given = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
    return transpose(c, a, given or None)


@numpy_function("swapaxes", method=True)
def swapaxes(c: Context, a: Any, axis1: Any, axis2: Any) -> Tensor:
    """``np.swapaxes``."""
    v = c.value(a)
    perm = list(range(v.type.rank))
    i, j = axis_of(c, axis1, v.type.rank), axis_of(c, axis2, v.type.rank)
    perm[i], perm[j] = perm[j], perm[i]
    return c.new(c.em.transpose(v, perm))


@numpy_function("moveaxis")
def moveaxis(c: Context, a: Any, source: Any, destination: Any) -> Tensor:
    """``np.moveaxis``."""
    v = c.value(a)
    rank = v.type.rank
    sources = [
        axis_of(c, k, rank) for k in (source if isinstance(source, tuple | list) else [source])
    ]
    goals = [
        axis_of(c, k, rank)
        for k in (destination if isinstance(destination, tuple | list) else [destination])
    ]
    if len(sources) != len(goals):
        raise misfit("as many axes come as go", loc=c.loc)
    perm = [k for k in range(rank) if k not in sources]
    for goal, start in sorted(zip(goals, sources, strict=True)):
        perm.insert(goal, start)
    return c.new(c.em.transpose(v, perm))


@numpy_function("squeeze", method=True)
def squeeze(c: Context, a: Any, axis: Any = None) -> Tensor:
    """``np.squeeze``."""
    v = c.value(a)
    shape = v.type.shape
    if axis is None:
        gone = [k for k, d in enumerate(shape) if d == 1]
    else:
        gone = list(axes_of(c, axis, v.type.rank))
        if any(decide("==", shape[k], 1) is False for k in gone):
            raise misfit(f"{v.type} has another size than 1 at axis {axis}", loc=c.loc)
    return c.new(c.em.reshape(v, [d for k, d in enumerate(shape) if k not in gone]))


@numpy_function("expand_dims")
def expand_dims(c: Context, a: Any, axis: Any) -> Tensor:
    """``np.expand_dims``."""
    v = c.value(a)
    count = len(axis) if isinstance(axis, tuple | list) else 1
    new = axes_of(c, axis, v.type.rank + count)
    rest = iter(v.type.shape)
    shape = [1 if k in new else next(rest) for k in range(v.type.rank + count)]
    return c.new(c.em.reshape(v, shape))


@numpy_function("broadcast_to")
def broadcast_to(c: Context, array: Any, shape: Any) -> Tensor:
    """``np.broadcast_to``."""
    return c.new(c.em.stretch(c.value(array), c.dims_of(shape, "a size")))


@numpy_function("concatenate", "concat")
def concatenate(c: Context, arrays: Any, axis: Any = 0) -> Tensor:
    """``np.concatenate``."""
    parts = [c.tensor(x) for x in _sequence(c, arrays)]
    values = c.alike(parts)
    if axis is None:
        values, axis = [c.em.reshape(v, (v.type.size,)) for v in values], 0
    ranks = {v.type.rank for v in values}
    if len(ranks) > 1 or 0 in ranks:
        raise misfit("arrays to be concatenated have equally many axes", loc=c.loc)
    k = axis_of(c, axis, values[0].type.rank)
    return c.new(values[0] if len(values) == 1 else c.em.op("concat", *values, axis=k))


def _sequence(c: Context, items: Any) -> list[Any]:
    """The arrays of a list, or the rows of an array."""
    if isinstance(items, list | tuple) and items:
        return list(items)
    if isinstance(items, Tensor) and items.value.type.rank:
        size = items.value.type.shape[0]
        if isinstance(size, int) and size:
            v = c.read(items)
            rest = v.type.shape[1:]
            return [c.new(c.em.reshape(c.em.slice_axis(v, 0, k, k + 1), rest)) for k in range(size)]
    raise misfit("a list of arrays is expected", loc=c.loc)


@numpy_function("stack")
def stack(c: Context, arrays: Any, axis: Any = 0) -> Tensor:
    """``np.stack``."""
    return concatenate(c, [expand_dims(c, x, axis) for x in _sequence(c, arrays)], axis)


def _at_least(c: Context, x: Any, rank: int) -> Tensor:
    v = c.value(x)
    shape = v.type.shape
    if v.type.rank < rank:
        v = c.em.reshape(v, (*(1,) * (rank - len(shape)), *shape))
    return c.new(v)


@numpy_function("atleast_1d")
def atleast_1d(c: Context, x: Any) -> Tensor:
    """``np.atleast_1d``."""
    return _at_least(c, x, 1)


@numpy_function("atleast_2d")
def atleast_2d(c: Context, x: Any) -> Tensor:
    """``np.atleast_2d``."""
    return _at_least(c, x, 2)


@numpy_function("vstack")
def vstack(c: Context, tup: Any) -> Tensor:
    """``np.vstack``."""
    return concatenate(c, [_at_least(c, x, 2) for x in _sequence(c, tup)], 0)


@numpy_function("hstack")
def hstack(c: Context, tup: Any) -> Tensor:
    """``np.hstack``."""
    parts = [_at_least(c, x, 1) for x in _sequence(c, tup)]
    return concatenate(c, parts, 0 if parts[0].value.type.rank == 1 else 1)


@numpy_function("column_stack")
def column_stack(c: Context, tup: Any) -> Tensor:
    """``np.column_stack``."""
    parts = [c.tensor(x) for x in _sequence(c, tup)]
    return concatenate(c, [expand_dims(c, p, 1) if p.value.type.rank == 1 else p for p in parts], 1)


@numpy_function("append")
def append(c: Context, arr: Any, values: Any, axis: Any = None) -> Tensor:
    """``np.append``."""
    if axis is None:
        return concatenate(c, [ravel(c, arr), ravel(c, values)])
    return concatenate(c, [arr, values], axis)


@numpy_function("split")
def split(c: Context, ary: Any, indices_or_sections: Any, axis: Any = 0) -> list[Tensor]:
    """``np.split`` into a known number of equal parts, or at places."""
    v = c.value(ary)
    size = v.type.shape[axis_of(c, axis, v.type.rank)]
    if isinstance(indices_or_sections, int):
        even = decide("==", mod(size, indices_or_sections), 0)
        if even is False:
            raise misfit(
                f"{size} places are no {indices_or_sections} equal parts",
                "np.array_split",
                loc=c.loc,
            )
        if even is None:
            rest = c.value(mod(size, indices_or_sections))
            c.test(c.em.op("equal", rest, c.em.constant(0)), "np.split: the parts are not equal")
    return array_split(c, ary, indices_or_sections, axis)


@numpy_function("array_split")
def array_split(c: Context, ary: Any, indices_or_sections: Any, axis: Any = 0) -> list[Tensor]:
    """``np.array_split`` into a known number of parts, the first of which are larger by one."""
    v = c.value(ary)
    k = axis_of(c, axis, v.type.rank)
    size = v.type.shape[k]
    ends: list[Dim]
    if isinstance(indices_or_sections, int):
        count = indices_or_sections
        part, more = floordiv(size, count), mod(size, count)
        ends = [part * n + minimum(n, more) for n in range(1, count)]
    else:
        ends = [minimum(d, size) for d in c.dims_of(indices_or_sections, "a place")]
    starts: list[Dim] = [0, *ends]
    return [c.new(c.em.slice_axis(v, k, a, b)) for a, b in zip(starts, [*ends, size], strict=True)]


@numpy_function("tile")
def tile(c: Context, A: Any, reps: Any) -> Tensor:  # noqa: N803
    """``np.tile``."""
    v = c.value(A)
    times = list(c.dims_of(reps, "a number of repeats"))
    rank = max(len(times), v.type.rank)
    times = [*(1,) * (rank - len(times)), *times]
    v = c.em.reshape(v, (*(1,) * (rank - v.type.rank), *v.type.shape))
    return c.new(c.em.op("tile", v, repeats=tuple(times)) if rank else v)


@numpy_function("repeat", method=True)
def repeat(c: Context, a: Any, repeats: Any, axis: Any = None) -> Tensor:
    """``np.repeat`` by one number."""
    v = c.value(a)
    if axis is None:
        v, axis = c.em.reshape(v, (v.type.size,)), 0
    k, times = axis_of(c, axis, v.type.rank), c.dim_of(repeats, "a number of repeats")
    shape = v.type.shape
    wide = c.em.reshape(v, (*shape[: k + 1], 1, *shape[k + 1 :]))
    wide = c.em.stretch(wide, (*shape[: k + 1], times, *shape[k + 1 :]))
    return c.new(c.em.reshape(wide, (*shape[:k], shape[k] * times, *shape[k + 1 :])))


@numpy_function("roll")
def roll(c: Context, a: Any, shift: Any, axis: Any = None) -> Tensor:
    """``np.roll``."""
    v = c.value(a)
    if axis is None:
        flat = roll(c, ravel(c, a), shift, 0)
        return c.new(c.em.reshape(c.read(flat), v.type.shape))
    shifts = shift if isinstance(shift, tuple | list) else [shift]
    for by, k in zip(shifts, axis if isinstance(axis, tuple | list) else [axis], strict=True):
        v = _rolled(c, v, by, axis_of(c, k, v.type.rank))
    return c.new(v)


def _rolled(c: Context, v: Value, by: Any, axis: int) -> Value:
    size = v.type.shape[axis]
    if size == 0:
        return v
    if isinstance(by, int) and isinstance(size, int):
        cut = (-by) % size
        parts = c.em.slice_axis(v, axis, cut, size), c.em.slice_axis(v, axis, 0, cut)
        return c.em.op("concat", *parts, axis=axis) if cut else v
    places = c.em.op("iota", shape=(size,))
    count = c.em.op("max", c.em.reshape(c.em.dims_value([size]), ()), c.em.constant(1))
    moved = c.em.op("mod", c.em.op("sub", places, c.value(by)), count)
    return c.em.op("gather", v, moved, axis=axis)


@numpy_function("flip")
def flip(c: Context, m: Any, axis: Any = None) -> Tensor:
    """``np.flip``."""
    v = c.value(m)
    for k in axes_of(c, axis, v.type.rank):
        v = reversed_axis(c, v, k)
    return c.new(v)


def reversed_axis(c: Context, v: Value, axis: int) -> Value:
    """A value with an axis backwards."""
    starts: list[Dim] = [0] * v.type.rank
    ends, steps = list(v.type.shape), [1] * v.type.rank
    starts[axis], ends[axis], steps[axis] = v.type.shape[axis] - 1, -1, -1
    if v.type.shape[axis] == 0:
        return v
    return c.em.op("slice", v, starts=tuple(starts), ends=tuple(ends), steps=tuple(steps))


@numpy_function("flipud")
def flipud(c: Context, m: Any) -> Tensor:
    """``np.flipud``."""
    return flip(c, m, 0)


@numpy_function("fliplr")
def fliplr(c: Context, m: Any) -> Tensor:
    """``np.fliplr``."""
    return flip(c, m, 1)


@numpy_function("pad")
def pad(
    c: Context, array: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0
) -> Tensor:
    """``np.pad``: constant, edge, reflect, wrap."""
    v = c.value(array)
    rank = v.type.rank
    if mode not in ("constant", "edge", "reflect", "wrap"):
        raise misfit(
            f"np.pad has no mode '{mode}' here",
            "there are constant, edge, reflect, wrap",
            loc=c.loc,
        )
    widths = pad_width if isinstance(pad_width, tuple | list) else (pad_width,)
    if not any(isinstance(w, tuple | list) for w in widths):
        widths = [tuple(widths) * 2 if len(widths) == 1 else tuple(widths)] * rank
    elif len(widths) == 1:
        widths = list(widths) * rank
    pairs = [c.dims_of(w, "a width") for w in widths]
    pairs = [p * 2 if len(p) == 1 else p for p in pairs]
    if len(pairs) != rank:
        raise misfit(f"{len(pairs)} widths for {rank} axes", loc=c.loc)
    pads = (*(p[0] for p in pairs), *(p[1] for p in pairs))
    if mode != "constant":
        return c.new(c.em.op("pad", v, pads=pads, mode=mode))
    fill = c.em.cast(c.value(constant_values), v.type.dtype)
    return c.new(c.em.op("pad", v, fill, pads=pads))


@numpy_function("diff")
def diff(c: Context, a: Any, n: int = 1, axis: Any = -1) -> Tensor:
    """``np.diff``."""
    t = c.tensor(a)
    for _ in range(c.int_of(n, "n")):
        v = c.read(t)
        k = axis_of(c, axis, v.type.rank)
        size = v.type.shape[k]
        after, before = c.em.slice_axis(v, k, 1, size), c.em.slice_axis(v, k, 0, size - 1)
        name = "not_equal" if v.type.dtype.kind == "bool" else "subtract"
        t = elementwise(c, name, c.new(after), c.new(before))
    return t


@numpy_function("triu")
def triu(c: Context, m: Any, k: Any = 0) -> Tensor:
    """``np.triu``."""
    return c.new(c.em.op("trilu", c.value(m), k=c.int_of(k, "k"), upper=True))


@numpy_function("tril")
def tril(c: Context, m: Any, k: Any = 0) -> Tensor:
    """``np.tril``."""
    return c.new(c.em.op("trilu", c.value(m), k=c.int_of(k, "k"), upper=False))


@numpy_function("rot90")
def rot90(c: Context, m: Any, k: int = 1, axes: Any = (0, 1)) -> Tensor:
    """``np.rot90``."""
    first, second = axes
    turns = c.int_of(k, "k") % 4
    if turns == 2:
        return flip(c, m, (first, second))
    if turns == 1:
        return swapaxes(c, flip(c, m, second), first, second)
    return flip(c, swapaxes(c, m, first, second), second) if turns else c.tensor(m)
