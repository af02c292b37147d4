"""Primitives that name hardware: bind and tensorize."""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.diagnostics import error
from aisc.ir.target import resolve
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import FOR_KINDS, For, ForKind, Seq
from aisc.ir.tensor.tree import extent_of, find_loop, loops_of, places, replace_stmt
from aisc.passes.schedule.legality import require_independent
from aisc.passes.schedule.match import match
from aisc.passes.schedule.schedule import primitive

AXES: tuple[ForKind, ...] = tuple(k for k in FOR_KINDS if "." in k)


@primitive()
def bind(func: Func, loop: str, axis: ForKind) -> Func:
    """Let the iterations of a loop be the blocks or threads of a hardware axis.

    before: ``for i in 0..N: S(i)``   after ``bind("i", "thread.x")``: ``thread.x i in 0..N: S(i)``
    A thread axis may be bound by several loops, one after the other: a block runs them all with the
    same threads, iteration `t` of each on thread `t`. So all loops of an axis have one constant
    extent, and no loop of an axis stands inside another of the same axis. Outermost statements with
    loops over blocks are launches of their own, with threads of their own. A tile that many threads
    read is filled by a nest of its own (``cache_read``, ``compute_at``, ``fuse``, ``split``, bind),
    which stands beside the nest that reads it; barriers between such nests are inserted and proved
    by :mod:`aisc.passes.tensor.simt_barriers`. Block loops stand outside of thread loops.
    Legal when the iterations of the loop are independent of each other.
    """
    old = find_loop(func, loop)
    if axis not in AXES:
        raise error("E302", f"bind({loop}): there is no axis '{axis}'", f"axes: {', '.join(AXES)}")
    _require_place(func, old, axis)
    if axis.startswith("thread."):
        _require_extent(func, old, axis)
    require_independent(func, old, "bind")
    return replace_stmt(func, old, replace(old, kind=axis))


def _require_place(func: Func, loop: For, axis: ForKind) -> None:
    around: list[For] = []
    for place in places(func.body):
        chain = list(place.loops)
        if loop in chain:
            around = chain[: chain.index(loop)]
            break
    below = [f for f in loops_of(loop) if f is not loop]
    if any(f.kind == axis for f in (*around, *below)):
        raise error("E302", f"bind({loop.var.name}): a loop of {axis} inside another")
    if axis.startswith("block.") and any(not f.kind.startswith("block.") for f in around):
        raise error(
            "E302", f"bind({loop.var.name}): loops of blocks are the outermost ones",
            f"around it: {', '.join(f.var.name for f in around)}",
        )  # fmt: skip


def _require_extent(func: Func, loop: For, axis: ForKind) -> None:
    extent = extent_of(loop)
    if extent is None:
        raise error("E302", f"bind({loop.var.name}): the extent of a thread axis is constant")
    for f in _of_launch(func, loop):
        if f.kind == axis and extent_of(f) != extent:
            raise error(
                "E302",
                f"bind({loop.var.name}): {axis} has {extent_of(f)} threads",
                f"expected the extent of loop {f.var.name}, got {extent}",
                "split the loop by the number of threads",
            )


def _of_launch(func: Func, loop: For) -> list[For]:
    """The loops that the same threads run, as far as it is known: those of the outermost statement,
    and of others if none of them is divided among blocks."""
    stmts = func.body.stmts if isinstance(func.body, Seq) else (func.body,)
    parts = [list(loops_of(s)) for s in stmts]
    own = next(part for part in parts if any(f is loop for f in part))
    alone = [part for part in parts if not any(f.kind.startswith("block.") for f in part)]
    return [f for part in alone for f in part] if any(own is part for part in alone) else own


@primitive(with_instructions=True)
def tensorize(func: Func, loop: str, intrinsic: str, target: str) -> Func:
    """Replace a loop nest by an instruction of the target that computes the same.

    before: ``for i in 0..8: for j in 0..8: s[i, j] = x[m*8 + i, j]``
    after ``tensorize("i", "mvin", "systolic8")``: ``invoke mvin(x[m*8 +: 8, 0 +: 8], s[…])``
    The nest at `loop` must hold one unconditional block and match the declared semantics:
    iterators in order with kind and extent, operations, dtypes, memory spaces, and access maps up
    to strides and offsets. `target` is a name or the path of a description, so that traces stay
    text. Always legal where it applies; instructions are opaque to later steps, so it comes last.
    """
    found = resolve(target).intrinsic(intrinsic)
    old = find_loop(func, loop)
    return replace_stmt(func, old, match(func, old, found))
