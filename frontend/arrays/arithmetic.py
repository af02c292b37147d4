"""Elementwise functions by numpy's names: their types come from numpy's own rules for its
ufuncs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from aisc.frontend.arrays.context import Context
from aisc.frontend.arrays.values import Tensor, is_number, misfit, of_numpy, refused, shown
from aisc.frontend.building.emitter import Emitter
from aisc.ir import dtypes
from aisc.ir.arith import poly
from aisc.ir.arith.poly import Poly
from aisc.ir.graph.core import Value

Emit = Callable[..., Value]
_POWERS = 6  # bits of an exponent of whole numbers


def elementwise(c: Context, name: str, *args: Any) -> Tensor:
    """The ufunc of numpy called `name`, of tensors and numbers; E112 where numpy has no such
    types."""
    rule = RULES.get(name)
    if rule is None:
        raise refused(f"np.{name} is not supported", loc=c.loc)
    parts = [c.tensor(x) for x in args]
    types = resolved(c, name, parts)
    if not all(_holds(t, c, d) for t, d in zip(parts, types, strict=False)):
        if name not in COMPARE.values():
            raise misfit(f"np.{name}: {shown(args[-1])} does not fit {types[0]}", loc=c.loc)
        types = (*(np.dtype(np.int64),) * len(parts), types[-1])
    values = [c.em.cast(c.read(t), of_numpy(d, c.loc)) for t, d in zip(parts, types, strict=False)]
    if values[0].type.dtype is dtypes.boolean and name in _ORDERS:
        values = [c.em.cast(v, dtypes.u8) for v in values]
    made = c.em.cast(rule(c.em, *values), of_numpy(types[-1], c.loc))
    weak = all(t.weak for t in parts) and all(t.value.type.rank == 0 for t in parts)
    return c.new(made, weak)


def _holds(t: Tensor, c: Context, dtype: Any) -> bool:
    """Whether a number of Python's that is known can be one of a type of whole numbers."""
    known = c.em.array(c.read(t)) if t.weak else None
    if known is None or dtype.kind not in "iu" or known.dtype.kind != "i":
        return True
    limits = np.iinfo(dtype)
    return bool(limits.min <= known.item() <= limits.max)


def resolved(c: Context, name: str, parts: list[Tensor]) -> tuple[Any, ...]:
    """Types of the operands and of the result, as numpy has them; numbers of Python's among
    themselves are of 64 bits."""
    ufunc = getattr(np, name)
    given: list[Any] = [c.numpy_type(t) for t in parts]
    if all(t.weak for t in parts):
        given = [t.value.type.dtype.numpy for t in parts]
    try:
        found: tuple[Any, ...] = ufunc.resolve_dtypes((*given, *(None,) * ufunc.nout))
    except TypeError:
        words = " and ".join(shown(t) for t in parts)
        raise misfit(f"np.{name} is not defined for {words}", loc=c.loc) from None
    return found


# --- operators of Python ------------------------------------------------------------------------
BINARY = {
    "Add": "add", "Sub": "subtract", "Mult": "multiply", "Div": "true_divide",
    "FloorDiv": "floor_divide", "Mod": "remainder", "Pow": "power", "BitAnd": "bitwise_and",
    "BitOr": "bitwise_or", "BitXor": "bitwise_xor", "LShift": "left_shift", "RShift": "right_shift",
}  # fmt: skip
COMPARE = {
    "Eq": "equal", "NotEq": "not_equal", "Lt": "less", "LtE": "less_equal", "Gt": "greater",
    "GtE": "greater_equal",
}  # fmt: skip

_ORDERS = ("less", "less_equal", "greater", "greater_equal")


def of_sizes(name: str, a: Any, b: Any) -> Any:
    """A binary operator of sizes as a size; nothing where it is none."""
    if name == "Add":
        return a + b
    if name == "Sub":
        return a - b
    if name == "Mult":
        return a * b
    if name in ("FloorDiv", "Mod") and poly.bounds(b)[0] > 0:
        return poly.floordiv(a, b) if name == "FloorDiv" else poly.mod(a, b)
    return None


