"""pad_reduction: a reduction over whole tiles of operands that were filled up with zeros."""

from __future__ import annotations

import numpy as np
import pytest

from aisc.ir import dtypes
from aisc.ir.diagnostics import CompileError
from aisc.ir.dtypes import DType
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Const, Load
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.tensor.interpret import run_func
from aisc.ir.tensor.tree import find_loop
from aisc.passes.schedule.schedule import Schedule


def product(k: int, dtype: DType, combiner: str = "sum") -> Func:
    a, w = buffer("a", dtype, (4, k), "input"), buffer("w", dtype, (k, 4), "weight")
    c, b = buffer("c", dtype, (4, 4), "output"), ComputeBuilder()
    b.reduce(c, (k,), combiner, lambda i, r: Load(a, (i[0], r[0])) * Load(w, (r[0], i[1])), "mm")
    return b.func("product", (a, w, c))


def filled(func: Func, zero: dict[str, bool]) -> Schedule:
    """The operands copied and enlarged along the reduction, with zeros or by clamping."""
    s = Schedule.of(func)
    for name, axis in (("a", 1), ("w", 0)):
        s = s.cache_read("mm", name, "global", f"{name}_p")
        s = s.clamp_tail(f"{name}_p_fill", f"{name}_p_fill_i{axis}", 4, zero=zero[name])
    return s


@pytest.mark.parametrize(
    ("dtype", "zero"),
    [
        (dtypes.f32, {"a": True, "w": True}),
        (dtypes.i32, {"a": True, "w": False}),
        (dtypes.i32, {"a": False, "w": True}),
    ],
)
def test_added_products_are_zero(dtype: DType, zero: dict[str, bool]) -> None:
    s = filled(product(6, dtype), zero).pad_reduction("mm", "mm_r_i0", 4)
    assert find_loop(s.func, "mm_r_i0").extent == Const(8)
    rng = np.random.default_rng(0)
    a, w = (rng.integers(-9, 9, shape).astype(dtype.numpy) for shape in ((4, 6), (6, 4)))
    c = np.zeros((4, 4), dtype.numpy)
    run_func(s.func, [a, w, c])
    np.testing.assert_array_equal(c, a @ w)


@pytest.mark.parametrize(
    ("dtype", "zero"),
    [
        (dtypes.f32, {"a": True, "w": False}),  # 0 * inf is not 0
        (dtypes.f32, {"a": False, "w": True}),
        (dtypes.i32, {"a": False, "w": False}),
    ],
)
def test_products_that_may_not_vanish_are_refused(dtype: DType, zero: dict[str, bool]) -> None:
    with pytest.raises(CompileError) as caught:
        filled(product(6, dtype), zero).pad_reduction("mm", "mm_r_i0", 4)
    assert caught.value.codes == ("E303",)


def test_reads_beyond_the_end_are_refused() -> None:
    with pytest.raises(CompileError) as caught:
        Schedule.of(product(6, dtypes.f32)).pad_reduction("mm", "mm_r_i0", 4)
    assert caught.value.codes == ("E303",)


@pytest.mark.parametrize("loop", ["mm_i0", "mm_i1"])
def test_only_reductions_are_padded(loop: str) -> None:
    with pytest.raises(CompileError) as caught:
        Schedule.of(product(6, dtypes.f32)).pad_reduction("mm", loop, 3)
    assert caught.value.codes == ("E302",)


def test_only_sums_are_padded() -> None:
    s = filled(product(6, dtypes.f32, "max"), {"a": True, "w": True})
    with pytest.raises(CompileError) as caught:
        s.pad_reduction("mm", "mm_r_i0", 4)
    assert caught.value.codes == ("E302",)


def test_a_whole_loop_stays() -> None:
    func = product(8, dtypes.f32)
    assert Schedule.of(func).pad_reduction("mm", "mm_r_i0", 4).func is func
