"""What a lowered kernel must do at least: arithmetic operations, and bytes to read and write.

Counted on the kernel before scheduling, where each value is computed once and nothing is padded,
for values of its symbolic dimensions. Both are for figures such as GFLOP/s and shares of a
machine's limits, not for decisions (see :mod:`aisc.passes.analysis.cost` for these).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from aisc.ir import dtypes
from aisc.ir.arith.poly import evaluate
from aisc.ir.node import Node, children
from aisc.ir.tensor.expr import ARITHMETIC, Binary, Call, Load, Unary
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import Block, Store
from aisc.ir.tensor.tree import Place, places
from aisc.passes.analysis.cost import extent

_FREE = ("isnan", "isinf", "ordinal")


def flops(kernel: Func, sizes: Mapping[str, int]) -> int:
    """Arithmetic operations of one call: a multiply-add is two, a function such as exp is one;
    comparisons, casts and the computation of indices are none."""
    return sum(
        _points(p, sizes) * sum(map(_own, _nodes(p.block, indices=False)))
        for p in places(kernel.body)
    )


def traffic(kernel: Func, sizes: Mapping[str, int]) -> list[int]:
    """Bytes of each parameter that one call touches: its size, or less where fewer elements are
    read or written, as by a gather."""
    touched: dict[Buffer, int] = {}
    for place in places(kernel.body):
        points = _points(place, sizes)
        for n in _nodes(place.block, indices=True):
            if isinstance(n, Load | Store):
                touched[n.buffer] = touched.get(n.buffer, 0) + points * n.buffer.dtype.bytes
    return [min(touched.get(b, 0), evaluate(b.bytes, sizes)) for b in kernel.params]


def _points(place: Place, sizes: Mapping[str, int]) -> int:
    return prod(max(0, extent(f.extent, sizes)) for f in place.loops)


def _nodes(block: Block, indices: bool) -> Iterator[Node]:
    """Distinct nodes of a block's body: equal expressions are computed once."""
    seen: set[Node] = set()
    stack: list[Node] = [block.body]
    while stack:
        n = stack.pop()
        if n in seen:
            continue
        seen.add(n)
        yield n
        if indices or not isinstance(n, Load | Store):
            stack.extend(children(n))
        elif isinstance(n, Store):
            stack.append(n.value)


def _own(n: Node) -> int:
    """Operations of a node itself. Conditions compute with indices: nothing on i64 counts."""
    if isinstance(n, Binary):
        return n.op in ARITHMETIC and n.dtype is not dtypes.i64
    if isinstance(n, Unary):
        return n.op == "sqrt"
    if isinstance(n, Call):
        return 2 if n.name == "fma" else n.name not in _FREE
    return 0
