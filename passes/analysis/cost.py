"""A rough count of the work of a kernel, to decide what is worth more than one thread.

The unit is a scalar operation of vector code; a byte of weights counts as one, since a core reads
about as many bytes from its second-level cache as it does operations in the same time.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

from aisc.ir.arith.poly import product
from aisc.ir.tensor.expr import Binary, Const, Expr, Var
from aisc.ir.tensor.stmt import Block, Stmt, Store
from aisc.ir.tensor.tree import places
from aisc.ir.tensor.visitor import size


def _per_point(block: Block) -> int:
    """Operations of one execution of a block; a multiply-add of a sum counts as two, since its
    operands are in registers when it matters."""
    body = block.body
    if block.combiner == "sum" and isinstance(body, Store) and isinstance(body.value, Binary):
        parts = body.value.a, body.value.b
        if any(isinstance(p, Binary) and p.op == "mul" for p in parts):
            return 2
    return size(body) // 4 + 1


_FOLD: Mapping[str, Callable[[int, int], int]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "min": min, "max": max,
    "floordiv": lambda a, b: a // b if b else 0, "mod": lambda a, b: a % b if b else 0,
}  # fmt: skip


def extent(e: Expr, sizes: Mapping[str, int], unknown: int = 1) -> int:
    """An extent for values of the dimensions by name; what is not among them is `unknown`."""
    if isinstance(e, Const):
        return int(e.value)
    if isinstance(e, Binary) and e.op in _FOLD:
        return _FOLD[e.op](extent(e.a, sizes, unknown), extent(e.b, sizes, unknown))
    return sizes.get(e.name, unknown) if isinstance(e, Var) else unknown


def operations(stmt: Stmt, unknown: int) -> int:
    """Scalar operations of a scheduled statement; symbolic dimensions count as `unknown`."""
    total = 0
    for place in places(stmt):
        work = _per_point(place.block)
        first = {f.var.name: 0 for f in place.loops}  # ranges that depend on others are longest
        for f in place.loops:
            work *= extent(f.extent, first, unknown)
        total += work
    return total


def work(stmt: Stmt, unknown: int) -> int:
    """What a scheduled statement costs: its operations, or the bytes of the weights it reads where
    they are more."""
    blocks = [p.block for p in places(stmt) if p.block.combiner]  # a gather reads some rows only
    weights = {r.buffer for b in blocks for r in b.reads if r.buffer.role == "weight"}
    sizes = [product(b.shape) for b in weights]
    read = sum(n * b.dtype.bytes for n, b in zip(sizes, weights, strict=True) if isinstance(n, int))
    return max(operations(stmt, unknown), read)
