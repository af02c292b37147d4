"""What rules see in a nest before they schedule it."""

from __future__ import annotations

from aisc.ir import dtypes
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import ZERO, Const, Load, Var
from aisc.ir.tensor.func import buffer
from aisc.ir.tensor.stmt import Block, For
from aisc.ir.tensor.tree import find_place
from aisc.ir.text.parser import parse_func
from aisc.passes.schedule.flow import _joined
from aisc.passes.schedule.rules.structure import Reduction, analyse
from aisc.passes.tensor.lower_blocks import LowerBlocks

f32 = dtypes.f32


def analysed(block: str, b: ComputeBuilder) -> Reduction:
    params = [buffer("x", f32, (4, 8)), buffer("w", f32, (8, 6)), buffer("y", f32, (4, 8))]
    found: Block = find_place(b.func("f", params), block).block
    reduction = analyse(found)
    assert reduction is not None
    return reduction


def test_a_product_of_matrices_is_a_contraction() -> None:
    b, x, w, y = ComputeBuilder(), *(buffer(n, f32, (8, 8)) for n in "xwy")
    b.reduce(y, (8,), "sum", lambda s, r: Load(x, (s[0], r[0])) * Load(w, (r[0], s[1])), "mm")
    found = analysed("mm", b)
    assert found.weights is not None and found.weights.buffer is w
    assert found.data is not None and found.data.buffer is x
    assert found.contraction


def test_a_sum_of_squares_is_no_contraction() -> None:
    b, x, y = ComputeBuilder(), *(buffer(n, f32, (8, 8)) for n in "xy")
    b.reduce(y, (8,), "sum", lambda s, r: Load(x, (r[0], s[1])) * Load(x, (r[0], s[1])), "sq")
    assert analysed("sq", b).weights is None


def test_steps_that_go_on_are_joined_where_their_numbers_are_known() -> None:
    n = Var("n")
    assert _joined([(1, ZERO, Const(16)), (16, ZERO, Const(2))]) == [(1, ZERO, Const(32))]
    for apart in (
        [(1, ZERO, Const(16)), (16, ZERO, n)],
        [(1, ZERO, n), (16, ZERO, Const(2))],
        [(1, ZERO, Const(16)), (17, ZERO, Const(2))],
        [(1, ZERO, Const(16)), (16, Const(1), Const(2))],
        [(1, Const(1), Const(16)), (16, ZERO, Const(2))],
    ):
        assert _joined(apart) == apart


def test_a_size_is_never_negative() -> None:
    loop = "serial i in 0 .. n { a[i] = 0.0:f32 }"
    func = parse_func(f"func @f(a: f32[n] output; n) target cpu {{ if n >= 0 {{ {loop} }} }}")
    assert isinstance(LowerBlocks().run(func).body, For)
