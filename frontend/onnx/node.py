"""A view of one NodeProto for translation, and the table of translations.

A handler takes (emitter, node) and returns the node's results. It reads attributes through the
view, which notes what was read: an attribute that no handler looked at is a reason to refuse.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from aisc.frontend.own import registry as own_operators
from aisc.ir.arith.poly import Dim
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.graph.core import Value
from aisc.ir.graph.opdef import OpDef
from aisc.ir.location import Loc

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, TensorProto

    from aisc.frontend.building.emitter import Emitter

Handler = Callable[["Emitter", "Node"], "Value | Sequence[Value]"]

# kind -> (AttributeProto.AttributeType, field)
_KINDS = {
    "float": (1, "f"), "int": (2, "i"), "str": (3, "s"), "tensor": (4, "t"), "graph": (5, "g"),
    "floats": (6, "floats"), "ints": (7, "ints"), "strs": (8, "strings"),
}  # fmt: skip
_IGNORED = frozenset({"consumed_inputs"})  # a hint of opset 1 without meaning


@dataclass(slots=True)
class Node:
    """One node: its operands (``None`` when absent), result names, attributes, opset version."""

    op: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, AttributeProto]
    version: int
    loc: Loc
    read: set[str] = field(default_factory=set)

    def attr(self, name: str, kind: str, default: Any = None) -> Any:
        """An attribute as int, float, str, tuple or TensorProto; E103 when it has another type."""
        self.read.add(name)
        found = self.attributes.get(name)
        if found is None:
            return default
        code, where = _KINDS[kind]
        if found.type not in (0, code):
            raise self.malformed(f"attribute '{name}' is not of type {kind}")
        value = getattr(found, where)
        if kind == "str":
            return self._decode(value)
        if kind == "strs":
            return tuple(map(self._decode, value))
        return tuple(value) if kind in ("ints", "floats") else value

    def _decode(self, value: bytes) -> str:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise self.malformed("a text attribute is not UTF-8") from None

    def integer(self, name: str, default: int = 0) -> int:
        """An integer attribute."""
        value: int = self.attr(name, "int", default)
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """An integer attribute used as a truth value."""
        return bool(self.attr(name, "int", int(default)))

    def number(self, name: str, default: float = 0.0) -> float:
        """A float attribute."""
        value: float = self.attr(name, "float", default)
        return value

    def text(self, name: str, default: str = "") -> str:
        """A text attribute."""
        value: str = self.attr(name, "str", default)
        return value

    def ints(self, name: str) -> tuple[int, ...] | None:
        """A list of integers; ``None`` when absent."""
        value: tuple[int, ...] | None = self.attr(name, "ints")
        return value

    def tensor(self, name: str) -> TensorProto | None:
        """A tensor attribute; ``None`` when absent."""
        value: TensorProto | None = self.attr(name, "tensor")
        return value

    def graph(self, name: str) -> GraphProto:
        """A required subgraph; E103 when absent."""
        value: GraphProto | None = self.attr(name, "graph")
        if value is None:
            raise self.malformed(f"the subgraph '{name}' is missing")
        return value

    def needed_ints(self, name: str) -> tuple[int, ...]:
        """A required list of integers; E103 when absent."""
        value = self.ints(name)
        if value is None:
            raise self.malformed(f"attribute '{name}' is missing")
        return value

    def has(self, index: int) -> bool:
        """Whether an input is present."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def input(self, index: int) -> Value:
        """A required input; E103 when absent."""
        value = self.optional(index)
        if value is None:
            raise self.malformed(f"input {index} is missing")
        return value

    def optional(self, index: int) -> Value | None:
        """An input, or ``None``."""
        return self.inputs[index] if index < len(self.inputs) else None

    def all_inputs(self) -> tuple[Value, ...]:
        """Every input of a variadic node; E103 when one is absent or there is none."""
        if not self.inputs:
            raise self.malformed("it has no inputs")
        return tuple(self.input(i) for i in range(len(self.inputs)))

    def one_output(self, what: str = "its further outputs") -> None:
        """E102 when a result beyond the first is asked for."""
        if any(self.outputs[1:]):
            raise self.unsupported(f"{what} are not supported")

    def malformed(self, reason: str) -> CompileError:
        """E103 at this node."""
        return error("E103", f"{self.op}: {reason}", loc=self.loc)

    def misfit(self, reason: str, *sizes: Dim) -> CompileError:
        """E103 for sizes that do not fit; E204 when one is symbolic, as the model may be right."""
        if all(isinstance(d, int) for d in sizes):
            return self.malformed(reason)
        text = f"{self.op}: not supported for sizes that are not known: {reason}"
        return error("E204", text, loc=self.loc)

    def unsupported(self, reason: str) -> CompileError:
        """E102 at this node."""
        own = ("operators of your own are given with --ops FILE.aim",) if "::" in self.op else ()
        return error("E102", f"{self.op} (opset {self.version}): {reason}", *own, loc=self.loc)

    def check_all_read(self) -> None:
        """E102 when the node has an attribute that its handler does not know."""
        unknown = [a for a in self.attributes if a not in self.read and a not in _IGNORED]
        if unknown:
            raise self.unsupported(f"attribute '{unknown[0]}' is not supported")


