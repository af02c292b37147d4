"""Index arithmetic: every simplification is checked against evaluation on small domains."""

from __future__ import annotations

import math
import random

import pytest

from aisc.ir.arith import poly
from aisc.ir.tensor.expr import Binary, Const, Expr, Var, binary
from aisc.ir.tensor.linear import Indexer

A, L, F = Var("a"), Var("l"), Var("f")
RANGES = {"a": (0.0, 9.0), "l": (0.0, 15.0), "f": (-3.0, 20.0)}


def evaluate(e: Expr, env: dict[str, int]) -> int:
    if isinstance(e, Const):
        return int(e.value)
    if isinstance(e, Var):
        return env[e.name]
    assert isinstance(e, Binary)
    x, y = evaluate(e.a, env), evaluate(e.b, env)
    table = {
        "add": lambda: x + y, "sub": lambda: x - y, "mul": lambda: x * y,
        "floordiv": lambda: x // y, "mod": lambda: x % y, "min": lambda: min(x, y),
        "max": lambda: max(x, y), "lt": lambda: x < y, "le": lambda: x <= y,
        "eq": lambda: x == y,
    }  # fmt: skip
    return int(table[e.op]())


def random_expr(rng: random.Random, depth: int) -> Expr:
    if depth == 0:
        return rng.choice([A, L, F, Const(rng.choice([1, 2, 3, 4, 7, 8, 16, -5]))])
    op = rng.choice(["add", "sub", "mul", "floordiv", "mod", "min", "max", "add"])
    right: Expr = Const(rng.choice([1, 2, 3, 4, 6, 8, 16, 32]))
    if op not in ("mul", "floordiv", "mod"):
        right = random_expr(rng, depth - 1)
    return binary(op, random_expr(rng, depth - 1), right)


@pytest.mark.parametrize("seed", range(8))
def test_simplify_keeps_the_value_and_bounds_contain_it(seed: int) -> None:
    rng, index = random.Random(seed), Indexer(RANGES)
    for _ in range(250):
        e = random_expr(rng, rng.randint(1, 4))
        simple, (low, high) = index.simplify(e), index.bounds(e)
        for _ in range(8):
            env = {n: rng.randint(int(lo), int(hi)) for n, (lo, hi) in RANGES.items()}
            value = evaluate(e, env)
            assert value == evaluate(simple, env), (e, simple, env)
            assert low <= value <= high


@pytest.mark.parametrize("seed", range(4))
def test_decided_comparisons_hold_everywhere(seed: int) -> None:
    rng, index = random.Random(seed), Indexer(RANGES)
    for _ in range(250):
        cond = binary(rng.choice(["lt", "le", "eq"]), random_expr(rng, 2), random_expr(rng, 2))
        simple = index.simplify(cond)
        if isinstance(simple, Const):
            for _ in range(20):
                env = {n: rng.randint(int(lo), int(hi)) for n, (lo, hi) in RANGES.items()}
                assert evaluate(cond, env) == int(simple.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((A * 16 + L) // 64, A // 4),
        ((F // 7) * 7 + F % 7, F),
        ((A * 4 + L) // 4, A + L // 4),
        ((L + 16) % 16, L),
        (binary("min", L, Const(15)), L),
        (binary("lt", F % 7, Const(7)), Const(True, binary("lt", F, L).dtype)),
    ],
)
def test_known_forms(given: Expr, expected: Expr) -> None:
    index = Indexer(RANGES)
    assert index.simplify(given) == index.simplify(expected)


def test_ranges_that_are_bound_later_are_known_where_they_matter() -> None:
    outer = Indexer({"a": (0, 3)})
    plain, mixed = binary("floordiv", A, 4), binary("floordiv", A * 8 + L, 8)
    assert outer.simplify(mixed) != A
    inner = outer.bind(L, 0, 7)
    assert inner.simplify(mixed) == A
    assert inner.simplify(plain) == outer.simplify(plain) == Const(0)
    assert outer.simplify(mixed) != A
    wider = inner.bind(L, 0, 8)
    assert wider.simplify(mixed) != A
    done = inner.simplify(A * 8 + L)
    assert inner.simplify(done) is done


def test_polynomials_agree_with_integers() -> None:
    rng = random.Random(3)
    n, m = poly.symbol("n", 1), poly.symbol("m", 1)
    for _ in range(400):
        d: poly.Dim = rng.choice([n, m, n * m, n + 3])
        for _ in range(rng.randint(1, 4)):
            c = rng.randint(1, 9)
            d = rng.choice(
                [d * c, d + c, poly.floordiv(d, c), poly.ceildiv(d, c), poly.mod(d, c),
                 poly.minimum(d, n * c), poly.maximum(d, m + c)]
            )  # fmt: skip
        if isinstance(d, int):
            continue
        env = {"n": rng.randint(1, 12), "m": rng.randint(1, 12)}
        low, high = poly.bounds(d)
        value = poly.evaluate(d, env)
        assert low <= value <= high
        assert poly.substitute(d, {"n": n}) == d


def test_polynomial_normal_form() -> None:
    n = poly.symbol("n", 1)
    assert n * 768 + 768 - 768 * (n + 1) == 0
    assert poly.floordiv(n * 768, 768) == n
    assert poly.ceildiv(n * 64, 64) == n
    assert poly.mod(n * 4, 4) == 0
    assert str(poly.ceildiv(n, 16) * 16) == "16*floordiv(n+15, 16)"
    assert poly.evaluate(poly.ceildiv(n, 16) * 16, {"n": 17}) == 32


def test_a_size_of_which_nothing_is_known_may_be_zero() -> None:
    assert poly.SymDim("n").lower == 0
    assert poly.bounds(poly.symbol("n")) == (0, math.inf)
