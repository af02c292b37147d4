"""Calls of Python functions again and again: by the short ways, with what the long way gives."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aisc


def halved(low: Any, high: Any, turns: Any) -> Any:
    k = 0
    while k < turns:
        middle = (low + high) / 2
        if middle * middle > 2.0:
            high = middle
        else:
            low = middle
        k += 1
    return {"root": low, "both": (low, k)}


def whole(n: Any) -> Any:
    assert n >= 0, "negative"
    total = 0
    for k in range(n):
        total += k * k
    return total


def shifted(x: Any) -> Any:
    return x + 1


def test_calls_of_numbers_again() -> None:
    made = aisc.function(halved, threads=1)
    kept = []
    for turns in (5, 0, 43, 17):
        for args in ((1.0, 2.0, turns), (np.float64(1), np.float64(2), turns), (1.0, 2.0, turns)):
            got = made(*args)
            assert got == halved(*args)
            kept.append((got, halved(*args)))
    assert all(got == want for got, want in kept)  # later calls change no earlier result
    assert [type(x) for x in (got["root"], *got["both"])] == [float, float, int]


def test_numbers_of_other_types_make_versions_of_their_own() -> None:
    made = aisc.function(shifted, threads=1)
    for x in (3, 2.5, True, np.float32(1.5), np.int8(-3), np.array(2.0), np.array([1, 2])) * 3:
        got, want = made(x), shifted(x)
        np.testing.assert_array_equal(np.asarray(got), np.asarray(want))
        if isinstance(want, np.generic | np.ndarray):
            assert np.asarray(got).dtype == np.asarray(want).dtype


def test_a_fault_leaves_the_next_calls_alone() -> None:
    made = aisc.function(whole, threads=1)
    for _ in range(3):
        assert made(10) == whole(10)
        with pytest.raises(aisc.ExecutionError, match="negative"):
            made(-1)
        with pytest.raises(OverflowError):
            made(1 << 70)


def test_threads_call_with_numbers_of_their_own() -> None:
    made, wrong = aisc.function(whole, threads=1), []
    made(3)

    def calls(seed: int) -> None:
        for k in range(200):
            if made(seed + k) != whole(seed + k):
                wrong.append((seed, k))

    threads = [threading.Thread(target=calls, args=(1000 * s,)) for s in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


class Foreign:
    """An array of some other library."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def test_arrays_of_others_are_told_apart_by_more_than_their_class() -> None:
    made = aisc.function(shifted, threads=1)
    for array in (np.array(1.5), np.array(2), np.array([1.0, 2.0]), np.ones((2, 3), np.float32)):
        for _ in range(2):
            got, want = made(Foreign(array)), shifted(array)
            np.testing.assert_array_equal(got, want)
            assert np.asarray(got).dtype == want.dtype


def test_what_is_dropped_in_a_cycle_is_freed_in_any_order(tmp_path: Path) -> None:
    """Memory of open sizes is given back though the code may be gone before."""
    (tmp_path / "summed.py").write_text(
        "import numpy as np\n\n\n"
        "def f(x):\n    y = np.cumsum(np.sort(x))\n    return y @ np.outer(y, y) + y\n"
    )
    text = """
        import gc, numpy as np, aisc, summed
        f = aisc.function(summed.f, threads=1)
        for _ in range(12):
            exe = f.compile(np.ones(5))
            assert exe.image.signature.segments
            bound = exe.bind(np.ones(7))
            bound(), exe(np.ones(9)), f.clear()
            exe.cycle = [exe, bound]
            del exe, bound
            gc.collect()
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
