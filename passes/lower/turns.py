"""Kernels that loops call learn the number of the turn.

before: ``while t < n { call k0(x, w, y);  bind t = t + 1 }``
after:  ``while t < n { call k0(x, w, y; t);  bind t = t + 1 }``

What a kernel reads in every turn and what is more than a cache holds has left the cache when the
next turn comes to it, if all turns go through it in the same order. A kernel that knows the number
of the turn can go to and fro (:mod:`aisc.passes.schedule.rules.turns`). Only kernels with constants
of some size are told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from aisc.ir.arith.poly import product
from aisc.ir.node import Node, map_children, walk
from aisc.ir.tensor.expr import ZERO, Expr, Var
from aisc.ir.tensor.func import Func, Program
from aisc.ir.tensor.stmt import Bind, CallKernel, Seq, Stmt, While
from aisc.ir.tensor.tree import fresh

# The attribute of a kernel that names the dimension.
TURN = "turn"
# Bytes of constants that any cache holds.
LITTLE = 1 << 14


def with_turns(program: Program) -> Program:
    """`program` with a dimension for the number of the turn in such kernels, and in their calls;
    what else calls them gives 0."""
    loops = [n for n in walk(program.entry.body) if isinstance(n, While)]
    called = {n.kernel for w in loops for n in walk(w.body) if isinstance(n, CallKernel)}
    here = [k for k in program.kernels if k.target == program.entry.target and k.name in called]
    told = {k.name: _told(k) for k in here if _reads_much(k)}
    if not told:
        return program
    kernels = tuple(told.get(k.name, k) for k in program.kernels)
    body = _calls(program.entry.body, told, ZERO)
    return replace(program, kernels=kernels, entry=replace(program.entry, body=body))


def _reads_much(kernel: Func) -> bool:
    constants = [b for b in kernel.params if b.role == "weight"]
    sizes = [(product(b.shape), b.dtype.bytes) for b in constants]
    return sum(n * width for n, width in sizes if isinstance(n, int)) > LITTLE


def _told(kernel: Func) -> Func:
    name = fresh(kernel, TURN)
    return replace(kernel, dims=(*kernel.dims, Var(name))).with_attrs(**{TURN: name})


def _calls(s: Stmt, told: Mapping[str, Func], turn: Expr) -> Stmt:
    if isinstance(s, CallKernel):
        return replace(s, dims=(*s.dims, turn)) if s.kernel in told else s
    if isinstance(s, While):
        turn = _counter(s) or turn

    def inside(n: Node) -> Node:
        return _calls(n, told, turn) if isinstance(n, Stmt) else n

    return map_children(s, inside)


def _counter(loop: While) -> Var | None:
    """The variable that becomes one more at the end of each turn."""
    last = loop.body.stmts[-1] if isinstance(loop.body, Seq) else loop.body
    if isinstance(last, Bind) and len(last.vars) == 1 and last.values == (last.vars[0] + 1,):
        return last.vars[0]
    return None
