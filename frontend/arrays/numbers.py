"""Functions of Python itself, of numbers of the run and of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from aisc.frontend.arrays.arithmetic import elementwise, power
from aisc.frontend.arrays.context import Context
from aisc.frontend.arrays.reductions import all_of, any_of, greatest, least, total
from aisc.frontend.arrays.registry import array_method, builtin, numpy_function
from aisc.frontend.arrays.values import Record, Tensor, is_number, misfit, shown
from aisc.ir import dtypes
from aisc.ir.arith.poly import Poly, maximum, minimum


@builtin("len")
def length(c: Context, x: Any) -> Any:
    """How many there are; of an array, along its first axis."""
    if isinstance(x, Tensor):
        if not x.value.type.rank:
            raise misfit(f"{shown(x)} has no length", loc=c.loc)
        return c.read(x).type.shape[0]
    if hasattr(x, "__len__"):
        return len(x)
    raise misfit(f"{shown(x)} has no length", loc=c.loc)


@builtin("abs")
def absolute(c: Context, x: Any) -> Any:
    """``abs(x)``."""
    return abs(x) if is_number(x) else elementwise(c, "absolute", x)


def _chosen(c: Context, name: str, given: tuple[Any, ...]) -> Any:
    """The least or the greatest of numbers, the first of equal ones."""
    items = (
        list(given[0]) if len(given) == 1 and isinstance(given[0], list | tuple) else list(given)
    )
    if len(items) == 1 and isinstance(items[0], Tensor) and items[0].value.type.rank == 1:
        return (least if name == "less" else greatest)(c, items[0])
    if not items:
        raise misfit("the extreme of nothing", loc=c.loc)
    if all(map(is_number, items)):
        return min(items) if name == "less" else max(items)
    if all(isinstance(x, int | Poly) for x in items):
        return (minimum if name == "less" else maximum)(*items)
    found = items[0]
    for x in items[1:]:
        better = c.read(elementwise(c, name, x, found))
        parts = [c.tensor(x), c.tensor(found)]
        if any(t.value.type.rank for t in parts):
            raise misfit(
                "which array is greater is not one answer",
                "np.maximum compares elements",
                loc=c.loc,
            )
        weak = all(t.weak for t in parts)
        found = c.new(c.em.op("where", better, *c.alike(parts)), weak)
    return found


@builtin("min")
def lesser(c: Context, *given: Any) -> Any:
    """``min(a, b)``."""
    return _chosen(c, "less", given)


@builtin("max")
def greater(c: Context, *given: Any) -> Any:
    """``max(a, b)``."""
    return _chosen(c, "greater", given)


@builtin("sum")
def added(c: Context, items: Any, start: Any = 0) -> Any:
    """``sum(items)``."""
    if isinstance(items, Tensor):
        return elementwise(c, "add", total(c, items, axis=0), start)
    for x in items:
        both = is_number(x) and is_number(start)
        start = start + x if both else elementwise(c, "add", start, x)
    return start


@builtin("float")
def as_float(c: Context, x: Any = 0.0) -> Any:
    """``float(x)``: a number of Python's."""
    return float(x) if is_number(x) or isinstance(x, str) else _number(c, x, dtypes.f64)


@builtin("int")
def as_int(c: Context, x: Any = 0) -> Any:
    """``int(x)``: cut towards zero."""
    if isinstance(x, Poly):
        return x
    return int(x) if is_number(x) or isinstance(x, str) else _number(c, x, dtypes.i64)


@builtin("bool")
def as_bool(c: Context, x: Any = False) -> Any:
    """``bool(x)``."""
    found = c.condition(x)
    return found if isinstance(found, bool) else c.new(found, weak=True)


@array_method("item")
def item(c: Context, x: Any) -> Any:
    """``a.item()``: a number of Python's."""
    d = c.value(x).type.dtype
    return _number(c, x, dtypes.f64 if d.is_float else dtypes.i64 if d.is_integer else d)


