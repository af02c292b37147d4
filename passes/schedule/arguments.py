"""Arguments of schedule primitives, checked against their annotations before anything is rewritten.

What a trace cannot hold as it is, is brought into the form that it can: lists become tuples,
numbers of numpy become numbers of Python.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, get_type_hints

import numpy as np

from aisc.ir.annotations import fits, words
from aisc.ir.diagnostics import CompileError, error

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@cache
def signature(rewrite: Callable[..., Any]) -> inspect.Signature:
    """The parameters of a primitive as its caller sees them, with their types: without the function
    that is rewritten."""
    hints = get_type_hints(rewrite)
    found = inspect.signature(rewrite)
    parameters = [p.replace(annotation=hints[p.name]) for p in found.parameters.values()]
    return found.replace(parameters=parameters[1:], return_annotation=inspect.Signature.empty)


def checked(name: str, rewrite: Callable[..., Any], args: Any, kwargs: Any) -> Arguments:
    """The arguments of a call as a trace keeps them; E302 where one is missing, unknown, or of
    another type than the primitive takes."""
    found = signature(rewrite)
    args, kwargs = tuple(map(_plain, args)), {k: _plain(v) for k, v in kwargs.items()}
    try:
        given = _bound(rewrite, args, kwargs)
    except TypeError as fault:
        raise _refused(name, found, args, kwargs, str(fault)) from None
    for key, value, hint in given:
        if not fits(value, hint):
            why = f"'{key}' must be {words(hint)}, got {value!r}"
            raise _refused(name, found, args, kwargs, why)
    return args, kwargs


@cache
def _parameters(rewrite: Callable[..., Any]) -> tuple[tuple[inspect.Parameter, ...], ...]:
    """The parameters with a name, and the one that takes any number."""
    several, found = inspect.Parameter.VAR_POSITIONAL, signature(rewrite).parameters.values()
    named = tuple(p for p in found if p.kind is not several)
    return named, tuple(p for p in found if p.kind is several)


def _bound(rewrite: Callable[..., Any], args: Any, kwargs: Any) -> list[tuple[str, Any, Any]]:
    """Each argument with the name and type of its parameter. Rules apply thousands of steps: what
    fits at first sight is not bound by :mod:`inspect`, which takes ten times as long."""
    named, several = _parameters(rewrite)
    given = kwargs | {p.name: x for p, x in zip(named, args, strict=False)}
    plain = not several and len(given) == len(args) + len(kwargs) <= len(named)
    if not plain or any(p.name not in given and p.default is p.empty for p in named):
        given = signature(rewrite).bind(*args, **kwargs).arguments
    found = [(p.name, given[p.name], p.annotation) for p in named if p.name in given]
    if len(found) < len(given) - len(several):
        signature(rewrite).bind(*args, **kwargs)  # an unknown name
    return found + [(p.name, x, p.annotation) for p in several for x in given.get(p.name, ())]


def _refused(name: str, found: inspect.Signature, args: Any, kwargs: Any, why: str) -> CompileError:
    given = [repr(a) for a in args] + [f"{k}={v!r}" for k, v in kwargs.items()]
    notes = f"expected {name}{shown(found)}", f"got {name}({', '.join(given)})"
    return error("E302", f"{name}: {why}", *notes)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def shown(found: inspect.Signature) -> str:
    """A signature as Python writes it, without the modules of its types."""
    return str(found).replace("collections.abc.", "")
