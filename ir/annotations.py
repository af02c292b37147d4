"""Whether values are of annotated types, and what these are in words.

For functions that people call: their arguments are checked before anything happens, and a refusal
says what is allowed.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
from collections.abc import Callable
from functools import cache
from os import PathLike
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from aisc.ir.diagnostics import error

P = ParamSpec("P")
R = TypeVar("R")
_NOUNS = {
    str: ("a name", "names"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("True or False", "booleans"),
    types.NoneType: ("None", "None"),
    PathLike: ("a path", "paths"),
}


def checked_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function refuse arguments that are missing, unknown or of other types than annotated:
    E401 says which, what is allowed and what came."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        found = _signature(function)
        try:
            given = found.bind(*args, **kwargs).arguments
        except TypeError as fault:
            names = ", ".join(found.parameters)
            raise error("E401", f"{function.__name__}: {fault}", f"it takes {names}") from None
        for name, value in given.items():
            hint = found.parameters[name].annotation
            if not fits(value, hint):
                expected, got = f"expected {words(hint)}", f"got {value!r}"
                raise error("E401", f"{function.__name__}: '{name}' is wrong", expected, got)
        return function(*args, **kwargs)

    return call


@cache
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    own = {k: v for k, v in function.__annotations__.items() if k != "return"}
    hints = get_type_hints(types.SimpleNamespace(__annotations__=own), function.__globals__)
    found = inspect.signature(function)
    parameters = [p.replace(annotation=hints.get(p.name, Any)) for p in found.parameters.values()]
    return found.replace(parameters=parameters, return_annotation=inspect.Signature.empty)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated type."""
    return _test(hint)(value)


@cache
def _test(hint: Any) -> Callable[[Any], bool]:
    """A test for values of an annotated type; true where it is of a kind that is not known here."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        tests = tuple(map(_test, args))
        return lambda value: any(test(value) for test in tests)
    if origin is Literal:
        return lambda value: value in args
    if origin is tuple and args[-1:] != (Ellipsis,):
        tests = tuple(map(_test, args))
        return lambda value: (
            isinstance(value, tuple)
            and len(value) == len(tests)
            and all(test(x) for test, x in zip(tests, value, strict=True))
        )
    if origin in (tuple, collections.abc.Sequence):
        each, kinds = _test(args[0]), tuple if origin is tuple else (tuple, list)
        return lambda value: isinstance(value, kinds) and all(map(each, value))
    if origin is collections.abc.Mapping:
        key, item = map(_test, args)
        return lambda value: (
            isinstance(value, collections.abc.Mapping)
            and all(key(k) and item(v) for k, v in value.items())
        )
    if hint in (int, float):  # a bool is an int, and is none here
        numbers = (int, np.integer) if hint is int else (int, float, np.integer, np.floating)
        return lambda value: isinstance(value, numbers) and not isinstance(value, bool)
    hint = origin if isinstance(origin, type) else hint  # of generic classes the class
    if hint is Any or not isinstance(hint, type):
        return lambda value: True
    return lambda value: isinstance(value, hint)


def words(hint: Any, several: bool = False) -> str:
    """A type in words."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(words(a, several) for a in args)
    if origin is Literal:
        return "one of " + ", ".join(map(repr, args))
    if origin is tuple and args[-1:] != (Ellipsis,):
        return f"{'tuples' if several else 'a tuple'} ({', '.join(map(words, args))})"
    if origin is collections.abc.Mapping:
        inner = " to ".join(words(a, several=True) for a in args)
        return f"{'mappings' if several else 'a mapping'} of {inner}"
    if origin in (tuple, collections.abc.Sequence):
        return f"{'sequences' if several else 'a sequence'} of {words(args[0], several=True)}"
    if origin is not None:
        hint = origin
    alone: str = getattr(hint, "__name__", str(hint))
    return _NOUNS.get(hint, (alone, alone))[several]