def power(c: Context, a: Any, b: Any) -> Tensor:
    """``a ** b``; small whole exponents that are known become products."""
    if (
        b == 2
        and isinstance(b, int)
        and isinstance(a, Tensor)
        and a.value.type.dtype is dtypes.boolean
    ):
        return elementwise(c, "square", a)
    if isinstance(b, int) and not isinstance(b, bool) and 0 <= b <= 64 and isinstance(a, Tensor):
        types = resolved(c, "power", [a, c.tensor(b)])
        base = c.em.cast(c.read(a), of_numpy(types[-1], c.loc))
        if b in (1, 2, 3, 4) or not base.type.dtype.is_float:
            return c.new(_repeated(c.em, base, b), a.weak)
    if isinstance(b, int) and b < 0 and isinstance(a, Tensor) and a.value.type.dtype.is_integer:
        if not a.weak:
            raise misfit("whole numbers cannot be raised to a negative power", loc=c.loc)
        return power(c, c.new(c.em.cast(c.read(a), dtypes.f64), weak=True), float(b))
    return elementwise(c, "power", a, b)


def _repeated(em: Emitter, base: Value, exponent: int) -> Value:
    """A power by squaring."""
    found: Value | None = None
    while exponent:
        if exponent & 1:
            found = base if found is None else em.op("mul", found, base)
        exponent >>= 1
        if exponent:
            base = em.op("mul", base, base)
    if found is not None:
        return found
    return em.stretch(em.like(1, base), base.type.shape)


def minus(c: Context, x: Any) -> Any:
    """``-x``."""
    return -x if is_number(x) or isinstance(x, Poly) else elementwise(c, "negative", x)


# --- how each is computed -----------------------------------------------------------------------
def _op(name: str) -> Emit:
    return lambda em, *xs: em.op(name, *xs)


def _not(name: str) -> Emit:
    return lambda em, *xs: em.op("not", em.op(name, *xs))


def _truths(name: str) -> Emit:
    return lambda em, *xs: em.op(name, *(em.cast(x, dtypes.boolean) for x in xs))


def _minus_floor(em: Emitter, a: Value, b: Value) -> tuple[Value, Value]:
    """Floored quotient and remainder of floats, as numpy and Python have them: by fmod, which is
    exact."""
    zero = em.like(0, b)
    rest = em.op("fmod", a, b)
    apart = em.op("not", em.op("equal", em.op("less", b, zero), em.op("less", rest, zero)))
    moves = em.op("and", apart, em.op("not", em.op("equal", rest, zero)))
    shifted = em.op("where", moves, em.op("add", rest, b), rest)
    signed = em.op("where", em.op("equal", shifted, zero), _copysign(em, zero, b), shifted)
    whole = em.op("div", em.op("sub", a, em.op("where", moves, shifted, rest)), b)
    low = em.op("floor", whole)
    above = em.op("greater", em.op("sub", whole, low), em.like(0.5, whole))
    quotient = em.op("where", above, em.op("add", low, em.like(1, low)), low)
    by_zero = em.op("equal", b, zero)
    quotient = em.op("where", by_zero, em.op("div", a, b), quotient)
    return quotient, em.op("where", by_zero, rest, signed)


def _floor_divide(em: Emitter, a: Value, b: Value) -> Value:
    if a.type.dtype.is_float:
        return _minus_floor(em, a, b)[0]
    if a.type.dtype.kind == "uint":
        return em.op("div", a, b)
    return em.op("div", em.op("sub", a, em.op("mod", a, b)), b)


def _remainder(em: Emitter, a: Value, b: Value) -> Value:
    return _minus_floor(em, a, b)[1] if a.type.dtype.is_float else em.op("mod", a, b)


def _fmod(em: Emitter, a: Value, b: Value) -> Value:
    if a.type.dtype.is_float:
        return em.op("fmod", a, b)
    return em.op("sub", a, em.op("mul", em.op("div", a, b), b))


def _signbit(em: Emitter, x: Value) -> Value:
    zero = em.like(0, x)
    below_zero = em.op("less", em.op("reciprocal", x), zero)
    return em.op("or", em.op("less", x, zero), em.op("and", em.op("equal", x, zero), below_zero))


def _copysign(em: Emitter, a: Value, b: Value) -> Value:
    size = em.op("abs", a)
    return em.op("where", _signbit(em, b), em.op("neg", size), size)


