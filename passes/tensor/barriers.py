"""Insert barriers between top-level statements of an SPMD function that depend on each other.

before: ``parallel i: t[i] = …;  parallel j: y[j] = t[…]``
after:  ``parallel i: t[i] = …;  barrier threads;  parallel j: y[j] = t[…]``
A barrier is needed when, since the last one, a statement wrote a buffer that the next statement
touches, or read one that it writes. Statements outside of parallel loops are run by thread 0.
"""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import Alloc, Barrier, For, Seq, Stmt, seq
from aisc.ir.tensor.visitor import buffers_of, walk_accesses, written_buffers


def is_parallel(stmt: Stmt) -> bool:
    """Whether a statement contains a parallel loop."""
    return any(isinstance(n, For) and n.kind == "parallel" for n in walk_accesses(stmt))


@dataclass(frozen=True, slots=True)
class InsertBarriers:
    """The pass; see the module's docstring."""

    name: str = "insert-barriers"

    def run(self, func: Func) -> Func:
        """Apply to one function; one without parallel loops runs on one thread and needs none."""
        if not isinstance(func.body, Seq) or not is_parallel(func.body):
            return func
        out: list[Stmt] = []
        written: set[str] = set()
        touched: set[str] = set()
        for stmt in func.body.stmts:
            if isinstance(stmt, Alloc):
                out.append(stmt)
                continue
            writes = {b.alias_set for b in written_buffers(stmt)}
            uses = {b.alias_set for b in buffers_of(stmt)}
            if uses & written or writes & touched:
                out.append(Barrier("threads"))
                written, touched = set(), set()
            out.append(stmt)
            written |= writes
            touched |= uses
        return replace(func, body=seq(*out))
