"""Formulas that read formulas: elements of an enlarged tensor are computed where they are used.

before: ``v[i, r] = x[i + r]``, ``y[i] = sum[r](v[i, r] * w[r])``
after:  ``y[i] = sum[r](x[i + r] * w[r])``

A tensor of windows, or of all pairs, has more elements than what it is computed from: to write and
read it takes longer than to compute each element again, unless that is done more often than once
for each reader. What then remains is one formula, which may be an operator of the library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aisc.ir.arith.poly import Dim, bounds, product, sole_symbol, substitute, symbol, symbols
from aisc.ir.graph.core import GraphNode, Value
from aisc.ir.graph.opdef import OpCall, call_of
from aisc.ir.graph.ops.index import block_of, extent_of, formula, sizes_of
from aisc.ir.node import Node, walk
from aisc.ir.rewrite.rules import Match, rule
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Binary, Call, Cast, Expr, Load, Unary, Var, of_dim
from aisc.ir.tensor.func import Buffer, buffer
from aisc.ir.tensor.stmt import Block
from aisc.ir.tensor.visitor import substitute as substitute_vars
from aisc.ir.tensor.visitor import transform
from aisc.ir.text.printer import print_ir
from aisc.passes.graph.formulas.values import operators

# A formula with more operators than this is not made larger.
MAX_COMPOSED = 48
MAX_READERS = 3


@rule("index")
def formula_reads_formula(m: Match) -> Sequence[Value] | None:
    """``index(index(x)) -> index(x)`` where the inner result has more elements than `x`."""
    for v in dict.fromkeys(m.node.input_values):
        inner = m.producer(v, "index")
        if inner is None or m.uses(v) > MAX_READERS:
            continue
        body = _composed(m.node, inner)
        if body is not None:
            inputs, text = body
            return (m.add("index", inputs, {"body": text}, (inner,)),)
    return None


def _composed(node: GraphNode, inner: GraphNode) -> tuple[list[Value], str] | None:
    """The operands and the body of `node` with the value of `inner` in the place of its elements;
    nothing where that would not be faster, or sizes are only tested by the run."""
    outer, below = _Part.of(node), _Part.of(inner)
    if outer is None or below is None or below.block.combiner or not is_enlarged(inner):
        return None
    plain = not any(_is_work(n) for n in walk(below.value))
    points = product(tuple(extent_of(it, outer.sizes) for it in outer.block.iters))
    if not plain and not _is_at_most(points, product(inner.output.type.shape)):
        return None
    inputs = [v for v in dict.fromkeys((*node.input_values, *inner.input_values))
              if v is not inner.output]  # fmt: skip
    sole = {s.name for v in inputs for d in v.type.shape if (s := sole_symbol(d)) is not None}
    used = {s.name for v in (*inputs, node.output) for d in v.type.shape for s in symbols(d)}
    if not used <= sole:
        return None
    buffers = {v: buffer(f"x{k}", v.type.dtype, v.type.shape, "input")
               for k, v in enumerate(inputs)}  # fmt: skip
    value = _joined(outer, below, inner.output, buffers)
    return (inputs, _text(outer, value, buffers)) if operators(value) <= MAX_COMPOSED else None


class _Part:
    """One of the two formulas: its operands by buffer, its sizes by their names in it."""

    def __init__(self, call: OpCall, inputs: Sequence[Value], sizes: dict[str, Dim]) -> None:
        func = formula(str(call.attrs["body"]))
        operands = [b for b in func.params if b.role == "input"]
        self.operands: dict[Buffer, Value] = dict(zip(operands, inputs, strict=True))
        (self.result,) = (b for b in func.params if b.role == "output")
        self.block, value = block_of(func)
        self.sizes = sizes
        names = {Var(name): of_dim(d) for name, d in sizes.items()}
        self.value: Expr = substitute_vars(value, names)

    @classmethod
    def of(cls, node: GraphNode) -> _Part | None:
        """The formula of a node; nothing where the run must test that its operands fit."""
        call = call_of(node)
        sizes, unsure = sizes_of(call, formula(str(call.attrs["body"])))
        return None if unsure else cls(call, node.input_values, sizes)


def is_enlarged(node: GraphNode) -> bool:
    """Whether a result has more elements than what it is computed from."""
    read: Dim = sum((v.type.size for v in dict.fromkeys(node.input_values)), start=0)
    return _is_at_most(read + 1, node.output.type.size)


def _is_at_most(a: Dim, b: Dim) -> bool:
    """Whether one number is not above another, if sizes that are not known are 2 or more."""
    rest = b - a
    names = {s.name for s in symbols(rest)}
    low, _ = bounds(substitute(rest, {n: symbol(n, 0) + 2 for n in names}))
    return low >= 0


def _is_work(n: Node) -> bool:
    """Whether a part of an expression computes, and does not only choose or move."""
    if isinstance(n, Binary):
        return n.dtype.is_float
    return isinstance(n, Call) or (isinstance(n, Unary | Cast) and n.dtype.is_float)


def _joined(outer: _Part, below: _Part, result: Value, buffers: dict[Value, Buffer]) -> Expr:
    """The value of `outer` over the buffers of both."""

    def own(n: Node) -> Node:
        if isinstance(n, Load) and n.buffer in below.operands:
            return replace(n, buffer=buffers[below.operands[n.buffer]])
        return n

    inlined = transform(below.value, own)

    def put(n: Node) -> Node:
        if not isinstance(n, Load) or n.buffer not in outer.operands:
            return n
        value = outer.operands[n.buffer]
        if value is not result:
            return replace(n, buffer=buffers[value])
        pairs = zip((it.var for it in below.block.iters), n.indices, strict=True)
        return substitute_vars(inlined, dict(pairs))

    return transform(outer.value, put)


def _text(outer: _Part, value: Expr, buffers: dict[Value, Buffer]) -> str:
    """The function with a block that computes `value`."""
    shape = tuple(substitute(d, outer.sizes) for d in outer.result.shape)
    out = buffer("result", outer.result.dtype, shape, "output")
    cb = ComputeBuilder()
    block: Block = outer.block

    def at(points: Sequence[Var]) -> Expr:
        pairs = zip((it.var for it in block.iters), points, strict=True)
        return substitute_vars(value, dict(pairs))

    if block.combiner:
        extents = [extent_of(it, outer.sizes) for it in block.iters if it.kind == "reduce"]
        cb.reduce(out, extents, block.combiner, lambda i, r: at((*i, *r)), "formula")
    else:
        cb.map(out, lambda *i: at(i), "formula")
    params = (*buffers.values(), out)
    names = sorted({s.name for b in params for d in b.shape for s in symbols(d)})
    return print_ir(cb.func("formula", params, tuple(map(Var, names))))
