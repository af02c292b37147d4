"""What may end a run of a program with an error: what is said then, and where in the model.

An error carries a number (:data:`aisc.codegen.abi.PLACE_BITS`); the table of an image turns it into
words.
"""

from __future__ import annotations

from collections.abc import Sequence

from aisc.codegen import abi
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import ExecutionError, execution_error
from aisc.ir.location import UNKNOWN, Loc


@dataclass(frozen=True, slots=True)
class Fault:
    """`text` with a place for each value, empty where the code says it all; `loc` in the model;
    `sizes`: see :class:`aisc.ir.tensor.stmt.Require`."""

    text: str
    loc: Loc
    sizes: tuple[str, ...] = ()


def fault_of(status: int, faults: Sequence[Fault]) -> Fault:
    """What an entry that returned `status` has reported."""
    number = abi.parts_of(status)[1]
    return faults[number - 1] if 0 < number <= len(faults) else Fault("", UNKNOWN)


def error_of(status: int, values: Sequence[int], faults: Sequence[Fault]) -> ExecutionError:
    """E502 for what an entry returned; `values` are the words after the error slot."""
    code, place = abi.parts_of(status)[0], fault_of(status, faults)
    text = abi.ERRORS.get(code, f"status {code}")
    if code == abi.BAD_INDEX:
        text = f"{text}: {values[0]} on an axis of size {values[1]}"
    elif place.text:
        text = place.text.format(*values)
    return execution_error("E502", text, loc=place.loc)


def to_json(faults: Sequence[Fault]) -> list[list[object]]:
    """A table as a JSON value: texts, sizes, then places."""
    return [
        [p.text, list(p.sizes), *(_loc_to_json(x) for x in p.loc.parts or (p.loc,))] for p in faults
    ]


def _loc_to_json(loc: Loc) -> list[object]:
    """File, node, line, column and the place from which it was called."""
    parent = [] if loc.parent is None else [_loc_to_json(loc.parent)]
    return [loc.file, loc.node, loc.line, loc.column, *parent]


def from_json(data: object) -> tuple[Fault, ...]:
    """The table of :func:`to_json`; ``ValueError`` and its like when the form is wrong."""
    if not isinstance(data, list):
        raise ValueError("no table of faults")
    return tuple(_fault_from_json(*row) for row in data)


def _fault_from_json(text: object, sizes: object, *locs: object) -> Fault:
    if not isinstance(text, str) or text.count("{}") > abi.VALUES or not locs:
        raise ValueError("no text of a fault")
    if not isinstance(sizes, list) or not all(isinstance(x, str) for x in sizes):
        raise ValueError("no sizes of a fault")
    return Fault(_checked(text), _joined([_loc_from_json(x) for x in locs]), tuple(sizes))


def _checked(text: str) -> str:
    text.format(*range(abi.VALUES))  # a damaged one fails now
    return text


def _loc_from_json(data: object) -> Loc:
    match data:
        case [str(file), str(node)]:  # as bundles had them before lines were kept
            return Loc(file, node=node)
        case [str(file), str(node), int(line), int(column), *parent] if len(parent) < 2:
            above = _loc_from_json(parent[0]) if parent else None
            return Loc(file, line, column, node, above)
    raise ValueError("no place in a model")


def _joined(locs: Sequence[Loc]) -> Loc:
    return locs[0] if len(locs) == 1 else Loc(parts=tuple(locs))
