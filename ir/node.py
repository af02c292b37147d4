"""Traversal of frozen trees, derived from dataclass fields and written once.

Expressions and statements subclass :class:`Node`. A field whose annotation names a subclass, ``X``,
``X | None`` or ``tuple[X, ...]``, holds children; nothing else needs to be declared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from operator import attrgetter, is_
from typing import Any, TypeVar

from aisc.ir.dataclass import dataclass, function_of

MAX_DEPTH = 200  # deepest tree that texts and verified IR may have

N = TypeVar("N", bound="Node")
T = TypeVar("T")


class Node:
    """Base of every tree node; subclasses are frozen dataclasses with slots."""

    __slots__ = ()


def hash_once(cls: type[T]) -> type[T]:
    """Let a frozen class with a slot ``_hash`` keep its hash: trees are keys of many tables."""
    plain: Callable[[T], int] = cls.__hash__

    def kept(self: Any) -> int:
        try:
            known: int = self._hash
        except AttributeError:
            known = plain(self)
            object.__setattr__(self, "_hash", known)
        return known

    cls.__hash__ = kept  # type: ignore[method-assign]
    return cls


@dataclass(frozen=True, slots=True)
class _Layout:
    """What traversal knows of a class: its fields; those that hold children and whether each holds
    several; whether one of them may be ``None``."""

    fields: tuple[str, ...]
    children: tuple[tuple[str, bool], ...]
    optional: bool


def _layout_of(cls: type[Node]) -> _Layout:
    assert dataclasses.is_dataclass(cls), f"{cls.__name__} is not a dataclass"
    nodes, todo = set[str](), [Node]
    while todo:
        top = todo.pop()
        nodes.add(top.__name__)
        todo += top.__subclasses__()
    found, optional = [], False
    for f in dataclasses.fields(cls):
        text = str(f.type)
        inner = text.removeprefix("tuple[").removesuffix(", ...]")
        name = inner.removesuffix(" | None")
        if name in nodes:
            found.append((f.name, inner != text))
            optional = optional or name != inner
    return _Layout(tuple(f.name for f in dataclasses.fields(cls)), tuple(found), optional)


class _Layouts(dict[type[Node], _Layout]):
    """Layouts by class, each made when it is first asked for."""

    def __missing__(self, cls: type[Node]) -> _Layout:
        self[cls] = made = _layout_of(cls)
        return made


def _no_children(node: Node) -> tuple[Node, ...]:
    return ()


def _reader_of(cls: type[Node]) -> Callable[[Any], tuple[Node, ...]]:
    """The function that gives the children of a `cls`."""
    layout = _LAYOUTS[cls]
    if not layout.children:
        return _no_children
    read: Callable[[Any], Any] = attrgetter(*(name for name, _ in layout.children))
    if len(layout.children) == 1:
        return read if layout.children[0][1] else lambda node: (read(node),)

    def flat(node: Any) -> tuple[Node, ...]:
        found: list[Node] = []
        for value in read(node):
            if isinstance(value, tuple):
                found += value
            elif value is not None:
                found.append(value)
        return tuple(found)

    return flat if layout.optional or any(many for _, many in layout.children) else read


class _Readers(dict[type[Node], Callable[[Any], tuple[Node, ...]]]):
    """Readers by class, each made when it is first asked for."""

    def __missing__(self, cls: type[Node]) -> Callable[[Any], tuple[Node, ...]]:
        self[cls] = made = _reader_of(cls)
        return made


Mapper = Callable[[Any, Callable[[Node], Node]], Any]


def _mapper_of(cls: type[Node]) -> Mapper:
    """The function that gives a `cls` with something applied to its children."""
    layout = _LAYOUTS[cls]
    if not layout.children:
        return lambda node, fn: node
    lines, new = ["def mapped(node, fn):"], {name: f"node.{name}" for name in layout.fields}
    for k, (name, many) in enumerate(layout.children):
        lines.append(f"old{k} = node.{name}")
        if many:
            lines.append(f"new{k} = tuple([fn(x) for x in old{k}])")
            lines.append(f"if all(map(is_, new{k}, old{k})): new{k} = old{k}")
        else:
            lines.append(f"new{k} = None if old{k} is None else fn(old{k})")
        new[name] = f"new{k}"
    same = " and ".join(f"new{k} is old{k}" for k in range(len(layout.children)))
    lines.append(f"return node if {same} else cls({', '.join(new.values())})")
    mapper: Mapper = function_of(lines, "mapped", {"cls": cls, "is_": is_})
    return mapper


class _Mappers(dict[type[Node], Mapper]):
    """Mappers by class, each made when it is first asked for."""

    def __missing__(self, cls: type[Node]) -> Mapper:
        self[cls] = made = _mapper_of(cls)
        return made


_LAYOUTS = _Layouts()
_READERS = _Readers()
_MAPPERS = _Mappers()


def children(node: Node) -> tuple[Node, ...]:
    """The direct children of `node`, in field order."""
    return _READERS[type(node)](node)


def map_children(node: N, fn: Callable[[Node], Node]) -> N:
    """`node` with `fn` applied to each child; the same object when nothing changes."""
    changed: N = _MAPPERS[type(node)](node, fn)
    return changed


def walk(node: Node) -> Iterator[Node]:
    """`node` and everything below it, parents first."""
    stack, readers = [node], _READERS
    while stack:
        top = stack.pop()
        yield top
        stack += readers[type(top)](top)[::-1]


def distinct(node: Node) -> Iterator[Node]:
    """Like :func:`walk`, but what a tree holds several times comes once."""
    stack, seen, readers = [node], set[int](), _READERS
    while stack:
        top = stack.pop()
        if id(top) not in seen:
            seen.add(id(top))
            yield top
            stack += readers[type(top)](top)[::-1]


def deeper_than(root: Node, limit: int = MAX_DEPTH) -> bool:
    """Whether some path from `root` down has more than `limit` nodes; without recursion."""
    stack = [(root, 1)]
    while stack:
        node, depth = stack.pop()
        if depth > limit:
            return True
        stack.extend((child, depth + 1) for child in children(node))
    return False
