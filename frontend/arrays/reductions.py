"""Functions that fold axes: sums, extremes, means, counts, places of extremes, running sums."""

from __future__ import annotations

from typing import Any

import numpy as np

from aisc.frontend.arrays.arithmetic import elementwise
from aisc.frontend.arrays.context import Context
from aisc.frontend.arrays.creation import dtype_of, isclose
from aisc.frontend.arrays.registry import numpy_function
from aisc.frontend.arrays.values import Tensor, misfit, shown
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, product
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import Value


def axes_of(c: Context, axis: Any, rank: int) -> tuple[int, ...]:
    """Axes from 0, in order; all of them for ``None``."""
    if axis is None:
        return tuple(range(rank))
    given = axis if isinstance(axis, tuple | list) else (axis,)
    found = [axis_of(c, a, rank) for a in given]
    if len(set(found)) < len(found):
        raise misfit(f"an axis is given twice: {axis}", loc=c.loc)
    return tuple(sorted(found))


def axis_of(c: Context, axis: Any, rank: int) -> int:
    """One axis from 0."""
    found = c.int_of(axis, "an axis")
    if not -rank <= found < rank:
        raise misfit(f"axis {found} of an array of {rank} axes", loc=c.loc)
    return found % rank


def _reduced(c: Context, op: str, v: Value, axis: Any, keepdims: Any) -> Value:
    axes = axes_of(c, axis, v.type.rank)
    keeps = flag_of(c, keepdims, "keepdims")
    return c.em.op(op, v, axes=axes, keepdims=keeps) if axes else v


def flag_of(c: Context, x: Any, name: str) -> bool:
    """An argument that is a number of truth and known."""
    if not isinstance(x, int | np.bool_ | np.integer):
        raise misfit(f"{name} is True or False, got {shown(x)}", loc=c.loc)
    return bool(x)


def _sum_type(t: DType) -> DType:
    """The type in which numpy adds: whole numbers have 64 bits."""
    if t.is_float:
        return t
    return dtypes.u64 if t.kind == "uint" else dtypes.i64


@numpy_function("sum", method=True)
def total(c: Context, a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = False) -> Tensor:
    """``np.sum``."""
    v = c.value(a)
    v = c.em.cast(v, dtype_of(c, dtype, _sum_type(v.type.dtype)))
    return c.new(_reduced(c, "reduce_sum", v, axis, keepdims))


@numpy_function("prod", method=True)
def prod(c: Context, a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = False) -> Tensor:
    """``np.prod``."""
    v = c.value(a)
    v = c.em.cast(v, dtype_of(c, dtype, _sum_type(v.type.dtype)))
    return c.new(_reduced(c, "reduce_prod", v, axis, keepdims))


@numpy_function("max", "amax", method=True)
def greatest(c: Context, a: Any, axis: Any = None, keepdims: Any = False) -> Tensor:
    """``np.max``; of no elements it is an error."""
    return c.new(_extreme(c, "reduce_max", c.value(a), axis, keepdims))


@numpy_function("min", "amin", method=True)
def least(c: Context, a: Any, axis: Any = None, keepdims: Any = False) -> Tensor:
    """``np.min``; of no elements it is an error."""
    return c.new(_extreme(c, "reduce_min", c.value(a), axis, keepdims))


def _extreme(c: Context, op: str, v: Value, axis: Any, keepdims: Any) -> Value:
    axes = axes_of(c, axis, v.type.rank)
    if any(v.type.shape[k] == 0 for k in axes):
        raise misfit("the extreme of no elements", loc=c.loc)
    v = c.em.not_empty(v, axes)
    if v.type.dtype is dtypes.boolean:
        small = _reduced(c, op, c.em.cast(v, dtypes.u8), axis, keepdims)
        return c.em.cast(small, dtypes.boolean)
    return _reduced(c, op, v, axis, keepdims)


@numpy_function("ptp")
def ptp(c: Context, a: Any, axis: Any = None, keepdims: Any = False) -> Tensor:
    """``np.ptp``."""
    return elementwise(c, "subtract", greatest(c, a, axis, keepdims), least(c, a, axis, keepdims))


@numpy_function("any", method=True)
def any_of(c: Context, a: Any, axis: Any = None, keepdims: Any = False) -> Tensor:
    """``np.any``."""
    v = c.em.cast(c.truth(c.value(a)), dtypes.u8)
    return c.new(c.em.cast(_reduced(c, "reduce_max", v, axis, keepdims), dtypes.boolean))


@numpy_function("all", method=True)
def all_of(c: Context, a: Any, axis: Any = None, keepdims: Any = False) -> Tensor:
    """``np.all``."""
    v = c.em.op("not", c.truth(c.value(a)))
    some = _reduced(c, "reduce_max", c.em.cast(v, dtypes.u8), axis, keepdims)
    return c.new(c.em.op("not", c.em.cast(some, dtypes.boolean)))


@numpy_function("count_nonzero")
def count_nonzero(c: Context, a: Any, axis: Any = None, keepdims: Any = False) -> Tensor:
    """``np.count_nonzero``."""
    v = c.em.cast(c.truth(c.value(a)), dtypes.i64)
    return c.new(_reduced(c, "reduce_sum", v, axis, keepdims))


def _count(c: Context, v: Value, axis: Any, less: int = 0) -> Value:
    """How many elements each result is made of, in the type of the values."""
    axes = axes_of(c, axis, v.type.rank)
    size: Dim = product(tuple(v.type.shape[k] for k in axes))
    return c.em.cast(c.em.reshape(c.em.dims_value([size - less]), ()), v.type.dtype)


