"""Instructions become the loops that they mean: a model of an accelerator for other machines.

before: ``invoke load(x[m*16 +: 16, 0 +: 16], tile[0 +: 16, 0 +: 16]; 16, 16)``
after:  ``for i in 0..16: for k in 0..16: tile[i, k] = x[m*16 + i, k]``

Operands stand for the parameters of the declared meaning, scalars for its dimensions; memories of
the accelerator become parameters in the order in which they are declared. Precondition: no blocks
but those of meanings. Postcondition: no ``Invoke``, every buffer in the space *global*.
"""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.node import Node, walk
from aisc.ir.target import Target
from aisc.ir.tensor.expr import Expr, Load, Var
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.intrinsic import Intrinsic
from aisc.ir.tensor.stmt import Alloc, Handover, Invoke, Region, Seq, Stmt, Store, seq
from aisc.ir.tensor.tree import transform_statements
from aisc.ir.tensor.visitor import replace_buffers, substitute, transform
from aisc.passes.schedule.copies import Names, copied
from aisc.passes.tensor.lower_blocks import LowerBlocks
from aisc.passes.tensor.vector_programs import instructions_of


def memories_of(func: Func) -> tuple[Buffer, ...]:
    """The tiles of a kernel, in the order of their parameters in its model."""
    return tuple(n.buffer for n in walk(func.body) if isinstance(n, Alloc))


@dataclass(frozen=True, slots=True)
class InlineInstructions:
    """The pass for the instructions of a target."""

    target: Target
    name: str = "inline-instructions"

    def run(self, func: Func) -> Func:
        """Apply to one function."""
        names, tiles = Names(func), memories_of(func)
        table = instructions_of(func, self.target)

        def swap(s: Stmt) -> Stmt:
            if isinstance(s, Alloc | Handover):
                return Seq(())
            if isinstance(s, Seq):
                return seq(*s.stmts)
            return meaning(table[s.intrinsic], s, names) if isinstance(s, Invoke) else s

        body = transform_statements(func.body, swap)
        plain = {b: replace(b, space="global") for b in tiles}
        body = replace_buffers(body, plain)
        made = replace(
            func, params=(*func.params, *plain.values()), body=body, target="cpu", attrs=()
        )  # fmt: skip
        return LowerBlocks().run(made)


def meaning(found: Intrinsic, s: Invoke, names: Names) -> Stmt:
    """The loops of one instruction on its operands."""
    semantics = found.semantics
    regions = dict(zip(semantics.params, s.operands, strict=True))
    dims: dict[Var, Expr] = dict(zip(semantics.dims, s.args, strict=True))

    def access(n: Node) -> Node:
        if isinstance(n, Load | Store) and n.buffer in regions:
            r = regions[n.buffer]
            return replace(n, buffer=r.buffer, indices=_place(r, n.indices))
        return n

    body = transform(substitute(semantics.body, dims), access)
    return copied(body, names)


def _place(r: Region, at: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """The element of a region's buffer for an index in the operand."""
    found = list(r.low)
    for d, index in zip(r.dims_of(len(at)), at, strict=True):
        if d is not None:
            found[d] = found[d] + index * max(r.steps[d], 1)
    return tuple(found)
