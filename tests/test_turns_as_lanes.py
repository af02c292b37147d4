"""Loops over numbers, as functions of Python: counted, with tested places, and as lanes."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nests import Nest

import aisc
from aisc.ir.text.printer import print_ir

F4, F8 = np.float32, np.float64


def convolved(x: Any, w: Any) -> Any:
    n = len(x) - len(w) + 1
    out = np.zeros(n, dtype=np.float32)
    for i in range(n):
        s = np.float32(0)
        for j in range(len(w)):
            s += x[i + j] * w[len(w) - 1 - j]
        out[i] = s
    return out


def product(a: Any, b: Any) -> Any:
    out = np.zeros((a.shape[0], b.shape[1]))
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            s = 0.0
            for k in range(a.shape[1]):
                s += a[i, k] * b[k, j]
            out[i, j] = s
    return out


def relaxed(x: Any) -> Any:
    out = np.zeros_like(x)
    for i in range(1, x.shape[0] - 1):
        for j in range(1, x.shape[1] - 1):
            out[i, j] = (x[i - 1, j] + x[i + 1, j] + x[i, j - 1] + x[i, j + 1]) / 4
    return out


def in_place(x: Any) -> Any:
    y = x * 1
    for i in range(len(y)):
        y[i] = y[i] * y[i] + 1
    return y


def clipped(x: Any) -> Any:
    out = np.ones_like(x)
    for i in range(len(x)):
        if x[i] > 0.5:
            out[i] = x[i] - 0.5
        elif x[i] < -0.5:
            out[i] = x[i] + 0.5
    return out


def ranked(x: Any) -> Any:
    out = np.zeros(len(x), dtype=np.int64)
    for i in range(len(x)):
        c = 0
        for j in range(len(x)):
            if x[j] < x[i]:
                c += 1
        out[i] = c
    return out


def below(x: Any) -> Any:
    out = np.zeros(len(x))
    for i in range(len(x)):
        s = 0.0
        for j in range(i):
            s += x[j] * x[i]
        for j in range(len(x) - i):
            s -= x[i + j]
        out[i] = s
    return out


def escaping(x: Any, y: Any, n: Any) -> Any:
    out = np.zeros(len(x))
    for i in range(len(x)):
        a = 0.0
        b = 0.0
        for _ in range(n):
            t = a * a - b * b + x[i]
            b = 2 * a * b + y[i]
            a = t
        out[i] = a * a + b * b
    return out


def running(x: Any) -> Any:
    y = x * 1
    for i in range(1, len(y)):
        y[i] = y[i - 1] + y[i]
    return y


def carried(x: Any) -> Any:
    y, s = x * 1, 0.0
    for i in range(len(y)):
        s = 0.5 * s + x[i]
        y[i] = s
    return y


def taken(x: Any, t: Any) -> Any:
    out = np.zeros(len(t))
    for i in range(len(t)):
        out[i] = x[t[i]]
    return out


def turned(x: Any) -> Any:
    y = x * 1
    for i in range(len(y)):
        y[i] = y[len(y) - 1 - i] + 1
    return y


def arrays(*shapes: tuple[int, ...], dtype: Any = F8) -> tuple[Any, ...]:
    """Arrays with numbers that are none and infinite ones among them."""
    rng = np.random.default_rng(len(shapes))
    found = tuple(rng.standard_normal(s).astype(dtype) for s in shapes)
    for x in found:
        if x.size > 6:
            x.reshape(-1)[[1, 3, 5]] = np.nan, -np.inf, -0.0
    return found


CASES: list[tuple[Callable[..., Any], bool, list[tuple[Any, ...]]]] = [
    (convolved, True, [arrays((n,), (k,), dtype=F4) for n, k in ((40, 3), (9, 9), (12, 1))]),
    (product, True, [arrays((n, k), (k, m)) for n, k, m in ((5, 7, 9), (1, 3, 4), (2, 0, 5))]),
    (relaxed, True, [arrays((n, m), dtype=F4) for n, m in ((9, 21), (3, 3), (2, 2))]),
    (in_place, True, [arrays((n,)) for n in (0, 1, 4, 13)]),
    (clipped, True, [arrays((n,), dtype=F4) for n in (0, 3, 8, 29)]),
    (ranked, True, [arrays((n,)) for n in (0, 1, 17)]),
    (below, True, [arrays((n,)) for n in (0, 1, 5, 18)]),
    (escaping, True, [(*arrays((n,), (n,)), 7) for n in (2, 23)]),
    (running, False, [arrays((n,)) for n in (1, 2, 19)]),
    (carried, False, [arrays((n,)) for n in (0, 19)]),
    (taken, False, [(*arrays((9,)), np.arange(n) % 9) for n in (0, 20)]),
    (turned, False, [arrays((n,)) for n in (1, 8, 19)]),
]


def kernels(made: Any, args: tuple[Any, ...]) -> str:
    return print_ir(made.lower(*args, to="tensor"))


@pytest.mark.parametrize("case", CASES, ids=lambda c: c[0].__name__)
def test_results_are_those_of_turns_in_order(
    case: tuple[Callable[..., Any], bool, list[tuple[Any, ...]]],
) -> None:
    fn, as_lanes, calls = case
    made = aisc.function(fn, threads=1)
    for args in calls:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            want = fn(*args)
        np.testing.assert_array_equal(made(*args), want)
        np.testing.assert_array_equal(made.interpret(*args), want)
    text = kernels(made, calls[0])
    assert ("vectorize turn" in text) == as_lanes
    assert "while" not in text


def test_places_that_are_known_are_not_tested() -> None:
    assert "within" not in kernels(aisc.function(convolved), arrays((9,), (3,), dtype=F4))
    # The sizes of two arrays are compared once, and where they do not fit each place is tested.
    made = aisc.function(product, threads=1)
    text = kernels(made, arrays((3, 4), (4, 5)))
    assert "if 0 <= b_0 - a_1" in text and text.count("within") == 1
    a, b = arrays((3, 9), (4, 5))
    with pytest.raises(aisc.ExecutionError) as told:
        made(a, b)
    assert "4 on an axis of size 4" in str(told.value)


def test_no_turn_means_no_fault() -> None:
    a, b = arrays((0, 9), (4, 5))
    assert aisc.function(product)(a, b).shape == (0, 5)


def test_loops_that_data_ends_stay_loops() -> None:
    def halved(x: Any) -> Any:
        k = 0
        while x > 1:
            x, k = x / 2, k + 1
        return k

    made = aisc.function(halved, threads=1)
    assert made(np.float64(100)) == halved(100)
    assert "while" in kernels(made, (np.float64(100),))


def loaded(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outcome(run: Callable[[], Any]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run()
    except (IndexError, aisc.ExecutionError):
        return None


def compare(tmp_path: Path, seed: int) -> bool:
    """A random nest, compiled and by the interpreter, for sizes that fill vectors and do not;
    whether it has lanes."""
    text = Nest(seed).text()
    path = tmp_path / f"nest{seed}.py"
    path.write_text(text)
    made = aisc.function(loaded(path).f, threads=1)
    for n, m in ((13, 9), (9, 13), (4, 4), (2, 3)):
        args = arrays((n,), (n, m), (m,))
        got = outcome(lambda args=args: made(*args))  # type: ignore[misc]
        want = outcome(lambda args=args: made.interpret(*args))  # type: ignore[misc]
        assert (got is None) == (want is None), text
        for a, b in zip(got or (), want or (), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=text)
    return "vectorize turn" in kernels(made, args)


def test_random_nests(tmp_path: Path) -> None:
    found = [compare(tmp_path, seed) for seed in range(40)]
    assert sum(found) >= 10  # else there is little that is tried


@pytest.mark.slow
def test_many_random_nests(tmp_path: Path) -> None:
    for seed in range(100, 300):
        compare(tmp_path, seed)