@numpy_function("mean", method=True)
def mean(c: Context, a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = False) -> Tensor:
    """``np.mean``: of whole numbers in f64; those of 16 bits are added in f32, as numpy does."""
    v = c.value(a)
    own = v.type.dtype if v.type.dtype.is_float else dtypes.f64
    wanted = dtype_of(c, dtype, own)
    inner = dtypes.f32 if wanted.bits < 32 else wanted
    v = c.em.cast(v, inner)
    added = _reduced(c, "reduce_sum", v, axis, keepdims)
    return c.new(c.em.cast(c.em.op("div", added, _count(c, v, axis)), wanted))


@numpy_function("var", method=True)
def var(
    c: Context, a: Any, axis: Any = None, dtype: Any = None, ddof: Any = 0, keepdims: Any = False
) -> Tensor:
    """``np.var``."""
    v = c.value(a)
    v = c.em.cast(v, dtype_of(c, dtype, v.type.dtype if v.type.dtype.is_float else dtypes.f64))
    centre = c.em.op("div", _reduced(c, "reduce_sum", v, axis, True), _count(c, v, axis))
    apart = c.em.op("sub", v, centre)
    squares = _reduced(c, "reduce_sum", c.em.op("mul", apart, apart), axis, keepdims)
    return c.new(c.em.op("div", squares, _count(c, v, axis, c.int_of(ddof, "ddof"))))


@numpy_function("std", method=True)
def std(
    c: Context, a: Any, axis: Any = None, dtype: Any = None, ddof: Any = 0, keepdims: Any = False
) -> Tensor:
    """``np.std``."""
    return elementwise(c, "sqrt", var(c, a, axis, dtype, ddof, keepdims))


def _place(c: Context, op: str, a: Any, axis: Any, keepdims: Any) -> Tensor:
    v = c.value(a)
    rank = v.type.rank
    if v.type.dtype is dtypes.boolean:
        v = c.em.cast(v, dtypes.u8)
    if axis is None:
        flat = c.em.reshape(v, (v.type.size,))
        found = c.em.op(op, c.em.not_empty(flat, (0,)), axis=0, keepdims=False)
        return c.new(c.em.reshape(found, (1,) * rank) if keepdims else found)
    k = axis_of(c, axis, rank)
    return c.new(
        c.em.op(op, c.em.not_empty(v, (k,)), axis=k, keepdims=flag_of(c, keepdims, "keepdims"))
    )


@numpy_function("argmax", method=True)
def argmax(c: Context, a: Any, axis: Any = None, keepdims: Any = False) -> Tensor:
    """``np.argmax``."""
    return _place(c, "argmax", a, axis, keepdims)


@numpy_function("argmin", method=True)
def argmin(c: Context, a: Any, axis: Any = None, keepdims: Any = False) -> Tensor:
    """``np.argmin``."""
    return _place(c, "argmin", a, axis, keepdims)


def _running(c: Context, op: str, a: Any, axis: Any, dtype: Any) -> Tensor:
    v = c.value(a)
    v = c.em.cast(v, dtype_of(c, dtype, _sum_type(v.type.dtype)))
    if axis is None:
        v, axis = c.em.reshape(v, (v.type.size,)), 0
    return c.new(c.em.op(op, v, axis=axis_of(c, axis, v.type.rank)))


@numpy_function("cumsum", method=True)
def cumsum(c: Context, a: Any, axis: Any = None, dtype: Any = None) -> Tensor:
    """``np.cumsum``."""
    return _running(c, "cumsum", a, axis, dtype)


@numpy_function("cumprod", method=True)
def cumprod(c: Context, a: Any, axis: Any = None, dtype: Any = None) -> Tensor:
    """``np.cumprod``."""
    return _running(c, "cumprod", a, axis, dtype)


@numpy_function("linalg.norm")
def norm(c: Context, x: Any, ord: Any = None, axis: Any = None, keepdims: Any = False) -> Tensor:
    """``np.linalg.norm`` of vectors, and Frobenius' of all elements."""
    t = c.tensor(x)
    size = elementwise(c, "absolute", t)
    if ord in (None, 2) and (ord is None or t.value.type.rank == 1 or isinstance(axis, int)):
        squares = elementwise(c, "multiply", size, size)
        squares = total(c, squares, axis, keepdims=keepdims)
        return elementwise(c, "sqrt", squares)
    if t.value.type.rank == 1 or isinstance(axis, int):
        if ord == 1:
            return elementwise(c, "multiply", total(c, size, axis, keepdims=keepdims), 1.0)
        if ord in (float("inf"), np.inf):
            return elementwise(c, "multiply", greatest(c, size, axis, keepdims), 1.0)
    raise misfit(
        f"np.linalg.norm of order {ord} is not supported",
        "of vectors there are 1, 2 and inf",
        loc=c.loc,
    )


@numpy_function("allclose")
def allclose(c: Context, a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8) -> Tensor:
    """``np.allclose``."""
    return all_of(c, isclose(c, a, b, rtol, atol))


@numpy_function("array_equal")
def array_equal(c: Context, a1: Any, a2: Any) -> Any:
    """``np.array_equal`` of arrays whose shapes are known to be equal or not."""
    a, b = c.tensor(a1), c.tensor(a2)
    if a.value.type.rank != b.value.type.rank:
        return False
    for x, y in zip(a.value.type.shape, b.value.type.shape, strict=True):
        if isinstance(x, int) and isinstance(y, int) and x != y:
            return False
        if x != y:
            raise misfit("whether the shapes are equal is not known", loc=c.loc)
    return all_of(c, elementwise(c, "equal", a, b))
