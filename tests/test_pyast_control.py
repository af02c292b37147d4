"""Python functions with control flow: interpreter and native code against Python itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

import aisc

F = np.float64


def alike(got: Any, want: Any) -> None:
    """Equal in structure and in value, with Python's types where Python has them."""
    if isinstance(want, tuple | list):
        assert isinstance(got, tuple | list) and len(got) == len(want), (got, want)
        for a, b in zip(got, want, strict=True):
            alike(a, b)
        return
    if isinstance(want, dict):
        assert list(got) == list(want)
        alike(list(got.values()), list(want.values()))
        return
    if isinstance(want, np.ndarray | np.generic):
        assert np.asarray(got).dtype == want.dtype, (got, want)
    np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=1e-12, atol=0)


def both(fn: Callable[..., Any], *calls: tuple[Any, ...]) -> None:
    """Compare a function with itself compiled, for several calls of one version."""
    made = aisc.function(fn, threads=1)
    for args in calls:
        want = fn(*args)
        alike(made.interpret(*args), want)
        alike(made(*args), want)


# --- branches -----------------------------------------------------------------------------------
def if_else(x: Any) -> Any:
    if x > 0:
        y = x * 2
    elif x > -1:
        y = x - 1
    else:
        y = -x
    return y


def early(x: Any, t: Any) -> Any:
    total = 0.0
    for i in range(len(x)):
        if x[i] > t:
            return i, total
        if x[i] < 0:
            continue
        total += x[i]
    return -1, total


def set_on_ways_that_go_on(x: Any) -> Any:
    total = 0.0
    for v in x:
        if v > 0:
            w = v * v
        else:
            continue
        total = total + w
    return total


def several_returns(a: Any, b: Any) -> Any:
    if a > b:
        if a > 10:
            return a - 10
        return a
    if b > 10:
        return b - 10
    return b


def nested_conditions(a: Any, b: Any) -> Any:
    x = a if a > b else (b if b > 0 else -b)
    if (a > 0 and b > 0) or not a < -5:
        x = x + 1
    return x


# --- loops --------------------------------------------------------------------------------------
def while_break_else(n: Any, stop: Any) -> Any:
    k = 0
    while k < n:
        if k == stop:
            found = k * 10
            break
        k += 1
    else:
        found = -1
    return found, k


def for_else_nested(x: Any, t: Any) -> Any:
    rows = 0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            if x[i, j] > t:
                break
        else:
            rows += 1
            continue
        rows += 100
    return rows


def return_from_inner(x: Any, t: Any) -> Any:
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            if x[i, j] == t:
                return i, j
    return -1, -1


def two_continues(n: Any) -> Any:
    total = 0
    for i in range(n):
        if i % 3 == 0:
            continue
        if i % 5 == 0:
            continue
        total += i
    return total


def while_true(x: Any) -> Any:
    k = 0
    while True:
        x = x / 2
        k += 1
        if x < 1:
            return k, x


def break_in_the_middle(n: Any) -> Any:
    a, b = 0, 1
    steps = 0
    while a < n:
        a, b = b, a + b
        if b > 1000:
            break
        steps += 1
    return a, b, steps


def collatz(n: Any) -> Any:
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


def down_and_steps(n: Any, k: Any) -> Any:
    total = 0
    for i in range(n, 0, -2):
        total = total * 3 + i
    for i in range(1, n, k):
        total = total - i
    for i in reversed(range(n)):
        total = total * 2 + i
    return total


def over_rows(x: Any) -> Any:
    best = x[0]
    for row in x:
        if row.sum() > best.sum():
            best = row
    return best


def zipped(a: Any, b: Any) -> Any:
    total = 0.0
    for i, (x, y) in enumerate(zip(a, b)):  # noqa: B905
        total = total + i * x * y
    return total


def last_of_loop(x: Any) -> Any:
    for i in range(len(x)):
        y = x[i] * 2
    return y, i


def matrix_by_hand(a: Any, b: Any) -> Any:
    out = np.zeros((a.shape[0], b.shape[1]))
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            s = 0.0
            for k in range(a.shape[1]):
                s += a[i, k] * b[k, j]
            out[i, j] = s
    return out


def sieve(n: Any) -> Any:
    prime = np.ones(n, dtype=bool)
    prime[:2] = False
    for i in range(2, n):
        if i * i >= n:
            break
        if prime[i]:
            for j in range(i * i, n, i):
                prime[j] = False
    return prime


def unrolled(x: Any) -> Any:
    parts = []
    for k in range(3):
        parts.append(x * k)
    for p in [1, 2]:
        parts.append(x + p)
    return np.stack(parts)


def unrolled_with_break(x: Any) -> Any:
    total = 0.0
    for k in [1.0, 2.0, 3.0]:
        if x > k:
            total = total + x
            continue
        if x < -k:
            break
        total = total - k
    return total


def weak_becomes_strong(x: Any) -> Any:
    s = 0
    for i in range(len(x)):
        s = s + x[i]
    return s


