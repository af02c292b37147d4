"""Traversal of frozen trees, derived from dataclass fields and written once.

Expressions and statements subclass :class:`Node`. A child is a field that holds a ``Node``, or a
tuple that holds some; nothing else needs to be declared.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TypeVar

MAX_DEPTH = 200  # deepest tree that texts and verified IR may have

N = TypeVar("N", bound="Node")


class Node:
    """Base of every tree node; subclasses are frozen dataclasses with slots."""

    __slots__ = ()


_FIELDS: dict[type, tuple[str, ...]] = {}
_CHILD_FIELDS: dict[type, tuple[str, ...]] = {}
# Annotations of fields that hold no nodes: traversals pass them over.
_LEAVES = frozenset(
    [
        "str", "bool", "int", "int | float | bool", "Buffer", "DType", "Loc", "ForKind", "IterKind",
        "tuple[tuple[str, Attribute], ...]", "tuple[Buffer, ...]",
    ]
)  # fmt: skip


def field_names(cls: type[Node]) -> tuple[str, ...]:
    """Names of the dataclass fields of `cls`, in order; computed once per class."""
    names = _FIELDS.get(cls)
    if names is None:
        assert dataclasses.is_dataclass(cls), f"{cls.__name__} is not a dataclass"
        names = _FIELDS[cls] = tuple(f.name for f in dataclasses.fields(cls))
    return names


def child_fields(cls: type[Node]) -> tuple[str, ...]:
    """Names of the fields that may hold nodes; computed once per class."""
    names = _CHILD_FIELDS.get(cls)
    if names is None:
        assert dataclasses.is_dataclass(cls), f"{cls.__name__} is not a dataclass"
        kept = (f.name for f in dataclasses.fields(cls) if f.type not in _LEAVES)
        names = _CHILD_FIELDS[cls] = tuple(kept)
    return names


def children(node: Node) -> Iterator[Node]:
    """The direct children of `node`, in field order."""
    for name in child_fields(type(node)):
        value = getattr(node, name)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, tuple):
            for item in value:
                if isinstance(item, Node):
                    yield item


def map_children(node: N, fn: Callable[[Node], Node]) -> N:
    """`node` with `fn` applied to each child; the same object when nothing changes."""
    changed: dict[str, object] = {}
    for name in child_fields(type(node)):
        value = getattr(node, name)
        if isinstance(value, Node):
            new: object = fn(value)
        elif isinstance(value, tuple) and any(isinstance(x, Node) for x in value):
            items = tuple(fn(x) if isinstance(x, Node) else x for x in value)
            new = value if all(a is b for a, b in zip(items, value, strict=True)) else items
        else:
            continue
        if new is not value:
            changed[name] = new
    if not changed:
        return node
    names = field_names(type(node))
    return type(node)(*(changed[n] if n in changed else getattr(node, n) for n in names))


def walk(node: Node) -> Iterator[Node]:
    """`node` and everything below it, parents first."""
    stack = [node]
    while stack:
        top = stack.pop()
        yield top
        stack.extend(reversed(tuple(children(top))))


def deeper_than(root: Node, limit: int = MAX_DEPTH) -> bool:
    """Whether some path from `root` down has more than `limit` nodes; without recursion."""
    stack = [(root, 1)]
    while stack:
        node, depth = stack.pop()
        if depth > limit:
            return True
        stack.extend((child, depth + 1) for child in children(node))
    return False
