"""Which designs are looked at: a description with some of its numbers replaced.

A sweep names a number and its values: ``rows=8,16,32``, ``load.width=8,16``,
``scratchpad=64K..1M``, whose values double. A name is that of a key anywhere in the description, or
of a memory, whose size it then is.
"""

from __future__ import annotations

import copy
import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from aisc.ir.dataclass import dataclass
from aisc.ir.description import from_toml
from aisc.ir.diagnostics import error
from aisc.ir.target import Target

MOST_DESIGNS = 1000
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([KMG]?)")


@dataclass(frozen=True, slots=True)
class Sweep:
    """A number of the description, by the keys that lead to it, and the values that it takes."""

    name: str
    path: tuple[str, ...]
    values: tuple[int | float, ...]


@dataclass(frozen=True, slots=True)
class Design:
    """A description with the values of all sweeps, by their names."""

    values: Mapping[str, int | float]
    text: str
    file: str

    def target(self) -> Target:
        """The machine; E401 where the values do not fit each other."""
        return from_toml(self.text, self.file)


def designs(file: Path, sweeps: Sequence[str]) -> list[Design]:
    """All combinations of the values of sweeps, in their order; E401 where one is wrong."""
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as fault:
        raise error("E401", f"{file} cannot be read", str(fault)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise error("E401", f"{file} is not valid TOML", str(fault)) from None
    found = [sweep_of(text, data) for text in sweeps]
    count = 1
    for s in found:
        count *= len(s.values)
    if count > MOST_DESIGNS:
        raise error("E401", f"{count} designs are too many", f"expected at most {MOST_DESIGNS}")
    return [
        _design(data, file, found, values)
        for values in itertools.product(*(s.values for s in found))
    ]


def _design(
    data: Mapping[str, Any], file: Path, sweeps: Sequence[Sweep], values: tuple[int | float, ...]
) -> Design:
    changed = copy.deepcopy(dict(data))
    for sweep, value in zip(sweeps, values, strict=True):
        table = changed
        for name in sweep.path[:-1]:
            table = table[name]
        table[sweep.path[-1]] = value
    chosen = {s.name: v for s, v in zip(sweeps, values, strict=True)}
    return Design(chosen, tomli_w.dumps(changed), str(file))


def sweep_of(text: str, data: Mapping[str, Any]) -> Sweep:
    """A sweep from its text."""
    name, equals, values = text.partition("=")
    if not equals or not values:
        raise error("E401", f"no sweep: '{text}'", "write NAME=VALUE,VALUE or NAME=FIRST..LAST")
    return Sweep(name, _path(name, data), _values(values, text))


def _path(name: str, data: Mapping[str, Any]) -> tuple[str, ...]:
    """Where a number stands."""
    wanted = tuple(name.split("."))
    numbers = list(_numbers(data, ()))
    found = [p for p in numbers if p[-len(wanted) :] == wanted]
    if ("memory", *wanted, "bytes") in numbers:
        found = [("memory", *wanted, "bytes")]
    if len(found) == 1:
        return found[0]
    known = found or numbers
    what = "is not the only one of its name" if found else "is no number of the description"
    raise error("E401", f"'{name}' {what}", f"there are {', '.join(map('.'.join, known))}")


def _numbers(table: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _numbers(value, (*above, name))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield (*above, name)


def _values(text: str, sweep: str) -> tuple[int | float, ...]:
    first, dots, last = text.partition("..")
    if not dots:
        return tuple(dict.fromkeys(_number(part, sweep) for part in text.split(",")))
    value, end = _number(first, sweep), _number(last, sweep)
    if not 0 < value <= end:
        raise error(
            "E401", f"no range in '{sweep}'", "the first must be positive, the last no less"
        )
    found = []
    while value <= end:
        found.append(value)
        value *= 2
    return tuple(found)


def _number(text: str, sweep: str) -> int | float:
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        notes = ("expected a number, with K, M or G behind it", f"got '{text}'")
        raise error("E401", f"no value in '{sweep}'", *notes)
    number = float(match[1]) * _UNITS[match[2]]
    return int(number) if number.is_integer() else number
