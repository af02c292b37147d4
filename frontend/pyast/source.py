"""The syntax tree of a Python function, found by its code: in files, notebooks and under
decorators.

``inspect`` looks for a block of lines and parses that alone, which fails where a decorator holds
parentheses or a lambda. Here the whole text of the file is parsed, and the definition is the one
that begins where the function's code says; a lambda, which may share its line, is found by columns.
"""

from __future__ import annotations

import ast
import linecache
import os
import types
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.location import Loc
from aisc.ir.text.source import Source

Definition = ast.FunctionDef | ast.Lambda


@dataclass(frozen=True, slots=True)
class Text:
    """A parsed file. `file`: its name as Python knows it."""

    file: str
    source: Source
    tree: ast.Module

    def loc(self, node: ast.AST, name: str = "", parent: Loc | None = None) -> Loc:
        """The place of a piece of syntax, columns from 1."""
        line, column = getattr(node, "lineno", 0), getattr(node, "col_offset", -1)
        if line and column > 0:  # ast counts bytes
            text = self.source.text.split("\n")[line - 1] if line else ""
            column = len(text.encode()[:column].decode(errors="replace"))
        return Loc(self.file, line, column + 1, name, parent)


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """A function with its syntax. first: values that its parameters have before those of a call, as
    ``self`` of a method; cells: of the functions around it."""

    function: types.FunctionType
    text: Text
    definition: Definition
    first: tuple[Any, ...] = ()
    cells: Mapping[str, types.CellType] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it is called."""
        return self.function.__name__

    @property
    def loc(self) -> Loc:
        """Where it is defined."""
        return self.text.loc(self.definition, self.name)


_TEXTS: dict[str, tuple[int, Text]] = {}


def capture(function: Any) -> Captured:
    """The syntax of a function, a method or what a decorator has wrapped; E110 where there is
    none."""
    first: tuple[Any, ...] = ()
    while not isinstance(function, types.FunctionType):
        if isinstance(function, types.MethodType):
            first, function = (function.__self__,), function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            raise error(
                "E110", f"{function!r} is no Python function", f"got {type(function).__name__}"
            )
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
        if not isinstance(function, types.FunctionType):
            return capture(function)
    text = _text_of(function)
    definition = _definition(function, text)
    return Captured(function, text, definition, first, _cells(function))


def _text_of(function: types.FunctionType) -> Text:
    """The parsed file in which a function stands; parsed again when its text has changed."""
    code = function.__code__
    lines = linecache.getlines(code.co_filename, function.__globals__)
    file = _shown(code.co_filename)
    loc = Loc(file, code.co_firstlineno, 0, function.__name__)
    if not lines:
        hint = "its text is needed: define it in a file or a notebook, not by exec or python -c"
        raise error("E110", f"there is no source of '{function.__name__}'", hint, loc=loc)
    whole = "".join(lines)
    known = _TEXTS.get(file)
    if known is not None and known[0] == hash(whole):
        return known[1]
    try:
        tree = ast.parse(whole)
    except SyntaxError as fault:
        message = f"the file of '{function.__name__}' is no Python of this version: {fault.msg}"
        raise error("E110", message, loc=loc) from None
    text = Text(file, Source(whole, file), tree)
    _TEXTS[file] = hash(whole), text
    if file != code.co_filename:  # what a run reports is looked up by this name
        linecache.cache[file] = len(whole), None, lines, file
    return text


def _shown(file: str) -> str:
    """A file as a person at this folder calls it; a cell of a notebook, which has a file for its
    kernel alone, by the hash of its text."""
    folder, name = os.path.split(file)
    if os.path.basename(folder).startswith("ipykernel_"):
        return f"cell {name.removesuffix('.py')}"
    inside = os.path.isabs(file) and file.startswith(os.getcwd() + os.sep)
    return os.path.relpath(file) if inside else file


def _statements(top: ast.AST) -> Iterator[ast.AST]:
    """All statements in a tree, without a look into expressions."""
    todo = [top]
    while todo:
        node = todo.pop()
        yield node
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            inside = getattr(node, name, ())
            if isinstance(inside, list):
                todo += inside


def _definition(function: types.FunctionType, text: Text) -> Definition:
    code = function.__code__
    found: list[Definition] = []
    is_lambda = code.co_name == "<lambda>"
    for node in ast.walk(text.tree) if is_lambda else _statements(text.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == code.co_name:
            if min([node.lineno, *(d.lineno for d in node.decorator_list)]) == code.co_firstlineno:
                if isinstance(node, ast.AsyncFunctionDef):
                    at = text.loc(node, node.name)
                    raise error(
                        "E111", "a coroutine cannot be compiled", "leave out 'async'", loc=at
                    )
                found.append(node)
        elif isinstance(node, ast.Lambda) and is_lambda and _is_of(node, code):
            found.append(node)
    if len(found) == 1 and _parameters(found[0]) == code.co_varnames[: len(_parameters(found[0]))]:
        return found[0]
    hint = "the file has changed since it was imported" if not found else "several look alike"
    loc = Loc(text.file, code.co_firstlineno, 0, function.__name__)
    raise error("E110", f"the definition of '{function.__name__}' is not found", hint, loc=loc)


def _is_of(node: ast.Lambda, code: types.CodeType) -> bool:
    """Whether a lambda is the one that was compiled to `code`, by the columns of its body."""
    if (
        node.lineno != code.co_firstlineno
        or _parameters(node) != code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    ):
        return False
    spans = [p for p in code.co_positions() if p[0] is not None and p[2] is not None]
    body, end = node.body, node.body.end_col_offset or 0
    places = [(p[0], p[2]) for p in spans if p[0] == body.lineno]
    return bool(places) and all(
        body.col_offset <= (c or 0) <= end or line != body.lineno or (line, c) == (node.lineno, 0)
        for line, c in places
    )


def _parameters(node: Definition) -> tuple[str, ...]:
    a = node.args
    return tuple(p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs))


def _cells(function: types.FunctionType) -> dict[str, types.CellType]:
    """Where the variables of functions around are kept."""
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
