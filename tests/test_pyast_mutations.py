"""Mutants of Python functions: one report with file, line and caret, or Python's own result."""

from __future__ import annotations

import importlib.util
import linecache
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import mutations
import numpy as np
import pytest

import aisc

Z = np.array([3.0, -1.5, 2.0, 0.5, -2.5, 1.0, 4.0, -0.5])


class TooLongError(BaseException):
    """No ``Exception``: what is tried may catch those."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def same(a: Any, b: Any) -> bool:
    """Equal values of the same kinds; numbers of Python's may be those of numpy."""
    if isinstance(a, tuple | list):
        return isinstance(b, tuple | list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if not isinstance(a, int | float | complex | np.generic | np.ndarray):
        return a is b or bool(isinstance(a, str | bytes) and a == b)
    x, y = np.asarray(a), np.asarray(b)
    return (x.shape, x.dtype) == (y.shape, y.dtype) and np.allclose(x, y, 1e-9, equal_nan=True)


def eager(path: Path) -> Any:
    """What Python gives, or the error that it raises."""
    try:
        with within(2):
            return loaded(path).f(Z.copy(), 2.0, 0.25)
    except Exception as fault:
        return fault


def check(path: Path, run: Callable[[Any], Any]) -> str:
    """What came of a mutant: that of Python, or a report."""
    try:
        want = eager(path)
    except TooLongError:
        return "endless"
    if isinstance(want, ZeroDivisionError | OverflowError):
        return "numbers"  # documented: ours are numpy's
    try:
        with within(60):
            got = run(aisc.function(loaded(path).f, threads=1))
    except aisc.AiscError as fault:
        check_report(fault, path.name)
        return "both refuse" if isinstance(want, Exception) else "refused"
    if isinstance(want, IndexError):
        return "unused"  # documented: what no result needs is not computed
    assert not isinstance(want, Exception), f"{type(want).__name__}: {want}, not {got!r}"
    assert same(want, got), f"{want!r} is not {got!r}"
    return "same"


def check_report(fault: aisc.AiscError, file: str) -> None:
    text = str(fault)
    assert len(fault.diagnostics) == 1, text
    assert f"{file}:" in text and fault.diagnostics[0].loc.line, text
    assert "^" in fault.diagnostics[0].notes[0], text


def sweep(folder: Path, seed: int, count: int, run: Callable[[Any], Any]) -> Counter[str]:
    found: Counter[str] = Counter()
    for k, text in enumerate(mutations.mutants(seed, count)):
        path = folder / f"mutant_{seed}_{k}.py"
        path.write_text("import numpy as np\n\n\n" + text)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[check(path, run)] += 1
        except BaseException as fault:
            fault.add_note(f"seed {seed}, mutant {k}:\n{text}")
            raise
    return found


def interpreted(f: Any) -> Any:
    return f.interpret(Z.copy(), 2.0, 0.25)


def compiled(f: Any) -> Any:
    return f(Z.copy(), 2.0, 0.25)


@pytest.mark.parametrize("seed", range(3))
def test_mutants_are_reported_or_right(tmp_path: Path, seed: int) -> None:
    found = sweep(tmp_path, seed, 100, interpreted)
    assert found["same"] > 20 and found["both refuse"] > 20, found
    assert found["refused"] < 25 and found["unused"] < 3, found


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 105))
def test_mutants_natively(tmp_path: Path, seed: int) -> None:
    found = sweep(tmp_path, seed, 200, compiled)
    assert found["same"] > 40, found


def test_run_time_errors_point_into_the_file(tmp_path: Path) -> None:
    """Also those of code that comes from the cache."""
    path = tmp_path / "checked.py"
    path.write_text(
        "import numpy as np\n\n\ndef inner(v):\n    assert v.sum() < 3, 'too much'\n    return v\n"
        "\n\ndef f(z: 'f64[n]'):\n    y = z * 2\n    return inner(y)\n"
    )
    for how in range(3):
        f = aisc.function(loaded(path).f, threads=1)
        again = f if how < 2 else aisc.compile(f"{path}:f", threads=1)
        with pytest.raises(aisc.ExecutionError) as caught:
            again.interpret(Z + 1) if how == 0 else again(Z + 1)
        found = caught.value.diagnostics[0]
        assert (found.loc.line, found.loc.column) == (5, 5), str(caught.value)
        assert "assert v.sum() < 3" in found.notes[0] and "^" in found.notes[0]
        assert "checked.py:11" in str(found), "from where it was called"


def test_cells_of_notebooks_have_names() -> None:
    """Their files belong to a kernel and are not there."""
    file = "/tmp/ipykernel_12/345.py"
    text = "def f(x):\n    assert x.sum() < 3, 'too much'\n    return x\n"
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    found: dict[str, Any] = {}
    exec(compile(text, file, "exec"), found)
    with pytest.raises(aisc.ExecutionError) as caught:
        aisc.function(found["f"], threads=1)(Z + 1)
    assert "cell 345:2" in str(caught.value) and "^" in str(caught.value)
