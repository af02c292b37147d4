"""When threads are worth their start: decided from the work of kernels."""

from __future__ import annotations

import pytest

from aisc.codegen.cpu.threads import least_sizes
from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Load, Var
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.tensor.stmt import CallKernel


@pytest.mark.parametrize(
    ("work", "scales", "parallel", "least"),
    [(1000, False, True, 0), (999, False, True, -1), (100, True, True, 10), (3, True, True, 334),
     (1000, True, True, 1), (1000, False, False, -1)],
)  # fmt: skip
def test_sizes_from_which_on_threads_pay(
    work: int, scales: bool, parallel: bool, least: int
) -> None:
    n = Var("n")
    x, y = (buffer(k, dtypes.f32, (symbol("n"),), r) for k, r in (("x", "input"), ("y", "output")))
    b = ComputeBuilder()
    b.map(y, lambda i: Load(x, (i,)), "m")
    kernel = b.func("k", (x, y), (n,)).with_attrs(work=work, scales=scales, parallel=parallel)
    entry = Func("entry", (x, y), (n,), CallKernel("k", (x, y), (n,)))
    assert least_sizes(entry, {"k": kernel}, 1000) == least
