"""The graph of a file of the model language."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.building.report import Report
from aisc.frontend.lang import statics
from aisc.frontend.lang import syntax as s
from aisc.frontend.lang.elaborate import Elaborator
from aisc.frontend.lang.parameters import Parameters, inside
from aisc.frontend.lang.reading import read
from aisc.frontend.lang.scope import Poisoned, Scope, misfit, shown
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, Extent, symbol
from aisc.ir.diagnostics import CompileError, Diagnostic, error, warn
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, Value
from aisc.ir.graph.rename import renamed
from aisc.ir.graph.shapes.infer import BoundNeeded
from aisc.ir.graph.verify import verify
from aisc.ir.location import Loc
from aisc.ir.rewrite.driver import eliminate_dead
from aisc.ir.text.source import Source
from aisc.ir.types import MAX_SIZE, TensorType

MAX_TEXT = 1 << 24


def import_model(
    source: str | os.PathLike[str],
    shapes: Mapping[str, Extent] | None = None,
    *,
    overridable: Sequence[str] = (),
) -> Graph:
    """The verified graph of a file of the model language.

    `shapes` fixes sizes that inputs name, or bounds them with ``(least, greatest)``. Raises
    ``CompileError``: E101 unreadable, E104 weights, E106 wrong options, E107 syntax, E108 unknown
    names, E109 what does not fit, and E2xx where operand types do not fit; all of a file together.
    """
    path = Path(source)
    if overridable:
        raise error("E106", "models of the language have no inputs with defaults")
    return graph_of(text_of(path), str(path), path.parent, shapes or {})


def parts(path: Path) -> Sequence[str] | None:
    """The files of weights that a file names; ``None`` where it imports others."""
    lines = re.findall(r"^[ \t]*(?:weights|import)\b.*", text_of(path), re.MULTILINE)
    names = [re.match(r'[ \t]*weights[ \t]*"([^"\\]*)"', line) for line in lines]
    return None if None in names else tuple(n[1] for n in names if n is not None)


def text_of(path: Path) -> str:
    """The text of a file; E101 where it cannot be read, E105 where it is too large."""
    loc = Loc(str(path))
    try:
        if path.stat().st_size > MAX_TEXT:
            raise error("E105", f"the file has more than {MAX_TEXT} bytes", loc=loc)
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error("E101", "no such file", loc=loc) from None
    except OSError as fault:
        raise error("E101", "cannot read the file", str(fault.strerror), loc=loc) from None
    except UnicodeDecodeError as fault:
        before = bytes(fault.object[: fault.start]).decode("utf-8")
        line, column = Source(before).place(len(before))
        message = f"byte 0x{fault.object[fault.start]:02x} is no UTF-8"
        raise error("E101", message, "save the file as UTF-8", loc=Loc(str(path), line, column)
        ) from None  # fmt: skip


def graph_of(text: str, file: str, folder: Path, shapes: Mapping[str, Extent]) -> Graph:
    """The graph of a text; weights and imports are looked for in `folder`."""
    source = Source(text, file)
    return graph_of_module(read(source), source, folder, shapes)


class Making(Protocol):
    """What makes the elaborator of a module: it may be one that watches."""

    def __call__(self, module: s.Module, parameters: Parameters, report: Report) -> Elaborator:
        """The elaborator."""


def graph_of_module(
    module: s.Module,
    source: Source,
    folder: Path,
    shapes: Mapping[str, Extent],
    make: Making = Elaborator,
) -> Graph:
    """The graph of a file that has been read."""
    file, sources = source.file, {source.file: source}
    try:
        module = with_imports(module, folder, sources)
    except CompileError as fault:
        raise CompileError(with_lines(fault.diagnostics, sources)) from None
    implied: dict[str, int] = {}
    while True:
        try:
            model = _Model(module, file, folder, shapes, implied, make)
            graph = model.graph()
        except BoundNeeded as fault:  # each round bounds one more size, or one more tightly
            if implied.get(fault.symbol, fault.upper + 1) <= fault.upper:
                raise CompileError(with_lines(fault.diagnostics, sources)) from None
            implied[fault.symbol] = fault.upper
        except CompileError as fault:
            raise CompileError(with_lines(fault.diagnostics, sources)) from None
        else:
            for notice in with_lines(model.notices, sources):
                warn(notice)
            verify(graph)
            return graph


def with_imports(module: s.Module, folder: Path, sources: dict[str, Source]) -> s.Module:
    """A module with the layers of those that it imports, each once; `sources` gets their texts."""
    layers, waiting, seen = list(module.layers), list(module.imports), set[Path]()
    while waiting:
        name, at = waiting.pop(0)
        path = inside(folder, name, "imports", at)
        if path in seen:
            continue
        seen.add(path)
        if not path.is_file():
            raise error("E104", f"there is no file '{name}' to import", loc=at)
        sources[name] = Source(text_of(path), name)
        other = read(sources[name])
        layers += [x for x in other.layers if x.kind != "model"]
        waiting += other.imports
    return replace(module, layers=tuple(layers))


def with_lines(
    diagnostics: Sequence[Diagnostic], sources: Mapping[str, Source]
) -> list[Diagnostic]:
    """Diagnostics that show the line they speak of. What is wrong in a layer is told for the first
    of its places."""
    found: dict[Diagnostic, list[Diagnostic]] = {}
    for d in diagnostics:
        found.setdefault(replace(d, loc=replace(d.loc, parent=None)), []).append(d)
    told = []
    for d, *others in found.values():
        notes = d.notes
        if d.loc.line and d.loc.file in sources and d.code != "E107":
            notes = (sources[d.loc.file].caret(d.loc.line, d.loc.column), *notes)
        if others:
            more = f"{len(others)} other places" if len(others) > 1 else "one other place"
            notes = (*notes, f"the same in {more} where the layer is used")
        told.append(replace(d, notes=notes))
    return told


class _Model:
    """One try to build the graph, with what is implied about sizes so far."""

    def __init__(
        self,
        module: s.Module,
        file: str,
        folder: Path,
        shapes: Mapping[str, Extent],
        implied: Mapping[str, int],
        make: Making,
    ) -> None:
        self.module, self.file, self.folder, self.make = module, file, folder, make
        self.shapes, self.implied = shapes, implied
        self.report = Report()
        self.used: set[str] = set()
        self.notices: list[Diagnostic] = []

    def graph(self) -> Graph:
        """The graph of the file's model; every fault of it together."""
        layer = self._model()
        self._require_unlike()
        parameters = Parameters(self.module.seed)
        elaborator = self.make(self.module, parameters, self.report)
        scope = Scope(Emitter(GraphBuilder(layer.name)))
        self.report.words.origins = scope.em.names.origins
        inputs = [self._input(elaborator, scope, f) for f in layer.formals]
        self._check_shapes()
        self.report.finish()
        self._load(elaborator.parameters)
        scope.em.builder.inputs = inputs
        try:
            results = elaborator.body(scope, layer)
        except Poisoned:
            results = []
        except BoundNeeded:
            raise
        except CompileError as fault:
            self.report.add(fault)
        self.report.finish()
        self._tell_unused(elaborator.parameters)
        whole = scope.em.builder.finish(results, _names(layer, len(results)))
        return renamed(eliminate_dead(whole), elaborator.names)

    def _load(self, parameters: Parameters) -> None:
        """Fetch the weights; where they cannot be read, other faults are looked for anyway."""
        if self.module.weights is None:
            return
        try:
            parameters.fetch(self.folder, *self.module.weights)
        except CompileError as fault:
            self.report.add(fault)
            parameters.lost = True

    def _tell_unused(self, parameters: Parameters) -> None:
        """A warning about arrays that no parameter is called like: a start may stand for them."""
        unused = [name for name in parameters.stored if name not in parameters.taken]
        if unused and self.module.weights is not None:
            names = ", ".join(unused[:4]) + (", …" if len(unused) > 4 else "")
            message = f"{len(unused)} arrays of {parameters.file} are not used: {names}"
            told = Diagnostic("E109", message, self.module.weights[1], severity="warning")
            self.notices.append(told)

    def _model(self) -> s.Layer:
        models = [x for x in self.module.layers if x.kind == "model"]
        if len(models) != 1:
            at = models[1].at if models else Loc(self.file, 1, 1)
            hint = f"got {', '.join(m.name for m in models)}"
            if not models:
                hint = "this one has none: model name(x: f32[n]) { return x }"
            raise misfit("a file has one model", hint, at=at)
        return models[0]

    def _require_unlike(self) -> None:
        seen: dict[str, Loc] = {}
        for layer in self.module.layers:
            if layer.name in seen:
                first = f"the first: {seen[layer.name]}"
                self.report.add(misfit(f"'{layer.name}' is defined twice", first, at=layer.at))
            seen[layer.name] = layer.at

    def _input(self, elaborator: Elaborator, scope: Scope, f: s.Formal) -> Value:
        scope.em.loc = f.at
        try:
            if f.type.dims is None or f.default is not None:
                raise misfit(f"an input of a model is a tensor: {f.name}: f32[n]", at=f.at)
            for d in f.type.dims:
                if isinstance(d, s.Name) and scope.find(d.text) is None:
                    scope.names[d.text] = self._size(scope, d.text)
                elif isinstance(d, s.Ranged):
                    self._bounded(elaborator, scope, d)
            t = elaborator.tensor_type(scope, f.type)
        except CompileError as fault:
            self.report.add(fault)
            t = TensorType((), dtypes.f32)
        value = Value(scope.em.builder.fresh(f.name), t)
        scope.names[f.name] = value
        return value

    def _bounded(self, elaborator: Elaborator, scope: Scope, d: s.Ranged) -> None:
        """``n in low..high``, where an input names a size first."""
        low, high = (elaborator.expr(scope, b) for b in (d.low, d.high))
        fits = all(isinstance(b, int) and not isinstance(b, bool) for b in (low, high))
        if not isinstance(low, int) or not isinstance(high, int) or not fits or low < 0:
            raise misfit(f"bounds are whole numbers, got {shown(low)}..{shown(high)}", at=d.at)
        if scope.find(d.name) is not None or low >= high or high > MAX_SIZE + 1:
            what = "is known already" if low < high <= MAX_SIZE else f"from {low} to {high - 1}"
            raise misfit(f"bad bounds of a size: '{d.name}' {what}", at=d.at)
        scope.names[d.name] = self._size(scope, d.name, low, high - 1)

    def _size(self, scope: Scope, name: str, least: int = 0, most: int | None = None) -> Dim:
        """A size that an input names: open, but for what the file and the user say of it, and
        operators imply."""
        low, high = least, self.implied.get(name)
        high = most if high is None or (most is not None and most < high) else high
        scope.em.names.taken.add(name)
        self.report.words.spelled[name] = name
        if name in self.shapes:
            self.used.add(name)
            extent = self.shapes[name]
            if isinstance(extent, int):
                if not least <= extent <= (extent if most is None else most):
                    message = f"the size of '{name}' must be from {least} to {most}, got {extent}"
                    raise error("E106", message, loc=Loc(self.file))
                return statics.as_size(extent, Loc(self.file))
            low, high = max(least, extent[0]), min(extent[1], extent[1] if high is None else high)
        return symbol(name, low, high)

    def _check_shapes(self) -> None:
        for name, extent in self.shapes.items():
            low, high = (extent, extent) if isinstance(extent, int) else extent
            if name not in self.used:
                known = ", ".join(self.report.words.spelled) or "none left open"
                message = f"the model has no dimension '{name}'"
                self.report.add(error("E106", message, f"dimensions: {known}", loc=Loc(self.file)))
            elif not 0 <= low <= high <= MAX_SIZE:
                message = f"bad size of '{name}': {extent}"
                self.report.add(error("E106", message, loc=Loc(self.file)))


def _names(layer: s.Layer, count: int) -> list[str]:
    """What results are called: as the variables that are returned."""
    returned = next((x for x in reversed(layer.body) if isinstance(x, s.Return)), None)
    values = returned.values if returned is not None else ()
    names = [v.text if isinstance(v, s.Name) else f"output{k}" for k, v in enumerate(values)]
    unlike = len(set(names)) == len(names) == count
    return names if unlike else [f"output{k}" for k in range(count)]
