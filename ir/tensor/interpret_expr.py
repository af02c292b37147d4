"""Tensor expressions compiled to Python closures over a frame (a list of slots).

A frame holds the values of scalars and the flat storage of buffers. :class:`Scope` gives every
name its slot, and knows the shape and strides of buffers whose dimensions are known when the
closures are made; other shapes are read from the frame at each access. Each access is checked
against the shape. See :mod:`aisc.ir.tensor.scalar` for what the operations mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aisc.ir.arith.poly import Dim, evaluate
from aisc.ir.diagnostics import ExecutionError, execution_error
from aisc.ir.tensor import scalar
from aisc.ir.tensor.expr import (
    WITHIN,
    Binary,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Select,
    Unary,
    Var,
)
from aisc.ir.tensor.func import Buffer

Frame = list[Any]
Eval = Callable[[Frame], Any]
Layout = tuple[tuple[int, ...], tuple[int, ...]]


class Scope:
    """Slots of a function's names. `known` are dimensions fixed while compiling; `layouts` give
    the shapes and strides of parameters that do not follow their declaration."""

    def __init__(
        self,
        known: Mapping[str, int],
        layouts: Mapping[str, Layout],
        functions: Mapping[str, Callable[..., Any]],
    ) -> None:
        self.known = known
        self.layouts = dict(layouts)
        self.functions = functions
        self.slots: dict[str, int] = {}
        self.block = ""

    def slot(self, name: str) -> int:
        """The slot of the scalar called `name`."""
        return self.slots.setdefault(name, len(self.slots))

    def buffer_slot(self, b: Buffer) -> int:
        """The slot of a buffer's flat storage; names of buffers and scalars are apart."""
        return self.slots.setdefault(f"[{b.name}]", len(self.slots))

    def layout_slot(self, b: Buffer) -> int:
        """The slot of the (shape, strides) of a buffer that has no static layout."""
        return self.slots.setdefault(f"[{b.name}].layout", len(self.slots))

    def layout(self, b: Buffer) -> Layout | None:
        """Shape and strides, or ``None`` when they depend on values computed while running."""
        if b.name not in self.layouts:
            try:
                found = layout_of(b, self.known)
            except KeyError:
                return None
            self.layouts[b.name] = found
        return self.layouts[b.name]


def layout_of(b: Buffer, dims: Mapping[str, int]) -> Layout:
    """Shape and strides as integers; ``KeyError`` when a dimension has no value."""
    return _values(b.shape, dims), _values(b.strides, dims)


