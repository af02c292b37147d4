"""``dataclass`` as the standard library's, whose methods are compiled when they are first called.

The standard decorator compiles the text of six methods for every class while its module is
imported, which costs a process that imports the compiler a third of a second, and most of them are
never called. Fields, slots, :func:`dataclasses.replace` and the methods' meaning are the standard
ones; ``order=True`` and ``InitVar`` are not offered. The fields of frozen objects with slots are
set through the slots, which takes two thirds of the time of ``object.__setattr__`` by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass", "function_of"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, slots=False, eq=True, kw_only=False):
        """The class with its fields and methods (:func:`dataclasses.dataclass`)."""
        if cls is None:
            return lambda cls: _made(cls, frozen, slots, eq, kw_only)
        return _made(cls, frozen, slots, eq, kw_only)


def _made(cls: Any, frozen: bool, slots: bool, eq: bool, kw_only: bool) -> Any:
    bases = (vars(base).get("__dataclass_params__") for base in cls.__mro__[1:])
    if any(params.frozen for params in bases if params):  # the standard library compares these
        return dataclasses.dataclass(frozen=frozen, slots=slots, eq=eq, kw_only=kw_only)(cls)
    own = dict(vars(cls))
    if cls.__doc__ is None:
        cls.__doc__ = cls.__name__  # the standard library would ask for a signature
    made = dataclasses.dataclass(
        cls, init=False, repr=False, eq=False, slots=slots, kw_only=kw_only
    )  # fmt: skip
    for name, method in _methods(made, own, frozen, eq).items():
        setattr(made, name, method)
    made.__dataclass_params__.frozen = frozen
    return made


def _methods(cls: Any, own: dict[str, Any], frozen: bool, eq: bool) -> dict[str, Any]:
    """What a class gets besides what it has of its `own`."""
    found: dict[str, Any] = {"__init__": _Method(cls, "__init__", _init_text)}
    if "__repr__" not in own:
        found["__repr__"] = _repr
    if eq and "__eq__" not in own:
        found["__eq__"] = _Method(cls, "__eq__", _eq_text)
    # Python itself puts None there for a class that defines how it compares.
    has_hash = "__hash__" in own and (own["__hash__"] is not None or "__eq__" not in own)
    if eq and not has_hash:
        found["__hash__"] = _Method(cls, "__hash__", _hash_text) if frozen else None
    if frozen:
        found |= _refusals(cls)
        if "__slots__" in vars(cls):
            found |= {"__getstate__": _get_state, "__setstate__": _set_state}
    return found


# The lines of a method, whose first is its head, and the values that they name.
Text = tuple[list[str], dict[str, Any]]


def function_of(lines: Sequence[str], name: str, known: dict[str, Any]) -> Any:
    """A function from the lines of its text, the first of which is its head, and what they name;
    for what is made once per class and called often, instead of a loop over fields."""
    exec("\n  ".join(lines), known)
    return known[name]


class _Method:
    """A method that takes its own place, compiled, when something asks for it."""

    def __init__(self, cls: type, name: str, text: Callable[[type], Text]) -> None:
        self.cls, self.name, self.text = cls, name, text

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        lines, known = self.text(self.cls)
        made = function_of(lines, self.name, known)
        made.__qualname__ = f"{self.cls.__qualname__}.{self.name}"
        made.__module__ = self.cls.__module__
        setattr(self.cls, self.name, made)
        return made if instance is None else made.__get__(instance, owner)


def _fields(cls: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls)


def _init_text(cls: Any) -> Text:
    """Sets every field to what is given, or to its default."""
    known: dict[str, Any] = {"_MISSING": dataclasses.MISSING, "_set": object.__setattr__}
    plain: list[str] = []
    named: list[str] = []
    body: list[str] = []
    for f in _fields(cls):
        head, value = f.name, f.name
        if f.default_factory is not dataclasses.MISSING:
            known[f"_make_{f.name}"] = f.default_factory
            value = f"_make_{f.name}()"
            if f.init:
                head = f"{f.name}=_MISSING"
                value += f" if {f.name} is _MISSING else {f.name}"
        elif f.default is not dataclasses.MISSING:
            known[f"_default_{f.name}"] = f.default
            head = f"{f.name}=_default_{f.name}"
            value = f.name if f.init else f"_default_{f.name}"
        elif not f.init:
            continue
        if f.init:
            (named if f.kw_only else plain).append(head)
        body.append(_set_text(cls, f.name, value, known))
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    parameters = ", ".join(["self", *plain, *(["*", *named] if named else [])])
    return [f"def __init__({parameters}):", *(body or ["pass"])], known


def _set_text(cls: Any, name: str, value: str, known: dict[str, Any]) -> str:
    """The statement that gives a field its first value."""
    if not cls.__dataclass_params__.frozen:
        return f"self.{name} = {value}"
    slot = getattr(cls, name, None) if "__slots__" in vars(cls) else None
    if slot is None:
        return f"_set(self, {name!r}, {value})"
    known[f"_set_{name}"] = slot.__set__
    return f"_set_{name}(self, {value})"


def _values_text(names: Sequence[str], of: str) -> str:
    return "(" + "".join(f"{of}.{name}, " for name in names) + ")"


def _eq_text(cls: Any) -> Text:
    """Objects of one class with equal fields are equal."""
    names = [f.name for f in _fields(cls) if f.compare]
    same = f"{_values_text(names, 'self')} == {_values_text(names, 'other')}"
    return [
        "def __eq__(self, other):",
        "if other.__class__ is self.__class__:",
        f"  return {same}",
        "return NotImplemented",
    ], {}


def _hash_text(cls: Any) -> Text:
    """The hash of the fields that are compared."""
    names = [f.name for f in _fields(cls) if (f.compare if f.hash is None else f.hash)]
    return ["def __hash__(self):", f"return hash({_values_text(names, 'self')})"], {}


@recursive_repr()
def _repr(self: Any) -> str:
    """The class's name with all fields that are shown."""
    shown = (f"{f.name}={getattr(self, f.name)!r}" for f in _fields(type(self)) if f.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _refusals(cls: Any) -> dict[str, Any]:
    """What refuses to change the fields of frozen objects."""
    names = {f.name for f in _fields(cls)}

    def set_attribute(self: Any, name: str, value: object) -> None:
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)

    def delete_attribute(self: Any, name: str) -> None:
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)

    return {"__setattr__": set_attribute, "__delattr__": delete_attribute}


def _get_state(self: Any) -> list[Any]:
    """What a copy of a frozen object with slots is made of."""
    return [getattr(self, f.name) for f in _fields(type(self))]


def _set_state(self: Any, state: list[Any]) -> None:
    for f, value in zip(_fields(type(self)), state, strict=True):
        object.__setattr__(self, f.name, value)
