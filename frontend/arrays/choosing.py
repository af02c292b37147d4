"""Functions that choose elements: by conditions, by places, in order."""

from __future__ import annotations

from typing import Any

from aisc.frontend.arrays.arithmetic import elementwise
from aisc.frontend.arrays.context import Context
from aisc.frontend.arrays.reductions import axis_of, flag_of, total
from aisc.frontend.arrays.registry import array_method, numpy_function
from aisc.frontend.arrays.values import Tensor, misfit
from aisc.ir import dtypes
from aisc.ir.graph.core import Value


@numpy_function("where")
def where(c: Context, condition: Any, x: Any = None, y: Any = None) -> Any:
    """``np.where``: a choice for each element, or the places of the true ones."""
    if x is None and y is None:
        return nonzero(c, condition)
    flag = c.truth(c.value(condition))
    parts = [c.tensor(x), c.tensor(y)]
    return c.new(c.em.op("where", flag, *c.alike(parts)))


@numpy_function("nonzero", method=True)
def nonzero(c: Context, a: Any) -> tuple[Tensor, ...]:
    """``np.nonzero``: places by axis; how many there are is a size of the run."""
    v = c.value(a)
    if v.type.rank == 0:
        raise misfit("np.nonzero takes an array with axes", loc=c.loc)
    flat = true_places(c, v)
    found: list[Tensor] = []
    rest = flat
    for size in reversed(v.type.shape[1:]):
        by = c.em.op("max", c.em.reshape(c.em.dims_value([size]), ()), c.em.constant(1))
        found.append(c.new(c.em.op("mod", rest, by)))
        rest = c.em.op("div", c.em.op("sub", rest, c.read(found[-1])), by)
    return (c.new(rest), *reversed(found))


def true_places(c: Context, v: Value) -> Value:
    """Places of what is not zero in the flat order."""
    flat = c.em.reshape(c.truth(v), (v.type.size,))
    count = c.em.op("reduce_sum", c.em.cast(flat, dtypes.i64), axes=(0,), keepdims=True)
    return c.em.op("true_places", flat, size=(c.em.dims(count, "a number of places")[0],))


@numpy_function("flatnonzero")
def flatnonzero(c: Context, a: Any) -> Tensor:
    """``np.flatnonzero``."""
    return c.new(true_places(c, c.value(a)))


@numpy_function("argwhere")
def argwhere(c: Context, a: Any) -> Tensor:
    """``np.argwhere``."""
    parts = [c.read(t) for t in nonzero(c, a)]
    wide = [c.em.reshape(v, (v.type.size, 1)) for v in parts]
    return c.new(wide[0] if len(wide) == 1 else c.em.op("concat", *wide, axis=1))


@numpy_function("clip", method=True)
def clip(
    c: Context, a: Any, a_min: Any = None, a_max: Any = None, min: Any = None, max: Any = None
) -> Tensor:
    """``np.clip``."""
    low, high = a_min if min is None else min, a_max if max is None else max
    found = c.tensor(a)
    for name, bound in (("maximum", low), ("minimum", high)):
        if bound is not None and not _beyond(found, bound, name):
            found = elementwise(c, name, found, bound)
    return found


def _beyond(t: Tensor, bound: Any, name: str) -> bool:
    """Whether no element of a type of whole numbers can pass a bound."""
    d = t.value.type.dtype
    if not isinstance(bound, int) or not d.is_integer:
        return False
    return bound < d.min_value if name == "maximum" else bound > d.max_value


@numpy_function("take", method=True)
def take(c: Context, a: Any, indices: Any, axis: Any = None) -> Tensor:
    """``np.take``."""
    v, places = c.value(a), c.em.cast(c.value(indices), dtypes.i64)
    if axis is None:
        v, axis = c.em.reshape(v, (v.type.size,)), 0
    return c.new(c.em.op("gather", v, places, axis=axis_of(c, axis, v.type.rank)))


@numpy_function("take_along_axis")
def take_along_axis(c: Context, arr: Any, indices: Any, axis: Any) -> Tensor:
    """``np.take_along_axis`` where the other axes have equal sizes."""
    v, places = c.value(arr), c.em.cast(c.value(indices), dtypes.i64)
    return c.new(c.em.op("gather_elements", v, places, axis=axis_of(c, axis, v.type.rank)))


def _ordered(c: Context, a: Any, axis: Any) -> tuple[Value, Value]:
    v = c.value(a)
    if axis is None:
        v, axis = c.em.reshape(v, (v.type.size,)), 0
    k = axis_of(c, axis, v.type.rank)
    inner = c.em.cast(v, dtypes.u8) if v.type.dtype is dtypes.boolean else v
    found, places = c.em.multi("top_k", inner, k=(v.type.shape[k],), axis=k, largest=False)
    return c.em.cast(found, v.type.dtype), places