@array_method("tolist")
def tolist(c: Context, x: Any) -> Any:
    """``a.tolist()`` of an array whose sizes are known."""
    v = c.value(x)
    if v.type.rank == 0:
        return item(c, x)
    size = v.type.shape[0]
    if not isinstance(size, int):
        raise misfit("the length of the list is not known", "keep the array", loc=c.loc)
    rest = v.type.shape[1:]
    rows = [c.new(c.em.reshape(c.em.slice_axis(v, 0, k, k + 1), rest)) for k in range(size)]
    return [tolist(c, r) for r in rows]


def _number(c: Context, x: Any, dtype: dtypes.DType) -> Tensor:
    v = c.value(x)
    if v.type.rank and v.type.size != 1:
        raise misfit(f"{shown(x)} is no single number", loc=c.loc)
    made = Tensor(c.em.cast(c.em.reshape(v, ()), dtype), c.frame, weak=True)
    if isinstance(x, Tensor) and x.weak and dtype is v.type.dtype:
        made.argument = x.argument
    return made


@builtin("round")
@numpy_function("round", "around")
@array_method("round")
def rounded(c: Context, x: Any, ndigits: Any = None) -> Any:
    """``round(x, n)``: halves to even."""
    digits = 0 if ndigits is None else c.int_of(ndigits, "the number of digits")
    if is_number(x):
        return round(x, ndigits)
    t = c.tensor(x)
    if t.value.type.dtype.is_integer:
        return t
    if digits == 0:
        found = elementwise(c, "rint", t)
        return as_int(c, found) if ndigits is None and t.weak else found
    scale = 10.0 ** abs(digits)
    first, second = ("multiply", "true_divide") if digits > 0 else ("true_divide", "multiply")
    return elementwise(c, second, elementwise(c, "rint", elementwise(c, first, t, scale)), scale)


@builtin("isinstance")
def is_instance(c: Context, x: Any, cls: Any) -> bool:
    """``isinstance(x, t)`` for what is known now; arrays are of numpy's class."""
    wanted = cls if isinstance(cls, tuple) else (cls,)
    if isinstance(x, Record):
        return issubclass(x.cls, wanted)
    if isinstance(x, Poly):
        return int in wanted
    if not isinstance(x, Tensor):
        return isinstance(x, wanted)
    if x.weak:
        kind = x.value.type.dtype.kind
        return {"bool": bool, "int": int, "float": float}[kind] in wanted or (
            kind == "bool" and int in wanted
        )
    return any(
        issubclass(np.ndarray if x.value.type.rank else x.value.type.dtype.numpy.type, w)
        for w in wanted
    )


@builtin("divmod")
def quotient_and_rest(c: Context, a: Any, b: Any) -> Any:
    """``divmod(a, b)``."""
    if is_number(a) and is_number(b):
        return divmod(a, b)
    return elementwise(c, "floor_divide", a, b), elementwise(c, "remainder", a, b)


@builtin("pow")
def raised(c: Context, a: Any, b: Any) -> Any:
    """``pow(a, b)``."""
    return a**b if is_number(a) and is_number(b) else power(c, a, b)


@builtin("any")
def some(c: Context, items: Any) -> Any:
    """``any(items)``."""
    return _told(c, items, "or")


@builtin("all")
def each(c: Context, items: Any) -> Any:
    """``all(items)``."""
    return _told(c, items, "and")


def _told(c: Context, items: Any, op: str) -> Any:
    if isinstance(items, Tensor):
        return (any_of if op == "or" else all_of)(c, items)
    found: Any = op == "and"
    for x in items:
        flag = c.condition(x)
        if isinstance(flag, bool):
            if flag is (op == "or"):
                return flag
        elif isinstance(found, bool):
            found = flag
        else:
            found = c.em.op(op, found, flag)
    return found if isinstance(found, bool) else c.new(found, weak=True)
