"""Arrays that are made: of one number, of counts, of others' shapes."""

from __future__ import annotations

from typing import Any

import numpy as np

from aisc.frontend.arrays.arithmetic import elementwise
from aisc.frontend.arrays.context import Context, weak_dtype
from aisc.frontend.arrays.registry import array_method, numpy_function
from aisc.frontend.arrays.values import Tensor, is_size, misfit, of_numpy
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, ceildiv, maximum
from aisc.ir.dtypes import DType


def dtype_of(c: Context, given: Any, otherwise: DType) -> DType:
    """The element type that an argument names."""
    if given is None:
        return otherwise
    if given is bool or given is int or given is float:
        return {bool: dtypes.boolean, int: dtypes.i64, float: dtypes.f64}[given]
    if isinstance(given, DType):
        return given
    try:
        return of_numpy(given, c.loc)
    except TypeError:
        raise misfit(f"{given!r} is no type of elements", loc=c.loc) from None


def _made(c: Context, shape: Any, fill: Any, dtype: Any, otherwise: DType) -> Tensor:
    t = dtype_of(c, dtype, otherwise)
    dims = c.dims_of(shape, "a size")
    if isinstance(fill, Tensor):
        return c.new(c.em.stretch(c.em.cast(c.read(fill), t), dims))
    return c.new(c.em.filled(dims, np.asarray(fill).astype(t.numpy)))


@numpy_function("zeros", "empty")
def zeros(c: Context, shape: Any, dtype: Any = None) -> Tensor:
    """``np.zeros``."""
    return _made(c, shape, 0, dtype, dtypes.f64)


@numpy_function("ones")
def ones(c: Context, shape: Any, dtype: Any = None) -> Tensor:
    """``np.ones``."""
    return _made(c, shape, 1, dtype, dtypes.f64)


@numpy_function("full")
def full(c: Context, shape: Any, fill_value: Any, dtype: Any = None) -> Tensor:
    """``np.full``."""
    fill = fill_value if isinstance(fill_value, bool | int | float) else c.tensor(fill_value)
    own = fill.value.type.dtype if isinstance(fill, Tensor) else weak_dtype(fill)
    return _made(c, shape, fill, dtype, own)


@numpy_function("zeros_like", "empty_like")
def zeros_like(c: Context, a: Any, dtype: Any = None) -> Tensor:
    """``np.zeros_like``."""
    v = c.value(a)
    return _made(c, v.type.shape, 0, dtype, v.type.dtype)


@numpy_function("ones_like")
def ones_like(c: Context, a: Any, dtype: Any = None) -> Tensor:
    """``np.ones_like``."""
    v = c.value(a)
    return _made(c, v.type.shape, 1, dtype, v.type.dtype)


@numpy_function("full_like")
def full_like(c: Context, a: Any, fill_value: Any, dtype: Any = None) -> Tensor:
    """``np.full_like``."""
    v = c.value(a)
    return _made(c, v.type.shape, fill_value, dtype, v.type.dtype)


