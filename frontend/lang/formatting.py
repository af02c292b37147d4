"""The one form of a file: indentation by blocks, spaces by what stands beside them. Lines stay
lines, and comments stay where they are."""

from __future__ import annotations

import re

from aisc.frontend.lang.reading import read
from aisc.ir.dataclass import dataclass
from aisc.ir.text.source import Source

INDENT = "    "
_TOKEN = re.compile(
    r'"(?:[^"\\\n]|\\.)*"|#[^\n]*'
    r"|[0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|[A-Za-z_]\w*"
    r"|\.\.|//|\*\*|->|[=!<>]=|\S"
)
_WORDS = frozenset(
    {
        "again",
        "and",
        "as",
        "collect",
        "require",
        "else",
        "for",
        "if",
        "in",
        "not",
        "or",
        "param",
        "return",
        "scan",
        "while",
    }
)
_TIGHT = frozenset({"..", "**", "."})
_BINARY = frozenset({"+", "-", "*", "/", "//", "%", "@", "<", ">", "<=", ">=", "==", "!=", "->"})


@dataclass(slots=True)
class _State:
    """What the lines before decide about the next one. `open`: brackets that are open, with whether
    a colon stood in the part between commas; `last`: the token before, inside of brackets."""

    depth: int = 0
    last: str = ""
    open: list[tuple[str, bool]] | None = None


def formatted(text: str, file: str = "") -> str:
    """The text in its one form, which says the same; E107 where it says nothing."""
    read(Source(text, file))
    state, lines = _State(open=[]), list[str]()
    for line in text.replace("\r\n", "\n").split("\n"):
        tokens = _TOKEN.findall(line)
        if not tokens:
            if lines and lines[-1]:
                lines.append("")
            continue
        lines.append(_line(tokens, state))
    while lines and not lines[-1]:
        lines.pop()
    return "\n".join(lines) + "\n" if lines else ""


def _line(tokens: list[str], state: _State) -> str:
    assert state.open is not None, "made so"
    closing = tokens[0] in ")]}"
    inside = bool(state.open) and tokens[0] not in ")]"
    indent = INDENT * max(0, state.depth + inside - (closing and tokens[0] == "}"))
    parts: list[str] = []
    before = state.last if state.open else ""
    for token in tokens:
        unary = token == "-" and _begins(before)
        parts.append(_space(before, token, state.open) if parts else "")
        parts.append(token)
        _step(token, state)
        if not token.startswith("#"):
            before = "unary" if unary else token
    state.last = before
    return indent + "".join(parts)


def _begins(before: str) -> bool:
    """Whether an operand is expected behind a token."""
    return before == "" or before in _WORDS or before in _BINARY or before in "([{,=:..**unary"


def _step(token: str, state: _State) -> None:
    assert state.open is not None, "made so"
    if token in "([":
        state.open.append((token, False))
    elif token in ")]" and state.open:
        state.open.pop()
    elif token == "{":
        state.depth += 1
    elif token == "}":
        state.depth -= 1
    elif token in ",:" and state.open:
        state.open[-1] = state.open[-1][0], token == ":"


def _space(before: str, token: str, brackets: list[tuple[str, bool]]) -> str:
    """What stands between two tokens of a line."""
    if token.startswith("#"):
        return "  "
    kind, typed = brackets[-1] if brackets else ("", False)
    if before == ".." and (token == "{" or token in _WORDS):  # a range without an end
        return " "
    if before in "([" or token in ")],":
        return ""
    if before == ",":
        return " "
    if "=" in (before, token) and kind == "(" and not typed:
        return ""
    if token in "([":
        return " " if before in _WORDS or before in _BINARY or before in ("=", ":") else ""
    if before in _TIGHT or token in _TIGHT or before == "unary":
        return ""
    if ":" in (before, token):
        return " " if before == ":" and kind != "[" else ""
    return " "