@dataclass(frozen=True, slots=True)
class _Entry:
    since: int
    until: int
    handler: Handler


_TABLE: dict[str, list[_Entry]] = {}


def onnx_op(*names: str, since: int = 1, until: int = 1 << 30) -> Callable[[Handler], Handler]:
    """Register a handler for operators of the default domain, opsets `since` to `until`.

    Operators of other domains are named ``domain::Name``.
    """

    def add(handler: Handler) -> Handler:
        for name in names:
            _TABLE.setdefault(name, []).append(_Entry(since, until, handler))
        return handler

    return add


@cache
def _load() -> None:
    from aisc.frontend.onnx import ops

    for module in sorted(m.name for m in pkgutil.iter_modules(ops.__path__)):
        importlib.import_module(f"{ops.__name__}.{module}")


def find_handler(name: str, version: int) -> Handler | None:
    """The handler of an operator in an opset version."""
    _load()
    for entry in _TABLE.get(name, ()):
        if entry.since <= version <= entry.until:
            return entry.handler
    _, separator, own = name.rpartition("::")
    op = own_operators.find(own) if separator else None
    return None if op is None else partial(_of_user, op)


_READERS: dict[str, Callable[[Node, str], Any]] = {
    "int": lambda n, a: n.attr(a, "int"), "float": lambda n, a: n.attr(a, "float"),
    "bool": lambda n, a: None if n.attr(a, "int") is None else n.flag(a),
    "str": lambda n, a: n.attr(a, "str"), "ints": lambda n, a: n.ints(a),
    "floats": lambda n, a: n.attr(a, "floats"), "strs": lambda n, a: n.attr(a, "strs"),
}  # fmt: skip


def _of_user(op: OpDef, em: Emitter, node: Node) -> Sequence[Value]:
    """A node of a user's operator, whose attributes have the names and types that it declares."""
    if len(node.inputs) > len(op.inputs) and not (op.inputs and op.inputs[-1].variadic):
        raise node.malformed(f"it takes {len(op.inputs)} operands, got {len(node.inputs)}")
    for k, o in enumerate(op.inputs):
        if not (o.optional or o.variadic or node.has(k)):
            raise node.malformed(f"operand '{o.name}' is missing")
    unknown = [a.name for a in op.attrs if a.type not in _READERS and a.name in node.attributes]
    if unknown:
        raise node.unsupported(f"attribute '{unknown[0]}' cannot be given by a model")
    given = {a.name: _READERS[a.type](node, a.name) for a in op.attrs if a.type in _READERS}
    attrs = {name: value for name, value in given.items() if value is not None}
    return em.multi(op.name, *node.inputs, **attrs)


def supported_ops() -> tuple[str, ...]:
    """Names of all operators with a handler, sorted."""
    _load()
    return tuple(sorted(_TABLE))
