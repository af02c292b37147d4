"""ONNX model -> graph: inputs, initializers, then every node through the table of handlers.

Types come from our own inference alone; the model's value_info is not read. All problems are
gathered and raised as one ``CompileError``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aisc.frontend.building.choices import ArmNeeded, Choices
from aisc.frontend.building.emitter import Emitter
from aisc.frontend.building.limits import MAX_BYTES, reach
from aisc.frontend.building.report import Report
from aisc.frontend.onnx.checks import check_declared, check_versions
from aisc.frontend.onnx.functions import Frame, local_functions, opset_table
from aisc.frontend.onnx.reader import Source, parts, read
from aisc.frontend.onnx.tensors import MAX_RANK, element_type, to_blob
from aisc.frontend.onnx.translate import Translator
from aisc.ir.arith.poly import Dim, Extent, Poly, symbol
from aisc.ir.blob import Blob
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.graph.shapes.infer import BoundNeeded
from aisc.ir.graph.verify import verify
from aisc.ir.location import Loc
from aisc.ir.rewrite.driver import eliminate_dead
from aisc.ir.types import TensorType

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto, ValueInfoProto
    from onnx.onnx_ml_pb2 import TensorShapeProto

MAX_DIM = 1 << 31


def import_model(
    source: str | os.PathLike[str] | bytes | ModelProto,
    shapes: Mapping[str, Extent] | None = None,
    constants: Mapping[str, NDArray[Any]] | None = None,
    *,
    overridable: Sequence[str] = (),
) -> Graph:
    """The verified graph of an ONNX model given as a path, bytes or ModelProto.

    `shapes` fixes symbolic dimensions by name, or bounds them with ``(least, greatest)``; bounds
    that the model itself implies (by a table of positions) are found. `constants` fixes whole
    inputs (such as a target shape that the model takes at run time), which the graph then no
    longer takes. Inputs for which the model has defaults (initializers) become constants, which the
    graph lists; those that `overridable` names stay inputs.

    Raises ``CompileError``: E101 unreadable, E102 unsupported, E103 inconsistent, E104 external
    data, E105 too large, E106 wrong options, and E2xx where operand types do not fit.
    """
    opened = read(source)
    check_versions(opened.model, opened.file)
    implied: dict[str, int] = {}
    blobs: dict[int, Blob] = {}
    choices = Choices()
    while True:
        importer = _Importer(opened, dict(shapes or {}), dict(constants or {}), implied, blobs)
        importer.translator.choices = choices
        try:
            graph = importer.run(overridable)
        except BoundNeeded as fault:  # each round bounds one more symbol, or one more tightly
            if implied.get(fault.symbol, fault.upper + 1) <= fault.upper:
                importer.report.add(fault)
                importer.report.finish()
            implied[fault.symbol] = fault.upper
        except ArmNeeded as need:
            choices.choose(need)
        except CompileError:
            tried = next(iter(choices.reasons.values()), None)
            if tried is None:
                raise
            if not choices.choose_other():
                importer.report.found.items.clear()
                importer.report.add(tried)
                importer.report.finish()
        else:
            verify(graph)
            return graph


class _Importer:
    def __init__(
        self,
        source: Source,
        shapes: dict[str, Extent],
        constants: dict[str, NDArray[Any]],
        implied: dict[str, int],
        blobs: dict[int, Blob],
    ) -> None:
        self.source, self.shapes, self.constants = source, shapes, constants
        self.implied, self.blobs = implied, blobs
        self.model, self.proto = source.model, source.model.graph
        self.report = Report()
        self.symbols: dict[str, Poly] = {}
        self.used_shapes: set[str] = set()
        self.loc = Loc(source.file)
        self.opsets = opset_table(self.model.opset_import)
        if not self.opsets and self.model.ir_version < 3:
            self.opsets = {"": 1}
        self.frame = Frame(self.proto.node, self.opsets)
        self.scope = self.frame.scope
        self.emitter = Emitter(GraphBuilder(_identifier(self.proto.name) or "main"))
        functions = local_functions(self.model)
        self.report.words.origins = self.emitter.names.origins
        self.translator = Translator(self.emitter, self.report, functions, source)
        self.names = self.translator.names
        self.defaults: dict[str, Value] = {}

    def run(self, overridable: Sequence[str]) -> Graph:
        """Translate the model; `overridable` inputs are true ones."""
        self._check_kind()
        self._check_overridable(overridable)
        self._inputs(overridable)
        self._check_shapes()
        self._initializers(overridable)
        self.translator.run(self.frame)
        outputs = self._outputs()
        self.report.finish()
        return self._finish(outputs)

    # --- the model as a whole -----------------------------------------------------------------
    def _check_kind(self) -> None:
        from onnx.defs import onnx_opset_version

        newest = onnx_opset_version()
        if self.opsets.get("", 1) > newest:
            message = f"opset {self.opsets['']} is newer than the newest known, {newest}"
            raise error("E102", message, loc=self.loc)
        if not self.model.opset_import and self.model.ir_version >= 3:
            raise error("E103", "the model imports no operator set", loc=self.loc)
        if self.proto.sparse_initializer:
            self.report.add(error("E102", "sparse initializers are not supported", loc=self.loc))
            self.frame.lose([t.values.name for t in self.proto.sparse_initializer])

    # --- inputs -------------------------------------------------------------------------------
    def _check_overridable(self, names: Sequence[str]) -> None:
        """Before version 4 of the format every initializer had to be an input, too: no default."""
        listed = {i.name for i in self.proto.input} if self.model.ir_version >= 4 else set()
        known = [t.name for t in self.proto.initializer if t.name in listed]
        for name in names:
            if name not in known:
                message = f"the model has no input '{name}' with a default"
                note = f"inputs with defaults: {', '.join(known) or 'none'}"
                self.report.add(error("E106", message, note, loc=self.loc))

    def _inputs(self, overridable: Sequence[str]) -> None:
        constant = {t.name for t in self.proto.initializer} - set(overridable)
        for info in self.proto.input:
            if info.name in constant:
                continue
            loc = Loc(self.source.file, node=info.name)
            if not info.name or info.name in self.scope:
                self.report.malformed(f"input '{info.name}' is unnamed or repeated", loc=loc)
                continue
            try:
                type_ = self._input_type(info, loc)
            except CompileError as fault:
                self.report.add(fault)
                self.frame.lose((info.name,))
                continue
            self._define(info.name, self._input(info.name, type_, loc))

    def _input(self, name: str, type_: TensorType, loc: Loc) -> Value:
        """An input of the graph, or the constant it is fixed to."""
        given = self.constants.get(name)
        if given is None:
            return self.emitter.builder.input(name, type_)
        blob = Blob(np.asarray(given))
        fits = len(blob.type.shape) == type_.rank and blob.array.dtype == type_.dtype.numpy
        for d, size in zip(type_.shape, blob.type.shape, strict=False):
            fits = fits and (not isinstance(d, int) or d == size)
        if not fits:
            notes = (f"expected {type_}", f"got {blob.array.dtype}{list(blob.array.shape)}")
            self.report.add(error("E106", f"bad constant for input '{name}'", *notes, loc=loc))
        return self.emitter.builder.constant(blob, name, loc)

    def _input_type(self, info: ValueInfoProto, loc: Loc) -> TensorType:
        kind = info.type.WhichOneof("value")
        if kind != "tensor_type":
            raise error("E102", f"input '{info.name}' is no tensor ({kind})", loc=loc)
        tensor = info.type.tensor_type
        dtype = element_type(tensor.elem_type, loc)
        if not tensor.HasField("shape"):
            raise error("E102", f"input '{info.name}' has no rank", loc=loc)
        if len(tensor.shape.dim) > MAX_RANK:
            raise error("E105", f"input '{info.name}' has too many dimensions", loc=loc)
        dims = tuple(
            self._input_dim(d, f"{info.name}_{axis}", loc)
            for axis, d in enumerate(tensor.shape.dim)
        )
        if reach(dims) * dtype.bytes > MAX_BYTES:
            raise error("E105", f"input '{info.name}' is too large", loc=loc)
        return TensorType(dims, dtype)

    def _input_dim(self, dim: TensorShapeProto.Dimension, default: str, loc: Loc) -> Dim:
        if dim.HasField("dim_value") and dim.dim_value != -1:  # which some exporters call unknown
            if dim.dim_value < 0:
                raise error("E103", f"negative size {dim.dim_value} of an input", loc=loc)
            if dim.dim_value > MAX_DIM:
                text = f"size {dim.dim_value} of an input is too large"
                raise error("E105", text, f"at most {MAX_DIM}", loc=loc)
            return int(dim.dim_value)
        named = any(c.isalnum() for c in dim.dim_param)  # "?" and the like are no names
        given = dim.dim_param if named else default
        name = _identifier(given)
        low, high = 0, self.implied.get(name)
        for key in (given, name):
            if key in self.shapes:
                self.used_shapes.add(key)
                extent = self.shapes[key]
                if isinstance(extent, int):
                    return extent
                low, high = extent[0], min(extent[1], extent[1] if high is None else high)
        self.emitter.names.taken.add(name)
        self.report.words.spelled[name] = given
        return self.symbols.setdefault(name, symbol(name, low, high))

    def _check_shapes(self) -> None:
        for name, extent in self.shapes.items():
            low, high = (extent, extent) if isinstance(extent, int) else extent
            if name not in self.used_shapes:
                known = ", ".join(self.report.words.spelled.values()) or "none left open"
                message = f"the model has no dimension '{name}'"
                self.report.add(error("E106", message, f"dimensions: {known}", loc=self.loc))
            elif not 0 <= low <= high <= MAX_DIM:
                self.report.add(error("E106", f"bad size of '{name}': {extent}", loc=self.loc))

    def _initializers(self, overridable: Sequence[str]) -> None:
        declared = {i.name: i for i in self.proto.input}
        for number, tensor in enumerate(self.proto.initializer):
            loc = Loc(self.source.file, node=tensor.name)
            if tensor.name in overridable and tensor.name in declared:
                continue
            if not tensor.name or tensor.name in self.scope:
                self.report.malformed(f"'{tensor.name}' is unnamed or defined twice", loc=loc)
                continue
            info = declared.get(tensor.name)
            try:
                blob = self._blob(number, tensor, loc)
                if info is not None:
                    check_declared(info, blob.type, "initializer", True, loc)
            except CompileError as fault:
                self.report.add(fault)
                self.frame.lose((tensor.name,))
                continue
            value = self.emitter.builder.constant(blob, tensor.name, loc)
            self._define(tensor.name, value)
            if info is not None and self.model.ir_version >= 4:
                self.defaults[tensor.name] = Value(tensor.name, self._input_type(info, loc))

    def _blob(self, number: int, tensor: TensorProto, loc: Loc) -> Blob:
        """The contents of an initializer, read once for all rounds."""
        if number not in self.blobs:
            raw = self.source.weights.get(number)
            self.blobs[number] = to_blob(tensor, self.source.folder, loc, raw)
        return self.blobs[number]

    def _define(self, name: str, value: Value) -> None:
        self.scope[name] = value
        self.names.setdefault(value, name)

    # --- results ------------------------------------------------------------------------------
    def _outputs(self) -> list[tuple[str, Value]]:
        found: dict[str, Value] = {}
        for info in self.proto.output:
            loc = Loc(self.source.file, node=info.name)
            if info.name in found:
                self.report.malformed(f"output '{info.name}' is listed twice", loc=loc)
            elif (value := self.scope.get(info.name)) is not None:
                found[info.name] = value
                self._check_output(info, value, loc)
            elif info.name not in self.frame.lost:
                self.report.malformed(f"nothing computes the output '{info.name}'", loc=loc)
        if not self.proto.output:
            self.report.malformed("the model has no outputs", loc=self.loc)
        return list(found.items())

    def _check_output(self, info: ValueInfoProto, value: Value, loc: Loc) -> None:
        is_own = not self.used_shapes and not self.constants
        try:
            check_declared(info, value.type, "output", is_own, loc)
        except CompileError as fault:
            self.report.add(fault)

    def _finish(self, outputs: Sequence[tuple[str, Value]]) -> Graph:
        """Keep what the outputs need, under the model's own names."""
        old = self.emitter.builder
        whole = eliminate_dead(old.finish([v for _, v in outputs]))
        new = GraphBuilder(old.name)
        new.inputs = old.inputs
        renamed: dict[Value, Value] = {v: v for v in old.inputs}
        made = [v for n in whole.nodes for v in n.outputs]
        for name in [v.name for v in old.inputs] + [self.names[v] for v in made if v in self.names]:
            new.fresh(name)
        for node in whole.nodes:
            for v in node.outputs:
                renamed[v] = Value(self.names.get(v) or new.fresh(v.name), v.type)
            inputs = tuple(None if v is None else renamed[v] for v in node.inputs)
            results = tuple(renamed[v] for v in node.outputs)
            new.append(GraphNode(node.op, inputs, results, node.attrs, node.regions, node.loc))
        names = [name for name, _ in outputs]
        graph = new.finish([renamed[v] for _, v in outputs], names)
        return replace(graph, defaults=tuple(self.defaults.values()))


def _identifier(name: str) -> str:
    """A name made of letters, digits and underscores."""
    return re.sub(r"\W", "_", name)


class OnnxImporter:
    """ONNX files, their bytes, and the ModelProto of onnx."""

    @staticmethod
    def accepts(source: object) -> bool:
        """Bytes are taken for a serialized model."""
        return isinstance(source, bytes) or type(source).__name__ == "ModelProto"

    @staticmethod
    def parts(path: Path) -> Sequence[str] | None:
        """The files of external data."""
        return parts(path)

    def __call__(
        self,
        source: str | os.PathLike[str] | bytes | ModelProto,
        shapes: Mapping[str, Extent],
        *,
        overridable: Sequence[str] = (),
    ) -> Graph:
        """What :func:`import_model` gives."""
        return import_model(source, shapes, overridable=overridable)


IMPORTER = OnnxImporter()
