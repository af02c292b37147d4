"""Functions: bodies that stand for a node, from the model or from the operator's own definition.

Calls are inlined through an explicit stack of frames, bounded in depth and in number of nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

from aisc.frontend.onnx.node import Node
from aisc.frontend.onnx.tensors import onnx_type
from aisc.ir.arith.poly import Dim
from aisc.ir.dataclass import dataclass
from aisc.ir.graph.core import Value
from aisc.ir.location import Loc

if TYPE_CHECKING:
    from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto

MAX_VERSION = (1 << 31) - 1  # that a schema can have
MAX_DEPTH = 64
MAX_NODES = 1 << 17  # of all functions inlined together


@dataclass(slots=True)
class Frame:
    """A list of nodes being translated in a scope of its own.

    `lost` are names that could not be computed. When the last node is done, the values of
    `results` become `targets` in the frame below.
    """

    nodes: Sequence[NodeProto]
    opsets: Mapping[str, int]
    scope: dict[str, Value | None] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    attributes: Mapping[str, AttributeProto] | None = None  # of the function it belongs to
    parent: Loc | None = None
    results: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    position: int = 0

    def lose(self, names: Sequence[str]) -> None:
        """Note results that will be missing, so that their users are not reported too."""
        self.lost.update(n for n in names if n)


def domain_of(name: str) -> str:
    """A domain name in its short form."""
    return "" if name == "ai.onnx" else name


def opset_table(entries: Sequence[object]) -> dict[str, int]:
    """Domain -> version."""
    versions: dict[str, int] = {}
    for entry in entries:
        domain = domain_of(entry.domain)  # type: ignore[attr-defined]
        version: int = entry.version  # type: ignore[attr-defined]
        versions[domain] = max(version, versions.get(domain, 0))
    return versions


def local_functions(model: ModelProto) -> dict[tuple[str, str, str], FunctionProto]:
    """(domain, name, overload) -> function of the model."""
    return {(domain_of(f.domain), f.name, f.overload): f for f in model.functions}


def resolve_attributes(
    given: Sequence[AttributeProto], frame: Frame
) -> tuple[dict[str, AttributeProto], str]:
    """A node's attributes with references to the function's own filled in, and what is wrong with
    them, if anything is."""
    found: dict[str, AttributeProto] = {}
    fault = ""
    for a in given:
        if a.name in found:
            fault = f"attribute '{a.name}' is given twice"
        if not a.ref_attr_name:
            found[a.name] = a
        elif frame.attributes is None:
            fault = f"outside of a function, attribute '{a.name}' refers to '{a.ref_attr_name}'"
        elif a.ref_attr_name in frame.attributes:
            found[a.name] = frame.attributes[a.ref_attr_name]
    return found, fault


def call_frame(function: FunctionProto, node: Node, opsets: Mapping[str, int]) -> Frame:
    """The frame that computes `node` by the body of `function`."""
    attributes = {a.name: a for a in function.attribute_proto}
    attributes.update(node.attributes)
    scope: dict[str, Value | None] = dict.fromkeys(function.input)  # absent unless given
    scope.update(zip(function.input, node.inputs, strict=False))
    frame = Frame(function.node, opset_table(function.opset_import) or opsets, scope)
    frame.attributes, frame.parent = attributes, node.loc
    frame.results, frame.targets = tuple(function.output), node.outputs
    return frame


def schema_function(node: Node, domain: str, proto: NodeProto) -> FunctionProto | None:
    """The body that the standard gives for an operator, for these operand types; else ``None``."""
    from onnx import FunctionProto, NodeProto, defs

    try:
        schema: Any = defs.get_schema(proto.op_type, min(node.version, MAX_VERSION), domain)
    except defs.SchemaError:
        return None
    for name, attribute in schema.attributes.items():
        if name not in node.attributes and attribute.default_value.type:
            node.attributes[name] = attribute.default_value
    function = FunctionProto()
    if schema.has_function:
        function.CopyFrom(schema.function_body)
    elif schema.has_context_dependent_function:
        whole = NodeProto(op_type=proto.op_type, domain=proto.domain)
        whole.input.extend(proto.input)
        whole.output.extend(proto.output)
        whole.attribute.extend(node.attributes.values())
        types = [_type_bytes(v) for v in node.inputs]
        try:
            data = schema.get_context_dependent_function(whole.SerializeToString(), types)
        except (RuntimeError, ValueError):
            return None  # the definition has no body for these types
        function.ParseFromString(data)
    if not any(domain_of(o.domain) == "" for o in function.opset_import):
        function.opset_import.add(domain="", version=defs.onnx_opset_version())
    return function if function.node else None


def _type_bytes(value: Value | None) -> bytes:
    from onnx import TypeProto, helper

    if value is None:
        return bytes(TypeProto().SerializeToString())
    dims: list[int | str | None] = [_dim(d) for d in value.type.shape]
    made = helper.make_tensor_type_proto(onnx_type(value.type.dtype), dims)
    return bytes(made.SerializeToString())


def _dim(d: Dim) -> int | str:
    return d if isinstance(d, int) else str(d)
