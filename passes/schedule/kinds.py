"""Where loops of each kind may stand: what holds after every step of a schedule.

Threads of a function meet at barriers between its outermost statements only, and every thread
executes a statement that holds a parallel loop. So a parallel loop stands alone in its nest, and
storage that each thread has for itself is declared inside of it. Lanes hold neither lanes nor
storage.
"""

from __future__ import annotations

from aisc.ir.diagnostics import error
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import Alloc, For, Prefetch, Seq, Stmt
from aisc.ir.tensor.tree import loops_of, statements
from aisc.ir.tensor.visitor import buffers_of

MAX_UNROLL = 64
MAX_LANES = 64


def require_kinds(func: Func, step: str) -> None:
    """Every parallel and every vectorized loop stands where it may; E302 otherwise."""
    loops = list(loops_of(func.body))
    for loop in (f for f in loops if f.kind == "vectorize"):
        _require_lanes(loop, step)
    if any(f.kind == "parallel" for f in loops):
        top = func.body.stmts if isinstance(func.body, Seq) else (func.body,)
        shared = {s.buffer for s in top if isinstance(s, Alloc) and s.buffer.space != "global"}
        for stmt in top:
            _require_alone(stmt, shared, step)


def _require_lanes(loop: For, step: str) -> None:
    for n in statements(loop.body):
        if isinstance(n, Alloc) or (isinstance(n, For) and n.kind == "vectorize"):
            held = f"storage {n.buffer.name}" if isinstance(n, Alloc) else f"lanes {n.var.name}"
            raise error("E302", f"{step}: vectorized loop {loop.var.name} would hold {held}")


def _require_alone(stmt: Stmt, shared: set[Buffer], step: str) -> None:
    """A statement that holds a parallel loop is a nest of loops down to it."""
    own = set(shared)
    while _holds_parallel(stmt):
        if isinstance(stmt, For):
            if stmt.kind == "parallel":
                _require_inside(stmt, own, step)
                return
            stmt = stmt.body
            continue
        parts = stmt.stmts if isinstance(stmt, Seq) else ()
        inner = [s for s in parts if not isinstance(s, Alloc | Prefetch)]
        if len(inner) != 1:
            raise error(
                "E302",
                f"{step}: a parallel loop would not stand alone in its nest",
                "threads meet between outermost statements only",
                "divide an outer loop among the threads, or divide loops at the end",
            )
        own |= {s.buffer for s in parts if isinstance(s, Alloc)}
        stmt = inner[0]


def _require_inside(loop: For, own: set[Buffer], step: str) -> None:
    name = loop.var.name
    if _holds_parallel(loop.body):
        raise error("E302", f"{step}: a parallel loop would stand inside parallel loop {name}")
    private = {b for b in own if b.space != "global"}
    used = [b.name for b in buffers_of(loop.body) if b in private] if private else []
    if used:
        raise error(
            "E302",
            f"{step}: threads would share {used[0]}, which is private to each",
            f"it is declared outside of parallel loop {name}",
        )


def _holds_parallel(stmt: Stmt) -> bool:
    return any(f.kind == "parallel" for f in loops_of(stmt))
