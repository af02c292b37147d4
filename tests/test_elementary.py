"""Elementary functions of the CPU code: bounds in ulp against mpmath, special values."""

from __future__ import annotations

import ctypes
import math
from dataclasses import replace
from functools import cache
from typing import Any

import mpmath
import numpy as np
import pytest

import aisc
from aisc.codegen.cpu.backend import CpuBackend
from aisc.codegen.llvm import link, tabled
from aisc.codegen.llvm.elementary import BOUNDS
from aisc.codegen.llvm.link import Linked
from aisc.codegen.llvm.trigonometric import SHORT
from aisc.ir import dtypes, target
from aisc.ir.dtypes import DType
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.tensor import expr as e
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import MATH_CALLS, Binary, Load
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.types import TensorType
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.tensor.optimize import optimize

POINTS = 240  # per function and type
LANES = {"f32": 16, "f64": 8}
WIDTHS = {"f32": (4, 16, 32), "f64": (8,)}
FLOATS = (dtypes.f32, dtypes.f64)
FUNCTIONS = tuple(n for n in MATH_CALLS if n not in ("fma", "isnan", "isinf", "ordinal"))


def _kernel(name: str, dtype: DType, lanes: int, count: int) -> Func:
    """``y[i] = name(a[i])``, or ``a[i] ** b[i]``."""
    params = [buffer("a", dtype, (count,)), buffer("b", dtype, (count,))]
    y = buffer("y", dtype, (count,))
    c = ComputeBuilder()
    if name == "pow":
        c.map(y, lambda i: Binary("pow", Load(params[0], (i,)), Load(params[1], (i,))))
    else:
        c.map(y, lambda i: e.math(name, Load(params[0], (i,))))
    schedule = Schedule.of(c.func(f"{name}_{dtype}_{lanes}_{count}", (*params, y)))
    if lanes > 1:
        schedule = schedule.split("map_i0", lanes, names=("io", "ii")).vectorize("ii")
    return optimize(schedule.func)


@cache
def _linked(dtype: DType, count: int, plain: bool) -> Linked:
    """All functions of a type, as scalar and vector kernels of one object; `plain` in the forms for
    targets without AVX-512."""
    host = link.complete(target.host())
    if plain:
        host = replace(host, features=tuple(f for f in host.features if "avx512" not in f))
    names = (*FUNCTIONS, "pow") if dtype.is_float else ("pow",)
    widths = (1, *WIDTHS.get(dtype.name, (8,)))
    kernels = [_kernel(n, dtype, w, count) for n in names for w in widths]
    backend = CpuBackend(host)
    made = backend.assemble(backend.emit(kernels))
    return Linked([made.object], [k.name for k in kernels])


def evaluate(
    name: str, dtype: DType, a: Any, b: Any = None, lanes: int = 1, plain: bool = False
) -> Any:
    """Run a kernel on arrays of any length."""
    count = -(-len(a) // 32) * 32
    fill = count - len(a)
    pad = [np.pad(np.asarray(x, dtype.numpy), (0, fill)) for x in (a, a if b is None else b)]
    out = np.empty(count, dtype.numpy)
    address = _linked(dtype, count, plain).addresses[f"{name}_{dtype}_{lanes}_{count}"]
    kernel = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_int64,
                              ctypes.c_void_p)(address)  # fmt: skip
    kernel(pad[0].ctypes.data, pad[1].ctypes.data, out.ctypes.data, 0, 1, None)
    return out[: len(a)]


# -- references ------------------------------------------------------------------------------

mpmath.mp.prec = 160
EXACT: dict[str, Any] = {
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "log2": lambda x: mpmath.log(x) / mpmath.log(2),
    "exp2": lambda x: mpmath.mpf(2) ** x,
    "pow": lambda x, y: x**y,
}
FORMAT = {"f32": (24, 128), "f64": (53, 1024)}  # bits of precision, exponent of overflow


def ulps(got: float, want: Any, dtype: DType) -> float:
    """Distance in units of the last place of `want`; overflow must be infinite."""
    bits, top = FORMAT[dtype.name]
    if want == 0:
        return 0.0 if got == 0 else math.inf
    if abs(want) >= mpmath.ldexp(1 - mpmath.ldexp(1, -bits - 1), top):
        return 0.0 if math.isinf(got) and (got > 0) == (want > 0) else math.inf
    if not math.isfinite(got):
        return math.inf
    exponent = max(mpmath.frexp(want)[1] - 1, 2 - top)
    return float(abs(mpmath.mpf(got) - want) / mpmath.ldexp(1, exponent - bits + 1))


