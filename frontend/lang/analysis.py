"""What is known about a file: its faults, and for each name its type and definition.

The model is built as a compilation would, by an elaborator that notes what names stand for, with
parameters that have types but no contents. A layer that is used several times has several types.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from aisc.frontend.building.report import Report
from aisc.frontend.lang import syntax as s
from aisc.frontend.lang.elaborate import Elaborator
from aisc.frontend.lang.mentions import Mention, mentions_of
from aisc.frontend.lang.model import Making, graph_of_module, with_imports
from aisc.frontend.lang.parameters import Parameters, hollow, stored_in
from aisc.frontend.lang.reading import read
from aisc.frontend.lang.scope import Item, Poison, Scope, shown
from aisc.ir.arith.poly import Extent, Poly
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import AiscWarning, CompileError, Diagnostic
from aisc.ir.graph.core import Value
from aisc.ir.location import Loc
from aisc.ir.text.source import Source
from aisc.ir.types import TensorType

Place = tuple[str, int, int]  # file, line, column
Types = dict[Place, dict[str, None]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the model: its type, and what gives its contents."""

    type: str
    given: str


@dataclass(frozen=True, slots=True)
class Analysis:
    """A file. `layers`: all that it can call, by name; `types`: what the names at a place stand
    for, each once, in the order of the calls; `parameters`: by path; `is_read`: whether the text is
    a file at all."""

    file: str
    diagnostics: tuple[Diagnostic, ...] = ()
    mentions: tuple[Mention, ...] = ()
    types: Mapping[Place, Sequence[str]] = field(default_factory=dict)
    layers: Mapping[str, s.Layer] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    is_read: bool = True

    def at(self, line: int, column: int) -> Mention | None:
        """The name at a place, which both count from 1; its end belongs to it."""
        for m in self.mentions:
            if m.at.line == line and m.at.column <= column <= m.end:
                return m
        return None

    def types_of(self, m: Mention) -> Sequence[str]:
        """The types of a name, as far as the model uses it."""
        return self.types.get((m.at.file, m.at.line, m.at.column), ())


def analysed(
    text: str, file: str, folder: Path, shapes: Mapping[str, Extent] | None = None
) -> Analysis:
    """What is known about a text; imports and weights are looked for in `folder`. Faults of the
    text are part of the answer. A file of layers without a model is a library, and no fault."""
    source = Source(text, file)
    try:
        module = read(source)
    except CompileError as fault:
        return Analysis(file, fault.diagnostics, is_read=False)
    whole, faults = module, list[Diagnostic]()
    try:
        whole = with_imports(module, folder, {file: source})
    except CompileError as fault:
        faults += fault.diagnostics
    layers = {x.name: x for x in whole.layers}
    types: Types = {}
    parameters: dict[str, Parameter] = {}
    if not faults and any(x.kind == "model" for x in module.layers):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                graph_of_module(module, source, folder, shapes or {}, _making(types, parameters))
            except CompileError as fault:
                faults += fault.diagnostics
        faults += [w.message.diagnostic for w in told if isinstance(w.message, AiscWarning)]
    found = {place: tuple(names) for place, names in types.items()}
    mentions = mentions_of(module, layers)
    return Analysis(file, tuple(faults), mentions, found, layers, parameters)


class _Noted(Parameters):
    """Parameters whose contents nobody asks for; what they are is noted in `found`."""

    found: dict[str, Parameter]

    def fetch(self, folder: Path, file: str, at: Loc) -> None:
        """Only the shapes of a file's arrays."""
        self.file = file
        self.stored = stored_in(folder, file, at, contents=False)

    def make(
        self, path: str, t: TensorType, start: tuple[str, Sequence[float]] | None, at: Loc
    ) -> Any:
        """Contents that need no memory."""
        given = "nothing"
        if path in self.stored or (self.lost and start is None):
            given = self.file
        elif start is not None:
            given = f"{start[0]}({', '.join(f'{a:g}' for a in start[1])})"
        self.found[path] = Parameter(str(t), given)
        return super().make(path, t, start, at)

    def _started(self, path: str, t: TensorType, start: tuple[str, Sequence[float]]) -> Any:
        return hollow(t)


def _making(types: Types, found: dict[str, Parameter]) -> Making:
    """What makes recorders that fill `types` and `found`; a model that is built again does so
    anew."""

    def make(module: s.Module, parameters: Parameters, report: Report) -> Elaborator:
        types.clear()
        found.clear()
        noted = _Noted(parameters.seed)
        noted.found = found
        return _Recorder(module, noted, report, types)

    return make


class _Recorder(Elaborator):
    """Notes what names stand for."""

    def __init__(
        self, module: s.Module, parameters: Parameters, report: Report, types: Types
    ) -> None:
        super().__init__(module, parameters, report)
        self.types = types
        self.heads = {id(f.type): f for layer in module.layers for f in layer.formals}

    def _note(self, at: Loc, item: Item | Poison | None) -> None:
        if item is not None and not isinstance(item, Poison):
            self._add(at, described(item))

    def _add(self, at: Loc, text: str) -> None:
        self.types.setdefault((at.file, at.line, at.column), {}).setdefault(text)

    def expr(self, scope: Scope, x: s.Expr) -> Item:
        """The value of an expression, noted where that is a name."""
        found = super().expr(scope, x)
        if isinstance(x, s.Name | s.Attribute):
            self._note(x.at, found)
        return found

    def _call(self, scope: Scope, x: s.Call) -> Sequence[Item]:
        found = super()._call(scope, x)
        self._add(x.at, ", ".join(map(shown, found)))
        return found

    def _statement(self, scope: Scope, x: s.Statement) -> None:
        if isinstance(x, s.For):
            ends = [shown(self.expr(scope, b)) for b in (x.low, x.high)]
            self._add(x.name_at, f"int in {'..'.join(ends)}")
        super()._statement(scope, x)
        match x:
            case s.Assign():
                for name, at in zip(x.names, x.places, strict=True):
                    self._note(at, scope.names.get(name))
            case s.Param() | s.Formula():
                self._note(x.at, scope.names.get(x.name))
            case _:
                pass

    def _fitted(self, scope: Scope, f: s.Formal, item: Item, at: Loc) -> Item:
        found = super()._fitted(scope, f, item, at)
        self._note(f.at, found)
        return found

    def tensor_type(self, scope: Scope, t: s.Type) -> TensorType:
        """The type of an input or parameter, noted for the input."""
        found = super().tensor_type(scope, t)
        if id(t) in self.heads:
            self._add(self.heads[id(t)].at, str(found))
        return found


def described(item: Item) -> str:
    """The type of what a name stands for, with its value where that is known."""
    if isinstance(item, Value):
        return str(item.type)
    if isinstance(item, Poly):
        return f"size {item}"
    if isinstance(item, bool | int | float | str):
        kind = {"str": "text"}.get(type(item).__name__, type(item).__name__)
        return f"{kind} = {shown(item)}"
    return shown(item) if not isinstance(item, list) else f"list = {shown(item)}"
