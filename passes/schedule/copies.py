"""Copies of statements: all names in a function are unique, so a copy has names of its own."""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.diagnostics import error
from aisc.ir.names import fresh_name
from aisc.ir.node import Node, walk
from aisc.ir.tensor.expr import Expr, Var
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import Alloc, Block, For, Let, Stmt
from aisc.ir.tensor.tree import all_names
from aisc.ir.tensor.visitor import replace_buffers, substitute, transform


class Names:
    """Names that a function does not use yet; each is given once."""

    def __init__(self, func: Func) -> None:
        self.taken = all_names(func)

    @staticmethod
    def of(taken: set[str]) -> Names:
        """Names beside those of a set, to which they are added."""
        made = Names.__new__(Names)
        made.taken = taken
        return made

    def claim(self, name: str, step: str) -> None:
        """Take a name that the user chose; E302 if something has it."""
        if name in self.taken:
            raise error("E302", f"{step}: the name '{name}' is taken")
        self.taken.add(name)

    def fresh(self, hint: str) -> str:
        """`hint`, or `hint` with the first free number."""
        return fresh_name(hint, self.taken)


def copied(stmt: Stmt, names: Names) -> Stmt:
    """`stmt` with fresh names for all that it binds: loops, blocks, iterators, scalars, and the
    buffers that it declares."""
    variables: dict[Var, Expr] = {}
    buffers: dict[Buffer, Buffer] = {}
    for n in walk(stmt):
        if isinstance(n, For | Let):
            variables[n.var] = replace(n.var, name=names.fresh(n.var.name))
        elif isinstance(n, Block):
            variables.update({it.var: Var(names.fresh(it.var.name)) for it in n.iters})
        elif isinstance(n, Alloc):
            name = names.fresh(n.buffer.name)
            buffers[n.buffer] = replace(n.buffer, name=name, alias_set=name)

    def rename(n: Node) -> Node:
        return replace(n, name=names.fresh(n.name)) if isinstance(n, Block) else n

    return transform(replace_buffers(substitute(stmt, variables), buffers), rename)
