"""A graph as a file of the model language, with the contents of its parameters."""

from __future__ import annotations

import json

from aisc.frontend.lang.formatting import formatted
from aisc.frontend.lang.operators import names as operator_names
from aisc.frontend.lang.printing.body import Body
from aisc.frontend.lang.printing.function import Function, Module, blobs_of
from aisc.frontend.lang.printing.literals import Array
from aisc.frontend.lang.printing.names import Names, identifier
from aisc.frontend.lang.printing.sizes import Sizes
from aisc.frontend.lang.printing.wrapping import WIDTH, wrapped
from aisc.frontend.lang.printing.writing import write
from aisc.ir.arith.poly import Dim, sole_symbol
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.graph.core import Graph, Value
from aisc.ir.types import MAX_SIZE


@dataclass(frozen=True, slots=True)
class Printed:
    """`text`: of the file; `weights`: what its file of weights must hold, by path."""

    text: str
    weights: dict[str, Array]


def printed(graph: Graph, weights: str, *, exact: bool = True) -> Printed:
    """A graph in the model language; `weights` is what the file of its parameters is called.

    exact: reading the text gives the nodes in their order. Otherwise constants may stand elsewhere,
    where a person would write them, and equal ones be written again. Raises ``CompileError``: E102
    for a graph that passes have changed into what no front end gives, or whose inputs have sizes
    that none of them names.
    """
    _require_plain(graph)
    module = Module(exact, blobs_of(graph), Names(operator_names()))
    name = module.names.exactly(graph.name or "main")
    names = Names()
    fn = Function(module, [()], names, Sizes(names))
    formals = _inputs(fn, graph)
    dims = set(fn.sizes.texts.values())
    heads = {*dims, *(fn.texts[v] for v in graph.inputs)}
    results = _results(graph, names, heads)
    nodes = tuple(n for n in graph.nodes if exact or n.op != "constant")
    body = Body(fn, [nodes], graph.outputs, write)
    for v, wanted in zip(graph.outputs, results, strict=True):
        if wanted not in heads:
            body.wanted.setdefault(v, wanted)
    body.must_name = set(graph.outputs)
    write(body)
    types = [_type(fn, v) if dims.isdisjoint(results) else "" for v in graph.outputs]
    lines = _returned(body, graph, results)
    if fn.sizes.wanted:
        unnamed = ", ".join(dict.fromkeys(s.name for s in fn.sizes.wanted))
        raise error("E102", f"no input of the graph names a size: {unnamed}", loc=graph.loc)
    head = f"model {name}({', '.join(formals)})"
    if all(types):
        shown = ", ".join(types)
        head += f" -> {shown}" if len(head) + len(shown) < WIDTH - 8 else f" -> ({shown})"
    model = "\n".join([f"{head} {{", *lines, "}"])
    parts = [f"weights {json.dumps(weights)}"] if module.arrays else []
    text = "\n\n".join([*parts, *module.layers.values(), model]) + "\n"
    return Printed(wrapped(formatted(text)), module.arrays)


def _require_plain(graph: Graph) -> None:
    for node in graph.nodes:
        if node.op == "fused":
            message = "groups of operators have no form in the language"
            raise error("E102", message, "write the graph of a front end", loc=node.loc)
        for region in node.regions:
            _require_plain(region)


def _results(graph: Graph, names: Names, heads: set[str]) -> list[str]:
    """What results are called, which is what is returned: no other value has these names, but
    inputs and sizes (`heads`) may, until the end."""
    found: list[str] = []
    for name in graph.result_names:
        wanted = identifier(name)
        own = wanted in heads and wanted not in found
        found.append(wanted if own else names.fresh(wanted))
    return found


def _inputs(fn: Function, graph: Graph) -> list[str]:
    """The heads of inputs, which name the sizes."""
    own = [s for v in graph.inputs for d in v.type.shape if (s := sole_symbol(d)) is not None]
    for s in own:
        if s.name not in fn.sizes.texts:
            fn.sizes.define(s)
    found: list[str] = []
    seen: set[str] = set()
    for v in graph.inputs:
        dims = []
        for d in v.type.shape:
            dims.append(_bounded(fn, d, seen))
        fn.texts[v] = fn.names.exactly(v.name)
        found.append(f"{fn.texts[v]}: {v.type.dtype.name}[{', '.join(dims)}]")
    return found


def _bounded(fn: Function, d: Dim, seen: set[str]) -> str:
    """A size of an input, with its bounds where it is named first."""
    s = sole_symbol(d)
    text = fn.sizes.text(d)
    if s is None or s.name in seen or (s.lower, s.upper) == (0, None):
        return text
    seen.add(s.name)
    return f"{text} in {s.lower}..{(MAX_SIZE if s.upper is None else s.upper) + 1}"


def _type(fn: Function, v: Value) -> str:
    """The type of a result, where its sizes have names; one that stands alone needs no other."""
    if not all(fn.sizes.knows(d) for d in v.type.shape):
        return ""
    dims = []
    for d in v.type.shape:
        s = sole_symbol(d)
        dims.append(fn.sizes.text(d) if s is None else fn.sizes.texts[s.name])
    return f"{v.type.dtype.name}[{', '.join(dims)}]"


def _returned(body: Body, graph: Graph, results: list[str]) -> list[str]:
    """The lines of the model: results have their names."""
    fn = body.fn
    texts = [body.named(v) for v in graph.outputs]
    body.flush()
    changed = {name for text, name in zip(texts, results, strict=True) if text != name}
    for k, text in enumerate(texts):
        if text in changed and text != results[k]:  # an input whose name is a result's
            texts[k] = fn.names.fresh(f"old_{text}")
            body.lines.append(f"{texts[k]} = {text}")
    for text, name in zip(texts, results, strict=True):
        if text != name:
            body.lines.append(f"{name} = {text}")
    return [*fn.rendered(body.lines), f"return {', '.join(results)}"]
