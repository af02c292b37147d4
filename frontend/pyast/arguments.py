"""What a function is captured for: the types of its arguments, and what of them is known.

Arguments are trees: arrays and numbers in tuples, lists, dicts and dataclasses. Arrays are known by
element type and number of axes, numbers of Python's by their kind; everything else is what it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from aisc.frontend.arrays.values import Record, Tensor
from aisc.frontend.pyast.scope import Local
from aisc.ir.arith.poly import Dim, Poly
from aisc.ir.dataclass import dataclass
from aisc.ir.dtypes import DType


@dataclass(frozen=True, slots=True)
class Argument:
    """An array or number of the run. dims: names, sizes or, where nothing is said, ``None``; weak:
    a number of Python's."""

    dtype: DType
    dims: tuple[Dim | str | None, ...]
    weak: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """The place of a result among those of the graph; weak: it is a number of Python's."""

    at: int
    weak: bool


def is_leaf_array(x: object) -> bool:
    """Whether an argument is an array, of numpy's or of those that become one."""
    return (
        isinstance(x, np.ndarray | np.generic)
        or hasattr(x, "__dlpack__")
        or hasattr(x, "__array_interface__")
    )


def tree_map(x: Any, fn: Callable[[Any, str], Any], path: str, unfold: bool) -> Any:
    """A tree with `fn` applied to its leaves and their paths. unfold: dataclasses become records;
    without it records become what they stand for."""
    if isinstance(x, list):
        return [tree_map(v, fn, f"{path}_{k}", unfold) for k, v in enumerate(x)]
    if isinstance(x, tuple):
        items = [tree_map(v, fn, f"{path}_{k}", unfold) for k, v in enumerate(x)]
        return type(x)(*items) if hasattr(x, "_fields") else tuple(items)
    if isinstance(x, dict):
        return {k: tree_map(v, fn, f"{path}_{k}", unfold) for k, v in x.items()}
    if isinstance(x, Record):
        fields = {k: tree_map(v, fn, f"{path}_{k}", unfold) for k, v in x.fields.items()}
        return Record(x.cls, fields) if unfold else x.cls(**fields)
    if unfold and _is_data(x):
        fields = {f.name: getattr(x, f.name) for f in dataclasses.fields(x)}
        return Record(
            type(x), {k: tree_map(v, fn, f"{path}_{k}", unfold) for k, v in fields.items()}
        )
    return fn(x, path)


def _is_data(x: Any) -> bool:
    """Whether it is an instance of a user's dataclass of arrays or numbers and nothing else."""
    if isinstance(
        x, type | Argument | Result | Tensor | Local | DType | Poly
    ) or not dataclasses.is_dataclass(x):
        return False
    values = [getattr(x, f.name) for f in dataclasses.fields(x)]
    return bool(values) and all(
        is_leaf_array(v)
        or isinstance(v, bool | int | float | list | tuple | dict)
        or dataclasses.is_dataclass(v)
        for v in values
    )
