"""From a scheduled Func with bound loops to one kernel: blocks around threads around the body.

before: ``block.x b { alloc s shared;  thread.x t { s[t] = … };  thread.x u { … s[u ^ 1] … } }``
after:  ``block.x b { alloc s shared;  thread.x tx { s[tx] = …;  barrier block;  … s[tx ^ 1] … } }``
Loops bound to the same axis are one axis: they become one loop around everything a block does.
Statements that stand in no loop of some axis are run by its thread 0. Buffers in other spaces than
``shared`` become private to a thread, which is refused with E303 where one thread would read what
another wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.names import fresh_name
from aisc.ir.node import map_children, walk
from aisc.ir.tensor.expr import ZERO, Const, Expr, Var, equal, logical_and
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import Alloc, For, ForKind, If, Seq, Stmt, seq
from aisc.ir.tensor.tree import all_names, nest
from aisc.ir.tensor.visitor import substitute

THREAD_AXES: tuple[ForKind, ...] = ("thread.z", "thread.y", "thread.x")


@dataclass(frozen=True, slots=True)
class Kernel:
    """The parts of a kernel: loops over blocks, what a block shares, threads, one thread's body."""

    grid: tuple[For, ...]
    shared: tuple[Alloc, ...]
    threads: tuple[For, ...]
    body: Stmt

    @staticmethod
    def of(func: Func) -> Kernel:
        """Take a function in kernel form apart."""
        grid, node = _chain(func.body, "block.")
        shared: tuple[Alloc, ...] = ()
        if isinstance(node, Seq) and len(node.stmts) > 0 and _all_alloc(node.stmts[:-1]):
            last = node.stmts[-1]
            if isinstance(last, For) and last.kind.startswith("thread."):
                shared = tuple(s for s in node.stmts[:-1] if isinstance(s, Alloc))
                node = last
        threads, body = _chain(node, "thread.")
        return Kernel(grid, shared, threads, body)

    @property
    def block_size(self) -> tuple[int, int, int]:
        """Threads of a block along x, y, z."""
        sizes = {f.kind: int(f.extent.value) for f in self.threads if isinstance(f.extent, Const)}
        return sizes.get("thread.x", 1), sizes.get("thread.y", 1), sizes.get("thread.z", 1)

    def build(self, func: Func) -> Func:
        """`func` with this kernel as its body."""
        block = seq(*self.shared, nest(self.threads, self.body))
        return replace(func, body=nest(self.grid, block))


def _all_alloc(stmts: tuple[Stmt, ...]) -> bool:
    return all(isinstance(s, Alloc) for s in stmts)


def _chain(node: Stmt, prefix: str) -> tuple[tuple[For, ...], Stmt]:
    found: list[For] = []
    while isinstance(node, For) and node.kind.startswith(prefix):
        found.append(node)
        node = node.body
    return tuple(found), node


@dataclass(frozen=True, slots=True)
class UnifyThreads:
    """The pass; see the module's docstring. Precondition: blocks are lowered."""

    name: str = "unify-threads"

    def run(self, func: Func) -> Func:
        """Apply to one function; E302 when its loops over blocks are not one nest."""
        grid, node = _chain(func.body, "block.")
        if any(isinstance(n, For) and n.kind.startswith("block.") for n in walk(node)):
            raise error(
                "E302",
                f"{func.name}: loops over blocks do not stand in one nest around everything",
                "bind the outermost loops, and compute every block inside of them",
            )
        sizes = {n.kind: n.extent for n in walk(node) if _is_thread(n) and isinstance(n, For)}
        names = all_names(func)
        axes = {a: Var(fresh_name(f"t{a[-1]}", names)) for a in THREAD_AXES if a in sizes}
        shared: list[Alloc] = []
        body = _distribute(node, axes, frozenset(), shared)
        threads = tuple(For(v, ZERO, sizes[a], a, Seq(())) for a, v in axes.items())
        return Kernel(grid, tuple(shared), threads, body).build(func)


def _is_thread(n: object) -> bool:
    return isinstance(n, For) and n.kind.startswith("thread.")


def _distribute(
    s: Stmt, axes: Mapping[ForKind, Var], inside: frozenset[ForKind], shared: list[Alloc]
) -> Stmt:
    if isinstance(s, Seq):
        return seq(*(_distribute(x, axes, inside, shared) for x in s.stmts))
    if isinstance(s, For):
        if _is_thread(s):
            body = substitute(s.body, {s.var: s.low + axes[s.kind]})
            return _distribute(body, axes, inside | {s.kind}, shared)
        return replace(s, body=_distribute(s.body, axes, inside, shared))
    if isinstance(s, Alloc):
        if s.buffer.space != "shared":
            return s
        shared.append(s)
        return Seq(())
    if isinstance(s, If):
        return map_children(
            s, lambda c: _distribute(c, axes, inside, shared) if isinstance(c, Stmt) else c
        )
    first: list[Expr] = [equal(v, ZERO) for a, v in axes.items() if a not in inside]
    return If(logical_and(*first), s) if first else s
