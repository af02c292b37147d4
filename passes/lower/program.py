"""A partitioned graph becomes a Program: one kernel per distinct group, an entry that calls them.

before: ``%y = fused(%x, %w) {…}; return %y``
after:  ``program { kernel k0 {…}  entry(x, y, w) { call k0(x, w, y) } }``
Groups whose Funcs are equal up to the names of buffers share a kernel. Views become buffers over
the same storage (a common ``base``).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from aisc.ir.arith.poly import symbols
from aisc.ir.blob import Blob
from aisc.ir.graph.core import Graph, GraphNode, Value
from aisc.ir.tensor.expr import Var
from aisc.ir.tensor.func import Buffer, Func, Program, Role, buffer
from aisc.ir.tensor.stmt import Alloc, CallKernel, Copy, Stmt, seq
from aisc.ir.tensor.visitor import replace_buffers
from aisc.passes.lower.canonical import canonical
from aisc.passes.lower.group import lower_group


@dataclass(slots=True)
class _State:
    """What is known while the entry is being built."""

    graph: Graph
    buffers: dict[Value, Buffer] = field(default_factory=dict)
    constants: dict[Value, Blob] = field(default_factory=dict)
    weights: dict[str, Blob] = field(default_factory=dict)
    params: list[Buffer] = field(default_factory=list)
    body: list[Stmt] = field(default_factory=list)
    kernels: dict[Func, str] = field(default_factory=dict)
    locs: list[Func] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)

    def fresh(self, hint: str) -> str:
        """A name that no buffer of the entry has."""
        name = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in hint)
        name = name if name and not name[0].isdigit() else f"v{name}"
        count = self.names.get(name, 0)
        self.names[name] = count + 1
        return name if count == 0 else self.fresh(f"{name}_{count}")

    def declare(self, v: Value, role: Role) -> Buffer:
        """A buffer for a value."""
        b = buffer(self.fresh(v.name), v.type.dtype, v.type.shape, role=role)
        self.buffers[v] = b
        return b


def lower_graph(graph: Graph, target: str = "cpu") -> Program:
    """The Program of a partitioned graph; its entry's parameters are inputs, outputs, weights."""
    st = _State(graph, constants=graph.constants())
    for v in graph.inputs:
        st.params.append(st.declare(v, "input"))
    results = _declare_outputs(st)
    for node in graph.nodes:
        if node.op == "constant":
            continue
        if node.op == "fused":
            _call(st, node, target)
        else:
            _view(st, node)
    for v, out in results:
        if st.buffers.get(v) is not out:
            st.body.append(Copy(_use(st, v), out))
    dims = sorted({s.name for b in st.params for d in b.shape for s in symbols(d)})
    params, body = _share_storage(st)
    entry = Func("entry", params, tuple(Var(n) for n in dims), body, (), target, graph.loc)
    return Program(graph.name, tuple(st.locs), entry, dict(st.weights))


def _share_storage(st: _State) -> tuple[tuple[Buffer, ...], Stmt]:
    """Parameters and body in which a buffer that has views names its own storage, as they do."""
    bases = {b.base for b in st.buffers.values() if b.base}
    roots = {
        b: replace(b, base=b.name)
        for b in (*st.params, *st.buffers.values())
        if b.name in bases and not b.base
    }
    body = replace_buffers(seq(*st.body), roots)
    return tuple(roots.get(b, b) for b in st.params), body


def _declare_outputs(st: _State) -> list[tuple[Value, Buffer]]:
    """Output parameters; a value computed by a kernel is written to its output directly."""
    computed = {v for n in st.graph.nodes if n.op == "fused" for v in n.outputs}
    results: list[tuple[Value, Buffer]] = []
    for v, name in zip(st.graph.outputs, st.graph.result_names, strict=True):
        b = buffer(st.fresh(name), v.type.dtype, v.type.shape, role="output")
        st.params.append(b)
        results.append((v, b))
        if v in computed and v not in st.buffers:
            st.buffers[v] = b
    return results


def _use(st: _State, v: Value) -> Buffer:
    """The buffer of a value; a constant becomes a weight parameter when it is first used."""
    if v not in st.buffers:
        b = st.declare(v, "weight")
        st.params.append(b)
        st.weights[b.name] = st.constants[v]
    return st.buffers[v]


def _view(st: _State, node: GraphNode) -> None:
    """Another shape over the same storage."""
    v = node.inputs[0]
    assert v is not None, "a view has an input"
    source = _use(st, v)
    out = node.output
    name = st.fresh(out.name)
    shaped = buffer(name, out.type.dtype, out.type.shape, role=source.role)
    view = replace(shaped, base=source.base or source.name, alias_set=source.alias_set)
    st.buffers[out] = view
    st.body.append(Alloc(view))


def _call(st: _State, node: GraphNode, target: str) -> None:
    values = node.input_values
    weights = frozenset(k for k, v in enumerate(values) if _is_weight(st, v))
    func = lower_group("kernel", node.regions[0], weights, node.loc, target)
    name = _kernel_name(st, func, node)
    args = [_use(st, v) for v in values]
    for v in node.outputs:
        if v not in st.buffers:
            st.body.append(Alloc(st.declare(v, "scratch")))
        args.append(st.buffers[v])
    st.body.append(CallKernel(name, tuple(args), func.dims))


def _is_weight(st: _State, v: Value) -> bool:
    return v in st.constants or (v in st.buffers and st.buffers[v].role == "weight")


def _kernel_name(st: _State, func: Func, node: GraphNode) -> str:
    """The name of the kernel equal to `func`, made when there is none."""
    key = canonical(func)
    if key not in st.kernels:
        ops = [n.op for n in node.regions[0].nodes if n.op != "constant"]
        stem = "_".join(ops[:3])
        name = f"k{len(st.kernels)}_{stem}"
        st.kernels[key] = name
        st.locs.append(replace(func, name=name))
    return st.kernels[key]
