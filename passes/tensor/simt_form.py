"""From a scheduled Func with bound loops to one kernel: blocks around threads around the body.

before: ``block.x b { alloc s shared;  thread.x t { s[t] = … };  thread.x u { … s[u ^ 1] … } }``
after:  ``block.x b { alloc s shared;  thread.x tx { s[tx] = …;  barrier block;  … s[tx ^ 1] … } }``
Loops bound to the same axis are one axis: they become one loop around everything a block does.
Statements that stand in no loop of some axis are run by its thread 0, instructions of warps by all
lanes together. Buffers in other spaces than ``shared`` and ``warp`` become private to a thread,
which is refused with E303 where one thread would read what another wrote.

A kernel may be several *launches*, one after the other: each outermost statement with loops over
blocks is one, what stands between two of them is one of a single block. In kernel form barriers of
all threads separate them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.names import fresh_name
from aisc.ir.node import map_children, walk
from aisc.ir.tensor.expr import ZERO, Expr, Var, equal, logical_and
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import Alloc, For, ForKind, If, Invoke, Seq, Stmt, seq
from aisc.ir.tensor.tree import all_names, loops_of
from aisc.ir.tensor.visitor import buffers_of, substitute
from aisc.passes.analysis.simt_kernel import Kernel, all_alloc, chain, of_warp

# Memories that threads have in common: of a block, of a warp.
COMMON = ("shared", "warp")
THREAD_AXES: tuple[ForKind, ...] = ("thread.z", "thread.y", "thread.x")


def divided(func: Func) -> tuple[Func, ...]:
    """A scheduled function as one for each launch, with the private buffers of that; E302 where two
    launches would share one."""
    stmts = func.body.stmts if isinstance(func.body, Seq) else (func.body,)
    allocs = [s for s in stmts if isinstance(s, Alloc)]
    parts: list[list[Stmt]] = []
    alone = True
    for s in (s for s in stmts if not isinstance(s, Alloc)):
        if alone or _has_blocks(s):
            parts.append([])
        parts[-1].append(s)
        alone = _has_blocks(s)
    used = [buffers_of(seq(*part)) for part in parts]
    for a in allocs:
        users = [k for k, found in enumerate(used) if a.buffer in found]
        if len(users) > 1:
            raise error("E302", f"{func.name}: {a.buffer.name} does not outlast a launch",
                        "place it in global memory")  # fmt: skip
        if users:
            parts[users[0]].insert(0, a)
    return tuple(replace(func, body=seq(*part)) for part in parts) or (func,)


def _has_blocks(s: Stmt) -> bool:
    return any(f.kind.startswith("block.") for f in loops_of(s))


@dataclass(frozen=True, slots=True)
class UnifyThreads:
    """The pass; see the module's docstring. Precondition: blocks are lowered, and the function is
    one launch."""

    name: str = "unify-threads"

    def run(self, func: Func) -> Func:
        """Apply to one launch; E302 when its loops over blocks are not one nest."""
        grid, node = _grid_of(func.body)
        if _has_blocks(node):
            raise error(
                "E302",
                f"{func.name}: loops over blocks do not stand in one nest around everything",
                "bind the outermost loops, and compute every block inside of them",
            )
        found = [n for n in walk(node) if isinstance(n, For) and _is_thread(n)]
        sizes = {n.kind: n.extent for n in found}
        if any(sizes[n.kind] != n.extent for n in found):
            raise error("E302", f"{func.name}: loops of one axis have different numbers of threads")
        names = all_names(func)
        axes = {a: Var(fresh_name(f"t{a[-1]}", names)) for a in THREAD_AXES if a in sizes}
        shared: list[Alloc] = []
        body = _distribute(node, axes, frozenset(), shared)
        threads = tuple(For(v, ZERO, sizes[a], a, Seq(())) for a, v in axes.items())
        return Kernel(grid, tuple(shared), threads, body).build(func)


def _grid_of(body: Stmt) -> tuple[tuple[For, ...], Stmt]:
    """The loops over blocks, and what each of them does; what is declared before is theirs."""
    stmts = body.stmts if isinstance(body, Seq) else (body,)
    if len(stmts) < 2 or not all_alloc(stmts[:-1]):
        return chain(body, "block.")
    grid, node = chain(stmts[-1], "block.")
    return grid, seq(*stmts[:-1], node)


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
        if s.buffer.space not in COMMON:
            return s
        shared.append(s)
        return Seq(())
    if isinstance(s, If):
        return map_children(
            s, lambda c: _distribute(c, axes, inside, shared) if isinstance(c, Stmt) else c
        )
    alone = inside  # by all lanes of a warp
    if isinstance(s, Invoke) and of_warp(s):
        alone = inside | {"thread.x"}
    first: list[Expr] = [equal(v, ZERO) for a, v in axes.items() if a not in alone]
    return If(logical_and(*first), s) if first else s