def _random(name: str, dtype: DType) -> Any:
    """Arguments over the exponent range and around where the function varies."""
    rng = np.random.default_rng(sum(map(ord, name)))
    top = FORMAT[dtype.name][1]
    n = POINTS // 5
    sign = rng.choice([-1.0, 1.0], n)
    with np.errstate(over="ignore"):
        x = np.concatenate([
            rng.uniform(-1, 1, n), rng.uniform(-8, 8, n), rng.uniform(-0.75, 0.75, n) * top,
            sign * np.exp2(rng.uniform(-20, 3, n)), sign * np.exp2(rng.uniform(-top, top, n)),
        ]).astype(dtype.numpy)  # fmt: skip
    x = x[np.isfinite(x)]
    if name in ("log", "log2", "rsqrt"):
        x = np.abs(x)
    elif name == "log1p":
        x = np.where(x <= -1, -x, x)
    elif name == "acosh":
        x = 1 + np.abs(x)
    elif name in ("asin", "acos", "atanh"):
        x = x[np.abs(x) < 1]
    return x.astype(dtype.numpy)


def _within(name: str, dtype: DType, *args: Any, plain: bool = False) -> None:
    """Scalar code and vectors of any width agree to the bit and keep the stated bound."""
    got = evaluate(name, dtype, *args, plain=plain)
    for lanes in WIDTHS[dtype.name]:
        np.testing.assert_array_equal(got, evaluate(name, dtype, *args, lanes=lanes, plain=plain))
    exact = EXACT.get(name) or getattr(mpmath, name)
    bound = BOUNDS[name][FLOATS.index(dtype)]
    for point in zip(got, *args, strict=True):
        y, *x = map(float, point)
        error = ulps(y, exact(*map(mpmath.mpf, x)), dtype)
        assert error <= bound, f"{name}{tuple(x)} = {y}: {error} ulp"


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_bound(name: str, dtype: DType) -> None:
    _within(name, dtype, _random(name, dtype))