def _power(em: Emitter, a: Value, b: Value) -> Value:
    """Powers of whole numbers wrap, as products do; exponents are from 0 to 63."""
    if a.type.dtype.is_float:
        return em.op("pow", a, b)
    count = em.cast(em.op("within", em.cast(b, dtypes.i64), size=(1 << _POWERS,)), a.type.dtype)
    made, one = em.like(1, a), em.like(1, a)
    for bit in range(_POWERS):
        has = em.op(
            "equal", em.op("and", em.op("shift_right", count, em.like(bit, count)), one), one
        )
        made = em.op("mul", made, em.op("where", has, a, one))
        a = em.op("mul", a, a)
    return made


def _hypot(em: Emitter, a: Value, b: Value) -> Value:
    a, b = em.op("abs", a), em.op("abs", b)
    high, low = em.op("max", a, b), em.op("min", a, b)
    zero = em.like(0, high)
    ratio = em.op("where", em.op("equal", high, zero), zero, em.op("div", low, high))
    found = em.op(
        "mul", high, em.op("sqrt", em.op("add", em.op("mul", ratio, ratio), em.like(1, a)))
    )
    endless = em.op("or", em.op("isinf", a), em.op("isinf", b))
    return em.op("where", endless, em.like(float("inf"), high), found)


def _arctan2(em: Emitter, y: Value, x: Value) -> Value:
    """The angle of (x, y), by the arc tangent of the lesser over the greater."""
    size_y, size_x = em.op("abs", y), em.op("abs", x)
    steep = em.op("greater", size_y, size_x)
    low, high = em.op("where", steep, size_x, size_y), em.op("where", steep, size_y, size_x)
    same = em.op("equal", low, high)
    zero, one = em.like(0, x), em.like(1, x)
    ratio = em.op("div", low, high)
    ratio = em.op("where", same, em.op("where", em.op("equal", high, zero), zero, one), ratio)
    angle = em.op("atan", ratio)
    angle = em.op("where", steep, em.op("sub", em.like(np.pi / 2, x), angle), angle)
    angle = em.op("where", _signbit(em, x), em.op("sub", em.like(np.pi, x), angle), angle)
    unknown = em.op("or", em.op("isnan", x), em.op("isnan", y))
    return em.op("where", unknown, em.op("add", x, y), _copysign(em, angle, y))


def _ignoring_nan(name: str) -> Emit:
    def emit(em: Emitter, a: Value, b: Value) -> Value:
        if a.type.dtype is dtypes.boolean:
            return em.op("or" if name == "max" else "and", a, b)
        found = em.op(name, a, b)
        if not a.type.dtype.is_float:
            return found
        found = em.op("where", em.op("isnan", a), b, found)
        return em.op("where", em.op("isnan", b), em.stretch(a, found.type.shape), found)

    return emit


def _logaddexp(em: Emitter, a: Value, b: Value) -> Value:
    high, low = em.op("max", a, b), em.op("min", a, b)
    gap = em.op("where", em.op("equal", high, low), em.like(0, high), em.op("sub", low, high))
    return em.op("add", high, em.op("log1p", em.op("exp", gap)))


def _scaled(factor: float, name: str = "", before: bool = True) -> Emit:
    def emit(em: Emitter, x: Value) -> Value:
        if not name:
            return em.op("mul", x, em.like(factor, x))
        if before:
            return em.op(name, em.op("mul", x, em.like(factor, x)))
        made = em.op(name, x)
        return em.op("mul", made, em.like(factor, made))

    return emit


def _abs(em: Emitter, x: Value) -> Value:
    return x if x.type.dtype.kind in ("bool", "uint") else em.op("abs", x)


def _sign(em: Emitter, x: Value) -> Value:
    if x.type.dtype.kind == "uint":
        return em.op("min", x, em.like(1, x))
    return em.op("sign", x)


def _isfinite(em: Emitter, x: Value) -> Value:
    if not x.type.dtype.is_float:
        return em.stretch(em.constant(True), x.type.shape)
    return em.op("less", em.op("abs", x), em.like(float("inf"), x))


def _never(name: str) -> Emit:
    """A test that whole numbers never pass."""
    return lambda em, x: (
        em.op(name, x) if x.type.dtype.is_float else em.stretch(em.constant(False), x.type.shape)
    )


def _same(em: Emitter, x: Value) -> Value:
    return x


def _whole(name: str) -> Emit:
    """A rounding, which whole numbers need none of."""
    return lambda em, x: em.op(name, x) if x.type.dtype.is_float else x


