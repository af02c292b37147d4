"""The graph of a file of the model language."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.building.report import Report
from aisc.frontend.lang import statics
from aisc.frontend.lang import syntax as s
from aisc.frontend.lang.elaborate import Elaborator
from aisc.frontend.lang.parameters import Parameters, inside, stored_in
from aisc.frontend.lang.reading import read
from aisc.frontend.lang.scope import Poisoned, Scope, misfit, shown
from aisc.ir import dtypes
from aisc.ir.arith.poly import Dim, Extent, symbol
from aisc.ir.diagnostics import CompileError, Diagnostic, error
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


def is_whole(path: Path) -> bool:
    """Whether a file names no weights and imports nothing, which are in other ones."""
    return re.search(r"^\s*(weights|import)\b", text_of(path), re.MULTILINE) is None


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
        raise error("E101", f"byte {fault.start} is no UTF-8", loc=loc) from None


def graph_of(text: str, file: str, folder: Path, shapes: Mapping[str, Extent]) -> Graph:
    """The graph of a text; weights and imports are looked for in `folder`."""
    sources = {file: Source(text, file)}
    module = with_imports(read(sources[file]), folder, sources)
    implied: dict[str, int] = {}
    while True:
        try:
            graph = _Model(module, file, folder, shapes, implied).graph()
        except BoundNeeded as fault:  # each round bounds one more size, or one more tightly
            if implied.get(fault.symbol, fault.upper + 1) <= fault.upper:
                raise CompileError(_with_lines(fault, sources)) from None
            implied[fault.symbol] = fault.upper
        except CompileError as fault:
            raise CompileError(_with_lines(fault, sources)) from None
        else:
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
        layers += [x for x in other.layers if x.kind == "layer"]
        waiting += other.imports
    return replace(module, layers=tuple(layers))


def _with_lines(fault: CompileError, sources: Mapping[str, Source]) -> list[Diagnostic]:
    """Diagnostics that show the line they speak of."""
    found = []
    for d in fault.diagnostics:
        if d.loc.line and d.loc.file in sources and d.code != "E107":
            notes = (sources[d.loc.file].caret(d.loc.line, d.loc.column), *d.notes)
            d = replace(d, notes=notes)
        found.append(d)
    return found


class _Model:
    """One try to build the graph, with what is implied about sizes so far."""

    def __init__(
        self,
        module: s.Module,
        file: str,
        folder: Path,
        shapes: Mapping[str, Extent],
        implied: Mapping[str, int],
    ) -> None:
        self.module, self.file, self.folder = module, file, folder
        self.shapes, self.implied = shapes, implied
        self.report = Report()
        self.used: set[str] = set()

    def graph(self) -> Graph:
        """The graph of the file's model; every fault of it together."""
        layer = self._model()
        self._require_unlike()
        weights = self.module.weights
        stored = {} if weights is None else stored_in(self.folder, *weights)
        name = "" if weights is None else weights[0]
        parameters = Parameters(self.module.seed, name, stored)
        elaborator = Elaborator(self.module, parameters, self.report)
        scope = Scope(Emitter(GraphBuilder(layer.name)))
        self.report.words.origins = scope.em.names.origins
        inputs = [self._input(elaborator, scope, f) for f in layer.formals]
        self._check_shapes()
        self.report.finish()
        scope.em.builder.inputs = inputs
        try:
            results = elaborator.body(scope, layer)
        except Poisoned:
            results = []
        except CompileError as fault:
            self.report.add(fault)
        self.report.finish()
        whole = scope.em.builder.finish(results, _names(layer, len(results)))
        return renamed(eliminate_dead(whole), elaborator.names)

    def _model(self) -> s.Layer:
        models = [x for x in self.module.layers if x.kind == "model"]
        if len(models) != 1:
            names = ", ".join(m.name for m in models) or "none"
            at = models[1].at if models else Loc(self.file, 1, 1)
            raise misfit("a file has one model", f"got {names}", at=at)
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
