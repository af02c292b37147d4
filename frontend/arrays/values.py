"""What the expressions of a function are while it is captured.

Most are Python's own values, known now: numbers, texts, tuples, lists, dtypes, functions. A size is
a ``Poly``. What only the run knows is a :class:`Tensor`.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

import numpy as np

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.building.regions import Region
from aisc.ir import dtypes
from aisc.ir.arith.poly import Poly
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.dtypes import DType
from aisc.ir.graph.core import Value
from aisc.ir.location import Loc

_BY_NUMPY = {t.numpy: t for t in dtypes.ALL}


@dataclass(slots=True, eq=False)
class Frame:
    """A graph being built: the function's own, or a region of it, which captures what it reads.

    tests: conditions of runs that end well, with what is said where one does not hold."""

    em: Emitter
    region: Region | None = None
    outer: Frame | None = None
    tests: list[tuple[Value, str, Loc]] = field(default_factory=list)

    def inside(self, name: str) -> Frame:
        """The frame of a new region."""
        region = Region(self.em, name)
        return Frame(region.em, region, self)

    def see(self, value: Value, home: Frame) -> Value:
        """A value of the frame `home`, this one or one around it, as it is read here."""
        if home is self:
            return value
        assert self.outer is not None and self.region is not None, "a value of a frame around"
        return self.region.capture(self.outer.see(value, home))


@dataclass(slots=True, eq=False)
class Tensor:
    """An array or a number of the run. What it holds may be written: see :class:`State`.

    weak: a number of Python's, whose type gives way to that of arrays, as in numpy. argument: of
    the caller, that it is. frozen: why it cannot be written. base: the array of which it is a
    view, when that had been written `writes` times."""

    value: Value
    home: Frame
    weak: bool = False
    argument: str = ""
    frozen: str = ""
    base: Tensor | None = None
    writes: int = 0


@dataclass(slots=True, eq=False)
class Record:
    """An instance of a dataclass, made by the function or given to it."""

    cls: type
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unset:
    """Stands for a variable that has no value here, or none that can be used; `why` says so."""

    why: str


@dataclass(frozen=True, slots=True)
class Partial:
    """A variable that has a value only where its block ended in one of some ways: `codes`."""

    item: Any
    codes: frozenset[int]
    why: str


@dataclass(frozen=True, slots=True, eq=False)
class Maybe:
    """A variable that a loop sets, and of which only the run knows whether it had a turn:
    `flag`."""

    item: Any
    flag: Tensor
    why: str


@dataclass(frozen=True, slots=True)
class Method:
    """A method of something that is captured: ``x.sum``, ``items.append``."""

    of: Any
    name: str


def is_number(x: object) -> bool:
    """Whether it is a number of Python's, known now."""
    return isinstance(x, bool | int | float)


def is_size(x: object) -> bool:
    """Whether it is a whole number known now, or a size."""
    return isinstance(x, int | Poly) and not isinstance(x, bool)


def of_numpy(t: Any, loc: Loc) -> DType:
    """The element type of a numpy dtype; E111 for one that nothing computes with."""
    found = _BY_NUMPY.get(np.dtype(t))
    if found is None:
        known = ", ".join(str(d.numpy) for d in dtypes.ALL)
        raise error(
            "E111", f"arrays of {np.dtype(t)} are not supported", f"there are {known}", loc=loc
        )
    return found


def shown(x: Any) -> str:
    """A value in words."""
    if isinstance(x, Tensor):
        shape = ", ".join(map(str, x.value.type.shape))
        return f"{_WEAK[x.value.type.dtype.kind] if x.weak else f'{x.value.type.dtype}[{shape}]'}"
    if isinstance(x, Unset):
        return x.why
    if isinstance(x, Poly):
        return f"the size {x}"
    if isinstance(x, list | tuple):
        inner = ", ".join(map(shown, x))
        return f"[{inner}]" if isinstance(x, list) else f"({inner})"
    return repr(x) if is_number(x) or x is None or isinstance(x, str) else f"a {type(x).__name__}"


_WEAK = {"int": "an int", "float": "a float", "bool": "a bool", "uint": "an int"}


def refused(message: str, *notes: str, loc: Loc) -> CompileError:
    """E111: Python that is not captured."""
    return error("E111", message, *notes, loc=loc)


def misfit(message: str, *notes: str, loc: Loc) -> CompileError:
    """E112: operands that do not fit."""
    return error("E112", message, *notes, loc=loc)


class NumberNeeded(CompileError):
    """E112 that goes away once the loop around is unrolled."""


class Known(Exception):
    """Raised where a value of the run must be known now; `argument`: the number of the caller's
    that it is, which can be made known."""

    def __init__(self, argument: str) -> None:
        super().__init__(argument)
        self.argument = argument
