"""The verifier's proof that accesses lie inside: what it takes, and what it must not take."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from op_cases import Case
from test_ops_reference import COMPUTED, lowered

from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.diagnostics import CompileError
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import (
    ZERO,
    Expr,
    Load,
    Var,
    binary,
    const,
    equal,
    maximum,
    minimum,
    select,
    within,
)  # fmt: skip
from aisc.ir.tensor.func import Func, buffer
from aisc.ir.tensor.inside import unproved
from aisc.ir.tensor.interpret import run_func
from aisc.ir.tensor.verify import verify_func
from aisc.ir.tensor.visitor import substitute


@pytest.mark.parametrize("case", COMPUTED, ids=str)
def test_operators(case: Case) -> None:
    verify_func(lowered(case), "lowered")


# A first operand without axes has no size to be left open; how many rows the bytes of stored
# weights hold is an attribute.
OPEN = [c for c in COMPUTED if c.inputs and c.inputs[0] is not None and c.inputs[0].ndim]
OPEN = [c for c in OPEN if c.op != "widen"]


@pytest.mark.parametrize("case", OPEN, ids=str)
def test_operators_of_any_size(case: Case) -> None:
    verify_func(lowered(case, symbolic=True), "lowered")


N, M, V = Var("n"), Var("m"), Var("v")
A = buffer("a", dtypes.i64, (symbol("m"),), "input")
O = buffer("o", dtypes.i64, (symbol("n"),), "output")  # noqa: E741
SAME = equal(N, M)


def kernel(index: Expr, needs: Expr | None = None) -> Func:
    """``o[v] = a[index]`` for n elements, `a` having m."""
    b = ComputeBuilder()
    b.map(O, lambda v: substitute(Load(A, (index,)), {V: v}), "w")
    func = b.func("f", (A, O), (N, M))
    return func if needs is None else replace(func, requires=(needs,))


@pytest.mark.parametrize(
    ("index", "needs"),
    [
        (V, SAME), (N - 1 - V, SAME), (V, binary("le", N, M)), (V % M, binary("lt", ZERO, M)),
        (V // 2, SAME), (select(V < M, V, M - 1), binary("lt", ZERO, M)),
        (select(V >= M, M - 1, V), binary("lt", ZERO, M)), (minimum(V, M - 1), SAME),
        (within(V + 7, M), None),
    ],
)  # fmt: skip
def test_proved(index: Expr, needs: Expr | None) -> None:
    verify_func(kernel(index, needs), "lowered")


@pytest.mark.parametrize(
    ("index", "needs"),
    [
        (V, None), (V + 1, SAME), (V - 1, SAME), (V * 2, SAME), (V, binary("le", M, N)),
        (V % M, None), (select(V < M, V, M - 1), None), (select(V < M, M, V), SAME),
        (select(V > 0, V, V - 1), SAME), (maximum(V, M), SAME), (N - V, SAME), (N + M, SAME),
    ],
)  # fmt: skip
def test_not_proved(index: Expr, needs: Expr | None) -> None:
    with pytest.raises(CompileError, match="neither tested nor known to be inside axis 0 of a"):
        verify_func(kernel(index, needs), "lowered")


def index(rng: random.Random, depth: int) -> Expr:
    """A random index expression over v, n, m and small numbers."""
    if depth == 0 or rng.random() < 0.2:
        return rng.choice([V, V, V, N, M, const(rng.randint(-2, 3), dtypes.i64)])
    a, b = index(rng, depth - 1), index(rng, depth - 1)
    kind = rng.randrange(7)
    if kind == 0:
        return select(condition(rng), a, b)
    if kind in (1, 2):
        return (minimum if kind == 1 else maximum)(a, b)
    size = rng.choice([M, N, const(rng.randint(1, 3), dtypes.i64)])
    return [a + b, a - b, a % size, a // size][kind - 3]


def condition(rng: random.Random) -> Expr:
    op = rng.choice(["lt", "le", "gt", "ge", "eq", "ne"])
    made = binary(op, index(rng, 1), index(rng, 1))
    return made if rng.random() < 0.7 else binary(rng.choice(["and", "or"]), made, condition(rng))


NEEDS: list[tuple[Expr, Callable[[int, int], bool]]] = [
    (SAME, lambda n, m: n == m), (binary("le", N, M), lambda n, m: n <= m),
    (binary("lt", ZERO, M), lambda n, m: m > 0), (binary("le", M, N), lambda n, m: m <= n),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_what_is_proved_is_so(seed: int) -> None:
    """Random indices, of which those that are proved are tried with all small sizes."""
    rng, proved = random.Random(seed), 0
    for _ in range(1500):
        needs, allows = rng.choice(NEEDS)
        func = kernel(index(rng, 2), needs)
        if unproved(func):
            continue
        proved += 1
        for n, m in itertools.product(range(5), repeat=2):
            if allows(n, m):  # the interpreter refuses what is outside
                run_func(func, [np.zeros(m, np.int64), np.zeros(n, np.int64)], {"n": n, "m": m})
    assert proved > 30