@pytest.mark.parametrize("name", tabled.FUNCTIONS)
def test_bound_without_tables(name: str) -> None:
    """The forms for targets that do not look up registers, on any machine."""
    edges = np.array(
        [0, -0.0, 0.25, 0.9, 0.9486, 1, 3.92, 4, 9.01, 88.7, -87.3, -103.9], np.float32
    )
    _within(name, dtypes.f32, np.concatenate([_random(name, dtypes.f32), edges]), plain=True)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_pow_bound(dtype: DType) -> None:
    rng = np.random.default_rng(5)
    top = FORMAT[dtype.name][1]
    a = np.abs(_random("pow", dtype))
    a = a[(a > 0) & (a != 1)]
    b = (rng.uniform(-1.05 * top, 1.02 * top, len(a)) / np.log2(a.astype(np.float64))).astype(
        dtype.numpy
    )
    _within("pow", dtype, a, b)
    whole = np.round(rng.uniform(-9, 9, len(a))).astype(dtype.numpy)
    _within("pow", dtype, (-1 - np.abs(np.sin(a))).astype(dtype.numpy), whole)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("exp", ((88.72, 709.78), (-103.97, -745.13), (-87.33, -708.39))),
        ("exp2", ((128, 1024), (-149.5, -1074.5), (-126, -1022))),
        ("expm1", ((88.72, 709.78), (-17.3, -37.4))),
        ("sinh", ((89.41, 710.47), (-89.41, -710.47))),
        ("cosh", ((89.41, 710.47), (-89.41, -710.47))),
        ("tanh", ((9.01, 19.06), (-9.01, -19.06))),
        ("sigmoid", ((17.3, 37.4), (-87.33, -708.39), (-88.72, -709.78), (-103.97, -745.13))),
        ("erf", ((3.92, 5.92), (0.95, 1.0))),
        ("log", ((1, 1), (2.0**-126, 2.0**-1022))),
        ("log2", ((1, 1), (2.0**-126, 2.0**-1022))),
        ("log1p", ((-1 + 2.0**-20, -1 + 2.0**-50),)),
        ("asinh", ((2.0**60, 2.0**60), (3e38, 1.7e308))),
        ("acosh", ((2.0**60, 2.0**60), (3e38, 1.7e308), (1.0001, 1.0000001))),
        ("sin", ((math.pi, math.pi), (1e5 * math.pi, 2.0**40 * math.pi), (3e38, 2.0**47))),
        ("cos", ((math.pi / 2, math.pi / 2), (2.0**29, 2.0**47), (2.0**31, 2.0**47))),
        ("tan", ((math.pi / 2, math.pi / 2), (-1e5 * math.pi, -1e5 * math.pi), (1e30, 1e9))),
        ("atan", ((math.sqrt(2) - 1, math.sqrt(2) - 1), (math.sqrt(2) + 1, math.sqrt(2) + 1))),
    ],
)
def test_thresholds(name: str, limits: tuple[tuple[float, float], ...], dtype: DType) -> None:
    """Around overflow, underflow, and the borders between formulas."""
    column = FLOATS.index(dtype)
    steps = np.arange(-8, 9)
    x = np.concatenate(
        [
            v[column] * (1 + s * steps)
            for v in limits
            for s in (2.0**-15, 2.0 ** (-23 - 29 * column))
        ]
    )
    x = x[x > 1] if name == "acosh" else x[x > -1] if name == "log1p" else x
    with np.errstate(over="ignore"):
        x = x.astype(dtype.numpy)
    _within(name, dtype, x[np.isfinite(x)])


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_large_angles(name: str) -> None:
    """On both sides of where the long reduction begins, and f64 as near to multiples of pi/2 as
    there are (Muller, *Elementary Functions*, 2016, table 11.1), beside ordinary angles and NaN."""
    near = [math.ldexp(6381956970095103, 797), math.ldexp(5319372648326541, 205), 1.7e308]
    ends = [np.nextafter(SHORT, 0), SHORT, np.nextafter(SHORT, math.inf), 2.0**1023]
    rng = np.random.default_rng(6)
    random = np.exp2(rng.uniform(47, 1024, 200)) * rng.choice([-1.0, 1.0], 200)
    angles = np.array([*near, *ends, *random, 0.5, -1e-3, 3.0, *random[:9]])
    for plain in (False, True):
        _within(name, dtypes.f64, angles, plain=plain)
    mixed = np.array([math.nan, math.inf, 1e300, -math.inf, 1.0, -0.0, 1e17, 2.0])
    got = evaluate(name, dtypes.f64, mixed, lanes=8)
    np.testing.assert_array_equal(np.isnan(got), ~np.isfinite(mixed))
    np.testing.assert_array_equal(got, evaluate(name, dtypes.f64, mixed))


def test_denormals() -> None:
    """Arguments and results below the normal range are not flushed."""
    for dtype in FLOATS:
        tiny = np.array([1, 2, 3, 1001], f"i{dtype.bytes}").view(dtype.numpy)
        for name in ("expm1", "log1p", "sin", "tan", "asin", "atan", "sinh", "tanh", "asinh",
                     "atanh"):  # fmt: skip
            np.testing.assert_array_equal(evaluate(name, dtype, tiny), tiny, name)
        for name in ("log", "log2", "rsqrt", "erf", "exp", "sigmoid"):
            _within(name, dtype, tiny)


# -- special values ------------------------------------------------------------------------------

