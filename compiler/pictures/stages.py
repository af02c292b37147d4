"""What became of a model, as data for pictures: its graph at each stage, memory, times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any

from aisc.driver.api import Targets, products
from aisc.ir.arith.poly import Dim, evaluate, product
from aisc.ir.blob import Blob
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import InternalError
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.location import Loc
from aisc.ir.node import walk
from aisc.ir.tensor.func import Buffer, Func, Program
from aisc.ir.tensor.stmt import Alloc, CallKernel, Copy, HostCall, If, Seq, Stmt, While
from aisc.ir.tensor.visitor import buffers_of
from aisc.passes.schedule.schedule import trace_from_json

MAX_TEXT = 120  # characters of an attribute


@dataclass(slots=True)
class Item:
    """A node of a picture.

    block: the block of the model in which it stands, by its parts; types: of its results; sources:
    what the model calls it; weights: the constants that it reads; inside: operators of a group,
    with their types; kernel and target: what computes a group; variant: the steps by which its
    algorithm differs from the plain loops; layouts: its operands as they lie in memory; moved:
    bytes that it reads and writes; after: the items that it reads.
    """

    id: int
    op: str
    name: str
    block: tuple[str, ...]
    types: list[str]
    sources: list[str]
    place: str = ""
    attrs: dict[str, str] = field(default_factory=dict)
    weights: list[str] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    kernel: str = ""
    target: str = ""
    variant: str = ""
    layouts: list[str] = field(default_factory=list)
    moved: int | None = None
    after: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Span:
    """Memory of the plan: from which step to which, where, and how much."""

    name: str
    first: int
    last: int
    offset: int
    size: int


@dataclass(slots=True)
class Shown:
    """All that is shown of a model.

    stages: items by the name of a stage; steps: what the entry does, in order; memory: nothing
    where sizes are open; times: seconds by kernel, where there is a profile.
    """

    name: str
    target: str
    inputs: list[str]
    outputs: list[str]
    stages: dict[str, list[Item]]
    steps: list[str]
    memory: list[Span]
    arena: int | None
    times: list[dict[str, Any]] = field(default_factory=list)


def shown(model: Any, target: Targets, choices: Mapping[str, Any], code: bool = True) -> Shown:
    """Compile a model and collect what became of it; without its `code` only its graphs."""
    stop = {"load": False} if code else {"stop_after": "fuse"}
    compiled, found = products(model, target, **{**choices, **stop})
    program, written, fused = compiled.product, found.get("specialize"), found.get("fuse")
    if not (isinstance(written, Graph) and isinstance(fused, Graph)):
        raise InternalError("a compilation has these products")
    optimised = found.get("legalize")
    stages = {"as written": _items(written, None)}
    if isinstance(optimised, Graph):
        stages["optimised"] = _items(optimised, None)
    ports = (
        [repr(v)[1:] for v in written.inputs],
        [f"{n}: {v.type}" for n, v in zip(written.result_names, written.outputs, strict=True)],
    )
    if not isinstance(program, Program):
        stages["kernels"] = _items(fused, None)
        return Shown(written.name, str(target), *ports, stages, [], [], None)
    stages["kernels"] = _items(fused, program)
    steps = list(_steps(program.entry.body))
    memory = _memory(steps, program) if all(map(_is_fixed, _scratch(program))) else []
    arena = None if compiled.plan is None else compiled.plan.arena
    words = [_words(s) for s in steps]
    return Shown(written.name, program.entry.target, *ports, stages, words, memory, arena)


# --- graphs ---------------------------------------------------------------------------------------
def _items(graph: Graph, program: Program | None) -> list[Item]:
    """The nodes of a graph and of its regions, operands first; constants are weights of what reads
    them. `program`: what computes its groups."""
    made: list[Item] = []
    homes: dict[Value, int] = {}
    for v in graph.inputs:
        homes[v] = len(made)
        made.append(Item(len(made), "input", v.name, (), [str(v.type)], []))
    _append(graph, (), made, homes)
    if program is not None:
        _name_kernels(graph, made, homes, program)
    for v, name in zip(graph.outputs, graph.result_names, strict=True):
        after = [homes[v]] if v in homes else []
        made.append(Item(len(made), "output", name, (), [str(v.type)], [], after=after))
    return made


def _append(
    graph: Graph,
    outer: tuple[str, ...],
    made: list[Item],
    homes: dict[Value, int],
) -> None:
    for node in graph.nodes:
        if node.op == "constant":
            continue
        item = _item(len(made), node, outer)
        item.after = sorted({homes[v] for v in node.input_values if v in homes})
        item.weights = [repr(v)[1:] for v in node.input_values if v not in homes]
        made.append(item)
        homes.update(dict.fromkeys(node.outputs, item.id))
        if node.op == "fused":
            continue
        for k, region in enumerate(node.regions):
            inner = (
                *item.block,
                f"{node.op} {item.name}" + (f" {k}" if len(node.regions) > 1 else ""),
            )
            for v in region.inputs:
                homes[v] = item.id
            _append(region, inner, made, homes)


def _name_kernels(
    graph: Graph, made: Sequence[Item], homes: Mapping[Value, int], program: Program
) -> None:
    """Say of groups which kernels compute them, and how."""
    calls = {s.loc: s for s in walk(program.entry.body) if isinstance(s, CallKernel)}
    variants = {k.name: _variant(k) for k in program.kernels}
    for node in _groups(graph):
        call = calls.get(node.loc)
        if call is not None:
            item = made[homes[node.outputs[0]]]
            item.kernel, item.variant = call.kernel, variants.get(call.kernel, "")
            item.layouts = [_layout(b) for b in call.args]


def _groups(graph: Graph) -> Iterator[GraphNode]:
    for node in graph.nodes:
        if node.op == "fused":
            yield node
        else:
            for region in node.regions:
                yield from _groups(region)


def _variant(kernel: Func) -> str:
    """The steps that changed what a kernel computes, in words."""
    steps = trace_from_json(str(kernel.attr("algorithm", "[]")))
    return ", ".join(dict.fromkeys(s.primitive.replace("_", " ") for s in steps))


def _layout(b: Buffer) -> str:
    """Shape, and the order in which axes lie in memory where it is another one."""
    strides = [s if isinstance(s, int) else None for s in b.strides]
    known = [s for s in strides if s is not None]
    order = ""
    if len(known) == b.rank and known != sorted(known, reverse=True):
        axes = sorted(range(b.rank), key=lambda k: -known[k])
        order = f", axes {' '.join(map(str, axes))} in memory"
    where = f" in {b.base}" if b.base else ""
    return f"{b.name}: {b.type}{order}{where}"


def _item(number: int, node: GraphNode, outer: tuple[str, ...]) -> Item:
    sources = list(node.loc.nodes)
    parts = _parts(sources[0]) if sources else []
    name = parts[-1] if parts else node.outputs[0].name if node.outputs else node.op
    block = (*outer, *parts[:-1])
    item = Item(
        number, node.op, name, block, [str(v.type) for v in node.outputs], sources, _place(node.loc)
    )
    item.attrs = {k: _text(v) for k, v in node.attrs if k != "value"}
    if node.op == "fused":
        inside = [n for n in node.regions[0].nodes if n.op != "constant"]
        item.inside = [f"{n.op} {', '.join(str(v.type) for v in n.outputs)}" for n in inside]
        item.op = " ".join(n.op for n in inside[:4]) + (" …" if len(inside) > 4 else "")
        item.target = str(node.attr_map.get("target", "")) or "host"
    sizes = [
        product(v.type.shape) * v.type.dtype.bytes for v in (*node.input_values, *node.outputs)
    ]
    known = [d for d in sizes if isinstance(d, int)]
    item.moved = sum(known) if len(known) == len(sizes) else None
    return item


def _parts(name: str) -> list[str]:
    """The blocks in a name of the model: ``/layer1/conv`` and ``layer1.conv`` have one."""
    separator = "/" if "/" in name else "."
    return [p for p in name.split(separator) if p]


def _place(loc: Loc) -> str:
    """Where in a file, if it is text."""
    spots = [p for p in loc.parts or (loc,) if p.line]
    return f"{spots[0].file}:{spots[0].line}" if spots else ""


def _text(value: object) -> str:
    if isinstance(value, Blob):
        return str(value.type)
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


# --- the entry ------------------------------------------------------------------------------------
def _steps(s: Stmt) -> Iterator[Stmt]:
    """What the entry does, in the order in which it stands."""
    if isinstance(s, Seq):
        for x in s.stmts:
            yield from _steps(x)
    elif isinstance(s, If):
        yield from _steps(s.then)
        if s.other is not None:
            yield from _steps(s.other)
    elif isinstance(s, While):
        yield from _steps(s.body)
    elif isinstance(s, CallKernel | Copy | HostCall):
        yield s


def _words(s: Stmt) -> str:
    if isinstance(s, CallKernel):
        return s.kernel
    return f"copy to {s.dst.name}" if isinstance(s, Copy) else "host"


def _scratch(program: Program) -> list[Buffer]:
    """Buffers of the entry that the plan has given a place."""
    return [n.buffer for n in walk(program.entry.body) if isinstance(n, Alloc) and n.buffer.base]


def _is_fixed(b: Buffer) -> bool:
    """Whether the place and the size of a buffer are known; that of a turn of a loop is not."""
    sizes: tuple[Dim, ...] = (b.offset, *b.shape)
    return all(isinstance(d, int) for d in sizes)


def _memory(steps: Sequence[Stmt], program: Program) -> list[Span]:
    """Storage over time: buffers with their views, from the first use to the last, in steps of the
    entry."""
    spans: dict[str, Span] = {}
    for b in _scratch(program):
        low, size = int(evaluate(b.offset, {})), int(evaluate(b.bytes, {}))
        span = spans.setdefault(b.alias_set, Span(b.name, len(steps), -1, low, size))
        high = max(span.offset + span.size, low + size)
        span.offset = min(span.offset, low)
        span.size = high - span.offset
    for k, s in enumerate(steps):
        for b in buffers_of(s):
            if b.alias_set in spans:
                span = spans[b.alias_set]
                span.first, span.last = min(span.first, k), max(span.last, k)
    return [s for s in spans.values() if s.last >= 0 and s.size]
