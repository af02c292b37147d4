"""A text being parsed: places, and errors that show the line with a caret."""

from __future__ import annotations

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.location import Loc

_WIDTH = 100


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
