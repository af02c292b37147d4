"""What an editor is told about a file of the model language, apart from any protocol.

Lines and columns count from 1, columns in characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from aisc.frontend.lang import operators
from aisc.frontend.lang import syntax as s
from aisc.frontend.lang.analysis import Analysis
from aisc.frontend.lang.formulas import REDUCTIONS
from aisc.frontend.lang.mentions import Mention
from aisc.frontend.lang.parameters import STARTS
from aisc.frontend.lang.reading import keywords, type_names
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import Diagnostic
from aisc.ir.graph import opdef
from aisc.ir.location import Loc

PROPERTIES: Mapping[str, str] = {
    "shape": "the sizes, a list", "rank": "the number of axes", "dtype": "the element type",
}  # fmt: skip
_HEAD = re.compile(r"^[ \t]*(?:layer|model)[ \t]+([A-Za-z_]\w*)", re.MULTILINE)
_CALL = re.compile(r"([A-Za-z_]\w*)?\(|\)")
CompletionKind = Literal["operator", "layer", "name", "keyword", "type", "argument", "property"]


@dataclass(frozen=True, slots=True)
class Completion:
    """A word that may stand at a place. `detail`: its signature or type; `doc`: what it means."""

    word: str
    kind: CompletionKind
    detail: str = ""
    doc: str = ""


def message(d: Diagnostic) -> str:
    """A diagnostic without the line that it speaks of, which an editor shows itself."""
    notes = (n for n in d.notes if not n.endswith("^"))
    places = [f"in {d.loc.parent}"] if d.loc.parent else []
    return "\n".join((d.message, *notes, *places))


def place(d: Diagnostic, file: str) -> tuple[int, int]:
    """Where a diagnostic is shown in a file: what is wrong in another one at the call of that."""
    loc: Loc | None = d.loc
    while loc is not None and loc.file != file:
        loc = loc.parent
    return (max(1, loc.line), max(1, loc.column)) if loc is not None else (1, 1)


# -- hover -----------------------------------------------------------------------------------------
def hover(found: Analysis, m: Mention) -> str:
    """A name in Markdown: its type, and what is written about an operator."""
    types = found.types_of(m)
    if m.kind == "operator":
        return _operator(m.name, types)
    if m.kind in ("layer", "model"):
        layer = found.layers.get(m.name)
        gives = f"\n\ngives `{types[0]}`" if types and not m.defines else ""
        return _code(signature(layer)) + gives if layer is not None else m.name
    if m.kind == "reduction":
        return f"`{m.name}[i](…)`: a reduction of a formula over indices"
    if m.kind == "start":
        return f"`{m.name}`: the start of a parameter"
    if m.kind == "argument":
        return _argument(found, m)
    if m.kind == "file":
        return f"the file `{m.name}`"
    lines = [f"{m.name}: {t}" for t in types] or [m.name]
    return f"{_code(*lines)}\n\n{m.kind}"


def _code(*lines: str) -> str:
    return "\n".join(("```aim", *lines, "```"))


def _operator(name: str, types: Sequence[str]) -> str:
    if not operators.exists(name):
        return f"`{name}`"
    gives = f"\n\ngives `{' | '.join(types[:4])}`" if types else ""
    return f"{_code(operator_signature(name))}\n\n{opdef.get(name).doc}{gives}"


def _argument(found: Analysis, m: Mention) -> str:
    layer = found.layers.get(m.of)
    for f in layer.formals if layer is not None else ():
        if f.name == m.name:
            return f"{_code(_formal(f))}\n\nof layer `{m.of}`"
    if operators.exists(m.of):
        for a in opdef.get(m.of).attrs:
            if a.name == m.name:
                return f"{_code(_attribute(a))}\n\nof operator `{m.of}`"
    return f"`{m.name}`"


def operator_signature(name: str) -> str:
    """``softmax(x, axis: int = -1)``."""
    op = opdef.get(name)
    parts = []
    for o in op.inputs:
        parts.append(f"{o.name}..." if o.variadic else f"[{o.name}]" if o.optional else o.name)
    return f"{name}({', '.join((*parts, *map(_attribute, op.attrs)))})"


def _attribute(a: opdef.Attr) -> str:
    kind = " or ".join(a.choices) or a.type
    return f"{a.name}: {kind}" if a.default is None else f"{a.name}: {kind} = {_value(a.default)}"


def _value(x: object) -> str:
    return str(x).lower() if isinstance(x, bool) else str(x)


def signature(layer: s.Layer) -> str:
    """``layer dense(x: f32[n, k], out: int) -> f32[n, out]``."""
    results = ", ".join(map(_type, layer.results))
    arrow = f" -> {results}" if results else ""
    return f"{layer.kind} {layer.name}({', '.join(map(_formal, layer.formals))}){arrow}"


def _formal(f: s.Formal) -> str:
    value = f.default.value if isinstance(f.default, s.Literal) else "…"
    return f"{f.name}: {_type(f.type)}" + ("" if f.default is None else f" = {_value(value)}")


def _type(t: s.Type) -> str:
    if t.dims is None:
        return t.dtype
    sizes = (d.text if isinstance(d, s.Name) else str(d.value) if isinstance(d, s.Literal) else "…"
             for d in t.dims)  # fmt: skip
    return f"{t.dtype}[{', '.join(sizes)}]"


# -- completion ------------------------------------------------------------------------------------
def completions(found: Analysis, text: str, line: int, column: int) -> Iterator[Completion]:
    """Words that may stand at a place. `found` may be of a text before, as one that is being
    written is often none."""
    lines = text.split("\n")
    before = lines[line - 1][: column - 1] if line <= len(lines) else ""
    if before.count('"') % 2 or "#" in before:
        return
    start = re.sub(r"\w*$", "", before)
    if re.search(r"\w\.$", start) and not start.endswith(".."):
        for name, doc in PROPERTIES.items():
            yield Completion(name, "property", doc=doc)
        return
    above = "\n".join((*lines[: line - 1], start))
    yield from _arguments(found, above)
    yield from _names(found, above)
    for layer in found.layers.values():
        if layer.kind == "layer":
            yield Completion(layer.name, "layer", signature(layer))
    for name in operators.names():
        yield Completion(name, "operator", operator_signature(name), opdef.get(name).doc)
    for name in STARTS:
        yield Completion(name, "operator", "the start of a parameter")
    for name in REDUCTIONS:
        yield Completion(name, "operator", f"{name}[i](…)", "a reduction of a formula")
    for word in keywords():
        yield Completion(word, "keyword")
    for word in type_names():
        yield Completion(word, "type")


def _names(found: Analysis, above: str) -> Iterator[Completion]:
    """Names that the layer around a place defines."""
    heads = _HEAD.findall(above)
    seen: dict[str, Mention] = {}
    for m in found.mentions:
        if m.defines and heads and m.home == heads[-1] and m.kind not in ("layer", "model"):
            seen[m.name] = m
    for name, m in seen.items():
        types = found.types_of(m)
        yield Completion(name, "name", types[0] if types else m.kind)


def _arguments(found: Analysis, above: str) -> Iterator[Completion]:
    """Names of arguments of the call that is open at a place."""
    opened: list[str] = []
    for match in _CALL.finditer(above):
        if match[0] == ")":
            del opened[-1:]
        else:
            opened.append(match[1] or "")
    name = opened[-1] if opened else ""
    if name in found.layers:
        for f in found.layers[name].formals:
            yield Completion(f"{f.name}=", "argument", _formal(f))
    elif operators.exists(name):
        for a in opdef.get(name).attrs:
            yield Completion(f"{a.name}=", "argument", _attribute(a))
