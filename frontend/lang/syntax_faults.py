"""What is told about a text that is no file of the model language, and how reading goes on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from lark import Token
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from aisc.frontend.lang import hints
from aisc.ir.diagnostics import Diagnostic
from aisc.ir.text.source import Source

# Pieces of a text that tell how it is nested. A text that is not closed is one piece, too, lest
# every end be looked for.
PIECES = re.compile(
    r'"(?:[^"\\\n]|\\.)*"?|#[^\n]*|\n|[\[\](){}]|[-+*/@%<>=!]+|\b(?:not|and|or|if)\b'
)
_HEAD = re.compile(r"\s*(layer|model|operator|seed|weights|import)\b")
_WORDS = {
    "NAME": "a name", "INT": "a whole number", "FLOAT": "a number", "STRING": "a text",
    "DTYPE": "a type", "_NL": "the end of the line", "$END": "the end of the file",
}  # fmt: skip
# What an expression begins with, and what goes on with one, as messages name them.
_BEGINNINGS = frozenset({
    "a name", "a whole number", "a number", "a text", "a type", "'('", "'['", "'-'", "'true'",
    "'false'", "'not'",
})  # fmt: skip
_OPERATORS = frozenset({
    "'+'", "'-'", "'*'", "'/'", "'//'", "'%'", "'@'", "'**'", "'=='", "'!='", "'<'", "'<='", "'>'",
    "'>='", "'and'", "'or'", "'if'", "'.'", "'('", "'['",
})  # fmt: skip


def told(
    fault: UnexpectedInput, source: Source, now: Source, patterns: Mapping[str, str]
) -> Diagnostic:
    """E107 for what the parser met in `now`, which is `source` without the statements that were
    dropped. `patterns`: the terminals of the grammar by name."""
    place, notes = (fault.line, fault.column), list[str]()
    if isinstance(fault, UnexpectedToken):
        token, expected = fault.token, fault.accepts or fault.expected
        message = f"unexpected {_shown(token)}"
        if "NAME" in expected and token.isidentifier():
            notes.append(f"'{token}' is a word of the language, and no name")
        if token.type == "$END":
            place = source.place(len(source.text.rstrip()))
    elif isinstance(fault, UnexpectedCharacters):
        bad = now.text[fault.pos_in_stream or 0 :][:1]
        message, expected = f"unexpected {bad!r}", set()
    else:
        message, expected = "the file ends too early", set()
        place = source.place(len(source.text))
    line, column = max(1, place[0]), max(1, place[1])
    if expected:
        notes.insert(0, f"expected {_listed(_described(t, patterns) for t in expected)}")
    texts = now.text.split("\n")
    here = texts[line - 1] if line <= len(texts) else ""
    notes += hints.for_notation(here[: column - 1], here[column - 1 :])
    opened = _left_open(now, line, column)
    if opened is not None and opened[0] < line:
        notes.append(f"'{opened[1]}' of line {opened[0]} is still open")
    (found,) = source.error(line, column, message, *notes).diagnostics
    return found


def _listed(things: Iterable[str]) -> str:
    """What may stand at a place, in words: kinds of things first, then single ones."""
    rest, words = set(things), list[str]()
    for kind, members in (("an expression", _BEGINNINGS), ("an operator", _OPERATORS)):
        if len(rest & members) > len(members) // 2:
            words.append(kind)
            rest -= members
    words += sorted(rest)
    if len(words) > 8:
        return f"{', '.join(words[:8])}, …"
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def _left_open(source: Source, line: int, column: int) -> tuple[int, str] | None:
    """The bracket before a place that is never closed, and its line."""
    end = sum(len(text) + 1 for text in source.text.split("\n")[: line - 1]) + column - 1
    opened: list[int] = []
    for match in PIECES.finditer(source.text, 0, end):
        if match[0] in "([{":
            opened.append(match.start())
        elif match[0] in ")]}" and opened:
            opened.pop()
    if not opened or _closes(source.text, opened[-1], end):
        return None
    return source.place(opened[-1])[0], source.text[opened[-1]]


def _closes(text: str, bracket: int, start: int) -> bool:
    """Whether a bracket is closed behind `start`, braces wherever the file goes on."""
    if text[bracket] == "{":
        return bool(text[start:].strip())
    depth = 0
    for match in PIECES.finditer(text, start):
        if match[0] in "([":
            depth += 1
        elif match[0] in ")]":
            depth -= 1
        if depth < 0 or match[0] in "{}":
            return depth < 0
    return False


def _shown(token: Token) -> str:
    return _WORDS[token.type] if token.type in ("_NL", "$END") else repr(str(token))


def _described(terminal: str, patterns: Mapping[str, str]) -> str:
    return _WORDS.get(terminal) or f"'{patterns.get(terminal, terminal)}'"


def forget(lines: list[str], k: int) -> None:
    """Empty the layers before the one at line `k` (from 0), which need no second reading."""
    while k > 0 and not _HEAD.match(lines[k]):
        k -= 1
    lines[:k] = [""] * k


def drop(lines: list[str], k: int, now: Source) -> bool:
    """Take the statement at line `k` (from 0) of `now` out of its lines, to go on behind it, but
    leave the blocks that it ends and begins; false where there is none to take. Where a bracket
    of a line before is open, what is wrong is that."""
    opened = _left_open(now, k + 1, 1)
    if opened is not None and opened[0] <= k and opened[1] != "{":
        lines[opened[0] - 1 : k] = [""] * (k - opened[0] + 1)
        return True
    if k >= len(lines) or not lines[k].strip() or _HEAD.match(lines[k]):
        return False
    depth = 0
    while k < len(lines):
        text = re.sub(r'"(?:[^"\\]|\\.)*"?|#.*', "", lines[k]).strip()
        depth += sum(text.count(c) for c in "([") - sum(text.count(c) for c in ")]")
        ends, begins = text.startswith("}"), text.endswith("{")
        kept = "if true {" if begins else ""
        kept = ("} else {" if begins else "}") if ends else kept
        if kept == lines[k].strip():
            return False
        lines[k] = kept
        k += 1
        if depth <= 0:
            break
    return True
