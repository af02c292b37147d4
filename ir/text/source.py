"""A text being parsed: places, and errors that show the line with a caret."""

from __future__ import annotations

import linecache
from dataclasses import replace
from typing import TypeVar

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import AiscError, CompileError, Diagnostic, error
from aisc.ir.location import Loc

_WIDTH = 100
Fault = TypeVar("Fault", bound=AiscError)


def with_carets(fault: Fault) -> Fault:
    """A fault that shows the lines that its diagnostics speak of, where their text is there."""
    return type(fault)([_with_caret(d) for d in fault.diagnostics])


def _read(file: str) -> Source | None:
    """The text of a file that may not be there any more."""
    lines = linecache.getlines(file)
    return Source("".join(lines), file) if lines else None


def _with_caret(d: Diagnostic) -> Diagnostic:
    source = _read(d.loc.file) if d.loc.line else None
    shown = "" if source is None else source.caret(d.loc.line, d.loc.column)
    return replace(d, notes=(shown, *d.notes)) if shown and shown not in d.notes else d


@dataclass(frozen=True, slots=True)
class Source:
    """The text and the file it came from."""

    text: str
    file: str = ""

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column, from 1, of a character."""
        before = self.text[:offset]
        return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1

    def error(self, line: int, column: int, message: str, *notes: str) -> CompileError:
        """E107 at a place; the first note shows the line."""
        where = Loc(self.file or "<text>", line, column)
        return error("E107", message, self.caret(line, column), *notes, loc=where)

    def caret(self, line: int, column: int) -> str:
        """A line, cut around a place, and a caret below that."""
        lines = self.text.split("\n")
        text = lines[line - 1] if 0 < line <= len(lines) else ""
        start = max(0, column - 1 - _WIDTH // 2)
        shown = text[start : start + _WIDTH].replace("\t", " ")
        return f"{shown}\n        {' ' * (column - 1 - start)}^"
