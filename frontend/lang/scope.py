"""What names mean while a network is built, and how its faults are told."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import field, replace
from typing import Union

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.building.regions import Inline, Region
from aisc.frontend.lang import hints
from aisc.ir.arith.poly import Poly
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import Value
from aisc.ir.location import Loc

# What is known while the network is built; a Poly is a size.
Static = Union[bool, int, Poly, float, str, DType, list["Static"]]
Item = Union[Value, Static]


class Poisoned(Exception):
    """What is used was not made because of a fault that has been told already."""


@dataclass(slots=True)
class Poison:
    """Stands for a value that a fault kept from being made."""


@dataclass(slots=True)
class Turn:
    """What a turn of a loop gives beside the variables it carries: values that are stacked, and
    whether it says that another turn follows."""

    collected: dict[str, Value] = field(default_factory=dict)
    again: Item | None = None


@dataclass(slots=True)
class Scope:
    """Variables of a layer, or of a region inside it, which captures those outside.

    path: of parameters made here; blocks: how often each name of a block was used; poisoned:
    whether a fault has kept something from being made; turn: what a turn of a loop gives, in its
    body."""

    em: Emitter
    path: tuple[str, ...] = ()
    names: dict[str, Item | Poison] = field(default_factory=dict)
    outer: Scope | None = None
    region: Region | Inline | None = None
    blocks: dict[str, int] = field(default_factory=dict)
    parent: Loc | None = None
    returned: list[Value] | None = None
    poisoned: bool = False
    turn: Turn | None = None

    def find(self, name: str) -> Item | Poison | None:
        """What a name stands for, as this scope sees it; nothing where it is not known."""
        if name in self.names:
            return self.names[name]
        if self.outer is None:
            return None
        found = self.outer.find(name)
        return self.region.capture(found) if self.region and isinstance(found, Value) else found

    def known(self) -> set[str]:
        """Every name that can be used here."""
        return {*self.names, *(self.outer.known() if self.outer else ())}

    def inside(self, region: Region | Inline) -> Scope:
        """The scope of a region."""
        return Scope(region.em, self.path, {}, self, region, self.blocks, self.parent)


def expanded_at(fault: CompileError, parent: Loc | None) -> CompileError:
    """A fault in a layer, with the place from which that was expanded."""
    if parent is None:
        return fault
    return CompileError([
        d if d.loc.parent or not d.loc.line else replace(d, loc=replace(d.loc, parent=parent))
        for d in fault.diagnostics
    ])  # fmt: skip


def require_alike(
    names: Sequence[str], one: Sequence[Value], other: Sequence[Value], where: str, at: Loc
) -> None:
    """E109 where a variable that control flow changes has two ranks or element types."""
    for name, a, b in zip(names, one, other, strict=True):
        if a.type.rank != b.type.rank or a.type.dtype is not b.type.dtype:
            message = f"'{name}' is {a.type} {where.format(b.type)}"
            raise misfit(message, "its rank and element type must be the same", at=at)


def unknown(
    what: str, name: str, known: Iterable[str], at: Loc, otherwise: str = ""
) -> CompileError:
    """E108, with what it is called here, or the nearest names, or what is said `otherwise`."""
    *more, last = difflib.get_close_matches(name, sorted(known), 3) or [""]
    near = f"did you mean {', '.join(more)}{' or ' if more else ''}{last}?"
    notes = tuple(hints.for_name(name)) or ((near,) if last else ())
    notes = notes or ((otherwise,) if otherwise else ())
    return error("E108", f"there is no {what} '{name}'", *notes, loc=at)


def misfit(message: str, *notes: str, at: Loc) -> CompileError:
    """E109: a call, type or parameter does not fit."""
    return error("E109", message, *notes, loc=at)


def shown(item: Item | Poison) -> str:
    """A value in words."""
    if isinstance(item, Value):
        return str(item.type)
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, list):
        return f"[{', '.join(map(shown, item))}]"
    return f'"{item}"' if isinstance(item, str) else str(getattr(item, "name", item))
