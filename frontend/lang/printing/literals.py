"""Numbers, attributes and the starts of parameters as text that means the same."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from aisc.frontend.lang.operators import dtype_of
from aisc.frontend.lang.printing.sizes import Sizes
from aisc.ir.arith.poly import Dim, Poly
from aisc.ir.dtypes import DType, from_numpy
from aisc.ir.graph.core import AttrValue

Array = np.ndarray[Any, Any]
_LARGEST = 1 << 62  # of the language


def number(x: float) -> str:
    """A number: whole ones without a point."""
    if isinstance(x, bool):
        return "true" if x else "false"
    if isinstance(x, int):
        return str(x)
    if not math.isfinite(x):
        return "nan" if math.isnan(x) else "inf" if x > 0 else "-inf"
    return repr(float(x))


def scalar(array: Array) -> str | None:
    """A tensor without axes as a literal that takes its type from what it meets; nothing where
    there is none."""
    if array.ndim:
        return None
    t = from_numpy(array.dtype)
    if t.kind == "bool":
        return "true" if bool(array) else "false"
    if not t.is_float:
        return str(int(array)) if abs(int(array)) <= _LARGEST else None
    for text in (str(array[()]), number(float(array))):
        value = _float(text)
        if value is not None and _same(np.asarray(value).astype(array.dtype), array):
            return number(value)
    return None


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _same(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def usual_type(text: str, t: DType) -> bool:
    """Whether a literal that meets no tensor has this type."""
    if text in ("true", "false"):
        return t.kind == "bool"
    whole = text.lstrip("-").isdigit()
    return t is dtype_of(0 if whole else 0.0)


def start(arrays: Sequence[Array]) -> str | None:
    """What gives parameters their contents without a file, for all of them alike."""
    first = arrays[0]
    if not first.size:
        return "zeros()"
    element = first.reshape(-1)[0]
    value = math.nan if np.isnan(element) else float(element)  # the text has no sign of NaN
    if first.dtype.kind in "biu" and not abs(value) < 1 << 53:
        return None
    filled = np.full(first.shape, value).astype(first.dtype)
    if not all(_same(np.ascontiguousarray(a), filled) for a in arrays):
        return None
    if _same(np.zeros((), first.dtype), np.asarray(element)):
        return "zeros()"
    return "ones()" if value == 1 else f"full({number(value)})"


def attribute(value: AttrValue | object, kind: str, sizes: Sizes) -> str:
    """An attribute's value."""
    if kind == "dims":
        return sizes.list_of(cast(tuple[Dim, ...], value))
    if isinstance(value, tuple):
        return f"[{', '.join(attribute(x, kind[:-1], sizes) for x in value)}]"
    if isinstance(value, Poly):
        return sizes.text(value)
    if isinstance(value, DType):
        return value.name
    if isinstance(value, str):
        return json.dumps(value)
    assert isinstance(value, bool | int | float), "a number"
    return number(float(value) if kind == "float" else value)
