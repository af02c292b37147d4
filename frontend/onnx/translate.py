"""Translation of a list of nodes, with calls of functions inlined, into the emitter's graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from aisc.frontend.building.choices import ArmNeeded, Choices
from aisc.frontend.building.emitter import Emitter
from aisc.frontend.building.report import Report
from aisc.frontend.onnx.checks import check_call
from aisc.frontend.onnx.control import LostRegion, translate_control
from aisc.frontend.onnx.functions import (
    MAX_DEPTH,
    MAX_NODES,
    Frame,
    call_frame,
    domain_of,
    resolve_attributes,
    schema_function,
)
from aisc.frontend.onnx.indices import check_indices
from aisc.frontend.onnx.node import Node, find_handler
from aisc.frontend.onnx.reader import Source
from aisc.frontend.onnx.tensors import to_blob
from aisc.ir.arith.poly import symbols
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.graph.core import Value
from aisc.ir.graph.shapes.infer import BoundNeeded
from aisc.ir.location import Loc

if TYPE_CHECKING:
    from onnx import FunctionProto, NodeProto

CONTROL = frozenset({"If", "Loop", "Scan"})
Functions = Mapping[tuple[str, str, str], "FunctionProto"]


class Translator:
    """Runs frames to their end; problems go to the report, values into the frames' scopes."""

    def __init__(
        self, emitter: Emitter, report: Report, functions: Functions, source: Source
    ) -> None:
        self.emitter, self.report, self.functions = emitter, report, functions
        self.source, self.file, self.folder = source, source.file, source.folder
        self.names: dict[Value, str] = {}
        self.choices = Choices()
        self.nesting = 0
        self._done = 0

    def inside(self, emitter: Emitter, report: Report | None = None) -> Translator:
        """The translator of a subgraph, which emits into a region."""
        inner = Translator(emitter, report or self.report, self.functions, self.source)
        inner.choices = self.choices
        inner.nesting = self.nesting + 1
        return inner

    def run(self, bottom: Frame) -> None:
        """Translate the nodes of `bottom`, which then holds every value by name."""
        stack = [bottom]
        while stack:
            frame = stack[-1]
            if frame.position == len(frame.nodes):
                stack.pop()
                if stack:
                    self._return(frame, stack[-1])
                continue
            proto = frame.nodes[frame.position]
            frame.position += 1
            self._done += len(stack) > 1
            if self._done > MAX_NODES:
                message = f"functions inline to more than {MAX_NODES} nodes"
                raise error("E105", message, loc=self._loc(proto, frame))
            called = self._step(proto, frame, len(stack))
            if called is not None:
                stack.append(called)

    def _loc(self, proto: NodeProto, frame: Frame) -> Loc:
        label = proto.name or next(filter(None, proto.output), f"#{frame.position - 1}")
        return Loc(self.file, node=label, parent=frame.parent)

    def _step(self, proto: NodeProto, frame: Frame, depth: int) -> Frame | None:
        """Translate one node, or return the frame of the function that it calls."""
        loc = self._loc(proto, frame)
        self.emitter.names.node = loc.node
        try:
            node = self._view(proto, frame, loc)
            if node is None:
                frame.lose(proto.output)
                return None
            if node.op in CONTROL and not self._is_decided(node):
                self.emitter.loc = loc
                results = translate_control(self, node, frame)
                node.check_all_read()
                self._bind(node.outputs, results, frame, loc)
                return None
            called = self._call(proto, node, frame)
            if called is not None:
                if depth >= MAX_DEPTH:
                    raise error("E105", f"functions are nested deeper than {MAX_DEPTH}", loc=loc)
                return called
            self.emitter.loc = loc
            self._bind(node.outputs, self._translate(node), frame, loc)
        except (BoundNeeded, ArmNeeded):
            raise
        except CompileError as fault:
            self.report.add(fault, self._open_sizes(proto, frame))
            frame.lose(proto.output)
        except LostRegion:
            frame.lose(proto.output)
        return None

    def _open_sizes(self, proto: NodeProto, frame: Frame) -> list[str]:
        """Symbolic dimensions that the operands of a node mention."""
        values = [v for v in map(frame.scope.get, proto.input) if v is not None]
        dims = [d for v in values for d in (*v.type.shape, *self.emitter.sizes_in(v))]
        return [s.name for d in dims for s in sorted(symbols(d), key=str)]

    def _is_decided(self, node: Node) -> bool:
        """Whether only one branch of an If can run."""
        return node.op == "If" and self.emitter.array(node.optional(0)) is not None

    def _return(self, inner: Frame, outer: Frame) -> None:
        loc = inner.parent or Loc(self.file)
        for result, target in zip(inner.results, inner.targets, strict=False):
            value = inner.scope.get(result)
            if value is None:
                if target and result not in inner.lost:
                    self.report.malformed(f"a function does not compute '{result}'", loc=loc)
                outer.lose((target,))
            else:
                self._bind((target,), (value,), outer, loc)
        if any(inner.targets[len(inner.results) :]):
            self.report.malformed("a function has too few results", loc=loc)

    def _bind(self, names: Sequence[str], values: Sequence[Value], frame: Frame, loc: Loc) -> None:
        for name, value in zip(names, values, strict=False):
            if not name:
                continue
            if name in frame.scope:
                self.report.malformed(f"'{name}' is defined twice", loc=loc)
            frame.scope[name] = value
            if frame.parent is None:
                self.names.setdefault(value, name)

    def _view(self, proto: NodeProto, frame: Frame, loc: Loc) -> Node | None:
        """The node with its operands; ``None`` when one is missing for a reason already known."""
        lost = False
        for name in proto.input:
            if name and name not in frame.scope:
                lost = True
                if name not in frame.lost:
                    note = "the nodes are out of order or cyclic, or the name is wrong"
                    message = f"{proto.op_type} reads '{name}', which is not defined before it"
                    raise error("E103", message, note, loc=loc)
        inputs = tuple(frame.scope.get(name) if name else None for name in proto.input)
        domain = domain_of(proto.domain)
        op = f"{domain}::{proto.op_type}" if domain else proto.op_type
        version = frame.opsets.get(domain)
        if version is None:
            raise error("E103", f"{op}: the model does not import domain '{domain}'", loc=loc)
        attributes, fault = resolve_attributes(proto.attribute, frame)
        if fault:
            raise error("E103", f"{op}: {fault}", loc=loc)
        node = Node(op, inputs, tuple(proto.output), attributes, version, loc)
        check_call(node, proto, self.functions.get((domain, proto.op_type, proto.overload)))
        if lost and self._is_supported(proto, node):
            return None
        return node

    def _is_supported(self, proto: NodeProto, node: Node) -> bool:
        """Whether a node is worth silence when its operands are missing."""
        key = (domain_of(proto.domain), proto.op_type, proto.overload)
        known = key in self.functions or node.op in CONTROL
        known = known or find_handler(node.op, node.version) is not None
        if not known:
            raise node.unsupported("the operator is not supported")
        return known

    def _call(self, proto: NodeProto, node: Node, frame: Frame) -> Frame | None:
        """The frame of a function, or of the branch of an If whose condition is known."""
        if node.op == "If":
            return self._branch(node, frame)
        function = self._function(proto, node)
        return None if function is None else call_frame(function, node, frame.opsets)

    def _branch(self, node: Node, frame: Frame) -> Frame:
        known = self.emitter.array(node.optional(0))
        if known is None or known.size != 1:
            raise node.malformed("the condition must be one value")
        graph = node.graph("then_branch" if known.reshape(()).item() else "else_branch")
        inner = Frame(graph.node, frame.opsets, dict(frame.scope), set(frame.lost))
        inner.attributes, inner.parent = frame.attributes, node.loc
        inner.results, inner.targets = tuple(v.name for v in graph.output), node.outputs
        for tensor in graph.initializer:
            blob = to_blob(tensor, self.folder, node.loc)
            inner.scope[tensor.name] = self.emitter.blob(blob, tensor.name)
        return inner

    def _function(self, proto: NodeProto, node: Node) -> FunctionProto | None:
        """The function a node calls; ``None`` for operators with a handler; else E102."""
        domain = domain_of(proto.domain)
        local = self.functions.get((domain, proto.op_type, proto.overload))
        if local is not None:
            return local
        if find_handler(node.op, node.version) is not None:
            return None
        standard = schema_function(node, domain, proto)
        if standard is None:
            raise node.unsupported("the operator is not supported")
        return standard

    def _translate(self, node: Node) -> Sequence[Value]:
        handler = find_handler(node.op, node.version)
        assert handler is not None, "checked before"
        check_indices(self.emitter, node)
        made = handler(self.emitter, node)
        node.check_all_read()
        results = (made,) if isinstance(made, Value) else tuple(made)
        if any(node.outputs[len(results) :]):
            raise node.unsupported(f"result {len(results)} is not supported")
        return results
