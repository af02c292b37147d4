"""What is worth several threads: kernels, by their work and sizes, and whole runs."""

from __future__ import annotations

from collections.abc import Mapping

from aisc.codegen.cpu.faults import can_report
from aisc.codegen.cpu.pieces import split_first
from aisc.ir.arith.poly import symbols
from aisc.ir.node import Node, walk
from aisc.ir.tensor.expr import Binary, Const, Expr, Load
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import (
    Bind,
    CallKernel,
    HostCall,
    If,
    Require,
    Reserve,
    Seq,
    Stmt,
    While,
)

UNKNOWN_TURNS = 16
_TESTS = (If, While, Require)


def sizes_of(kernel: Func) -> set[str]:
    """Dimensions in the shapes of a kernel's operands."""
    return {s.name for b in kernel.params for d in b.shape for s in symbols(d)}


def work_of(kernel: Func) -> int:
    """The work of one call; of kernels that scale, where every dimension is 1."""
    return int(kernel.attr("work", 0) or 0)


def decides(entry: Func, kernels: Mapping[str, Func]) -> bool:
    """Whether a run decides by what it has computed, or waits for others than its threads. Then all
    threads have to be there before memory is overwritten from which they decide; in other runs one
    that comes late takes the same way as those before it."""
    _, rest = split_first(entry.body)
    return any(_decides(n, entry, kernels) for s in rest for n in walk(s))


def _decides(n: Node, entry: Func, kernels: Mapping[str, Func]) -> bool:
    if isinstance(n, HostCall | Reserve):
        return True
    if isinstance(n, CallKernel):
        return kernels[n.kernel].target != entry.target
    if isinstance(n, While):
        calls = (c for c in walk(n.body) if isinstance(c, CallKernel))
        if any(can_report(kernels[c.kernel]) for c in calls):
            return True
    read = n.values if isinstance(n, Bind) else (n.cond,) if isinstance(n, _TESTS) else ()
    return any(isinstance(x, Load) for e in read for x in walk(e))


def least_sizes(entry: Func, kernels: Mapping[str, Func], enough: int) -> int:
    """The product of dimensions from which on threads can share work of at least `enough` in a
    run; 0 when they can or may in every run, -1 when in none."""
    calls = [s for s in walk(entry.body) if isinstance(s, CallKernel)]
    shared = [kernels[s.kernel] for s in calls if kernels[s.kernel].attr("parallel", False)]
    given = {v.name for v in entry.dims}
    if any(k.attr("scales", False) and not sizes_of(k) <= given for k in shared):
        return 0
    fixed, scaled = _total(entry.body, kernels)
    if fixed >= enough:
        return 0
    return -(-(enough - fixed) // scaled) if scaled else -1


def _total(s: Stmt, kernels: Mapping[str, Func]) -> tuple[int, int]:
    """Work below a statement that threads can share: of kernels that always cost the same, and
    of others where every dimension is 1."""
    if isinstance(s, CallKernel):
        kernel = kernels[s.kernel]
        if not kernel.attr("parallel", False):
            return 0, 0
        return (0, work_of(kernel)) if kernel.attr("scales", False) else (work_of(kernel), 0)
    if isinstance(s, While):
        turns = _turns(s.cond)
        fixed, scaled = _total(s.body, kernels)
        return fixed * turns, scaled * turns
    below = s.stmts if isinstance(s, Seq) else (s.then, s.other) if isinstance(s, If) else ()
    totals = [_total(x, kernels) for x in below if x is not None]
    return sum(t[0] for t in totals), sum(t[1] for t in totals)


def _turns(cond: Expr) -> int:
    """How often a loop is run through, or a guess."""
    if isinstance(cond, Binary) and cond.op == "lt" and isinstance(cond.b, Const):
        return max(1, int(cond.b.value))
    return UNKNOWN_TURNS
