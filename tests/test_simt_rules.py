"""Schedules for SIMT machines by structure: odd sizes, sizes of the run, empty ones, values that
are no numbers, and what a kernel must look like."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from aisc.codegen.backend import backend_of
from aisc.codegen.simt.module import module_of, ptx_of
from aisc.codegen.simt.ptxas import find_ptxas, run_ptxas
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, symbol
from aisc.ir.diagnostics import CompileError
from aisc.ir.node import Node, walk
from aisc.ir.target import resolve
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Const, Expr, Load, Var, cast, const, logical_and, maximum, select
from aisc.ir.tensor.expr import math as math_call
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.tensor.interpret import run_func
from aisc.ir.tensor.stmt import Invoke
from aisc.ir.tensor.visitor import transform
from aisc.passes.analysis.simt_kernel import Kernel, launches
from aisc.passes.schedule.rules.chooser import NONE
from aisc.passes.tensor.thread_loops import ThreadLoops
from aisc.passes.tensor.warp_registers import WarpRegisters

f32 = dtypes.f32
GPU = resolve("nvidia_sm90")


def kernel_of(func: Func) -> Func:
    made, _ = backend_of(GPU).schedule(func, NONE)
    form = next(p.choice for p in made.picks if p.name == "kernel.form")
    assert form == "structure"
    return made.func


def check(func: Func, *inputs: np.ndarray, out: tuple[int, ...], exact: bool = False) -> Func:
    """The kernel, and its loops over threads, compute what the function does."""
    want = np.full(out, 7, np.float32)
    run_func(func, [*inputs, want])
    kernel = kernel_of(func)
    scratch = kernel.params[len(func.params) :]
    extra = [np.zeros(_shape(b.shape, func, inputs), b.dtype.numpy) for b in scratch]
    for form in (kernel, ThreadLoops().run(kernel)):
        got = np.full(out, 7, np.float32)
        run_func(form, [*inputs, got, *extra])
        if exact:
            np.testing.assert_array_equal(got, want)
        else:
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5)
    return kernel


def _shape(shape: tuple[Dim, ...], func: Func, inputs: tuple[np.ndarray, ...]) -> tuple[int, ...]:
    known: dict[str, int] = {}
    for b, x in zip(func.params, inputs, strict=False):
        known.update({str(d): n for d, n in zip(b.shape, x.shape, strict=True)})
    return tuple(d if isinstance(d, int) else known[str(d)] for d in shape)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + sum(shape)).standard_normal(shape).astype(np.float32)


def small_integers(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(-3, 4, shape).astype(np.float32)


# -- products -------------------------------------------------------------------------------------
def batched(b: Dim, m: Dim, k: Dim, n: Dim, turned: str) -> Func:
    """``y[b, m, n] = sum over k of x * w``; `turned`: operands whose last axes are exchanged."""
    dims = tuple(Var(str(d)) for d in dict.fromkeys((b, m, k, n)) if not isinstance(d, int))
    x = buffer("x", f32, (b, k, m) if "x" in turned else (b, m, k), "input")
    w = buffer("w", f32, (b, n, k) if "w" in turned else (b, k, n), "input")
    y, c = buffer("y", f32, (b, m, n), "output"), ComputeBuilder()

    def value(i: tuple[Expr, ...], r: tuple[Expr, ...]) -> Expr:
        g, row, column = i
        left = Load(x, (g, r[0], row) if "x" in turned else (g, row, r[0]))
        right = Load(w, (g, column, r[0]) if "w" in turned else (g, r[0], column))
        return left * right

    c.reduce(y, (k,), "sum", value, "mm")
    return c.func("products", (x, w, y), dims)


@pytest.mark.parametrize("turned", ["", "x", "w", "xw"])
@pytest.mark.parametrize("size", [(2, 9, 12, 10), (1, 33, 17, 65), (3, 16, 32, 8)])
def test_products_of_any_form(size: tuple[int, int, int, int], turned: str) -> None:
    b, m, k, n = size
    x = small_integers(*((b, k, m) if "x" in turned else (b, m, k)))
    w = small_integers(*((b, n, k) if "w" in turned else (b, k, n)))
    kernel = check(batched(*size, turned), x, w, out=(b, m, n), exact=True)
    (launch,) = launches(kernel)
    assert Kernel.of(launch).shared, "panels"


def test_products_of_sizes_of_the_run() -> None:
    b, m, k = symbol("b", 0, 64), symbol("m", 0, 512), symbol("k", 0, 512)
    func = batched(b, m, k, 24, "")
    for size in ((2, 9, 12), (1, 40, 33), (0, 4, 4), (2, 0, 5), (2, 3, 0)):
        x, w = small_integers(*size), small_integers(size[0], size[2], 24)
        check(func, x, w, out=(*size[:2], 24), exact=True)


def test_rows_that_are_no_numbers_stay_in_their_rows() -> None:
    x, w = numbers(1, 19, 11), numbers(1, 11, 13)
    x[0, 3, 4], x[0, 18, 0], x[0, 7] = np.nan, np.inf, -np.inf
    check(batched(1, 19, 11, 13, ""), x, w, out=(1, 19, 13))


def convolution(n: int, size: int, c: int, o: int, stride: int, depthwise: bool = False) -> Func:
    """3 x 3 with borders, a bias and a ramp."""
    x, y = buffer("x", f32, (n, size, size, c), "input"), ComputeBuilder()
    w = buffer("w", f32, (3, 3, 1 if depthwise else c, o), "weight")
    bias, to = buffer("bias", f32, (o,), "weight"), -(-size // stride)
    out = buffer("y", f32, (n, to, to, o), "output")
    padded = y.alloc("padded", f32, (n, size + 2, size + 2, c))
    acc = y.alloc("acc", f32, (n, to, to, o))

    def border(g: Expr, h: Expr, v: Expr, k: Expr) -> Expr:
        inside = logical_and(h - 1 >= 0, h - 1 < size, v - 1 >= 0, v - 1 < size)
        return select(inside, Load(x, (g, h - 1, v - 1, k)), const(0, f32))

    def tap(i: tuple[Expr, ...], r: tuple[Expr, ...]) -> Expr:
        g, h, v, k = i
        at = (g, h * stride + r[0], v * stride + r[1])
        if depthwise:
            return Load(padded, (*at, k)) * Load(w, (r[0], r[1], Const(0), k))
        return Load(padded, (*at, r[2])) * Load(w, (r[0], r[1], r[2], k))

    y.map(padded, border, "pad")
    y.reduce(acc, (3, 3) if depthwise else (3, 3, c), "sum", tap, "conv")
    y.map(out, lambda g, h, v, k: maximum(Load(acc, (g, h, v, k)) + Load(bias, (k,)), 0.0), "relu")
    return y.func("conv", (x, w, bias, out))


@pytest.mark.parametrize(
    ("c", "o", "stride", "depthwise"),
    [(8, 16, 1, False), (3, 10, 2, False), (8, 8, 1, True), (7, 7, 2, True)],
)
def test_convolutions_are_one_launch(c: int, o: int, stride: int, depthwise: bool) -> None:
    func = convolution(2, 9, c, o, stride, depthwise)
    x, w = small_integers(2, 9, 9, c), small_integers(3, 3, 1 if depthwise else c, o)
    to = -(-9 // stride)
    kernel = check(func, x, w, small_integers(o), out=(2, to, to, o), exact=True)
    assert len(launches(kernel)) == 1, "nothing is materialised"
    assert len(kernel.params) == len(func.params)


def followed(m: int, k: int, n: int) -> Func:
    """A product with a bias and a ramp."""
    x, w = buffer("x", f32, (m, k), "input"), buffer("w", f32, (k, n), "weight")
    y, bias = buffer("y", f32, (m, n), "output"), buffer("bias", f32, (n,), "weight")
    c = ComputeBuilder()
    acc = c.alloc("acc", f32, (m, n))
    c.reduce(acc, (k,), "sum", lambda i, r: Load(x, (i[0], r[0])) * Load(w, (r[0], i[1])), "mm")
    c.map(y, lambda i, j: maximum(Load(acc, (i, j)) + Load(bias, (j,)), 0.0), "relu")
    return c.func("followed", (x, w, bias, y))


@pytest.mark.parametrize("size", [(1, 768, 70), (16, 512, 64), (20, 256, 33)])
def test_products_of_few_results_divide_their_depth(size: tuple[int, int, int]) -> None:
    m, k, n = size
    given = small_integers(m, k), small_integers(k, n), small_integers(n)
    kernel = check(followed(*size), *given, out=(m, n), exact=True)
    first, second = launches(kernel)
    assert len(Kernel.of(first).grid) > len(Kernel.of(second).grid), "parts of the depth"


def test_products_of_many_results_are_one_launch() -> None:
    assert len(launches(kernel_of(followed(1024, 512, 1024)))) == 1


# -- rows -----------------------------------------------------------------------------------------
def softmax(*shape: Dim) -> Func:
    dims = tuple(Var(str(d)) for d in dict.fromkeys(shape) if not isinstance(d, int))
    x, y = buffer("x", f32, shape, "input"), buffer("y", f32, shape, "output")
    c, rows = ComputeBuilder(), shape[:-1]
    top, total = (c.alloc(n, f32, rows) for n in ("top", "total"))
    e = c.alloc("e", f32, shape)
    c.reduce(top, shape[-1:], "max", lambda i, r: Load(x, (*i, *r)), "max")
    c.map(e, lambda *i: math_call("exp", Load(x, i) - Load(top, i[:-1])), "exp")
    c.reduce(total, shape[-1:], "sum", lambda i, r: Load(e, (*i, *r)), "sum")
    c.map(y, lambda *i: Load(e, i) / Load(total, i[:-1]), "divide")
    return c.func("softmax", (x, y), dims)


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 40), (2, 1000), (9, 129), (1, 5, 16)])
def test_rows_are_one_launch(shape: tuple[int, ...]) -> None:
    x = numbers(*shape)
    x.flat[3] = -np.inf
    kernel = check(softmax(*shape), x, out=shape)
    (launch,) = launches(kernel)
    assert Kernel.of(launch).threads


def test_rows_of_sizes_of_the_run() -> None:
    m, n = symbol("m", 0, 512), symbol("n", 0, 4096)
    for shape in ((3, 5), (4, 700), (0, 8), (1, 1)):
        check(softmax(m, n), numbers(*shape), out=shape)


def test_a_row_without_elements() -> None:
    n = symbol("n", 0, 4096)
    x, y = buffer("x", f32, (3, n), "input"), buffer("y", f32, (3,), "output")
    c = ComputeBuilder()
    c.reduce(y, (n,), "max", lambda i, r: Load(x, (*i, *r)), "max")
    func = c.func("tops", (x, y), (Var("n"),))
    for size in (0, 1, 50):
        check(func, numbers(3, size), out=(3,))


@pytest.mark.parametrize("shape", [(40, 6), (17, 64), (100, 33)])
def test_reductions_along_columns(shape: tuple[int, int]) -> None:
    x, y = buffer("x", f32, shape, "input"), buffer("y", f32, shape[1:], "output")
    c = ComputeBuilder()
    c.reduce(y, shape[:1], "sum", lambda i, r: Load(x, (*r, *i)), "sum")
    check(c.func("columns", (x, y)), numbers(*shape), out=shape[1:])


# -- maps -----------------------------------------------------------------------------------------
def mapped(shape: tuple[int, ...], at: Callable[[tuple[Expr, ...]], tuple[Expr, ...]]) -> Func:
    x, y = buffer("x", f32, shape, "input"), buffer("y", f32, shape, "output")
    c = ComputeBuilder()
    c.map(y, lambda *i: Load(x, at(i)) * 2.0, "twice")
    return c.func("twice", (x, y))


@pytest.mark.parametrize("shape", [(5,), (4, 16), (3, 5, 7), (2, 0, 4)])
def test_maps(shape: tuple[int, ...]) -> None:
    check(mapped(shape, lambda i: i), numbers(*shape), out=shape, exact=True)


def accesses(func: Func) -> set[str]:
    text = ptx_of(module_of([kernel_of(func)], GPU)[0], GPU)
    return set(re.findall(r"(?:ld|st)\.(?:global|shared)[.a-z0-9]*", text))


def test_accesses_are_wide() -> None:
    assert accesses(mapped((64, 64), lambda i: i)) == {"ld.global.v4.b32", "st.global.v4.b32"}
    product = accesses(batched(1, 256, 256, 256, ""))
    assert {n for n in product if "global" in n} == {"ld.global.v4.b32", "st.global.v4.b32"}
    assert "ld.shared.b32" not in product


# -- instructions of warps ------------------------------------------------------------------------
def narrow_product(m: int, k: int, n: int, dtype: dtypes.DType, turned: bool = False) -> Func:
    """``y = x @ w`` with sums of 32 bits; `turned`: w has its rows as columns."""
    wide = dtypes.i32 if dtype is dtypes.i8 else f32
    x = buffer("x", dtype, (m, k), "input")
    w = buffer("w", dtype, (n, k) if turned else (k, n), "weight")
    y, c = buffer("y", wide, (m, n), "output"), ComputeBuilder()

    def value(i: tuple[Expr, ...], r: tuple[Expr, ...]) -> Expr:
        at = (i[1], r[0]) if turned else (r[0], i[1])
        return cast(Load(x, (i[0], r[0])), wide) * cast(Load(w, at), wide)

    c.reduce(y, (k,), "sum", value, "mm")
    return c.func("narrow", (x, w, y))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("size", [(16, 16, 8), (33, 40, 26), (70, 9, 33), (8, 64, 48)])
@pytest.mark.parametrize("dtype", [dtypes.f16, dtypes.bf16, dtypes.i8])
def test_matrix_instructions(dtype: dtypes.DType, size: tuple[int, int, int], turned: bool) -> None:
    m, k, n = size
    func = narrow_product(m, k, n, dtype, turned)
    kernel = kernel_of(func)
    assert any(isinstance(s, Invoke) for s in walk(kernel.body))
    rng = np.random.default_rng(m)
    x, w = (rng.integers(-8, 9, s) for s in ((m, k), (n, k) if turned else (k, n)))
    got = np.zeros((m, n), func.params[-1].dtype.numpy)
    given = [x.astype(dtype.numpy), w.astype(dtype.numpy), got]
    run_func(ThreadLoops(GPU).run(kernel), given)
    np.testing.assert_array_equal(got, x @ (w.T if turned else w))


@pytest.mark.skipif(find_ptxas() is None, reason="ptxas is not installed")
@pytest.mark.parametrize("dtype", [dtypes.f16, dtypes.bf16, dtypes.i8])
def test_matrix_instructions_are_as_many_as_the_tile_demands(dtype: dtypes.DType) -> None:
    func = narrow_product(1024, 1024, 1024, dtype)
    made, _ = backend_of(GPU).schedule(func, NONE)
    picks = {p.name: p.choice for p in made.picks}
    assert picks["mm.matrix"] is True
    (_, _, hm, hn), (steps, _) = picks["mm.warps"], picks["mm.steps"]  # type: ignore[misc]
    ptx = ptx_of(module_of([made.func], GPU)[0], GPU)
    assert ptx.count("mma.sync") == hm * hn * steps
    (usage,) = run_ptxas(ptx, GPU.arch).values()
    assert usage.spills == usage.stack == 0
    wide = {n for n in re.findall(r"(?:ld|st)\.global[.a-z0-9]*", ptx) if n.startswith("ld")}
    assert wide == ({"ld.global.v4.b32"} if dtype is dtypes.i8 else set()), "others are copied"


def test_registers_of_other_lanes_are_refused() -> None:
    kernel = kernel_of(narrow_product(16, 16, 8, dtypes.f16))
    turned = transform(kernel.body, _exchanged)
    assert turned != kernel.body
    with pytest.raises(CompileError) as caught:
        WarpRegisters().run(replace(kernel, body=turned))
    assert caught.value.codes == ("E303",)


def _exchanged(n: Node) -> Node:
    """Sums are read from the registers of a neighbour."""
    if isinstance(n, Load) and n.buffer.space == "warp":
        at = list(n.indices)
        at[4] = Const(3) - at[4]
        return Load(n.buffer, tuple(at))
    return n


def test_types_are_kept_in_panels() -> None:
    """Factors are cast where they are multiplied: panels are as narrow as what they hold."""
    x, w = (buffer(n, dtypes.u8, (16, 16), "input") for n in "xw")
    y, c = buffer("y", dtypes.i32, (16, 16), "output"), ComputeBuilder()
    i32 = dtypes.i32
    c.reduce(
        y, (16,), "sum",
        lambda i, r: cast(Load(x, (i[0], r[0])), i32) * cast(Load(w, (r[0], i[1])), i32), "mm",
    )  # fmt: skip
    kernel = kernel_of(c.func("integers", (x, w, y)))
    (launch,) = launches(kernel)
    assert {a.buffer.dtype for a in Kernel.of(launch).shared} == {dtypes.u8}
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (16, 16)).astype(np.uint8) for _ in "ab")
    got = np.zeros((16, 16), np.int32)
    run_func(kernel, [a, b, got])
    np.testing.assert_array_equal(got, a.astype(np.int32) @ b.astype(np.int32))
