"""Whether an entry tests what its kernels rely on: the conditions on sizes in
:attr:`aisc.ir.tensor.func.Func.requires` stand as ``require`` before each call, for its sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aisc.ir.node import children
from aisc.ir.tensor.expr import Expr, Var, variables
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import Bind, CallKernel, Require, Seq, Stmt
from aisc.ir.tensor.visitor import substitute


def untested(entry: Func, kernels: Mapping[str, Func]) -> Iterator[tuple[CallKernel, Expr]]:
    """Calls with conditions that were not tested before them, on every way to the call."""
    yield from _in_stmt(entry.body, set(entry.requires), kernels)


def _in_stmt(
    s: Stmt, held: set[Expr], kernels: Mapping[str, Func]
) -> Iterator[tuple[CallKernel, Expr]]:
    """Adds to `held` what a statement tests, and takes away what it may make untrue."""
    if isinstance(s, Require):
        held.add(s.cond)
    elif isinstance(s, Bind):
        _forget(held, s.vars)
    elif isinstance(s, CallKernel):
        kernel = kernels.get(s.kernel)
        if kernel is not None and len(kernel.dims) == len(s.dims):
            values = dict(zip(kernel.dims, s.dims, strict=True))
            for cond in kernel.requires:
                needed = substitute(cond, values)
                if needed not in held:
                    yield s, needed
    elif isinstance(s, Seq):
        for x in s.stmts:
            yield from _in_stmt(x, held, kernels)
    else:  # what an arm or a body tests holds in it alone; what it binds is not known after it
        inside = [x for x in children(s) if isinstance(x, Stmt)]
        for x in inside:
            _forget(held, tuple(_bound(x)))
        for x in inside:
            yield from _in_stmt(x, set(held), kernels)


def _bound(s: Stmt) -> Iterator[Var]:
    if isinstance(s, Bind):
        yield from s.vars
    for x in children(s):
        if isinstance(x, Stmt):
            yield from _bound(x)


def _forget(held: set[Expr], bound: tuple[Var, ...]) -> None:
    names = {v.name for v in bound}
    held -= {c for c in held if any(v.name in names for v in variables(c))}
