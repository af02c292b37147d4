"""Registers of a warp become registers of each of its lanes.

before: ``alloc f: f32[2, 8, 4, 2] space warp;  … f[ty, tx // 4, tx % 4, r] = …;  invoke mma(f[ty, 0
+: 8, 0 +: 4, 0 +: 2])``
after:  ``… alloc f: f32[2] space register;  … f[r] = …;  invoke mma(f[0 +: 2])``
The axes that number warps and lanes are left out. What a lane reads of another one of its warp it
asks it for (``shuffle``). It is checked that a lane touches its own
registers only, wherever no instruction does, and instructions those of their own warp.
"""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.node import Node, walk
from aisc.ir.tensor.expr import Call, Const, Expr, Load, Select, has_loads, of_dim
from aisc.ir.tensor.func import Buffer, Func, row_major
from aisc.ir.tensor.linear import Indexer, mentions
from aisc.ir.tensor.stmt import Alloc, For, If, Region, Stmt, Store, While, region, seq
from aisc.ir.tensor.visitor import transform
from aisc.passes.analysis.simt_kernel import SHUFFLE, Kernel

# Axes of an instruction's operands that number lanes.
LANE_AXES = 2


@dataclass(frozen=True, slots=True)
class WarpRegisters:
    """The pass; see the module's docstring. `lanes`: those of a warp."""

    lanes: int = 32
    name: str = "warp-registers"

    def run(self, func: Func) -> Func:
        """Apply to one launch."""
        kernel = Kernel.of(func)
        warp = [s.buffer for s in kernel.shared if s.buffer.space == "warp"]
        if not warp:
            return func
        table = {b: _own(func, kernel, b, self.lanes) for b in warp}
        body = transform(kernel.body, lambda n: _swapped(n, table))
        _require_all(func, kernel, body)
        allocs = (Alloc(own.buffer) for own in table.values())
        shared = tuple(s for s in kernel.shared if s.buffer not in table)
        return replace(kernel, shared=shared, body=seq(*allocs, body)).build(func)


def _require_all(func: Func, kernel: Kernel, body: Stmt) -> None:
    """Lanes ask each other at the same time: no condition is between them."""
    threads = tuple(f.var for f in kernel.threads)
    for n in walk(body):
        if not isinstance(n, If | While | Select):
            continue
        varies = any(mentions(n.cond, v) for v in threads) or has_loads(n.cond)
        if varies and any(isinstance(x, Call) and x.name == SHUFFLE for x in walk(n)):
            raise error("E306", f"{func.name}: a lane asks others that do not come there")


@dataclass(frozen=True, slots=True)
class _Own:
    """The registers of a lane, and the axes of the buffer that they have; places that other lanes
    are asked for, with the axis that numbers these."""

    buffer: Buffer
    kept: tuple[int, ...]
    asked: frozenset[tuple[Expr, ...]]
    lane: int


def _own(func: Func, kernel: Kernel, b: Buffer, lanes_: int) -> _Own:
    """The registers of each lane."""
    touched = [n for n in walk(kernel.body) if isinstance(n, Load | Store) and n.buffer == b]
    at = [n.indices for n in touched]
    parts = [n for n in walk(kernel.body) if isinstance(n, Region) and n.buffer == b]
    lanes = sorted({d for r in parts for d in _moving(r)[:LANE_AXES]})
    threads = tuple(f.var for f in kernel.threads)
    every = [*at, *(r.low for r in parts)]
    axes = [
        d for d in range(b.rank)
        if d in lanes or any(mentions(i[d], v) for i in every for v in threads)
    ]  # fmt: skip
    index = _ranges(kernel.threads)
    outer = tuple(f for f in kernel.threads if f.kind != "thread.x")
    asked = _asked(touched, axes, index) if axes and b.shape[axes[-1]] == lanes_ else frozenset()
    own = [(i, axes, kernel.threads) for i in at if i not in asked]
    own += [(r.low, [d for d in axes if d not in _moving(r)], outer) for r in parts]
    for indices, some, loops in own:
        flat: Expr = Const(0)
        for d in some:
            flat = flat * of_dim(b.shape[d]) + indices[d]
        if index.linear(flat) != index.linear(_number(loops)):
            raise error("E303", f"{func.name}: a lane touches registers of {b.name} of another one")
    kept = tuple(d for d in range(b.rank) if d not in axes)
    shape = tuple(b.shape[d] for d in kept)
    made = replace(b, shape=shape, strides=row_major(shape), space="register")
    return _Own(made, kept, asked, axes[-1] if axes else 0)


def _asked(
    touched: list[Load | Store], axes: list[int], index: Indexer
) -> frozenset[tuple[Expr, ...]]:
    """Places that are read, in the same warp, but of another lane than writes them."""
    mine = next((n.indices for n in touched if isinstance(n, Store)), None)
    if mine is None:
        return frozenset()

    def same(i: tuple[Expr, ...], some: list[int]) -> bool:
        return all(index.linear(i[d]) == index.linear(mine[d]) for d in some)

    loads = {n.indices for n in touched if isinstance(n, Load)}
    return frozenset(i for i in loads if not same(i, axes) and same(i, axes[:-1]))


def _moving(r: Region) -> list[int]:
    """The axes of a part that have several places."""
    return [d for d, step in enumerate(r.steps) if step]


def _ranges(threads: tuple[For, ...]) -> Indexer:
    index = Indexer()
    for f in threads:
        low, high = index.bounds(f.low), index.bounds(f.low + f.extent)
        index = index.bind(f.var, low[0], high[1] - 1)
    return index


def _number(threads: tuple[For, ...]) -> Expr:
    """The number of a thread."""
    number: Expr = Const(0)
    for f in threads:
        number = number * f.extent + f.var
    return number


def _swapped(n: Node, table: dict[Buffer, _Own]) -> Node:
    own = table.get(n.buffer) if isinstance(n, Load | Store | Region) else None
    if own is None:
        return n
    if isinstance(n, Load):
        mine = Load(own.buffer, tuple(n.indices[d] for d in own.kept))
        if n.indices not in own.asked:
            return mine
        return Call(SHUFFLE, (mine, n.indices[own.lane]), n.buffer.dtype)
    if isinstance(n, Store):
        return replace(n, buffer=own.buffer, indices=tuple(n.indices[d] for d in own.kept))
    assert isinstance(n, Region), "one of the three"
    low, extent = (tuple(x[d] for d in own.kept) for x in (n.low, n.extent))
    return region(own.buffer, low, extent, tuple(n.steps[d] for d in own.kept))
