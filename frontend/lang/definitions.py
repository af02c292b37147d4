"""Operators that a file of the model language defines: ``operator f(x: t[n, k]) -> t[n] { … }``.

Such a file becomes operators of the library's kind: their types are inferred by building the body
for the operands at hand, their meaning is the body's, and compilation puts it in their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from aisc.frontend.building.emitter import Emitter
from aisc.frontend.building.report import Report
from aisc.frontend.lang import syntax as s
from aisc.frontend.lang.elaborate import Elaborator
from aisc.frontend.lang.model import text_of, with_imports, with_lines
from aisc.frontend.lang.parameters import Array as Weights
from aisc.frontend.lang.parameters import Parameters
from aisc.frontend.lang.reading import read
from aisc.frontend.lang.scope import Poisoned, Scope, misfit
from aisc.ir.arith.poly import symbols
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, Diagnostic
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import AttrValue, Graph, Value
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.opdef import Array, Arrays, Attr, OpCall, OpDef, Operand, present
from aisc.ir.graph.verify import verify
from aisc.ir.location import Loc
from aisc.ir.text.source import Source
from aisc.ir.types import TensorType

_ATTRIBUTES = {"int": "int", "float": "float", "bool": "bool", "text": "str"}
Types = tuple[TensorType | None, ...]
Attrs = tuple[tuple[str, AttrValue], ...]


def definitions_of(file: Path) -> list[OpDef]:
    """The operators of a file; E101 where it is unreadable, E107 to E109 where it is wrong."""
    sources = {str(file): Source(text_of(file), str(file))}
    module = with_imports(read(sources[str(file)]), file.parent, sources)
    try:
        found = [_Definition(module, layer, sources).opdef()
                 for layer in module.layers if layer.kind == "operator"]  # fmt: skip
        if not found:
            at = Loc(str(file), 1, 1)
            raise misfit("the file defines no operator", "operator f(x: f32[n]) -> f32[n] { … }",
                         at=at)  # fmt: skip
    except CompileError as fault:
        raise CompileError(with_lines(fault.diagnostics, sources)) from None
    return found


class _NoParameters(Parameters):
    """An operator takes its parameters as tensors."""

    def make(
        self, path: str, t: TensorType, start: tuple[str, Sequence[float]] | None, at: Loc
    ) -> Weights:
        """E109: an operator has none."""
        raise misfit("an operator has no parameters", "it takes them as tensors", at=at)


@dataclass(frozen=True)
class _Definition:
    """One operator of a file; `sources`: texts that faults point at."""

    module: s.Module
    layer: s.Layer
    sources: Mapping[str, Source]

    def opdef(self) -> OpDef:
        """The operator; E109 where its head says too little."""
        layer = self.layer
        if not layer.results:
            hint = "operator f(x: f32[n]) -> f32[n] { … }"
            raise misfit(f"operator {layer.name} does not say what it gives", hint, at=layer.at)
        graph = lru_cache(maxsize=1 << 8)(self._graph)

        def graph_of(call: OpCall) -> Graph:
            try:
                return graph(call.types, tuple(sorted(call.attrs.items())))
            except CompileError as fault:
                raise CompileError(
                    [self._used_at(d, call.loc) for d in fault.diagnostics]
                ) from None

        def infer(call: OpCall) -> tuple[TensorType, ...]:
            return tuple(v.type for v in graph_of(call).outputs)

        def reference(call: OpCall, xs: Arrays) -> Sequence[Array]:
            return interpret(graph_of(call), present(xs))

        def decompose(
            builder: GraphBuilder, call: OpCall, inputs: Sequence[Value | None]
        ) -> Sequence[Value]:
            return _placed(builder, graph_of(call), [v for v in inputs if v is not None])

        tensors = [f for f in layer.formals if not _is_hyper(f)]
        return OpDef(
            layer.name,
            f"Operator {layer.name} of {Path(layer.at.file).name}.",
            tuple(Operand(f.name) for f in tensors),
            infer,
            reference,
            "reduction",
            tuple(self._attribute(f) for f in layer.formals if _is_hyper(f)),
            outputs=len(layer.results),
            decompose=decompose,
        )

    def _used_at(self, told: Diagnostic, at: Loc) -> Diagnostic:
        """A fault of the body, for the node that shows it."""
        loc = Loc(told.loc.file, told.loc.line, told.loc.column, parent=at)
        return replace(
            told, loc=loc, notes=(*told.notes, f"operator {self.layer.name} is defined there")
        )

    def _attribute(self, f: s.Formal) -> Attr:
        default: AttrValue | None = None
        if f.default is not None:
            scope = Scope(Emitter(GraphBuilder(self.layer.name)))
            known = self._elaborator().expr(scope, f.default)
            if not isinstance(known, bool | int | float | str):
                raise misfit(f"the default of '{f.name}' is no {f.type.dtype}", at=f.at)
            default = float(known) if f.type.dtype == "float" else known
        return Attr(f.name, _ATTRIBUTES[f.type.dtype], default)

    def _elaborator(self) -> Elaborator:
        return Elaborator(self.module, _NoParameters(), Report())

    def _graph(self, types: Types, attrs: Attrs) -> Graph:
        """The body for operands of these types; all of its faults together."""
        layer, elaborator = self.layer, self._elaborator()
        scope = Scope(Emitter(GraphBuilder(layer.name)))
        known = dict(attrs)
        tensors = [f for f in layer.formals if not _is_hyper(f)]
        inputs = {f.name: Value(scope.em.builder.fresh(f.name), t)
                  for f, t in zip(tensors, types, strict=True) if t is not None}  # fmt: skip
        scope.em.builder.inputs = list(inputs.values())
        try:
            given = {f.name: (inputs.get(f.name, known.get(f.name)), f.at) for f in layer.formals}
            elaborator.bind_formals(scope, layer, (), given, layer.at)  # type: ignore[arg-type]
            results = elaborator.body(scope, layer)
        except Poisoned:
            results = []
        except CompileError as fault:
            elaborator.report.add(fault)
        try:
            elaborator.report.finish()
        except CompileError as fault:
            raise CompileError(with_lines(fault.diagnostics, self.sources)) from None
        graph = scope.em.builder.finish(results, [f"y{k}" for k in range(len(results))])
        self._require_sizes(graph)
        verify(graph)
        return graph

    def _require_sizes(self, graph: Graph) -> None:
        """Sizes of results must follow from those of operands."""
        known = {x for v in graph.inputs for d in v.type.shape for x in symbols(d)}
        found = {
            x for n in graph.nodes for v in n.outputs for d in v.type.shape for x in symbols(d)
        }
        if not found <= known:
            message = f"operator {self.layer.name} has sizes that depend on data"
            raise misfit(message, "a layer may have such", at=self.layer.at)


def _is_hyper(f: s.Formal) -> bool:
    return f.type.dims is None and f.type.dtype in _ATTRIBUTES


def _placed(builder: GraphBuilder, graph: Graph, inputs: Sequence[Value]) -> Sequence[Value]:
    """The results of a graph whose nodes are copied behind those of a builder."""
    table: dict[Value, Value] = dict(zip(graph.inputs, inputs, strict=True))
    for node in graph.nodes:
        operands = [None if v is None else table.get(v, v) for v in node.inputs]
        names = [v.name for v in node.outputs]
        loc = Loc(node.loc.file, node.loc.line, node.loc.column, parent=builder.loc)
        made = builder.add_multi(node.op, operands, node.attr_map, names, loc, node.regions)
        table.update(zip(node.outputs, made, strict=True))
    return [table.get(v, v) for v in graph.outputs]
