"""Random expressions with numpy's names, written as modules of functions.

Each has operands of its own: element types, shapes that broadcast, empty and odd sizes, negative
steps, division with signs, promotion of types.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

TYPES = ("float32", "float64", "int32", "int64", "int8", "uint8", "bool")
UNARY = (
    "np.exp({a})",
    "np.tanh({a})",
    "np.sqrt(np.abs({a}))",
    "-{n}",
    "np.abs({a})",
    "np.sign({n})",
    "np.floor({a})",
    "np.ceil({a})",
    "np.rint({a})",
    "np.square({a})",
    "np.isnan({a})",
    "~({a} > 0)",
    "np.sin({a})",
    "np.log1p(np.abs({a}))",
    "np.cbrt({a})",
    "np.signbit({f})",
    "{a}.astype(np.float32)",
    "{a}.astype(np.int16)",
    "{a}.astype(bool)",
    "np.clip({a}, -1, 2)",
    "np.nan_to_num({a})",
    "+{n}",
)
BINARY = (
    "{a} + {b}",
    "{a} * {b}",
    "{n} - {m}",
    "{a} / ({b} + 0.5)",
    "{n} // np.where({m} == 0, 3, {m})",
    "{n} % np.where({m} == 0, 3, {m})",
    "np.maximum({a}, {b})",
    "np.minimum({a}, {b})",
    "np.where({a} > {b}, {a}, {b})",
    "{a} == {b}",
    "{a} <= {b}",
    "np.logical_and({a}, {b})",
    "np.hypot({a}, {b})",
    "np.arctan2({a}, {b})",
    "np.fmax({a}, {b})",
    "np.copysign({f}, {b})",
    "({i} & {j})",
    "({i} | {j})",
    "({i} ^ {j})",
    "np.logaddexp({a} * 0.1, {b} * 0.1)",
    "{a} != {b}",
    "np.isclose({a}, {b})",
    "np.float32(2) * {a} + {b}",
    "{a} ** 2 + 3 * {b}",
    "np.fmod({n}, 3)",
)
REDUCED = (
    "np.sum({a})",
    "{a}.sum(axis=0)",
    "{a}.max(axis=-1)",
    "{a}.min()",
    "np.mean({a}, axis=-1, keepdims=True)",
    "np.prod({a} * 0.5, axis=0)",
    "np.any({a} > 0, axis=0)",
    "np.all({a} > -5)",
    "np.argmax({a}, axis=0)",
    "np.argmin({a})",
    "np.cumsum({a}, axis=0)",
    "np.std({a}, axis=0)",
    "np.var({a})",
    "np.ptp({a}, axis=0)",
    "np.count_nonzero({a})",
    "np.linalg.norm({a} * 1.0)",
    "np.median({a} * 1.0, axis=0)",
    "np.sort({a}, axis=0)",
    "np.argsort({a}, axis=-1, kind='stable')",
    "np.diff({a}, axis=0)",
    "np.cumprod({a} * 0.5, axis=-1)",
)
MOVED = (
    "{a}.T",
    "{a}.reshape(-1)",
    "{a}[::-1]",
    "{a}[1:]",
    "{a}[:-1]",
    "{a}[..., ::2]",
    "{a}[-1]",
    "{a}[None]",
    "{a}[..., None] * 2",
    "np.concatenate([{a}, {a}], axis=0)",
    "np.stack([{a}, {a}], axis=-1)",
    "np.flip({a}, axis=0)",
    "np.roll({a}, 2, axis=0)",
    "np.tile({a}, 2)",
    "np.repeat({a}, 3, axis=0)",
    "np.pad({a}, 1)",
    "np.expand_dims({a}, 1)",
    "np.ravel({a})",
    "{a}[[0, -1]]",
    "{a}[np.array([0, 0])]",
    "{a}[::-2]",
    "np.atleast_2d({a})",
    "np.zeros_like({a})",
    "np.full_like({a}, 3)",
    "{a}[{a} > 0]",
    "np.vstack([{a}, {a}])",
    "np.hstack([{a}, {a}])",
    "np.swapaxes({a}, 0, -1)",
    "np.array_split({a}, 2)[0]",
    "np.moveaxis({a}, 0, -1)",
    "np.broadcast_to({a}, (2,) + {a}.shape)",
    "{a}[-2:]",
    "{a}[3:1]",
    "{a}[5:0:-1]",
)
PRODUCTS = (
    "{p} @ {q}",
    "np.dot({p}, {q})",
    "np.einsum('ij,jk->ik', {p}, {q})",
    "np.einsum('ij->ji', {p})",
    "np.outer({p}, {q})",
    "np.tensordot({p}, {q}, axes=1)",
    "np.einsum('ij,jk->i', {p}, {q})",
    "{p}.T @ {p}",
    "np.trace({p} @ {p}.T)",
    "np.diag({p} @ {p}.T)",
    "np.tril({p})",
    "np.triu({p}, 1)",
    "np.inner({p}, {p})",
    "np.einsum('ij,ij->', {p}, {p})",
    "np.kron({p}, {q})",
    "np.einsum('...j,jk->...k', {p}, {q})",
)


@dataclass(frozen=True)
class Expression:
    """A function ``f(x, y)`` of a module, and its operands."""

    text: str
    function: Callable[[Any, Any], Any]
    operands: tuple[Any, Any]


def array_of(rng: Generator, shape: tuple[int, ...], dtype: str) -> Any:
    """Elements of a type: small whole numbers, or floats with signed zeros."""
    if dtype == "bool":
        return rng.random(shape) > 0.5
    whole = rng.integers(0 if dtype == "uint8" else -9, 10, shape).astype(dtype)
    if dtype.startswith("float"):
        return (whole + rng.standard_normal(shape) * (rng.random(shape) > 0.3)).astype(dtype)
    return whole


def pair_of(rng: Generator, kind: str) -> tuple[Any, Any]:
    """Two operands: of shapes that broadcast, or for a matrix product."""
    one, other = (str(rng.choice(TYPES)) for _ in range(2))
    if kind == "product":
        m, k, n = (int(rng.integers(1, 6)) for _ in range(3))
        return array_of(rng, (m, k), one), array_of(rng, (k, n), other)
    rank = int(rng.integers(1, 4))
    least = 0 if kind in ("unary", "binary") and rng.random() < 0.15 else 1
    shape = tuple(int(rng.integers(least, 6)) for _ in range(rank))
    thin = tuple(1 if rng.random() < 0.25 else d for d in shape)[int(rng.integers(0, rank)) :]
    return array_of(rng, shape, one), array_of(rng, thin, other)


def text_of(rng: Generator, kind: str, depth: int = 1) -> str:
    """An expression of x and y. Names in the templates: a, b any; n, m no bools, f floats; i, j
    whole numbers of one type; p, q matrices."""
    table = {
        "unary": UNARY,
        "binary": BINARY,
        "reduced": REDUCED,
        "moved": MOVED,
        "product": PRODUCTS,
    }[kind]
    words = {
        "a": "x",
        "b": "y",
        "n": "(x + 0)",
        "m": "(y + 0)",
        "f": "(x * 1.0)",
        "i": "(x > 0)",
        "j": "(y > 0)",
        "p": "x",
        "q": "y",
    }
    if depth and kind in ("reduced", "moved") and rng.random() < 0.4:
        words["a"] = f"({text_of(rng, 'unary', 0)})"
    return str(rng.choice(table)).format(**words)


def expressions(folder: Path, seed: int, count: int) -> list[Expression]:
    """So many functions, written to a module in a folder."""
    rng = np.random.default_rng(seed)
    kinds = [
        str(rng.choice(["unary", "binary", "reduced", "moved", "product"])) for _ in range(count)
    ]
    texts = [text_of(rng, k) for k in kinds]
    operands = [pair_of(rng, k) for k in kinds]
    path = folder / f"expressions_{seed}.py"
    body = "\n\n".join(f"def f{k}(x, y):\n    return {t}" for k, t in enumerate(texts))
    path.write_text(f"import numpy as np\n\n\n{body}\n")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [Expression(t, getattr(module, f"f{k}"), operands[k]) for k, t in enumerate(texts)]
