"""Dataclasses that cost little to import, against those of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, field, replace
from typing import Any

import pytest

from aisc.ir.dataclass import dataclass

FORMS: list[dict[str, bool]] = [
    {"frozen": True, "slots": True}, {"frozen": True}, {"slots": True}, {},
    {"frozen": True, "slots": True, "eq": False}, {"slots": True, "eq": False},
    {"frozen": True, "slots": True, "kw_only": True}, {"kw_only": True},
]  # fmt: skip
Maker = Callable[..., Any]


def point(maker: Maker, form: dict[str, bool]) -> Any:
    @maker(**form)
    class Point:
        """Has every kind of field."""

        x: Any
        y: int = 2
        tags: list[str] = field(default_factory=list)
        note: str = field(default="-", compare=False, repr=False)
        made: int = field(default=7, init=False)
        late: Any = field(init=False, compare=False, repr=False, hash=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "late", (self.x, self.y))

    return Point


GIVEN: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1,), {}), ((1, 3), {}), ((), {"x": 1}), ((), {"x": 1, "y": 3, "tags": ["a"]}),
    ((math.nan,), {}), ((1,), {"note": "other"}), ((), {}), ((1, 2, [], "n", 5), {}),
    ((), {"x": 1, "z": 2}), ((), {"x": 2, "y": 2, "tags": (), "note": "n"}),
]  # fmt: skip
READ: list[Callable[[Any], object]] = [
    repr, lambda p: (p.x, p.y, list(p.tags), p.note, p.made, p.late),
    lambda p: type(hash(p)), lambda p: setattr(p, "x", 3), lambda p: delattr(p, "y"),
    lambda p: replace(p, y=9).late, lambda p: copy.copy(p).late,
    lambda p: copy.deepcopy(p).late, lambda p: p == copy.copy(p), lambda p: p == p,
    lambda p: p == replace(p, y=9), lambda p: p == 3, dataclasses.astuple,
]  # fmt: skip


def kinds(cls: Any, args: tuple[Any, ...], named: dict[str, Any], read: Any) -> object:
    """What is read of a new object, or the kind of error that making or reading it gives."""
    try:
        return read(cls(*args, **named))
    except Exception as fault:
        return type(fault)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_as_the_standard_library(form: dict[str, bool]) -> None:
    ours, theirs = point(dataclass, form), point(dataclasses.dataclass, form)
    for args, named in GIVEN:
        for read in READ:
            assert kinds(ours, args, named, read) == kinds(theirs, args, named, read)
    assert [str(p) for p in inspect.signature(ours).parameters] == [
        str(p) for p in inspect.signature(theirs).parameters
    ]
    assert ours.__match_args__ == theirs.__match_args__
    assert hasattr(ours, "__slots__") == hasattr(theirs, "__slots__")


def test_attributes_that_no_field_is() -> None:
    made = point(dataclass, {"frozen": True, "slots": True})(1)
    with pytest.raises(FrozenInstanceError):
        made.other = 3


@dataclass(frozen=True, slots=True)
class Pair:
    """Of two values."""

    left: Any
    right: Any = None


def test_copies_and_pickles_of_what_is_frozen() -> None:
    pair = Pair([1], Pair(2))
    assert copy.deepcopy(pair) == pair and pickle.loads(pickle.dumps(pair)) == pair
    assert {Pair(1): "a"}[Pair(1)] == "a"


def test_what_refers_to_itself_is_printed() -> None:
    inside: list[Any] = []
    inside.append(Pair(inside))
    assert "..." in repr(inside[0])


def test_methods_that_a_class_has_stay() -> None:
    @dataclass(frozen=True, slots=True)
    class Same:
        x: int

        def __eq__(self, other: object) -> bool:
            return True

        def __repr__(self) -> str:
            return "same"

    assert Same(1) == Same(2) and repr(Same(1)) == "same" and hash(Same(1)) == hash((1,))

    @dataclass
    class Hashed:
        x: int

        def __hash__(self) -> int:
            return 5

    assert hash(Hashed(1)) == 5 and Hashed(1) == Hashed(1)


def test_classes_derived_from_one() -> None:
    class Plain(Pair):
        more: int

    made = Plain(1, 2)
    made.more = 3
    assert (made.left, made.more) == (1, 3)
    with pytest.raises(FrozenInstanceError):
        made.left = 2  # type: ignore[misc]

    for maker in (dataclass, dataclasses.dataclass):

        @maker(frozen=True)
        class Three(Pair):
            last: int = 3

        assert Three(1) == Three(1, None, 3) and hash(Three(1)) == hash((1, None, 3))
        with pytest.raises(FrozenInstanceError):
            Three(1).last = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        dataclass(type("Loose", (Pair,), {"__annotations__": {"z": int}}))
