"""Values of a loop that becomes one function: numbers in registers, arrays that are looked at."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import field
from typing import TYPE_CHECKING

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Value
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import (
    ZERO,
    Const,
    Expr,
    Load,
)
from aisc.ir.tensor.func import Buffer, buffer
from aisc.ir.tensor.stmt import Alloc, Stmt, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

Places = tuple[Expr, ...]


class NotSequential(Exception):
    """The loop is none of this kind; the reason."""


@dataclass(slots=True, eq=False)
class Storage:
    """The memory of a carried array, and how often it was written so far."""

    buffer: Buffer
    version: int = 0


@dataclass(frozen=True, slots=True)
class Elements:
    """An array that is looked at: `at` gives an element; `storage` in its `version` is what it
    reads, and is all of it where `whole`."""

    shape: tuple[Dim, ...]
    at: Callable[[Places], Expr]
    storage: tuple[tuple[Storage, int], ...] = ()
    whole: bool = False


Item = Expr | Elements


@dataclass(slots=True)
class Values:
    """What values are, and the statements so far."""

    cb: ComputeBuilder
    items: dict[Value, Item] = field(default_factory=dict)
    body: list[Stmt] = field(default_factory=list)

    def slot(self, hint: str, dtype: dtypes.DType) -> Buffer:
        """A register."""
        made = buffer(self.cb.fresh(hint), dtype, (), space="register")
        self.cb.stmts.append(Alloc(made))
        return made

    def keep(self, hint: str, value: Expr) -> Expr:
        """A value in a register."""
        if isinstance(value, Const):
            return value
        place = self.slot(hint, value.dtype)
        self.body.append(Store(place, (), value))
        return Load(place, ())

    def elements(self, v: Value) -> Elements:
        """A value as an array."""
        item = self.items[v]
        if isinstance(item, Elements):
            return item
        return Elements(v.type.shape, lambda _: item)

    def number(self, v: Value) -> Expr:
        """The one element of a value."""
        item = self.items[v]
        return (
            item
            if not isinstance(item, Elements)
            else self.element(item, (ZERO,) * len(item.shape))
        )

    @staticmethod
    def element(of: Elements, at: Places) -> Expr:
        """An element, as it is now."""
        for storage, version in of.storage:
            if storage.version != version:
                raise NotSequential("an array is read after it was written")
        return of.at(at)

    @contextmanager
    def block(self) -> Iterator[list[Stmt]]:
        """Statements apart."""
        outer, self.body = self.body, []
        try:
            yield self.body
        finally:
            self.body = outer


def whole(storage: Storage) -> Elements:
    """All of an array, as it is now."""
    b = storage.buffer
    return Elements(b.shape, lambda at: Load(b, at), ((storage, storage.version),), whole=True)


def broadcast(shape: tuple[Dim, ...], places: Places, out: tuple[Dim, ...]) -> Places:
    """The place in an operand for one of the result."""
    skip = len(out) - len(shape)
    return tuple(ZERO if d == 1 else places[k + skip] for k, d in enumerate(shape))
