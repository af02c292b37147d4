"""Kernels of SIMT machines: launches one after the other, each blocks around threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.tensor.expr import Const
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import Alloc, Barrier, For, Invoke, Seq, Stmt, seq
from aisc.ir.tensor.tree import nest


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
        grid, node = chain(func.body, "block.")
        shared: tuple[Alloc, ...] = ()
        if isinstance(node, Seq) and len(node.stmts) > 0 and all_alloc(node.stmts[:-1]):
            last = node.stmts[-1]
            if isinstance(last, For) and last.kind.startswith("thread."):
                shared = tuple(s for s in node.stmts[:-1] if isinstance(s, Alloc))
                node = last
        threads, body = chain(node, "thread.")
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


def all_alloc(stmts: tuple[Stmt, ...]) -> bool:
    """Whether statements declare buffers and nothing else."""
    return all(isinstance(s, Alloc) for s in stmts)


def chain(node: Stmt, prefix: str) -> tuple[tuple[For, ...], Stmt]:
    """The loops over an axis of some kind that stand in one another, and what the last does."""
    found: list[For] = []
    while isinstance(node, For) and node.kind.startswith(prefix):
        found.append(node)
        node = node.body
    return tuple(found), node


# What executes instructions whose results are there when they are waited for (``Await``), and those
# that bring matrices from shared memory into registers of warps.
COPIES, LOADS = "copies", "loads"
# The function that gives what another lane of a warp has: a value, and the number of that lane.
SHUFFLE = "shuffle"


def of_warp(s: Invoke) -> bool:
    """Whether an instruction is one of a warp, whose lanes execute it together; others are those of
    a thread, and work on memory."""
    return any(r.buffer.space == "warp" for r in s.operands)


_BETWEEN = Barrier("threads")


def launches(func: Func) -> tuple[Func, ...]:
    """The launches of a kernel in kernel form. Each takes all parameters; from the second on their
    names end in a number."""
    stmts = func.body.stmts if isinstance(func.body, Seq) else (func.body,)
    parts: list[list[Stmt]] = [[]]
    for s in stmts:
        if s == _BETWEEN:
            parts.append([])
        else:
            parts[-1].append(s)
    names = [func.name, *(f"{func.name}__{k}" for k in range(1, len(parts)))]
    return tuple(
        replace(func, name=name, body=seq(*part)) for name, part in zip(names, parts, strict=True)
    )


def joined(func: Func, parts: Sequence[Func]) -> Func:
    """`func` with these launches."""
    body: list[Stmt] = []
    for k, part in enumerate(parts):
        body += [part.body] if k == 0 else [_BETWEEN, part.body]
    return replace(func, body=seq(*body))