@numpy_function("sort")
def sort(c: Context, a: Any, axis: Any = -1, kind: Any = None, stable: Any = None) -> Tensor:
    """``np.sort``."""
    return c.new(_ordered(c, a, axis)[0])


@numpy_function("argsort")
@array_method("argsort")
def argsort(c: Context, a: Any, axis: Any = -1, kind: Any = None, stable: Any = None) -> Tensor:
    """``np.argsort``, stable."""
    return c.new(c.em.cast(_ordered(c, a, axis)[1], dtypes.i64))


@numpy_function("median")
def median(c: Context, a: Any, axis: Any = None, keepdims: Any = False) -> Tensor:
    """``np.median``; NaN if there is one."""
    v = c.value(a)
    rank = v.type.rank
    wide = v if v.type.dtype.is_float else c.em.cast(v, dtypes.f64)
    found, _ = _ordered(c, c.new(wide), axis)
    k = 0 if axis is None else axis_of(c, axis, rank)
    found = c.em.not_empty(found, (k,))
    size = found.type.shape[k]
    ends = c.em.dims_value([(size - 1) // 2, size // 2])
    pair = c.em.op("gather", found, ends, axis=k)
    middle = c.em.op("reduce_mean", pair, axes=(k,), keepdims=True)
    last = c.em.op("gather", found, c.em.dims_value([size - 1]), axis=k)
    middle = c.em.op("where", c.em.op("isnan", last), last, middle)
    shape, keeps = list(middle.type.shape), flag_of(c, keepdims, "keepdims")
    if axis is None:
        shape = [1] * rank if keeps else []
    elif not keeps:
        del shape[k]
    return c.new(c.em.reshape(middle, shape))


@numpy_function("searchsorted")
@array_method("searchsorted")
def searchsorted(c: Context, a: Any, v: Any, side: str = "left") -> Tensor:
    """``np.searchsorted``: how many elements of a sorted vector are before each."""
    row, x = c.tensor(a), c.tensor(v)
    wide = c.new(c.em.reshape(c.read(x), (*x.value.type.shape, 1)))
    before = elementwise(c, "less" if side == "left" else "less_equal", row, wide)
    return total(c, before, axis=-1)


@numpy_function("unique")
def unique(c: Context, ar: Any) -> Tensor:
    """``np.unique`` of all elements, sorted; how many there are is a size of the run."""
    v = c.value(ar)
    binds = (c.em.names.fresh("d"),)
    found = c.em.multi("unique", c.em.reshape(v, (v.type.size,)), binds=binds, axis=0)
    return c.new(found[0])


@numpy_function("nan_to_num")
def nan_to_num(
    c: Context, x: Any, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None
) -> Tensor:
    """``np.nan_to_num``."""
    v = c.value(x)
    if not v.type.dtype.is_float:
        return c.new(v)
    high = v.type.dtype.max_value if posinf is None else posinf
    low = v.type.dtype.min_value if neginf is None else neginf
    v = c.em.op("where", c.em.op("isnan", v), c.em.like(nan, v), v)
    v = c.em.op("where", c.em.op("isinf", v, negative=False), c.em.like(high, v), v)
    return c.new(c.em.op("where", c.em.op("isinf", v, positive=False), c.em.like(low, v), v))


@numpy_function("interp")
def interp(c: Context, x: Any, xp: Any, fp: Any) -> Tensor:
    """``np.interp`` of sorted places, constant beyond the ends."""
    at, places, heights = (c.em.cast(c.value(v), dtypes.f64) for v in (x, xp, fp))
    count = c.em.reshape(c.em.dims_value([places.type.shape[0]]), ())
    after = c.read(searchsorted(c, c.new(places), c.new(at), "right"))
    one = c.em.like(1, after)
    last = c.em.op("max", c.em.op("sub", count, c.em.like(2, count)), c.em.like(0, count))
    low = c.em.op("min", c.em.op("max", c.em.op("sub", after, one), c.em.like(0, after)), last)
    high = c.em.op("min", c.em.op("add", low, one), c.em.op("sub", count, one))
    x0, x1 = (c.em.op("gather", places, k, axis=0) for k in (low, high))
    y0, y1 = (c.em.op("gather", heights, k, axis=0) for k in (low, high))
    slope = c.em.op("div", c.em.op("sub", y1, y0), c.em.op("sub", x1, x0))
    found = c.em.op("add", c.em.op("mul", slope, c.em.op("sub", at, x0)), y0)
    found = c.em.op("where", c.em.op("less_equal", at, x0), y0, found)
    return c.new(c.em.op("where", c.em.op("greater_equal", at, x1), y1, found))
