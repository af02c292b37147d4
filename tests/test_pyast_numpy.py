"""Random expressions with numpy's names: interpreter and native code against numpy itself."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from expressions import Expression, expressions

import aisc

BOUNDS = {"float16": 1e-2, "float32": 2e-5}  # others are exact or of 64 bits
SEED = 20261


def wanted(e: Expression) -> Any:
    """What numpy gives; nothing where it refuses."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return np.asarray(e.function(*e.operands))
        except Exception:
            return None


def compare(e: Expression, got: Any, want: Any) -> None:
    """Types, shapes and values."""
    got = np.asarray(got)
    types = [(str(x.dtype), x.shape) for x in e.operands]
    assert (got.dtype, got.shape) == (want.dtype, want.shape), (e.text, types, got.dtype)
    bound = BOUNDS.get(str(want.dtype), 1e-9)
    near = np.allclose(got.astype(float), want.astype(float), bound, bound, equal_nan=True)
    assert near, (e.text, types, got, want)


def test_expressions_are_what_numpy_says(tmp_path: Path) -> None:
    compared = 0
    for e in expressions(tmp_path, SEED, 300):
        want = wanted(e)
        if want is not None:
            compare(e, aisc.function(e.function).interpret(*e.operands), want)
            compared += 1
    assert compared > 280


def test_native_code_agrees(tmp_path: Path) -> None:
    for e in expressions(tmp_path, SEED + 1, 30):
        want = wanted(e)
        if want is not None:
            compare(e, aisc.function(e.function, threads=1)(*e.operands), want)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_many_expressions_natively(tmp_path: Path, seed: int) -> None:
    for e in expressions(tmp_path, SEED + 2 + seed, 150):
        want = wanted(e)
        if want is not None:
            compare(e, aisc.function(e.function, threads=1)(*e.operands), want)


def test_sizes_of_one_broadcast_in_one_function() -> None:
    def added(x: Any, y: Any) -> Any:
        return x + y

    made = aisc.function(added, threads=1)
    for a, b in (((3, 4), (3, 4)), ((3, 4), (1, 4)), ((1, 4), (3, 1)), ((0, 4), (1, 4))):
        x, y = np.ones(a), np.full(b, 2.0)
        np.testing.assert_array_equal(made(x, y), x + y)
        np.testing.assert_array_equal(made.interpret(x, y), x + y)