CASES: list[tuple[Callable[..., Any], list[tuple[Any, ...]]]] = [
    (if_else, [(3.0,), (-0.5,), (-4.0,)]),
    (
        early,
        [(np.array([1.0, 2, -3, 4, 9, 1]), 5.0), (np.array([1.0, -2]), 5.0), (np.zeros(0), 1.0)],
    ),
    (set_on_ways_that_go_on, [(np.array([1.0, -2, 3]),), (np.array([-1.0]),)]),
    (several_returns, [(3, 2), (13, 2), (2, 3), (2, 15)]),
    (nested_conditions, [(1.0, 2.0), (-7.0, -3.0), (-2.0, -3.0)]),
    (while_break_else, [(5, 3), (5, 9), (0, 0)]),
    (for_else_nested, [(np.arange(6.0).reshape(2, 3), 3.0), (np.zeros((3, 2)), 1.0)]),
    (return_from_inner, [(np.arange(6.0).reshape(2, 3), 4.0), (np.zeros((3, 2)), 1.0)]),
    (two_continues, [(20,), (0,)]),
    (while_true, [(100.0,), (0.5,)]),
    (break_in_the_middle, [(50,), (5000,)]),
    (collatz, [(27,), (1,)]),
    (down_and_steps, [(9, 2), (4, 3), (0, 1)]),
    (over_rows, [(np.array([[1.0, 2], [5, 0], [4, 0.5]]),)]),
    (zipped, [(np.arange(4.0), np.arange(4.0) + 1)]),
    (last_of_loop, [(np.arange(4.0),)]),
    (matrix_by_hand, [(np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4))]),
    (sieve, [(50,), (3,)]),
    (unrolled, [(np.arange(3.0),)]),
    (unrolled_with_break, [(2.5,), (-1.5,), (0.5,)]),
    (weak_becomes_strong, [(np.arange(4, dtype=np.float32),)]),
]


@pytest.mark.parametrize(("fn", "calls"), CASES, ids=[fn.__name__ for fn, _ in CASES])
def test_control_flow(fn: Callable[..., Any], calls: list[tuple[Any, ...]]) -> None:
    both(fn, *calls)


# --- structures and functions ---------------------------------------------------------------------
@dataclass
class Body:
    place: Any
    speed: Any


class Pair(NamedTuple):
    a: Any
    b: Any


def moved(b: Body, steps: Any) -> Body:
    for _ in range(steps):
        b.speed = b.speed - 0.1 * b.place
        b.place = b.place + 0.1 * b.speed
    return b


def test_dataclasses_are_values() -> None:
    start = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    made = aisc.function(moved, threads=1)
    want = moved(Body(*start), 7)
    got = made(Body(*start), 7)
    assert isinstance(got, Body)
    alike((got.place, got.speed), (want.place, want.speed))


def structured(p: Pair, named: dict[str, Any]) -> Any:
    total = p.a + named["x"]
    more = {"sum": total, "pair": Pair(p.b, total * 2)}
    first, *rest = [p.a, p.b, total]
    return more, first, rest


def test_tuples_and_dicts_keep_their_structure() -> None:
    args = Pair(np.arange(3.0), np.ones(3)), {"x": np.full(3, 2.0)}
    got = aisc.function(structured, threads=1)(*args)
    want = structured(*args)
    assert isinstance(got[0]["pair"], Pair)
    alike(got, want)


def square_of(x: Any, power: int = 2) -> Any:
    return x**power


def calls_others(x: Any) -> Any:
    def inner(v: Any) -> Any:
        return square_of(v) + x.sum()

    add = lambda v, by=1.0: v + by  # noqa: E731
    return add(inner(x)) + add(x, by=2.0) + square_of(x, power=3)


class Layer:
    def __init__(self, w: Any, b: Any) -> None:
        self.w, self.b = w, b

    def forward(self, x: Any) -> Any:
        return np.tanh(x @ self.w + self.b)

    @aisc.function
    def __call__(self, x: Any) -> Any:
        return self.forward(x) * 2


def test_functions_methods_and_closures_are_part_of_it() -> None:
    both(calls_others, (np.arange(3.0),))
    layer = Layer(np.arange(6.0).reshape(3, 2) / 10, np.ones(2))
    x = np.arange(12.0).reshape(4, 3)
    alike(layer(x), np.tanh(x @ layer.w + layer.b) * 2)


def test_sizes_and_numbers_are_open() -> None:
    made = aisc.function(early, threads=1)
    for n in (0, 1, 5, 9):
        made(np.ones(n), 3.0)
    assert len(made.guards) == 1


def test_what_must_be_known_is_a_guard() -> None:
    def along(x: Any, axis: int) -> Any:
        return x.sum(axis=axis)

    x = np.arange(6.0).reshape(2, 3)
    made = aisc.function(along, threads=1)
    alike(made(x, 0), x.sum(axis=0))
    alike(made(x, 1), x.sum(axis=1))
    assert any("axis = 1" in g for g in made.guards)


def test_assertions_end_the_run() -> None:
    def checked(x: Any) -> Any:
        assert x > 0, "x must be positive"
        if x > 10:
            raise ValueError("too large")
        return np.sqrt(x)

    made = aisc.function(checked, threads=1)
    alike(made(4.0), 2.0)
    for bad, text in ((-1.0, "positive"), (11.0, "too large")):
        with pytest.raises(aisc.ExecutionError, match=text) as got:
            made(bad)
        assert "test_pyast_control.py" in str(got.value)
        with pytest.raises(aisc.ExecutionError, match=text):
            made.interpret(bad)