@numpy_function("arange")
def arange(c: Context, start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Tensor:
    """``np.arange`` of whole numbers and sizes, or of numbers that are known."""
    if stop is None:
        start, stop = 0, start
    if all(isinstance(x, int | float) for x in (start, stop, step)):
        made = c.em.constant(np.arange(start, stop, step))
        return c.new(c.em.cast(made, dtype_of(c, dtype, made.type.dtype)))
    if not all(is_size(x) or _is_whole(x) for x in (start, stop)) or not isinstance(step, int):
        raise misfit(
            "np.arange of the run takes whole numbers", "np.linspace takes floats", loc=c.loc
        )
    first = start if is_size(start) else None
    last: Dim = c.dim_of(stop, "the end of np.arange")
    if first is None or step < 1:
        first = c.dim_of(start, "the start of np.arange")
    count = (
        maximum(ceildiv(last - first, step), 0)
        if step > 0
        else maximum(ceildiv(first - last, -step), 0)
    )
    places = c.em.op("iota", shape=(count,))
    made = places if step == 1 else c.em.op("mul", places, c.em.like(step, places))
    if first != 0:
        made = c.em.op("add", made, c.em.reshape(c.em.dims_value([first]), ()))
    return c.new(c.em.cast(made, dtype_of(c, dtype, dtypes.i64)))


def _is_whole(x: Any) -> bool:
    return isinstance(x, Tensor) and x.value.type.rank == 0 and x.value.type.dtype.is_integer


@numpy_function("linspace")
def linspace(
    c: Context, start: Any, stop: Any, num: Any = 50, endpoint: bool = True, dtype: Any = None
) -> Tensor:
    """``np.linspace`` between numbers."""
    count = c.dim_of(num, "num")
    low, high = (c.em.cast(c.value(x), dtypes.f64) for x in (start, stop))
    parts = maximum(count - 1, 1) if endpoint else count
    divisor = c.em.cast(c.em.reshape(c.em.dims_value([parts]), ()), dtypes.f64)
    step = c.em.op("div", c.em.op("sub", high, low), divisor)
    places = c.em.cast(c.em.op("iota", shape=(count,)), dtypes.f64)
    made = c.em.op("add", c.em.op("mul", places, step), low)
    if endpoint:
        last = c.em.op("equal", places, divisor)
        many = c.em.op("greater", divisor, c.em.like(0, divisor))
        made = c.em.op("where", c.em.op("and", last, many), high, made)
    return c.new(c.em.cast(made, dtype_of(c, dtype, dtypes.f64)))


@numpy_function("eye", "identity")
def eye(c: Context, N: Any, M: Any = None, k: Any = 0, dtype: Any = None) -> Tensor:  # noqa: N803
    """``np.eye``."""
    rows = c.dim_of(N, "N")
    columns = rows if M is None else c.dim_of(M, "M")
    shift = c.int_of(k, "k")
    down = c.em.reshape(c.em.op("iota", shape=(rows,)), (rows, 1))
    across = c.em.op("iota", shape=(columns,))
    on = c.em.op("equal", c.em.op("sub", across, c.em.like(shift, across)), down)
    return c.new(c.em.cast(on, dtype_of(c, dtype, dtypes.f64)))


@numpy_function("array", "asarray", "ascontiguousarray", "asanyarray")
def array(c: Context, object: Any, dtype: Any = None, copy: Any = None) -> Tensor:
    """``np.array``: a copy, of an array, numbers or sequences of them."""
    made = c.tensor(object)
    v = c.read(made)
    own = v.type.dtype
    return Tensor(c.em.cast(v, dtype_of(c, dtype, own)), c.frame)


@numpy_function("copy", method=True)
def copy(c: Context, a: Any) -> Tensor:
    """``np.copy``."""
    return Tensor(c.value(a), c.frame)


@array_method("astype")
def astype(c: Context, a: Any, dtype: Any, copy: bool = True) -> Tensor:
    """``a.astype(t)``."""
    return Tensor(c.em.cast(c.value(a), dtype_of(c, dtype, dtypes.f64)), c.frame)


@numpy_function("meshgrid")
def meshgrid(c: Context, *xi: Any, indexing: str = "xy") -> list[Tensor]:
    """``np.meshgrid`` of vectors."""
    vectors = [c.value(x) for x in xi]
    order = list(range(len(vectors)))
    if indexing == "xy" and len(order) > 1:
        order[:2] = 1, 0
    shape = [vectors[k].type.shape[0] for k in order]
    found = []
    for k, v in enumerate(vectors):
        axis = order.index(k)
        lying = tuple(v.type.shape[0] if a == axis else 1 for a in range(len(shape)))
        found.append(c.new(c.em.stretch(c.em.reshape(v, lying), shape)))
    return found


@numpy_function("indices")
def indices(c: Context, dimensions: Any) -> Tensor:
    """``np.indices``."""
    shape = c.dims_of(dimensions, "a size")
    parts = [c.new(c.em.op("iota", shape=(d,))) for d in shape]
    return c.stacked(meshgrid(c, *parts, indexing="ij"))


@numpy_function("tri")
def tri(c: Context, N: Any, M: Any = None, k: Any = 0, dtype: Any = None) -> Tensor:  # noqa: N803
    """``np.tri``."""
    rows = c.dim_of(N, "N")
    columns = rows if M is None else c.dim_of(M, "M")
    square = _made(c, (rows, columns), 1, dtype, dtypes.f64)
    return c.new(c.em.op("trilu", c.read(square), k=c.int_of(k, "k"), upper=False))


@numpy_function("isclose")
def isclose(
    c: Context, a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """``np.isclose``."""
    b = elementwise(c, "multiply", b, 1.0)
    gap = elementwise(c, "absolute", elementwise(c, "subtract", a, b))
    size = elementwise(c, "absolute", b)
    most = elementwise(c, "add", atol, elementwise(c, "multiply", rtol, size))
    near = elementwise(
        c, "logical_and", elementwise(c, "less_equal", gap, most), elementwise(c, "isfinite", b)
    )
    found = elementwise(c, "logical_or", near, elementwise(c, "equal", a, b))
    if equal_nan:
        both = elementwise(c, "logical_and", elementwise(c, "isnan", a), elementwise(c, "isnan", b))
        found = elementwise(c, "logical_or", found, both)
    return found
