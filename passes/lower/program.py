"""A partitioned graph becomes a Program: one kernel per distinct group, an entry that calls them.

before: ``%y = fused(%x, %w) {…}; return %y``
after:  ``program { kernel k0 {…}  entry(x, y, w) { call k0(x, w, y) } }``
Groups whose Funcs are equal up to the names of buffers share a kernel. Views become buffers over
the same storage (a common ``base``); control operators become statements of the entry
(:mod:`aisc.passes.lower.control`); operators without native code become calls of the host.

Kernels of devices work on the memory of their target, whose name qualifies the space of a buffer
(``npu.global``). A value that is read in another memory than where it was made is copied there,
once; constants are parameters in the memory where they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from aisc.ir.arith.poly import Dim, symbols
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value, bound_symbols, defined_symbols
from aisc.ir.location import fuse
from aisc.ir.node import map_children, walk
from aisc.ir.tensor.expr import Var
from aisc.ir.tensor.func import Buffer, Func, Program, buffer, row_major
from aisc.ir.tensor.stmt import (
    Alloc,
    Block,
    CallKernel,
    Copy,
    HostCall,
    If,
    Seq,
    Stmt,
    While,
    seq,
)
from aisc.ir.tensor.visitor import buffers_of, replace_buffers
from aisc.passes.analysis.faults import can_fail
from aisc.passes.analysis.placement import target_of
from aisc.passes.analysis.places import reshaped, slice_start
from aisc.passes.analysis.views import is_view
from aisc.passes.lower.canonical import group_key
from aisc.passes.lower.control import lower_bind, lower_expect, lower_if, lower_loop
from aisc.passes.lower.group import lower_group
from aisc.passes.lower.parts import PARTS, places_of
from aisc.passes.lower.scalars import scalars_apart
from aisc.passes.lower.state import Lowered, State
from aisc.passes.lower.turns import with_turns

_CONTROL = {"bind_dims": lower_bind, "if": lower_if, "loop": lower_loop, "expect": lower_expect}


def lower_graph(graph: Graph, host: str = "cpu") -> Program:
    """The Program of a partitioned graph; its entry's parameters are inputs, outputs, weights.
    `host`: the target of the entry and of the groups that no device runs."""
    graph, st = scalars_apart(graph), State(host, lower_nodes)
    for v in graph.inputs:
        st.params.append(st.declare(v, "input"))
    st.dims = {s.name for v in graph.inputs for s in v.type.symbols}
    st.names.update(dict.fromkeys((*st.dims, *bound_symbols(graph)), 1))
    results = _declare_outputs(st, graph)
    lower_nodes(st, graph)
    for v, out in results:
        if st.buffers.get(v) is not out and st.given.get(v) is not out:
            st.allocate(out)
            st.body.append(Copy(st.lies(v), out))
    params, body = _share_storage(st)
    dims = tuple(Var(n) for n in sorted(st.dims))
    entry = Func("entry", params, dims, body, (), host, graph.loc)
    return with_turns(Program(graph.name, tuple(st.funcs), entry, dict(st.weights)))


def lower_nodes(st: State, graph: Graph) -> None:
    """Append the statements of a graph, or of a region."""
    st.constants.update(graph.constants())
    outer, st.places = st.places, places_of(graph, (*st.buffers, *st.given))
    for node in graph.nodes:
        if node.op == "constant":
            continue
        if node.op == "fused":
            _call(st, node)
        elif node.op in _CONTROL:
            _CONTROL[node.op](st, node)
        elif is_view(node):
            _view(st, node)
        elif node.op in PARTS:
            PARTS[node.op](st, node, _call)
        else:
            _host(st, node)
    st.places = outer


def _share_storage(st: State) -> tuple[tuple[Buffer, ...], Stmt]:
    """Parameters and body in which a buffer that has views names its own storage, as they do.
    Views that nothing uses are left out."""
    everything = dict.fromkeys((*st.params, *st.buffers.values(), *st.elsewhere, *st.views))
    bases = {b.base for b in everything if b.base}
    roots = {b: replace(b, base=b.name) for b in everything if b.name in bases and not b.base}
    whole = seq(*st.body)
    body = replace_buffers(_without_views(whole, buffers_of(whole)), roots)
    return tuple(roots.get(b, b) for b in st.params), body


def _without_views(s: Stmt, used: Mapping[Buffer, None]) -> Stmt:
    """`s` without declarations of views that are not used."""
    if isinstance(s, Seq):
        return seq(*(_without_views(x, used) for x in s.stmts if not _is_idle(x, used)))
    if isinstance(s, If | While):
        return map_children(s, lambda n: _without_views(n, used) if isinstance(n, Stmt) else n)
    return s


def _is_idle(s: Stmt, used: Mapping[Buffer, None]) -> bool:
    is_view = isinstance(s, Alloc) and s.buffer.base not in ("", s.buffer.name)
    return is_view and isinstance(s, Alloc) and s.buffer not in used


def _declare_outputs(st: State, graph: Graph) -> list[tuple[Value, Buffer]]:
    """Output parameters; what a kernel, a branch or a loop computes is written there directly."""
    made = ("fused", "if", "loop", "concat")
    on_host = (n for n in graph.nodes if n.op in made and not target_of(n))
    computed = {v for n in on_host for v in n.outputs}
    producers = graph.producers()
    results: list[tuple[Value, Buffer]] = []
    for v, name in zip(graph.outputs, graph.result_names, strict=True):
        b = buffer(st.fresh(name), v.type.dtype, v.type.shape, role="output")
        st.params.append(b)
        results.append((v, b))
        source = _origin(v, producers)
        if v in computed and v not in st.buffers:
            st.buffers[v] = b
        elif source in computed and source not in (*st.buffers, *graph.outputs) and _sized(st, v):
            st.buffers[source] = st.view(b, source.type, source.name)
            st.given[v] = b
    return results


def _sized(st: State, v: Value) -> bool:
    return all(s.name in st.dims for s in v.type.symbols)


def _origin(v: Value, producers: Mapping[Value, GraphNode]) -> Value:
    """The value that `v` is only another shape of."""
    while v in producers and producers[v].op == "reshape" and not opdef.size_checks(producers[v]):
        (v,) = producers[v].input_values
    return v


def _view(st: State, node: GraphNode) -> None:
    """Another shape over the same storage."""
    v = node.inputs[0]
    assert v is not None, "a view has an input"
    out = node.output
    st.require(node)
    source = st.lies(v)
    strides = row_major(v.type.shape) if source.is_dense else source.strides
    at: Dim = 0
    if node.op == "slice":
        at = slice_start(node, strides) * v.type.dtype.bytes
    after = None
    if not source.is_dense:
        sliced = node.op == "slice"
        after = strides if sliced else reshaped(v.type.shape, strides, out.type.shape)
        assert after is not None, f"{out} is no view of {source.name}"
    st.buffers[out] = st.view(source, out.type, out.name, at, after)


def _call(st: State, node: GraphNode) -> None:
    values, inner, target = node.input_values, node.regions[0].nodes, target_of(node)
    weights = frozenset(k for k, v in enumerate(values) if st.is_weight(v))
    for part in inner:
        st.require(part)
    args = [st.use(v, target) for v in values]
    results = [st.made_by(v, target) if target else st.result(v) for v in node.outputs]
    short = frozenset(k for k in weights if st.is_short(values[k]))
    made = _kernel(st, node, weights, short, (*args, *results))
    faults = fuse(inner[k].loc for k in made.reporting)
    st.body.append(CallKernel(made.name, (*args, *results), made.dims, node.loc, faults))
    for v, b in zip(node.outputs, results, strict=True):
        if target:
            st.deliver(v, b)


def _kernel(
    st: State,
    node: GraphNode,
    weights: frozenset[int],
    short: frozenset[int],
    args: tuple[Buffer, ...],
) -> Lowered:
    """The kernel of a group; equal groups, and groups that become equal functions, share one."""
    region, target = node.regions[0], target_of(node) or st.host
    strides = {k: b.strides for k, b in enumerate(args) if not b.is_dense}
    key = target, group_key(region, weights), short, tuple(strides.items())
    if key not in st.groups:
        func = lower_group("kernel", region, weights, node.loc, target, strides, short)
        ops = [n.op for n in region.nodes if n.op != "constant"]
        name = st.kernel(func, ops)
        st.groups[key] = Lowered(name, func.dims, _reporting(region, func))
    return st.groups[key]


def _reporting(region: Graph, func: Func) -> tuple[int, ...]:
    """The numbers of the nodes whose blocks may report an error."""
    blocks = [n for n in walk(func.body) if isinstance(n, Block)]
    locs = {b.loc for b in blocks if can_fail(b.body)}
    return tuple(k for k, n in enumerate(region.nodes) if n.loc in locs)


def _host(st: State, node: GraphNode) -> None:
    """A call of the host; one before it that gives the sizes, where they depend on data."""
    st.require(node)
    inputs = tuple(None if v is None else st.use(v) for v in node.inputs)
    binds = tuple(Var(s.name) for s in defined_symbols(node))
    known = [v for v in node.outputs if not any(symbols(d) for d in v.type.shape)]
    outputs = {v: st.result(v) for v in (known if binds else node.outputs)}
    if binds:
        sized = tuple(map(st.sized, node.outputs))
        st.body.append(HostCall(node.op, inputs, sized, node.attrs, binds, node.loc))
    results = tuple(outputs.get(v) or st.result(v) for v in node.outputs)
    st.body.append(HostCall(node.op, inputs, results, node.attrs, loc=node.loc))
