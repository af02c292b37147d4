"""The text form of graphs: one node a line, constants as ``@blob<sha256>``."""

from __future__ import annotations

from collections.abc import Iterator

from aisc.ir.arith.poly import SymDim
from aisc.ir.graph.core import Graph, GraphNode, Value, attribute_symbols
from aisc.ir.text import lexical
from aisc.ir.types import TensorType


def type_text(t: TensorType) -> str:
    """A tensor type, e.g. ``f32[n, 3]``."""
    return f"{t.dtype.name}{lexical.dims_list(t.shape)}"


def print_graph(g: Graph) -> str:
    """The graph as text, ending in a newline; deterministic, without locations."""
    return "\n".join(_graph(g, "")) + "\n"


def _graph(g: Graph, indent: str) -> Iterator[str]:
    names = _value_names(g)
    inputs = ", ".join(f"{names[v]}: {type_text(v.type)}" for v in g.inputs)
    results = ""
    renamed = any(names.get(v) != lexical.value_name(v.name) for v in g.outputs)
    if g.output_names or renamed:
        results = f" -> ({', '.join(map(lexical.quote, g.result_names))})"
    clause = lexical.symbols_clause(_symbols(g))
    yield f"{indent}graph @{lexical.word(g.name)}{clause}({inputs}){results} {{"
    for node in g.nodes:
        yield from _node(node, names, indent + "  ")
    values = ", ".join(names.get(v, lexical.value_name(v.name)) for v in g.outputs)
    yield f"{indent}  return {values}".rstrip()
    yield indent + "}"


def _node(node: GraphNode, names: dict[Value, str], indent: str) -> Iterator[str]:
    results = ", ".join(f"{names[v]}: {type_text(v.type)}" for v in node.outputs)
    operands = ", ".join(
        "_" if v is None else names.get(v, lexical.value_name(v.name)) for v in node.inputs
    )
    line = f"{results} = " if results else ""
    op = lexical.word(node.op)
    if not results and op in ("return", "regions"):  # words that may follow the line before
        op = lexical.quote(op)
    line += f"{op}({operands})"
    if node.attrs:
        line += f" {lexical.attributes(node.attrs)}"
    if not node.regions:
        yield indent + line
        return
    yield f"{indent}{line} regions {{"
    for region in node.regions:
        yield from _graph(region, indent + "  ")
    yield indent + "}"


def _value_names(g: Graph) -> dict[Value, str]:
    """Printed names: hints, made unique where a graph repeats one."""
    names: dict[Value, str] = {}
    taken: set[str] = set()
    for v in g.values():
        text, count = v.name, 0
        while text in taken:
            count += 1
            text = f"{v.name}_{count}"
        taken.add(text)
        names[v] = lexical.value_name(text)
    return names


def _symbols(g: Graph) -> Iterator[SymDim]:
    for v in g.values():
        yield from v.type.symbols
    for node in g.nodes:
        for _, value in node.attrs:
            yield from attribute_symbols(value)
