"""Selects in machine code: arms share what is computed in any case, and load nothing else."""

from __future__ import annotations

import numpy as np
import pytest

import aisc
from aisc.codegen.llvm.function import FunctionEmitter
from aisc.ir import dtypes
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Expr, Load, binary, const, math, select
from aisc.ir.tensor.func import buffer
from aisc.ir.types import TensorType
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.tensor.optimize import optimize

N = 64
ROUNDINGS = "bitcast <16 x i32>"  # one for each power of two that an exp makes


def text(value, vectors: bool = True) -> str:
    """Code of ``y[i] = value(x[i], z[i])``."""
    x, z = (buffer(name, dtypes.f32, (N,), "input") for name in "xz")
    y = buffer("y", dtypes.f32, (N,), "output")
    cb = ComputeBuilder()
    cb.map(y, lambda i: value(Load(x, (i,)), Load(z, (i,))), "f")
    s = Schedule.of(cb.func("f", (x, z, y)))
    if vectors:
        s = s.split("f_i0", 16, names=("o", "l")).vectorize("l")
    return FunctionEmitter(optimize(s.func)).emit()


def exp(x: Expr) -> Expr:
    return math("exp", x)


def positive(x: Expr) -> Expr:
    return binary("gt", x, const(0, x.dtype))


def test_an_arm_shares_what_is_computed_in_any_case() -> None:
    plain = text(lambda x, z: exp(x) + z)
    shared = text(lambda x, z: select(positive(x), z, exp(x)) + exp(x) * z)
    assert plain.count(ROUNDINGS) == shared.count(ROUNDINGS) > 0
    assert "masked.load" not in shared


def test_an_arm_alone_is_loaded_under_its_condition() -> None:
    code = text(lambda x, z: select(positive(x), exp(z), x))
    assert code.count("call <16 x float> @llvm.masked.load") == 1
    both = text(lambda x, z: select(positive(x), exp(z), x) + select(positive(x), x, exp(z)))
    assert both.count("call <16 x float> @llvm.masked.load") == 2
    assert both.count(ROUNDINGS) == 2 * code.count(ROUNDINGS)


def test_scalars_are_shared_too() -> None:
    code = text(lambda x, z: select(positive(x), z, exp(x)) + exp(x) * z, vectors=False)
    assert code.count("bitcast i32") == text(lambda x, z: exp(x), vectors=False).count(
        "bitcast i32"
    )


@pytest.mark.parametrize("op", ["sigmoid", "silu", "softplus", "mish"])
@pytest.mark.parametrize("n", [5, 64, 77])
def test_activations_at_their_ends(op: str, n: int) -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType((n,), dtypes.f32))
    run = aisc.compile(b.finish([b.add(op, (x,))]), threads=1, cache=False)
    data = np.linspace(-20, 20, n).astype(np.float32)
    data[:4] = np.inf, -0.0, 100, -200
    wide = data.astype(np.float64)
    plus = np.logaddexp(0, wide)
    expected = {
        "sigmoid": np.exp(-np.logaddexp(0, -wide)),
        "silu": wide * np.exp(-np.logaddexp(0, -wide)),
        "softplus": plus,
        "mish": wide * np.tanh(plus),
    }[op]
    np.testing.assert_allclose(run(data), expected, rtol=2e-6, atol=1e-38)
    data[1] = np.nan
    assert list(np.isnan(run(data))) == [k == 1 for k in range(n)]
