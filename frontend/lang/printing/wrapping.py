"""Long lines are broken inside of their brackets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from aisc.frontend.lang.formatting import INDENT

WIDTH = 100
_ASSIGNED = re.compile(r"( *(?:collect )?\w+(?:\[[^\]]*\])? = )(.*[^{])")
_PART = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\](){}]|, | (?:[-+*/@]|//|and|or|if|else) ')


def wrapped(text: str) -> str:
    """A file in its one form, without lines that are too long, as far as their brackets allow."""
    return "".join(line + "\n" for x in text.splitlines() for line in _lines(x))


def _lines(line: str) -> list[str]:
    if len(line) <= WIDTH:
        return [line]
    found: list[str] = []
    assigned = _ASSIGNED.fullmatch(line)
    if assigned and any(rank < 2 for _, rank in _places(assigned[2], 0)):
        line = f"{assigned[1]}({assigned[2]})"
    if line.lstrip().startswith("return ") and ", " in line:
        line = line.replace("return ", "return (", 1) + ")"
    indent = line[: len(line) - len(line.lstrip())] + INDENT
    depth = 0
    while len(line) > WIDTH:
        places = [p for p in _places(line, depth) if p[1] > 1 and len(indent) < p[0] <= WIDTH]
        if not places:
            break
        least = min(rank for _, rank in places)
        place = max(k for k, rank in places if rank == least)
        found.append(line[:place].rstrip())
        line, depth = indent + line[place:].lstrip(), least // 2
    return [*found, line]


def _places(line: str, depth: int) -> Iterator[tuple[int, int]]:
    """Where a line may be broken, behind a comma or before an operator, and how little it should:
    brackets count two."""
    for match in _PART.finditer(line):
        part = match[0]
        if part in "([{":
            depth += 1
        elif part in ")]}":
            depth -= 1
        elif part[0] != '"':
            tight = part[1] in "*/@"  # what binds tightly stays together
            yield match.end() if part == ", " else match.start() + 1, 2 * depth + tight