SPECIAL = (0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 2.0, -2.0, 1e9, -1e9)
NUMPY: dict[str, Any] = {
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    **{f"a{n}": getattr(np, f"arc{n}") for n in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
}


def _same(got: Any, want: Any, what: str) -> None:
    """Equal up to rounding, with equal signs of zero."""
    np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=what)
    zero = got == 0
    np.testing.assert_array_equal(np.signbit(got)[zero], np.signbit(want)[zero], what)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values(name: str, dtype: DType) -> None:
    x = np.array(SPECIAL, dtype.numpy)
    with np.errstate(all="ignore"):
        want = (NUMPY.get(name) or getattr(np, name))(x.astype(np.float64)).astype(dtype.numpy)
    whole = np.abs(want) <= 2  # limits and fixed points are met to the bit
    whole &= want == np.rint(want)
    for lanes in (1, LANES[dtype.name]):
        got = evaluate(name, dtype, x, lanes=lanes)
        _same(got, want, name)
        np.testing.assert_array_equal(got[whole], want[whole], name)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_special_powers(dtype: DType) -> None:
    values = (*SPECIAL, 0.5, -0.5, 3.0, -3.0, 1e30, -1e30, 2.0**24 - 1, 1 - 2.0**-24)
    a, b = (g.ravel().astype(dtype.numpy) for g in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        want = np.power(a, b)
    _same(evaluate("pow", dtype, a, b, LANES[dtype.name]), want, "pow")


def test_integer_powers() -> None:
    for dtype in (dtypes.i8, dtypes.u8, dtypes.i32, dtypes.i64):
        signed = dtype.kind == "int"
        bases = [-128, -3, -2, -1, 0, 1, 2, 3, 7, 127] if signed else [0, 1, 2, 3, 7, 255]
        powers = [-5, -2, -1, 0, 1, 2, 5, 31, 100] if signed else [0, 1, 2, 5, 31, 200]
        a, b = (g.ravel().astype(dtype.numpy) for g in np.meshgrid(bases, powers))
        modulus = 1 << dtype.bits
        want = [
            pow(int(x), int(y), modulus) if y >= 0 else int(x) ** (int(y) & 1) * (abs(int(x)) == 1)
            for x, y in zip(a, b, strict=True)
        ]
        expected = np.array(want, object) % modulus
        for lanes in (1, 8):
            got = evaluate("pow", dtype, a, b, lanes).astype(object) % modulus
            np.testing.assert_array_equal(got, expected)


def test_f64_to_narrow_rounds_once() -> None:
    rng = np.random.default_rng(4)
    near = (1 + np.arange(20) / 1024) * (1 + 2.0**-11)  # beside ties between neighbours
    x = np.concatenate([near, near * (1 + 2.0**-40), near * (1 - 2.0**-40), 1e6 * near,
                        rng.normal(0, 1e-6, 43), SPECIAL[:5]])  # fmt: skip
    a, y = buffer("a", dtypes.f64, (len(x),)), buffer("y", dtypes.f16, (len(x),))
    c = ComputeBuilder()
    c.map(y, lambda i: e.cast(Load(a, (i,)), dtypes.f16))
    host = link.complete(target.host())
    schedule = Schedule.of(c.func("narrow", (a, y))).split("map_i0", 4, names=("io", "ii"))
    backend = CpuBackend(host)
    made = backend.assemble(backend.emit([optimize(schedule.vectorize("ii").func)]))
    linked = Linked([made.object], ["narrow"])
    out = np.empty(len(x), np.float16)
    kernel = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, ctypes.c_int64, ctypes.c_int64,
                              ctypes.c_void_p)(linked.addresses["narrow"])  # fmt: skip
    kernel(x.ctypes.data, out.ctypes.data, 0, 1, None)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(out, x.astype(np.float16))


@pytest.mark.parametrize("dtype", [dtypes.f16, dtypes.bf16], ids=str)
def test_narrow_floats(dtype: DType) -> None:
    x = np.random.default_rng(3).uniform(-4, 4, 64).astype(dtype.numpy)
    eps = 2.0**-11 if dtype is dtypes.f16 else 2.0**-8
    for name in ("exp", "tanh", "sin", "expm1"):
        want = getattr(np, name)(x.astype(np.float64))
        got = evaluate(name, dtype, x, lanes=8).astype(np.float64)
        np.testing.assert_allclose(got, want, rtol=1.01 * eps, atol=1e-7)


def test_vectors_and_scalars_are_scaled_alike() -> None:
    """One instruction for a vector where there is one, two multiplications for a scalar: the same
    bits, with overflow, denormals and special values."""
    x = np.concatenate([np.linspace(-120, 100, 139), [np.inf, -np.inf, np.nan, 0.0, -0.0]])
    x = x.astype(np.float32)
    results = []
    for n in (1, 16):
        b = GraphBuilder()
        y = b.input("x", TensorType((n,), dtypes.f32))
        run = aisc.compile(b.finish([b.add("exp", (y,))]), threads=1, cache=False)
        results.append(np.concatenate([run(part) for part in x.reshape(-1, n)]))
    assert results[0].tobytes() == results[1].tobytes()
    assert (results[0][:20] < 1e-38).all()
