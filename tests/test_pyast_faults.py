"""Python that is not captured: one report with file, line and caret, or Python's own result."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import aisc

# A body, and the code of its report; ``None`` where it is captured and gives what Python gives.
BODIES: list[tuple[str, str | None]] = [
    ("yield x", "E111"),
    ("return sum(v for v in (yield x))", "E111"),
    ("global G\n    G = x\n    return x", "E111"),
    ("try:\n        return x\n    except ValueError:\n        return x + 1", "E111"),
    ("with open('f') as f:\n        return x", "E111"),
    ("import os\n    return x", "E111"),
    ("print(x)\n    return x", "E111"),
    ("return eval('x')", "E111"),
    ("return f(x)", "E111"),
    ("return unknown(x)", "E108"),
    ("return x + y", "E108"),
    ("return np.nothing(x)", "E112"),
    ("return np.linalg.svd(x)", "E111"),
    ("return np.random.rand(3) + x", "E111"),
    ("return x @ np.ones((9, 2))", None),
    ("return np.zeros((2, 3)) @ np.ones((9, 2)) + x[0]", "E112"),
    ("return x.reshape(2, 2, 2, 2)[0, 0, 0, 0, 0]", "E112"),
    ("return x.sum(axis=7)", "E112"),
    ("return x[0, 0, 0]", "E112"),
    ("return x.foo", "E111"),
    ("return x.sort()", "E111"),
    ("x[0] = 1.0\n    return x", "E111"),
    ("x += 1\n    return x", "E111"),
    ("y = x.copy()\n    y[0] = 1.0\n    return y", None),
    ("y = np.zeros(4)\n    z = y[1:]\n    z[0] = 1.0\n    return y", "E111"),
    ("y = np.zeros(4)\n    z = y[1:]\n    y[1] = 1.0\n    return z + x[0]", "E111"),
    ("y = np.zeros(4)\n    z = y\n    z[0] = 1.0\n    return y + x[0]", None),
    ("if x.sum() > 0:\n        y = 1.0\n    return y", "E111"),
    ("if x.sum() > 0:\n        y = x\n    else:\n        y = 1.0\n    return y", "E111"),
    ("if x.sum() > 0:\n        return x\n    return None", "E111"),
    ("if x.sum() > 0:\n        return x", "E111"),
    ("y = 0\n    for i in range(len(x)):\n        y = x\n    return y", "E111"),
    ("y = []\n    for i in range(len(x)):\n        y.append(x[i])\n    return y", "E111"),
    ("while True:\n        x = x + 1\n    return x", "E111"),
    ("if x:\n        return x\n    return x + 1", "E112"),
    ("return 1", "E111"),
    ("return lambda: x", "E111"),
    ("class A:\n        pass\n    return x", "E111"),
    ("return x if x.sum() > 0 else 'no'", "E112"),
    ("a, b = x, x, x\n    return a", "E112"),
    ("return x.sum() in x", "E111"),
    ("return {x.sum(): 1}", "E111"),
    ("d = {'a': x}\n    return d['b']", "E112"),
    ("return [1, 2][5] + x", "E112"),
    ("return x.sum(keepdims=True, wrong=1)", "E112"),
    ("return np.sum()", "E112"),
    ("return np.concatenate([x, np.ones((2, 2))])", "E112"),
    ("assert False\n    return x", "E112"),
    ("del x\n    return x", "E111"),
    ("return np.exp(x, x, x)", "E112"),
    ("return x << 1", "E112"),
    ("return 'a' * 100000000", "E111"),
    ("return x + 2j", "E111"),
    ("async def g():\n        pass\n    return x", "E111"),
    (
        "y = x\n    def g():\n        nonlocal y\n        y = 1\n    g()\n    return x",
        "E111",
    ),
    ("return x.T.T.T", None),
    ("return -x if True else x", None),
    ("for i in range(3):\n        pass\n    return x * i", None),
    ("s = 0.0\n    for v in x:\n        s += v\n    return s", None),
    ("y, *z = [x, x + 1, x + 2]\n    return z[1] - y", None),
    ("return max(x.sum(), x.max()) + min(3, 2)", None),
    ("return (lambda a, b=2.0: a * b)(x)", None),
    ("return sum([x * k for k in range(3)])", None),
    ("y = x\n    if len(x) > 2:\n        y = x * 2\n    return y", None),
    ("return np.where(x > 1)[0]", None),
    ("return x[x > 1]", None),
    ("return f'{x}' and x", None),
]


def module_of(folder: Path, bodies: list[str]) -> ModuleType:
    """Functions ``f0(x)``, ``f1(x)`` … in a file."""
    path = folder / "faulty.py"
    texts = [f"def f{k}(x):\n    {b.replace('f(x)', f'f{k}(x)')}\n" for k, b in enumerate(bodies)]
    path.write_text("import numpy as np\n\n\n" + "\n\n".join(texts))
    spec = importlib.util.spec_from_file_location("faulty", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return module_of(tmp_path_factory.mktemp("faulty"), [b for b, _ in BODIES])


@pytest.mark.parametrize("k", range(len(BODIES)), ids=[b.split("\n")[0][:40] for b, _ in BODIES])
def test_report_or_same_result(faulty: ModuleType, k: int) -> None:
    body, code = BODIES[k]
    python = getattr(faulty, f"f{k}")
    made = aisc.function(python, threads=1)
    x = np.arange(9.0)
    if code is None:
        want: Any = python(x)
        np.testing.assert_allclose(np.asarray(made.interpret(x)), np.asarray(want), rtol=1e-12)
        return
    with pytest.raises(aisc.CompileError) as got:
        made.interpret(x)
    assert code in got.value.codes, (body, str(got.value))
    first = got.value.diagnostics[0]
    assert first.loc.file.endswith("faulty.py") and first.loc.line
    assert any("^" in note for note in first.notes), str(got.value)


def test_another_function_works_after_a_refusal(faulty: ModuleType) -> None:
    with pytest.raises(aisc.CompileError):
        aisc.function(faulty.f0, threads=1).interpret(np.ones(2))
    np.testing.assert_array_equal(aisc.function(lambda v: v + 1).interpret(np.ones(2)), [2, 2])


def test_no_source_is_told() -> None:
    table: dict[str, Any] = {}
    exec("def g(x):\n    return x\n", table)
    with pytest.raises(aisc.CompileError) as got:
        aisc.function(table["g"])(np.ones(2))
    assert got.value.codes == ("E110",)


def test_what_is_read_outside_is_a_guard(faulty: ModuleType) -> None:
    names: dict[str, Any] = {"scale": 2.0}

    def scaled(x: Any) -> Any:
        return x * _SCALE["now"] + names["scale"]

    made = aisc.function(scaled, threads=1)
    x = np.arange(3.0)
    np.testing.assert_array_equal(made.interpret(x), scaled(x))
    globals()["_SCALE"] = {"now": 5.0}
    np.testing.assert_array_equal(made.interpret(x), scaled(x))


_SCALE = {"now": 3.0}
