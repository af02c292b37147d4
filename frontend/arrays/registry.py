"""Which functions are known, by the function itself: ``np.sum``, however it is called in a
module."""

from __future__ import annotations

import builtins
import importlib
import math
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import numpy as np

Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)

_NUMPY: dict[str, Handler] = {}
_BUILTINS: dict[str, Handler] = {}
_METHODS: dict[str, Handler] = {}
_MODULES = ("creation", "moving", "reductions", "products", "choosing", "numbers")


def numpy_function(*names: str, method: bool = False) -> Callable[[H], H]:
    """Register a handler under names of numpy; `method`: of arrays as well."""

    def add(fn: H) -> H:
        for name in names:
            _NUMPY[name] = fn
            if method:
                _METHODS[name] = fn
        return fn

    return add


def builtin(*names: str) -> Callable[[H], H]:
    """Register a handler for functions of Python."""

    def add(fn: H) -> H:
        for name in names:
            _BUILTINS[name] = fn
        return fn

    return add


def array_method(*names: str) -> Callable[[H], H]:
    """Register a handler for methods that arrays alone have."""

    def add(fn: H) -> H:
        for name in names:
            _METHODS[name] = fn
        return fn

    return add


@cache
def _load() -> dict[Any, Handler]:
    for module in _MODULES:
        importlib.import_module(f"aisc.frontend.arrays.{module}")
    found: dict[Any, Handler] = {}
    for name, handler in _NUMPY.items():
        owner: Any = np
        for part in name.split("."):
            owner = getattr(owner, part, None)
        if owner is not None:
            found[owner] = handler
    found.update({getattr(builtins, name): handler for name, handler in _BUILTINS.items()})
    return found


def handler_of(function: Any) -> Handler | None:
    """The handler of a function; nothing where there is none."""
    try:
        return _load().get(function)
    except TypeError:  # nothing that tables can hold
        return None


def method_of(name: str) -> Handler | None:
    """The handler of a method of arrays."""
    _load()
    return _METHODS.get(name)


def ufunc_of(function: Any) -> str:
    """The name of a ufunc, for those of ``math`` that of numpy's; empty for what is none."""
    if isinstance(function, np.ufunc):
        return function.__name__
    return _MATH.get(function, "")


_MATH: dict[Any, str] = {
    getattr(math, a): b
    for a, b in {
        "exp": "exp", "expm1": "expm1", "log1p": "log1p", "log2": "log2", "log10": "log10",
        "sqrt": "sqrt", "sin": "sin", "cos": "cos", "tan": "tan", "asin": "arcsin",
        "acos": "arccos", "atan": "arctan", "atan2": "arctan2", "sinh": "sinh", "cosh": "cosh",
        "tanh": "tanh", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
        "fabs": "fabs", "isnan": "isnan", "isinf": "isinf", "isfinite": "isfinite",
        "copysign": "copysign", "hypot": "hypot", "degrees": "degrees", "radians": "radians",
        "log": "log", "fmod": "fmod", "pow": "float_power",
    }.items()
}  # fmt: skip
