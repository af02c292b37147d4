"""What both parsers share: grammars, errors with a caret, names, dimensions, attribute values.

Texts are parsed by lark's LALR(1) parser and the tree is folded without recursion, so long and
deep texts are bounded by :data:`MAX_DEPTH` alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from lark import Lark, Token
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError
from lark.visitors import Transformer_NonRecursive

from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, DimCall, Poly, SymDim
from aisc.ir.blob import Blob
from aisc.ir.diagnostics import CompileError
from aisc.ir.node import MAX_DEPTH
from aisc.ir.text.lexical import DIM_CALLS
from aisc.ir.text.source import Source

_BRACKETS = re.compile(r'"(?:[^"\\\n]|\\.)*"|[\[\](){}]')


class TextError(Exception):
    """A meaning fault at a token, turned into E107 by :func:`parse_text`."""

    def __init__(self, token: Token, message: str, *notes: str) -> None:
        super().__init__(message)
        self.token, self.message, self.notes = token, message, notes


@cache
def grammar(which: str) -> Lark:
    """The parser of ``graph`` or ``tensor``, built once."""
    files = resources.files("aisc.ir.text")
    text = "\n".join((files / f"{n}.lark").read_text("utf-8") for n in (which, "lexical"))
    return Lark(text, parser="lalr", lexer="contextual", maybe_placeholders=False)


def parse_text(which: str, text: str, folder: Folder, file: str) -> Any:
    """Parse and fold; every fault of the text becomes E107 at its place."""
    source = Source(text, file)
    _check_depth(source)
    try:
        return folder.transform(grammar(which).parse(text)).children[0]
    except UnexpectedInput as e:
        raise _syntax_error(e, source, which) from None
    except VisitError as e:
        if isinstance(e.orig_exc, TextError):
            fault = e.orig_exc
            place = (fault.token.line or 1, fault.token.column or 1)
            raise source.error(*place, fault.message, *fault.notes) from None
        if isinstance(e.orig_exc, RecursionError):
            raise source.error(1, 1, "the text is nested too deeply") from None
        raise e.orig_exc from None


def _check_depth(source: Source) -> None:
    depth = 0
    for match in _BRACKETS.finditer(source.text):
        if match[0] in "([{":
            depth += 1
            if depth > MAX_DEPTH:
                raise source.error(*source.place(match.start()), "the text is nested too deeply")
        elif match[0] in ")]}":
            depth -= 1


def _syntax_error(e: UnexpectedInput, source: Source, which: str) -> CompileError:
    if isinstance(e, UnexpectedToken):
        end = e.token.type == "$END"
        message = "the text ends too early" if end else f"unexpected {str(e.token)!r}"
        expected, place = e.accepts or e.expected, (e.line, e.column)
        if end:
            place = source.place(len(source.text.rstrip()))
    elif isinstance(e, UnexpectedCharacters):
        bad = source.text[e.pos_in_stream or 0 :][:1]
        message, place, expected = f"unexpected {bad!r}", (e.line, e.column), e.allowed
    else:
        message, place, expected = "the text ends too early", source.place(len(source.text)), set()
    words = sorted({_describe(t, which) for t in expected or ()})
    notes = (f"expected {', '.join(words[:12])}{', …' if len(words) > 12 else ''}",)
    return source.error(*place, message, *(notes if words else ()))


_WORDS = {
    "BARE": "a name", "STRING": "a string", "INT": "an integer", "FLOAT": "a float",
    "VALUE": "a value", "DIGEST": "a SHA-256", "$END": "the end",
}  # fmt: skip


def _describe(terminal: str, which: str) -> str:
    if terminal in _WORDS:
        return _WORDS[terminal]
    for t in grammar(which).terminals:
        if t.name == terminal:
            return f"'{t.pattern.value}'"
    return terminal.lower()


class Folder(Transformer_NonRecursive[Token, Any]):
    """Folds the nodes that both grammars have. Names stay tokens, which know their place, until
    they enter the IR as plain strings."""

    def __init__(self, blobs: Mapping[str, Blob]) -> None:
        super().__init__()
        self.blobs = blobs
        self.symbol_table: dict[str, SymDim] = {}

    def bare_name(self, c: list[Token]) -> Token:
        """A name without quotes."""
        return c[0]

    def quoted_name(self, c: list[Token]) -> Token:
        """A quoted name."""
        return Token.new_borrow_pos("NAME", unquote(c[0]), c[0])

    def dtype(self, c: list[Token]) -> dtypes.DType:
        """An element type."""
        return dtypes.dtype(str(c[0]))

    def symbols(self, c: list[SymDim]) -> list[SymDim]:
        """The clause of symbolic dimensions; the head that holds it makes them known."""
        return c

    def declare(self, head: list[Any]) -> str:
        """A head, ``name symbols?``, begins: only its symbols are known from here on."""
        self.symbol_table = {s.name: s for s in head[1]} if len(head) > 1 else {}
        return str(head[0])

    def symbol(self, c: list[Any]) -> SymDim:
        """One declared dimension."""
        return SymDim(str(c[0]), c[1], to_int(c[2]), to_int(c[3]) if len(c) > 3 else None)

    def symbol_kind(self, c: list[Token]) -> str:
        """The kind of a dimension."""
        return str(c[0])

    def dim_int(self, c: list[Token]) -> Dim:
        """A literal dimension."""
        return to_int(c[0])

    def dim_symbol(self, c: list[Token]) -> Dim:
        """A symbolic dimension, declared or with no known bounds."""
        return self._symbol(str(c[0]))

    def dim_quoted(self, c: list[Token]) -> Dim:
        """A symbolic dimension whose name is no identifier."""
        return self._symbol(unquote(c[0]))

    def _symbol(self, name: str) -> Dim:
        symbol = self.symbol_table.get(name) or SymDim(name)
        return Poly(((((symbol, 1),), 1),))

    def dim_call(self, c: list[Any]) -> Dim:
        """An operation on dimensions, as printed: nothing is simplified."""
        op = str(c[0])
        if op not in DIM_CALLS:
            raise TextError(c[0], f"unknown operation '{op}' of dimensions")
        if op not in ("min", "max") and len(c) != 3:
            raise TextError(c[0], f"'{op}' takes two dimensions")
        return Poly(((((DimCall(op, tuple(c[1:])), 1),), 1),))  # type: ignore[arg-type]

    def dim_neg(self, c: list[Dim]) -> Dim:
        """A leading minus."""
        return -c[0]

    def dim_add(self, c: list[Dim]) -> Dim:
        """A sum."""
        return c[0] + c[1]

    def dim_sub(self, c: list[Dim]) -> Dim:
        """A difference."""
        return c[0] - c[1]

    def dim_mul(self, c: list[Dim]) -> Dim:
        """A product."""
        return c[0] * c[1]

    def dim_list(self, c: list[Dim]) -> tuple[Dim, ...]:
        """Dimensions between brackets."""
        return tuple(c)

    def attributes(self, c: list[Any]) -> tuple[tuple[str, Any], ...]:
        """Attributes between braces."""
        return tuple(c)

    def attribute(self, c: list[Any]) -> tuple[str, Any]:
        """One attribute."""
        return str(c[0]), c[1]

    def value_float(self, c: list[Token]) -> float:
        """A float."""
        return float(c[0])

    def value_string(self, c: list[Token]) -> str:
        """A string."""
        return unquote(c[0])

    def value_true(self, c: list[Token]) -> bool:
        """True."""
        return True

    def value_false(self, c: list[Token]) -> bool:
        """False."""
        return False

    def value_none(self, c: list[Token]) -> None:
        """An absent value."""
        return None

    def value_list(self, c: list[Any]) -> tuple[Any, ...]:
        """A tuple."""
        return tuple(c)

    def absent(self, c: list[Token]) -> None:
        """An absent operand."""
        return None

    def blob(self, c: list[Token]) -> Blob:
        """Contents of a constant, by hash."""
        found = self.blobs.get(str(c[0]))
        if found is None:
            raise TextError(c[0], "the contents of this blob are not given")
        return found


def to_int(token: Token) -> int:
    """An integer literal; texts longer than Python converts are refused."""
    try:
        return int(token)
    except ValueError:
        raise TextError(token, "this number is too long") from None


def unquote(token: str) -> str:
    """The text of a JSON string."""
    try:
        return str(json.loads(token, strict=False))
    except ValueError:
        fault_at = token if isinstance(token, Token) else Token("STRING", token)
        raise TextError(fault_at, "bad escape in this string") from None
