"""Variables and what arrays hold at a point of a function, and how they are copied and compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import field
from typing import Any

from aisc.frontend.arrays.values import Maybe, Partial, Record, Tensor
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Value

# How a block of statements may end. A number of the run where more than one is possible.
ON, BREAK, CONTINUE, RETURN, RAISE = range(5)


@dataclass(slots=True)
class State:
    """names: variables of the function; contents: what arrays that were written hold now; writes:
    how often arrays were written; code: how the block ended so far, `may` the ways that are
    possible; result: what was returned, where it was."""

    names: dict[str, Any] = field(default_factory=dict)
    contents: dict[Tensor, Tensor] = field(default_factory=dict)
    writes: dict[Tensor, int] = field(default_factory=dict)
    code: int | Tensor = ON
    may: frozenset[int] = frozenset({ON})
    result: Any = None

    def held(self, t: Tensor) -> Value:
        """The value that an array holds, in the frame where it was made."""
        return self.contents.get(t, t).value

    def end(self, code: int) -> None:
        """The block ends here."""
        self.code, self.may = code, frozenset({code})

    def copy(self) -> State:
        """A state that can change without this one: lists and objects are copied, what several
        names stand for once."""
        seen: dict[int, Any] = {}
        names = {name: copied(item, seen) for name, item in self.names.items()}
        return State(
            names,
            dict(self.contents),
            dict(self.writes),
            self.code,
            self.may,
            copied(self.result, seen),
        )


def copied(item: Any, seen: dict[int, Any]) -> Any:
    """A value in which nothing can be changed that others see."""
    if id(item) in seen:
        return seen[id(item)]
    if isinstance(item, list):
        made: Any = seen.setdefault(id(item), [])
        made += [copied(x, seen) for x in item]
        return made
    if isinstance(item, dict):
        made = seen.setdefault(id(item), {})
        made.update({k: copied(v, seen) for k, v in item.items()})
        return made
    if isinstance(item, Record):
        made = seen.setdefault(id(item), Record(item.cls, {}))
        made.fields.update({k: copied(v, seen) for k, v in item.fields.items()})
        return made
    if isinstance(item, tuple):
        return _tuple_like(item, [copied(x, seen) for x in item])
    if isinstance(item, Partial | Maybe):
        return dataclasses.replace(item, item=copied(item.item, seen))
    return item


def _tuple_like(old: tuple[Any, ...], items: list[Any]) -> tuple[Any, ...]:
    if all(a is b for a, b in zip(old, items, strict=True)):
        return old
    return type(old)(*items) if hasattr(old, "_fields") else tuple(items)


def mapped(item: Any, fn: Callable[[Any], Any]) -> Any:
    """A value of the same structure, `fn` applied to what is no container."""
    if isinstance(item, list):
        return [mapped(x, fn) for x in item]
    if isinstance(item, tuple):
        return _tuple_like(item, [mapped(x, fn) for x in item])
    if isinstance(item, dict):
        return {k: mapped(v, fn) for k, v in item.items()}
    if isinstance(item, Record):
        return Record(item.cls, {k: mapped(v, fn) for k, v in item.fields.items()})
    return fn(item)


def leaves(item: Any) -> list[Any]:
    """What is no container, in order."""
    found: list[Any] = []
    mapped(item, lambda x: found.append(x))
    return found
