"""The graph verifier: SSA order, names, arity, attributes, re-inferred types, isolated regions.

Each level of the pipeline has a legality spec in :data:`LEVELS`. A violation is a ``CompileError``
E202 (malformed) or E201 (types) that names the node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aisc.ir.arith.poly import Poly
from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.dtypes import DType
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.graph.opdef import OpDef


def _any_op(op: OpDef) -> str | None:
    return None


def _core_op(op: OpDef) -> str | None:
    return "it has a decomposition, which legalization applies" if op.decompose else None


# Per level: why an operator may not occur there, or None.
LEVELS: Mapping[str, Callable[[OpDef], str | None]] = {"import": _any_op, "core": _core_op}


def _is_int(x: object) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


def _is_dim(x: object) -> bool:
    return _is_int(x) or isinstance(x, Poly)


def _all(test: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda x: isinstance(x, tuple) and all(map(test, x))


_ATTR_TESTS: Mapping[str, Callable[[object], bool]] = {
    "int": _is_int,
    "float": lambda x: isinstance(x, float),
    "str": lambda x: isinstance(x, str),
    "bool": lambda x: isinstance(x, bool),
    "dtype": lambda x: isinstance(x, DType),
    "blob": lambda x: isinstance(x, Blob),
    "ints": _all(_is_int),
    "dims": _all(_is_dim),
    "floats": _all(lambda x: isinstance(x, float)),
    "strs": _all(lambda x: isinstance(x, str)),
}


@dataclass(slots=True)
class _Scope:
    """What is visible at one point of a graph."""

    values: set[Value]
    names: set[str]
    constants: dict[Value, Blob]


def verify(graph: Graph, level: str = "import") -> None:
    """Raise ``CompileError`` unless `graph` and its regions are well formed at `level`."""
    legal = LEVELS[level]
    pending = [graph]
    while pending:
        current = pending.pop()
        scope = _Scope(set(), set(), {})
        for value in current.inputs:
            _define(scope, value, None)
        for node in current.nodes:
            _check_node(node, scope, legal, level)
            pending.extend(node.regions)
        _check_results(current, scope)


def _fail(node: GraphNode | None, message: str, *notes: str, code: str = "E202") -> CompileError:
    if node is None:
        return error(code, message, *notes)
    result = node.outputs[0].name if node.outputs else "?"
    return error(code, f"%{result} = {node.op}: {message}", *notes, loc=node.loc)


def _define(scope: _Scope, value: Value, node: GraphNode | None) -> None:
    if value in scope.values or value.name in scope.names:
        raise _fail(node, f"the name %{value.name} is defined twice")
    scope.values.add(value)
    scope.names.add(value.name)


def _check_results(graph: Graph, scope: _Scope) -> None:
    for value in graph.outputs:
        if value not in scope.values:
            raise error("E202", f"graph {graph.name} returns %{value.name}, which it never defines")
    names = graph.output_names
    if names and (len(names) != len(graph.outputs) or len(set(names)) != len(names)):
        raise error("E202", f"graph {graph.name}: output names do not fit the outputs")


def _check_node(
    node: GraphNode, scope: _Scope, legal: Callable[[OpDef], str | None], level: str
) -> None:
    if not opdef.exists(node.op):
        raise _fail(node, "no such operator")
    op = opdef.get(node.op)
    reason = legal(op)
    if reason is not None:
        raise _fail(node, f"not allowed at level '{level}': {reason}")
    for v in node.input_values:
        if v not in scope.values:
            raise _fail(node, f"%{v.name} is used before it is defined, or from another graph")
    _check_arity(node, op)
    _check_attrs(node, op)
    _check_types(node, scope)
    for v in node.outputs:
        _define(scope, v, node)
    if node.op == "constant":
        blob = node.attr("value")
        assert isinstance(blob, Blob), "checked with the attributes"
        scope.constants[node.output] = blob


def _check_arity(node: GraphNode, op: OpDef) -> None:
    declared, given = op.inputs, node.inputs
    variadic = bool(declared) and declared[-1].variadic
    if len(given) > len(declared) and not variadic:
        raise _fail(node, f"{len(given)} operands", f"{op.name} takes {len(declared)}")
    for index, operand in enumerate(declared):
        absent = index >= len(given) or given[index] is None
        if absent and not operand.optional:
            raise _fail(node, f"operand '{operand.name}' is missing")
    if variadic and any(v is None for v in given[len(declared) - 1 :]):
        raise _fail(node, f"an operand of '{declared[-1].name}' is missing")


def _check_attrs(node: GraphNode, op: OpDef) -> None:
    kinds = {a.name: a.type for a in op.attrs}
    if len(node.attr_map) != len(node.attrs):
        raise _fail(node, "an attribute is given twice", code="E203")
    for name, value in opdef.complete_attrs(op, node.attr_map, node.loc).items():
        if not _ATTR_TESTS[kinds[name]](value):
            notes = (f"expected {kinds[name]}", f"got {value!r}")
            raise _fail(node, f"bad attribute '{name}'", *notes, code="E203")


def _check_types(node: GraphNode, scope: _Scope) -> None:
    call = opdef.call_of(node, scope.constants)
    inferred = call.op.infer(call)
    declared = tuple(v.type for v in node.outputs)
    if inferred != declared:
        notes = (
            f"expected {', '.join(map(str, inferred))}",
            f"got {', '.join(map(str, declared))}",
        )
        raise _fail(node, "the result types are not those the operands give", *notes, code="E201")
