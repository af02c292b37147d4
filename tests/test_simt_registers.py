"""Rows in registers: what lanes of a warp give each other, and what a kernel looks like."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from test_simt_rules import check, kernel_of, numbers, softmax
from test_simt_sizes import launched

from aisc.codegen.backend import backend_of
from aisc.codegen.simt.module import module_of, ptx_of
from aisc.codegen.simt.ptxas import find_ptxas, run_ptxas
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, symbol
from aisc.ir.diagnostics import CompileError
from aisc.ir.node import Node, walk
from aisc.ir.target import Target, resolve
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Const, Load, Unary, Var, binary
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.tensor.interpret import run_func
from aisc.ir.tensor.stmt import Barrier, If, Seq, Store
from aisc.ir.tensor.verify_func import verify_func
from aisc.ir.tensor.visitor import transform
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_func
from aisc.passes.schedule.rules.chooser import NONE
from aisc.passes.tensor.simt_barriers import RaceError, check_barriers
from aisc.passes.tensor.thread_loops import ThreadLoops
from aisc.passes.tensor.warp_registers import WarpRegisters

f32 = dtypes.f32
GPU = resolve("nvidia_sm90")


def normalized(*shape: Dim) -> Func:
    """Rows less their mean over their deviation, with a scale: also the mean is a result."""
    dims = tuple(Var(str(d)) for d in dict.fromkeys(shape) if not isinstance(d, int))
    n, rows = shape[-1], shape[:-1]
    assert isinstance(n, int)
    x, y = buffer("x", f32, shape, "input"), buffer("y", f32, shape, "output")
    scale, means = buffer("scale", f32, (n,), "weight"), buffer("means", f32, rows, "output")
    c = ComputeBuilder()
    total, squares = (c.alloc(k, f32, rows) for k in ("total", "squares"))
    c.reduce(total, (n,), "sum", lambda i, r: Load(x, (*i, *r)), "sum")
    c.map(means, lambda *i: Load(total, i) / float(n), "mean")

    def square(i: tuple[object, ...], r: tuple[object, ...]) -> object:
        gap = Load(x, (*i, *r)) - Load(total, i) / float(n)  # type: ignore[arg-type]
        return gap * gap

    c.reduce(squares, (n,), "sum", square, "squares")  # type: ignore[arg-type]
    c.map(
        y,
        lambda *i: (
            (Load(x, i) - Load(total, i[:-1]) / float(n))
            / Unary("sqrt", Load(squares, i[:-1]) / float(n) + 1e-5)
            * Load(scale, i[-1:])
        ),
        "scaled",
    )
    return c.func("normalized", (x, scale, means, y), dims)


def in_registers(kernel: Func) -> bool:
    return any(isinstance(n, Barrier) and n.scope == "warp" for n in walk(kernel.body))


def on_machine(kernel: Func, arrays: list[np.ndarray], target: Target = GPU) -> None:
    launched(kernel, target, arrays, {})


@pytest.mark.parametrize("shape", [(9, 160), (3, 4, 33), (2, 1000), (5, 129), (4, 4096), (1, 16)])
def test_rows_are_right(shape: tuple[int, ...]) -> None:
    x = numbers(*shape)
    x.flat[3] = -np.inf
    kernel = check(softmax(*shape), x, out=shape)
    assert in_registers(kernel)
    verify_func(kernel)
    assert parse_func(print_func(kernel)) == kernel
    want, got = np.zeros(shape, np.float32), np.full(shape, 7, np.float32)
    run_func(kernel, [x, want])
    on_machine(kernel, [x, got])
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def test_rows_that_are_no_numbers_stay_alone() -> None:
    x = numbers(9, 70)
    x[2, 5], x[4, 69], x[7] = np.nan, np.inf, -np.inf
    kernel = kernel_of(softmax(9, 70))
    got = np.zeros_like(x)
    on_machine(kernel, [x, got])
    bad = {k for k in range(9) if np.isnan(got[k]).any()}
    assert bad == {2, 4, 7}


@pytest.mark.parametrize("shape", [(6, 96), (3, 50), (2, 2048)])
def test_means_and_deviations(shape: tuple[int, int]) -> None:
    x, scale = numbers(*shape), numbers(shape[1], seed=4)
    kernel = kernel_of(normalized(*shape))
    assert in_registers(kernel)
    means, got = np.zeros(shape[0], np.float32), np.zeros(shape, np.float32)
    for run in (lambda a: on_machine(kernel, a), lambda a: run_func(ThreadLoops().run(kernel), a)):
        means[:], got[:] = 7, 7
        run([x, scale, means, got])
        np.testing.assert_allclose(means, x.mean(1), rtol=1e-4, atol=1e-6)
        gap = x - x.mean(1, keepdims=True)
        want = gap / np.sqrt((gap * gap).mean(1, keepdims=True) + 1e-5) * scale
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_any_number_of_rows() -> None:
    m = symbol("m", 0)
    kernel = kernel_of(softmax(m, 64))
    assert in_registers(kernel)
    for rows in (0, 1, 4, 7):
        x = numbers(rows, 64)
        got, want = np.zeros_like(x), np.zeros_like(x)
        run_func(softmax(m, 64), [x, want])
        launched(kernel, GPU, [x, got], {"m": rows})
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def test_rows_of_an_unknown_length_go_another_way() -> None:
    assert not in_registers(kernel_of(softmax(5, symbol("n", 0))))


def test_a_machine_with_half_of_a_warp() -> None:
    chip = resolve("warp16")
    kernel = backend_of(chip).schedule(softmax(5, 90), NONE)[0].func
    assert in_registers(kernel)
    x = numbers(5, 90)
    got, want = np.zeros_like(x), np.zeros_like(x)
    run_func(softmax(5, 90), [x, want])
    on_machine(kernel, [x, got], chip)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def test_lanes_that_exchange_nothing() -> None:
    kernel = backend_of(resolve("amd_gfx942")).schedule(softmax(5, 256), NONE)[0].func
    assert not in_registers(kernel)


# -- what a kernel looks like ----------------------------------------------------------------------


def test_a_row_is_read_once_in_wide_accesses() -> None:
    ptx = ptx_of(module_of([kernel_of(softmax(512, 256))], GPU)[0], GPU)
    found = re.findall(r"\b(?:ld|st|shfl|bar)\.\S+", ptx)
    count = {n: found.count(n) for n in set(found) if "param" not in n}
    assert count == {"ld.global.v4.b32": 2, "st.global.v4.b32": 2, "shfl.sync.idx.b32": 10}


@pytest.mark.skipif(find_ptxas() is None, reason="ptxas is not installed")
@pytest.mark.parametrize("length", [64, 1000, 8192, 32768])
def test_registers_hold_a_row(length: int) -> None:
    ptx = ptx_of(module_of([kernel_of(softmax(64, length))], GPU)[0], GPU)
    (usage,) = run_ptxas(ptx, GPU.arch).values()
    assert usage.spills == usage.stack == 0


# -- what is missing is found ----------------------------------------------------------------------


def test_lanes_wait_for_each_other() -> None:
    kernel = kernel_of(softmax(9, 160))
    bare = transform(kernel.body, lambda n: Seq(()) if n == Barrier("warp") else n)
    with pytest.raises(RaceError):
        check_barriers(replace(kernel, body=bare))


def test_warps_wait_for_each_other() -> None:
    kernel = kernel_of(softmax(2, 4096))
    check_barriers(kernel)
    bare = transform(kernel.body, lambda n: Seq(()) if n == Barrier("block") else n)
    with pytest.raises(RaceError):
        check_barriers(replace(kernel, body=bare))


def test_lanes_that_do_not_come_are_not_asked() -> None:
    def some(n: Node) -> Node:
        if isinstance(n, Store) and n.buffer.name.startswith("max_pair"):
            return If(binary("lt", Var("tx"), Const(7)), n)
        return n

    kernel = kernel_of(softmax(9, 160))
    with pytest.raises(CompileError) as caught:
        WarpRegisters().run(replace(kernel, body=transform(kernel.body, some)))
    assert caught.value.codes == ("E306",)


def test_other_warps_are_not_asked() -> None:
    def far(n: Node) -> Node:
        if isinstance(n, Load) and n.buffer.space == "warp":
            return Load(
                n.buffer, (n.indices[0], binary("sub", Const(1), n.indices[1]), n.indices[2])
            )
        return n

    def swap(n: Node) -> Node:
        return replace(n, value=transform(n.value, far)) if isinstance(n, Store) else n

    kernel = kernel_of(softmax(2, 1024))
    with pytest.raises(CompileError) as caught:
        WarpRegisters().run(replace(kernel, body=transform(kernel.body, swap)))
    assert caught.value.codes == ("E303",)
