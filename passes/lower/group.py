"""One fused group becomes one Func: a naive loop nest per operator.

before: ``fused(%x, %w) { %a = matmul(%x, %w); return relu(%a) }``
after:  ``func k(x, w, y) { alloc a; for …: block matmul {…}  for …: block relu {…} }``
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from aisc.ir.arith.poly import Dim, symbols
from aisc.ir.blob import Blob
from aisc.ir.diagnostics import InternalError
from aisc.ir.graph import opdef
from aisc.ir.graph.core import Graph, GraphNode, Value, bound_symbols, used_symbols
from aisc.ir.location import UNKNOWN, Loc
from aisc.ir.names import identifier
from aisc.ir.node import Node, walk
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import ZERO, Expr, Load, Var, const
from aisc.ir.tensor.func import Buffer, Func, Role, buffer
from aisc.ir.tensor.stmt import Stmt
from aisc.ir.tensor.tree import map_blocks, with_regions
from aisc.ir.tensor.visitor import transform
from aisc.passes.lower.sequential import lower_sequential

NOTHING: Mapping[int, tuple[Dim, ...]] = {}


def lower_group(
    name: str,
    region: Graph,
    weights: frozenset[int],
    loc: Loc,
    target: str = "cpu",
    strides: Mapping[int, tuple[Dim, ...]] = NOTHING,
    short: frozenset[int] = frozenset(),
) -> Func:
    """The Func of a region. `weights` are the positions of inputs that are constants, `short` of
    those whose elements are in half the range of their type; `strides` are those of parameters that
    are not dense, by their positions."""
    cb = ComputeBuilder()
    table: dict[Value, Buffer] = {}
    params: list[Buffer] = []
    for k, v in enumerate(region.inputs):
        role: Role = "weight" if k in weights else "input"
        table[v] = _param(cb, v, role, strides.get(k))
        if k in short:
            table[v] = replace(table[v], most=v.type.dtype.half_range)
        params.append(table[v])
    for k, v in enumerate(region.outputs, len(params)):
        table[v] = _param(cb, v, "output", strides.get(k))
        params.append(table[v])
    scalars: dict[Buffer, Expr] = {}
    for node in region.nodes:
        _lower_node(cb, node, table, scalars)
    if scalars:
        cb.stmts = [_inline_scalars(s, scalars) for s in cb.stmts]
    dims = {s.name for b in params for d in (*b.shape, *b.strides) for s in symbols(d)}
    dims |= {s.name for node in region.nodes for s in used_symbols(node)} - bound_symbols(region)
    cb.loc = loc
    made = cb.func(name, params, tuple(map(Var, sorted(dims))), target=target)
    checks = [c.condition for node in region.nodes for c in opdef.size_checks(node)]
    return replace(made, requires=tuple(dict.fromkeys(checks)))


def _param(cb: ComputeBuilder, v: Value, role: Role, strides: tuple[Dim, ...] | None) -> Buffer:
    b = buffer(cb.fresh(identifier(v.name)), v.type.dtype, v.type.shape, role=role)
    return b if strides is None else replace(b, strides=strides)


def region_of(nodes: Sequence[GraphNode]) -> Graph:
    """The region that nodes would have if they were one group that gives what the last one does."""
    inside = {v for n in nodes for v in n.outputs}
    inputs = dict.fromkeys(v for n in nodes for v in n.input_values if v not in inside)
    return Graph("group", tuple(inputs), tuple(nodes), nodes[-1].outputs)


def as_func(region: Graph, target: str = "cpu") -> Func:
    """The Func of a region that is only looked at."""
    return lower_group("group", region, frozenset(), UNKNOWN, target)


def _lower_node(
    cb: ComputeBuilder,
    node: GraphNode,
    table: dict[Value, Buffer],
    scalars: dict[Buffer, Expr],
) -> None:
    if node.op == "constant":
        blob = node.attr("value")
        assert isinstance(blob, Blob), "constant without a blob"
        stand_in = buffer(cb.fresh(identifier(node.output.name)), blob.dtype, blob.type.shape)
        table[node.output] = stand_in
        scalars[stand_in] = const(blob.array.reshape(-1)[0].item(), blob.dtype)
        return
    definition, call = opdef.get(node.op), opdef.call_of(node)
    ins = [None if v is None else table[v] for v in node.inputs]
    outs = []
    for v in node.outputs:
        if v not in table:
            table[v] = cb.alloc(identifier(v.name), v.type.dtype, v.type.shape)
        outs.append(table[v])
    cb.loc = node.loc
    if node.op == "loop":
        lower_sequential(cb, node, ins, outs)
    elif definition.scalar is not None:
        _lower_map(cb, definition, call, ins, outs[0])
    elif definition.variants:
        next(iter(definition.variants.values())).compute(cb, call, ins, outs)
    else:
        raise InternalError(f"{node.op} has no compute definition")


def _lower_map(
    cb: ComputeBuilder,
    definition: opdef.OpDef,
    call: opdef.OpCall,
    ins: list[Buffer | None],
    out: Buffer,
) -> None:
    """An elementwise operator: operands are read at the broadcast place."""
    scalar = definition.scalar
    assert scalar is not None, "an elementwise operator"
    operands = [b for b in ins if b is not None]

    def value(*at: Expr) -> Expr:
        return scalar(call, [_broadcast(b, at, out) for b in operands])

    cb.map(out, value, definition.name)


def _broadcast(b: Buffer, at: tuple[Expr, ...], out: Buffer) -> Load:
    """The element of an operand for the place `at` of the result; a size of 1 is no broadcast
    where the result has it too, so that operands of its shape are read at its own iterators."""
    skip = len(at) - b.rank
    places = zip(b.shape, at[skip:], out.shape[skip:], strict=True)
    return Load(b, tuple(ZERO if d == 1 and n != 1 else i for d, i, n in places))


def _inline_scalars(stmt: Stmt, scalars: dict[Buffer, Expr]) -> Stmt:
    """Replace loads from one-element constants by their values, and derive regions again."""

    def swap(n: Node) -> Node:
        return scalars[n.buffer] if isinstance(n, Load) and n.buffer in scalars else n

    if not any(isinstance(n, Load) and n.buffer in scalars for n in walk(stmt)):
        return stmt
    return map_blocks(transform(stmt, swap), with_regions)
