"""Turn a kernel's scratch buffers in memory into parameters, which the Program's plan places.

before: ``func k(x, y) { alloc t: f32[64]; … }``   after: ``func k(x, y, t) { … }``

A buffer of the space *thread* belongs to one iteration of the loops around it. Its parameter has a
part for each iteration of the parallel ones, which may run at the same time; iterations of serial
loops use the same part one after the other::

    parallel i in 0..8: serial j in 0..4: { alloc t: f32[64] space thread; …t[k]… }
    -> func k(…, t: f32[8, 64]) { parallel i in 0..8: serial j in 0..4: …t[i, k]… }

Precondition: global ``Alloc`` stands at the top of the body, blocks are lowered. Postcondition: no
``Alloc`` of these spaces; the new parameters have role *scratch* and follow the others in order of
declaration.
"""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.node import Node, children
from aisc.ir.tensor.expr import Expr, Load
from aisc.ir.tensor.func import Buffer, Func, row_major
from aisc.ir.tensor.stmt import Alloc, For, Prefetch, Seq, Stmt, Store, seq
from aisc.ir.tensor.visitor import transform_accesses, walk_accesses
from aisc.passes.schedule.region import dim_of

THREAD = "thread"


@dataclass(frozen=True, slots=True)
class HoistScratch:
    """The pass; see the module's docstring."""

    name: str = "hoist-scratch"

    def run(self, func: Func) -> Func:
        """Apply to one function."""
        parts = _parts(func)
        found = tuple(
            n.buffer
            for n in walk_accesses(func.body)
            if isinstance(n, Alloc) and n.buffer.space in ("global", THREAD)
        )
        if not found:
            return func

        def swap(n: Node) -> Node:
            if isinstance(n, Alloc) and n.buffer in found:
                return Seq(())  # it may be all that there is, where nothing is computed
            if isinstance(n, Seq):
                return seq(*n.stmts)
            if isinstance(n, Load | Store | Prefetch) and n.buffer in parts:
                new, outer = parts[n.buffer]
                return replace(n, buffer=new, indices=(*outer, *n.indices))
            return n

        params = tuple(parts[b][0] if b in parts else b for b in found)
        return replace(func, params=func.params + params, body=transform_accesses(func.body, swap))


def _parts(func: Func) -> dict[Buffer, tuple[Buffer, tuple[Expr, ...]]]:
    """For each buffer of the space *thread*: the parameter, and the indices of the part in use."""
    found: dict[Buffer, tuple[Buffer, tuple[Expr, ...]]] = {}

    def visit(node: Node, loops: tuple[For, ...]) -> None:
        if isinstance(node, Alloc) and node.buffer.space == THREAD:
            counts = tuple(dim_of(f.extent, func) for f in loops)
            shape = (*counts, *node.buffer.shape)
            new = replace(node.buffer, shape=shape, strides=row_major(shape), space="global")
            found[node.buffer] = new, tuple(f.var - f.low for f in loops)
        inside = (*loops, node) if isinstance(node, For) and node.kind == "parallel" else loops
        for child in children(node):
            if isinstance(child, Stmt):
                visit(child, inside)

    visit(func.body, ())
    return found
