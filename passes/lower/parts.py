"""Concats and slices that are no kernels: what is made in its place need not be copied.

before: ``%a = fused(…); %y = concat(%a, %x)``
after:  ``alloc y; alloc a: … base y; call k0(…, a); alloc y_1: … base y; call k1_copy(x, y_1)``

Where values lie is decided by :mod:`aisc.passes.analysis.places`; a part that has no place, such as
an input of the model, is copied into the result by one kernel for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from aisc.ir.arith.poly import symbols
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Load, Var
from aisc.ir.tensor.func import Buffer, Func, buffer, row_major
from aisc.ir.tensor.stmt import CallKernel
from aisc.passes.analysis.placement import target_of
from aisc.passes.analysis.places import Places, axis_of, has_none, slice_start, slice_steps
from aisc.passes.lower.state import State

Call = Callable[[State, GraphNode], None]


def places_of(graph: Graph, fixed: Collection[Value]) -> Places:
    """The places of what the kernels of a partitioned graph make; `fixed` has storage already."""
    bare = {n for n in graph.nodes if n.op in ("concat", "slice")}
    return Places(graph, _is_kernel, bare, frozenset(fixed))


def _is_kernel(node: GraphNode) -> bool:
    return node.op == "fused" and not target_of(node)


def lower_concat(st: State, node: GraphNode, call: Call) -> None:
    """Copy the parts that have no place in the result; all of them at once if none has."""
    places, out = st.places, node.output
    assert places is not None, "a graph is being lowered"
    some = [(v, at) for v, at in places.parts(node) if not has_none(v)]
    left = [(v, at) for v, at in some if not places.lies_in(node, v, at)]
    if len(left) == len(some):
        call(st, _alone(node))
        return
    st.require(node)
    whole, axis = st.result(out), axis_of(node)
    if not left:
        return
    sources = [st.use(v) for v, _ in left]
    parts = []
    for v, start in left:
        at = start * whole.strides[axis] * out.type.dtype.bytes
        parts.append(st.view(whole, v.type, v.name, at, whole.strides))
    weights = [st.is_weight(v) for v, _ in left]
    func = _copies(sources, parts, weights, node, st.host)
    name = st.kernel(func, ["concat"])
    st.body.append(CallKernel(name, (*sources, *parts), func.dims, node.loc))


def _copies(
    sources: Sequence[Buffer],
    parts: Sequence[Buffer],
    weights: Sequence[bool],
    node: GraphNode,
    host: str,
) -> Func:
    """A kernel that copies several buffers."""
    cb = ComputeBuilder()
    cb.loc = node.loc
    inputs = [
        replace(_param(b, f"x{k}"), role="weight" if w else "input")
        for k, (b, w) in enumerate(zip(sources, weights, strict=True))
    ]
    outputs = [replace(_param(b, f"y{k}"), role="output") for k, b in enumerate(parts)]
    for x, y in zip(inputs, outputs, strict=True):
        cb.map(y, lambda *at, x=x: Load(x, at), "concat")
    params = (*inputs, *outputs)
    dims = {s.name for b in params for d in (*b.shape, *b.strides) for s in symbols(d)}
    return cb.func("kernel", params, tuple(map(Var, sorted(dims))), target=host)


def _param(b: Buffer, name: str) -> Buffer:
    return replace(buffer(name, b.dtype, b.shape), strides=b.strides)


def lower_slice(st: State, node: GraphNode, call: Call) -> None:
    """A view with strides; a copy where something reads it that cannot take them."""
    (v,), out = node.input_values, node.output
    assert st.places is not None, "a graph is being lowered"
    source = st.lies(v)
    strides = row_major(v.type.shape) if source.is_dense else source.strides
    after = tuple(s * n for s, n in zip(strides, slice_steps(node), strict=True))
    if any(n < 0 for n in slice_steps(node)) or not st.places.reads_strided(out, after):
        call(st, _alone(node))
        return
    st.require(node)
    at = slice_start(node, strides) * v.type.dtype.bytes
    st.buffers[out] = st.view(source, out.type, out.name, at, after)


def _alone(node: GraphNode) -> GraphNode:
    """The group of one operator."""
    outer = dict.fromkeys(node.input_values)
    inner = {v: Value(v.name, v.type) for v in outer}
    out = Value(node.output.name, node.output.type)
    inside = replace(node, inputs=tuple(inner[v] for v in node.input_values), outputs=(out,))
    region = Graph("group", tuple(inner.values()), (inside,), (out,))
    return GraphNode("fused", tuple(outer), node.outputs, (), (region,), node.loc)


PARTS: Mapping[str, Callable[[State, GraphNode, Call], None]] = {
    "concat": lower_concat,
    "slice": lower_slice,
}