def _heaviside(em: Emitter, x: Value, at_zero: Value) -> Value:
    zero, one = em.like(0, x), em.like(1, x)
    found = em.op("where", em.op("less", x, zero), zero, one)
    found = em.op("where", em.op("equal", x, zero), at_zero, found)
    return em.op("where", em.op("isnan", x), x, found)


def _cbrt(em: Emitter, x: Value) -> Value:
    root = em.op("pow", em.op("abs", x), em.like(1 / 3, x))
    cube = em.op("mul", root, em.op("mul", root, root))
    rest = em.op(
        "div",
        em.op("sub", cube, em.op("abs", x)),
        em.op("mul", em.like(3, x), em.op("mul", root, root)),
    )
    better = em.op(
        "where",
        em.op("less", em.op("abs", rest), em.op("abs", root)),
        em.op("sub", root, rest),
        root,
    )
    return _copysign(em, better, x)


def _shift(name: str) -> Emit:
    """Shifts by the width or more leave nothing, or the sign, as numpy has it."""

    def emit(em: Emitter, a: Value, by: Value) -> Value:
        last = em.like(a.type.dtype.bits - 1, by)
        whole = em.op("greater", by, last)
        moved = em.op(name, a, em.op("min", by, last))
        zero = em.like(0, moved)
        if name == "shift_right" and a.type.dtype.kind == "int":
            return moved
        return em.op("where", whole, zero, moved)

    return emit


def _bool_or(logic: str, other: str) -> Emit:
    """Sums and products of bools are disjunctions and conjunctions."""
    return lambda em, a, b: em.op(logic if a.type.dtype is dtypes.boolean else other, a, b)


RULES: dict[str, Emit] = {
    "add": _bool_or("or", "add"), "subtract": _op("sub"), "multiply": _bool_or("and", "mul"),
    "true_divide": _op("div"), "floor_divide": _floor_divide, "remainder": _remainder,
    "fmod": _fmod, "power": _power, "float_power": _op("pow"), "negative": _op("neg"),
    "positive": _same, "absolute": _abs, "fabs": _abs, "sign": _sign, "rint": _whole("round"),
    "floor": _whole("floor"), "ceil": _whole("ceil"), "trunc": _whole("trunc"), "sqrt": _op("sqrt"),
    "square": lambda em, x: em.op("mul", x, x), "cbrt": _cbrt, "reciprocal": _op("reciprocal"),
    "exp": _op("exp"), "exp2": lambda em, x: em.op("pow", em.like(2, x), x), "expm1": _op("expm1"),
    "log": _op("log"), "log2": _scaled(1 / np.log(2.0), "log", before=False),
    "log10": _scaled(1 / np.log(10.0), "log", before=False), "log1p": _op("log1p"),
    "sin": _op("sin"), "cos": _op("cos"), "tan": _op("tan"), "arcsin": _op("asin"),
    "arccos": _op("acos"), "arctan": _op("atan"), "arctan2": _arctan2, "hypot": _hypot,
    "sinh": _op("sinh"), "cosh": _op("cosh"), "tanh": _op("tanh"), "arcsinh": _op("asinh"),
    "arccosh": _op("acosh"), "arctanh": _op("atanh"), "degrees": _scaled(180 / np.pi),
    "radians": _scaled(np.pi / 180), "rad2deg": _scaled(180 / np.pi), "deg2rad": _scaled(np.pi /
    180), "maximum": _bool_or("or", "max"), "minimum": _bool_or("and", "min"), "fmax":
    _ignoring_nan("max"), "fmin": _ignoring_nan("min"), "equal": _op("equal"), "not_equal":
    _not("equal"), "less": _op("less"), "less_equal": _op("less_equal"), "greater": _op("greater"),
    "greater_equal": _op("greater_equal"), "logical_and": _truths("and"), "logical_or":
    _truths("or"), "logical_xor": _truths("xor"), "logical_not": _truths("not"), "bitwise_and":
    _op("and"), "bitwise_or": _op("or"), "bitwise_xor": _op("xor"), "invert": lambda em, x:
    em.op("not" if x.type.dtype is dtypes.boolean else "bitwise_not", x), "left_shift":
    _shift("shift_left"), "right_shift": _shift("shift_right"), "isnan": _never("isnan"), "isinf":
    _never("isinf"), "isfinite": _isfinite, "signbit": _signbit, "copysign": _copysign,
    "heaviside": _heaviside, "logaddexp": _logaddexp, }  # fmt: skip
