"""Loops over numbers as one kernel: against statements of the entry, and Python itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import aisc
from aisc.ir.graph.interpret import interpret


def kernels_with_loops(fn: Any, *args: Any) -> int:
    """How many kernels are made of loops over numbers."""
    program = aisc.function(fn, threads=1).lower(*args)
    return sum("loop" in k.name.split("_") for k in program.kernels)


def both_ways(fn: Any, *args: Any) -> Any:
    """The result, which is that of the naive compilation, of the interpreter and of Python."""
    fast, naive = aisc.function(fn, threads=1), aisc.function(fn, threads=1, level=0)
    want = fn(*args)
    for got in (fast(*args), naive(*args), fast.interpret(*args)):
        parts = zip(got, want, strict=True) if isinstance(want, tuple) else [(got, want)]
        for a, b in parts:
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    return want


def swapped(n: Any) -> Any:
    a, b, c = 0, 1, 2
    for i in range(n):
        a, b, c = b, c, a + i
    return a, b, c


def histogram(x: Any, n: Any) -> Any:
    counts = np.zeros(n, dtype=np.int64)
    for i in range(len(x)):
        if x[i] >= 0 and x[i] < n:
            counts[x[i]] += 1
    return counts


def insertion_sort(x: Any) -> Any:
    y = x.copy()
    for i in range(1, len(y)):
        v = y[i]
        j = i - 1
        while j >= 0 and y[j] > v:
            y[j + 1] = y[j]
            j -= 1
        y[j + 1] = v
    return y


def edit_distance(a: Any, b: Any) -> Any:
    d = np.zeros((len(a) + 1, len(b) + 1), dtype=np.int64)
    for i in range(len(a) + 1):
        d[i, 0] = i
    for j in range(len(b) + 1):
        d[0, j] = j
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            cost = 0 if a[i - 1] == b[j - 1] else 1
            d[i, j] = min(d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + cost)
    return d[len(a), len(b)], d


def row_written(x: Any) -> Any:
    out = np.zeros((len(x), 3))
    first = np.arange(3.0)
    for i in range(len(x)):
        out[i] = first * x[i, 1]
        out[i, 2] = x[i, 0]
    return out


def reads_what_was_before(x: Any) -> Any:
    y = x.copy()
    for i in range(1, len(x)):
        y[i] = x[i - 1] + y[i - 1]
    return y


def exchanged(x: Any, n: Any) -> Any:
    a, b = x.copy(), x * 2
    for i in range(n):
        t = a
        a = b
        b = t
        a[0] = a[0] + i
    return a, b


def branches_write(x: Any) -> Any:
    y, z = np.zeros(6), np.ones(6)
    for i in range(len(x)):
        if x[i] > 0:
            y[i] = x[i]
        else:
            z[i] = -x[i]
            y[0] = y[0] - 1
    return y, z


RNG = np.random.default_rng(5)
LOOPS: list[tuple[Any, tuple[Any, ...], int]] = [
    (swapped, (7,), 1),
    (histogram, (RNG.integers(-2, 9, 40), 6), 1),
    (insertion_sort, (RNG.integers(0, 50, 23),), 1),
    (edit_distance, (RNG.integers(0, 3, 9), RNG.integers(0, 3, 7)), 3),
    (row_written, (RNG.standard_normal((4, 3)),), 1),
    (reads_what_was_before, (RNG.standard_normal(9),), 1),
    (branches_write, (RNG.standard_normal(6),), 1),
]


@pytest.mark.parametrize(("fn", "args", "count"), LOOPS, ids=[fn.__name__ for fn, _, _ in LOOPS])
def test_loops_of_numbers_are_kernels(fn: Any, args: tuple[Any, ...], count: int) -> None:
    both_ways(fn, *args)
    assert kernels_with_loops(fn, *args) == count


def test_an_index_that_fails_ends_the_loop() -> None:
    def walk(x: Any) -> Any:
        i = 0
        while x[i] > 0:
            i += 1
        return i

    made = aisc.function(walk, threads=1)
    assert made(np.array([1.0, 2.0, -1.0])) == 2
    with pytest.raises(aisc.ExecutionError, match="test_sequential"):
        made(np.ones(5))
    with pytest.raises(aisc.ExecutionError):
        made.interpret(np.ones(5))


def test_arrays_that_a_turn_computes_stay_kernels_of_their_own() -> None:
    def powers(a: Any, n: Any) -> Any:
        v = np.ones(a.shape[0])
        for _ in range(n):
            v = a @ v
        return v

    a = np.array([[0.5, 0.25], [0.125, 1.0]])
    assert kernels_with_loops(powers, a, 3) == 0
    np.testing.assert_allclose(aisc.function(powers, threads=1)(a, 3), powers(a, 3))


def test_threads_and_turns_do_not_change_results() -> None:
    x = RNG.standard_normal(500)
    graph = aisc.function(reads_what_was_before).graph(x)
    want = interpret(graph, [x])[0]
    for threads in (1, 2):
        for _ in range(3):
            np.testing.assert_array_equal(aisc.compile(graph, threads=threads)(x), want)
