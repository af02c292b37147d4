"""A loop over several axes at once, as nested loops that count each of them.

before: ``for p in s..e: y[p // 5, p % 5] = …``
after:  ``for p.q in s//5 .. ceil(e/5): for p.r in max(s - p.q*5, 0) .. min(e - p.q*5, 5):
y[p.q, p.r] = …``

Loops that were fused to be divided among threads find their places by dividing, which costs more
than a vector does; a thread's share of them begins and ends anywhere, which only the first and the
last turn of each loop notice. The same iterations in the same order.
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

from aisc.ir.node import Node, children, walk
from aisc.ir.tensor.expr import Binary, Const, Expr, Load, Var, binary, maximum, minimum, of_dim
from aisc.ir.tensor.linear import Indexer
from aisc.ir.tensor.stmt import For, Prefetch, Store
from aisc.ir.tensor.visitor import substitute
from aisc.passes.tensor.lower_blocks import simplified


def counted(loop: For, index: Indexer) -> For:
    """The loop, or one of nested loops, until nothing divides their variables by constants.

    `index` knows the range of what its bounds are made of; blocks are lowered.
    """
    low, high = index.bounds(loop.low)[0], index.bounds(loop.low + loop.extent)[1]
    size = _row(loop, index.bind(loop.var, low, high - 1))
    if size is None or low < 0:
        return loop
    start, stop = loop.low, loop.low + loop.extent
    outer, inner = Var(f"{loop.var.name}.q"), Var(f"{loop.var.name}.r")
    first = binary("floordiv", start, Const(size))
    last = binary("floordiv", stop + (size - 1), Const(size))
    begin = maximum(start - outer * size, Const(0))
    end = minimum(stop - outer * size, Const(size))
    most = (high - 1) // size if isfinite(high) else high
    ranges = index.bind(outer, low // size, most).bind(inner, 0, size - 1)
    body = substitute(loop.body, {loop.var: outer * size + inner})
    filled = (("filled", True),)  # an outer turn without an inner one would not be counted
    row = For(inner, begin, end - begin, "serial", simplified(body, ranges), filled)
    rows = replace(loop, var=outer, low=first, extent=last - first, body=row)
    return counted(rows, index)


def _row(loop: For, index: Indexer) -> int | None:
    """The least constant by which the variable is divided in what the loop computes: in values,
    and in the places in memory that indices give."""
    found: list[int] = []
    seen: set[tuple[str, tuple[Expr, ...]]] = set()
    rest: list[Node] = [loop.body]
    while rest:
        n = rest.pop()
        if isinstance(n, Load | Store | Prefetch):
            if isinstance(n, Store):
                rest.append(n.value)
            key = n.buffer.name, n.indices
            if key not in seen and any(_divides(m) for i in n.indices for m in walk(i)):
                rest.append(index.simplify(_place(n)))
            seen.add(key)
            continue
        if isinstance(n, Binary) and _divides(n) and n.a == loop.var and isinstance(n.b, Const):
            found.append(int(n.b.value))
        rest.extend(children(n))
    return min(found, default=None)


def _divides(n: Node) -> bool:
    return isinstance(n, Binary) and n.op in ("floordiv", "mod")


def _place(n: Load | Store | Prefetch) -> Expr:
    """The place of an access among the elements of its buffer."""
    place: Expr = Const(0)
    for i, stride in zip(n.indices, n.buffer.strides, strict=True):
        place = place + i * of_dim(stride)
    return place
