"""What processes started by tests/test_concurrency.py run: importable by name."""

from __future__ import annotations

import numpy as np

import aisc


def answer(path: str, seed: int) -> bytes:
    """The bits that a bundle gives for :func:`rows`, on two threads."""
    return bytes(aisc.load(path, threads=2)(rows(seed)).tobytes())


def rows(seed: int, n: int = 333) -> np.ndarray:
    """An input of the model of tests/test_concurrency.py."""
    return np.random.default_rng(seed).standard_normal((n, 96)).astype(np.float32)