def _values(items: tuple[Dim, ...], dims: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(evaluate(d, dims) for d in items)


def compile_expr(e: Expr, scope: Scope) -> Eval:
    """The closure that evaluates `e` in a frame."""
    if isinstance(e, Const):
        value = e.value
        return lambda f: value
    if isinstance(e, Var):
        if e.name in scope.known:
            number = scope.known[e.name]
            return lambda f: number
        slot = scope.slot(e.name)
        return lambda f: f[slot]
    if isinstance(e, Load):
        at, data = compile_access(e.buffer, e.indices, scope), scope.buffer_slot(e.buffer)
        if e.dtype.name in ("f16", "bf16"):
            return lambda f: float(f[data][at(f)])
        return lambda f: f[data][at(f)]
    if isinstance(e, Binary):
        return _compile_binary(e, scope)
    if isinstance(e, Select):
        cond, then = compile_expr(e.cond, scope), compile_expr(e.then, scope)
        other = compile_expr(e.other, scope)
        return lambda f: then(f) if cond(f) else other(f)
    if isinstance(e, Unary):
        return _apply(scalar.unary_fn(e.op, e.a.dtype), (e.a,), scope)
    if isinstance(e, Cast):
        return _apply(scalar.cast_fn(e.a.dtype, e.dtype), (e.a,), scope)
    if isinstance(e, Call):
        return _compile_call(e, scope)
    raise execution_error("E502", f"expression {type(e).__name__} cannot be interpreted")


def _compile_call(e: Call, scope: Scope) -> Eval:
    if e.name in scope.functions:
        return _apply(scope.functions[e.name], e.args, scope)
    if e.name == WITHIN:
        return _apply(_within, e.args, scope)
    dtype = e.args[0].dtype if e.args else e.dtype
    try:
        return _apply(scalar.call_fn(e.name, dtype), e.args, scope)
    except KeyError:
        raise execution_error("E502", f"unknown function '{e.name}'") from None


def _within(value: int, size: int) -> int:
    if not 0 <= value < size:
        raise execution_error("E502", f"{value} is not at least 0 and below {size}")
    return value


def _apply(fn: Callable[..., Any], args: tuple[Expr, ...], scope: Scope) -> Eval:
    items = [compile_expr(a, scope) for a in args]
    if len(items) == 1:
        only = items[0]
        return lambda f: fn(only(f))
    return lambda f: fn(*[x(f) for x in items])


def _compile_binary(e: Binary, scope: Scope) -> Eval:
    a, b = compile_expr(e.a, scope), compile_expr(e.b, scope)
    dtype = e.a.dtype
    if e.op in ("add", "sub", "mul") and dtype.name in ("f32", "f64", "i64"):
        return _HOT[dtype.name](e.op, a, b)
    fn = scalar.binary_fn(e.op, dtype)
    if e.op not in ("floordiv", "mod", "truncdiv", "truncmod", "div") or dtype.is_float:
        return lambda f: fn(a(f), b(f))
    block, text = scope.block, e.op

    def divide(f: Frame) -> Any:
        try:
            return fn(a(f), b(f))
        except ZeroDivisionError:
            place = f" in block '{block}'" if block else ""
            raise execution_error("E502", f"integer {text} by zero{place}") from None

    return divide


def _hot_f32(op: str, a: Eval, b: Eval) -> Eval:
    cell = memoryview(bytearray(4)).cast("f")  # storing rounds to f32

    def add(f: Frame) -> Any:
        cell[0] = a(f) + b(f)
        return cell[0]

    def sub(f: Frame) -> Any:
        cell[0] = a(f) - b(f)
        return cell[0]

    def mul(f: Frame) -> Any:
        cell[0] = a(f) * b(f)
        return cell[0]

    return {"add": add, "sub": sub, "mul": mul}[op]


def _hot_f64(op: str, a: Eval, b: Eval) -> Eval:
    table: dict[str, Eval] = {
        "add": lambda f: a(f) + b(f),
        "sub": lambda f: a(f) - b(f),
        "mul": lambda f: a(f) * b(f),
    }
    return table[op]


_LOW, _HIGH = -(1 << 63), 1 << 63


def _hot_i64(op: str, a: Eval, b: Eval) -> Eval:
    def wrapped(x: int) -> int:
        return ((x + _HIGH) & (2 * _HIGH - 1)) - _HIGH

    def add(f: Frame) -> Any:
        x = a(f) + b(f)
        return x if _LOW <= x < _HIGH else wrapped(x)

    def sub(f: Frame) -> Any:
        x = a(f) - b(f)
        return x if _LOW <= x < _HIGH else wrapped(x)

    def mul(f: Frame) -> Any:
        x = a(f) * b(f)
        return x if _LOW <= x < _HIGH else wrapped(x)

    return {"add": add, "sub": sub, "mul": mul}[op]


_HOT: dict[str, Callable[[str, Eval, Eval], Eval]] = {
    "f32": _hot_f32,
    "f64": _hot_f64,
    "i64": _hot_i64,
}


def out_of_bounds(
    b: Buffer, index: tuple[int, ...], shape: tuple[int, ...], block: str
) -> ExecutionError:
    """The error of an access outside a buffer."""
    at = ", ".join(map(str, index))
    dims = ", ".join(map(str, shape))
    place = f" in block '{block}'" if block else ""
    return execution_error("E502", f"access {b.name}[{at}]{place} is outside of {b.name}[{dims}]")


def compile_access(b: Buffer, indices: tuple[Expr, ...], scope: Scope) -> Eval:
    """The closure that gives the flat element index of an access, checked per dimension."""
    items = [compile_expr(i, scope) for i in indices]
    layout = scope.layout(b)
    if layout is None:
        return _dynamic_access(b, items, scope)
    shape, strides = layout
    block = scope.block
    if len(shape) != len(items):
        raise execution_error("E502", f"{b.name} of rank {len(shape)} has {len(items)} indices")

    def fail(*index: int) -> ExecutionError:
        return out_of_bounds(b, index, shape, block)

    variables = [
        scope.slot(i.name) for i in indices if isinstance(i, Var) and i.name not in scope.known
    ]
    if len(variables) == len(items) and len(items) in _VAR_ACCESS:
        return _VAR_ACCESS[len(items)](variables, shape, strides, fail)
    if len(items) in _ACCESS:
        return _ACCESS[len(items)](items, shape, strides, fail)
    table = list(zip(items, shape, strides, strict=True))

    def at(f: Frame) -> int:
        flat = 0
        for item, d, s in table:
            i = item(f)
            if not 0 <= i < d:
                raise fail(*[x(f) for x in items])
            flat += i * s
        return flat

    return at


Fail = Callable[..., ExecutionError]


def _access1(x: list[Eval], d: tuple[int, ...], s: tuple[int, ...], fail: Fail) -> Eval:
    (x0,), (d0,), (s0,) = x, d, s

    def at(f: Frame) -> int:
        i = x0(f)
        if 0 <= i < d0:
            return i * s0  # type: ignore[no-any-return]
        raise fail(i)

    return at


def _access2(x: list[Eval], d: tuple[int, ...], s: tuple[int, ...], fail: Fail) -> Eval:
    (x0, x1), (d0, d1), (s0, s1) = x, d, s

    def at(f: Frame) -> int:
        i, j = x0(f), x1(f)
        if 0 <= i < d0 and 0 <= j < d1:
            return i * s0 + j * s1  # type: ignore[no-any-return]
        raise fail(i, j)

    return at


def _access3(x: list[Eval], d: tuple[int, ...], s: tuple[int, ...], fail: Fail) -> Eval:
    (x0, x1, x2), (d0, d1, d2), (s0, s1, s2) = x, d, s

    def at(f: Frame) -> int:
        i, j, k = x0(f), x1(f), x2(f)
        if 0 <= i < d0 and 0 <= j < d1 and 0 <= k < d2:
            return i * s0 + j * s1 + k * s2  # type: ignore[no-any-return]
        raise fail(i, j, k)

    return at


def _access4(x: list[Eval], d: tuple[int, ...], s: tuple[int, ...], fail: Fail) -> Eval:
    (x0, x1, x2, x3), (d0, d1, d2, d3), (s0, s1, s2, s3) = x, d, s

    def at(f: Frame) -> int:
        i, j, k, n = x0(f), x1(f), x2(f), x3(f)
        if 0 <= i < d0 and 0 <= j < d1 and 0 <= k < d2 and 0 <= n < d3:
            return i * s0 + j * s1 + k * s2 + n * s3  # type: ignore[no-any-return]
        raise fail(i, j, k, n)

    return at


def _var_access1(v: list[int], d: tuple[int, ...], s: tuple[int, ...], fail: Fail) -> Eval:
    (v0,), (d0,), (s0,) = v, d, s

    def at(f: Frame) -> int:
        i = f[v0]
        if 0 <= i < d0:
            return i * s0  # type: ignore[no-any-return]
        raise fail(i)

    return at


def _var_access2(v: list[int], d: tuple[int, ...], s: tuple[int, ...], fail: Fail) -> Eval:
    (v0, v1), (d0, d1), (s0, s1) = v, d, s

    def at(f: Frame) -> int:
        i, j = f[v0], f[v1]
        if 0 <= i < d0 and 0 <= j < d1:
            return i * s0 + j * s1  # type: ignore[no-any-return]
        raise fail(i, j)

    return at


def _var_access4(v: list[int], d: tuple[int, ...], s: tuple[int, ...], fail: Fail) -> Eval:
    (v0, v1, v2, v3), (d0, d1, d2, d3), (s0, s1, s2, s3) = v, d, s

    def at(f: Frame) -> int:
        i, j, k, n = f[v0], f[v1], f[v2], f[v3]
        if 0 <= i < d0 and 0 <= j < d1 and 0 <= k < d2 and 0 <= n < d3:
            return i * s0 + j * s1 + k * s2 + n * s3  # type: ignore[no-any-return]
        raise fail(i, j, k, n)

    return at


_Maker = Callable[[list[Any], tuple[int, ...], tuple[int, ...], Fail], Eval]
_ACCESS: dict[int, _Maker] = {1: _access1, 2: _access2, 3: _access3, 4: _access4}
_VAR_ACCESS: dict[int, _Maker] = {1: _var_access1, 2: _var_access2, 4: _var_access4}


def _dynamic_access(b: Buffer, items: list[Eval], scope: Scope) -> Eval:
    slot, block = scope.layout_slot(b), scope.block

    def at(f: Frame) -> int:
        shape, strides = f[slot]
        index = tuple(x(f) for x in items)
        if len(index) != len(shape) or not all(
            0 <= i < d for i, d in zip(index, shape, strict=True)
        ):
            raise out_of_bounds(b, index, shape, block)
        return sum(i * s for i, s in zip(index, strides, strict=True))

    return at
