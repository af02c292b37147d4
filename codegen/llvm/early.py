"""Tests of indices from data that need not be made in every turn of a loop.

``for i: for j: y[i, j] = x[within(t[i], 8), j]`` takes one row for each i: what is tested does not
change with j, and is tested before the inner loop, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from aisc.codegen.llvm.certain import certain_loads
from aisc.ir.node import walk
from aisc.ir.tensor.expr import Expr, Load, Var, is_tested, of_dim, variables
from aisc.ir.tensor.linear import Indexer
from aisc.ir.tensor.stmt import For, Seq, Stmt, Store
from aisc.ir.tensor.tree import statements

FILLED = ("filled", True)  # the annotation of a loop that has a turn, whatever its bounds say


def is_filled(loop: For, index: Indexer) -> bool:
    """Whether a loop has at least one turn."""
    if FILLED in loop.annotations:
        return True
    return loop.kind != "parallel" and index.bounds(loop.extent)[0] >= 1


def early_tests(loop: For, index: Indexer, known: AbstractSet[Var]) -> Iterator[tuple[Expr, Expr]]:
    """Indices that a loop tests in every turn, and the sizes of their axes: made of variables that
    are `known` before it, and of data that it does not write."""
    if not is_filled(loop, index):
        return
    written = {n.buffer for n in statements(loop.body) if isinstance(n, Store)}
    for store in _always(loop.body, index):
        for n in certain_loads(store.value):
            for i, size in zip(n.indices, n.buffer.shape, strict=True):
                if not is_tested(i) or not isinstance(size, int) or size < 1:
                    continue
                fixed = variables(i) <= known
                if fixed and not any(isinstance(x, Load) and x.buffer in written for x in walk(i)):
                    yield i, of_dim(size)


def _always(s: Stmt, index: Indexer) -> Iterator[Store]:
    """Stores that a statement surely makes."""
    if isinstance(s, Store):
        yield s
    elif isinstance(s, Seq):
        for x in s.stmts:
            yield from _always(x, index)
    elif isinstance(s, For) and is_filled(s, index):
        yield from _always(s.body, index)
