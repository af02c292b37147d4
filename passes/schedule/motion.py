"""Legality of moving a block to another place of the program, and of making a buffer private."""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.arith.linear import mentions
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.node import Node, children, walk
from aisc.ir.tensor.expr import Load
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import Alloc, Block, For, Region, Seq, Stmt, Store, seq
from aisc.passes.schedule.region import region_under
from aisc.passes.schedule.tree import Place, indexer, places


def reads_of(block: Block) -> set[Buffer]:
    """Buffers that a block reads; a reduction reads what it writes."""
    own = {w.buffer for w in block.writes} if block.combiner else set()
    return {r.buffer for r in block.reads} | own


def writes_of(block: Block) -> set[Buffer]:
    """Buffers that a block writes."""
    return {w.buffer for w in block.writes}


def require_unchanged(
    step: str, func: Func, moved: Block, start: Block, stop: Block, exempt: set[Buffer]
) -> None:
    """No block from `start` to `stop` (in program order, `moved` aside) may write what `moved`
    reads, or touch what it writes; `exempt` buffers are accounted for by the caller. E303."""
    blocks = [p.block for p in places(func.body)]
    first, last = (next(k for k, b in enumerate(blocks) if b is x) for x in (start, stop))
    reads, writes = reads_of(moved) - exempt, writes_of(moved) - exempt
    for other in blocks[min(first, last) : max(first, last) + 1]:
        if other is moved:
            continue
        clash = (writes_of(other) & (reads | writes)) | (reads_of(other) & writes)
        if clash:
            names = ", ".join(sorted(b.name for b in clash))
            raise error(
                "E303",
                f"{step} would move block {moved.name} past block {other.name}",
                f"both touch {names}, and at least one of them writes it",
            )


def with_allocs_first(func: Func) -> Func:
    """Declare the function-level buffers before anything else, so that blocks may move up."""
    if not isinstance(func.body, Seq):
        return func
    allocs = [s for s in func.body.stmts if isinstance(s, Alloc)]
    others = [s for s in func.body.stmts if not isinstance(s, Alloc)]
    return replace(func, body=seq(*allocs, *others))


def require_visible(step: str, func: Func) -> None:
    """Every buffer is declared where it is used (E302): private buffers stay in their scope."""

    def visit(node: Node, known: set[str]) -> None:
        if isinstance(node, Seq):
            inside = set(known)
            for s in node.stmts:
                if isinstance(s, Alloc):
                    inside.add(s.buffer.name)
                else:
                    visit(s, inside)
            return
        if isinstance(node, Load | Store | Region) and node.buffer.name not in known:
            raise error("E302", f"{step}: {node.buffer.name} does not exist at that place")
        for child in children(node):
            visit(child, known)

    visit(func.body, {b.name for b in func.params})


def order_of(func: Func, block: Block) -> int:
    """Position of a block in program order."""
    return next(k for k, p in enumerate(places(func.body)) if p.block is block)


def require_private(func: Func, buffer: Buffer, scope: For) -> None:
    """Each iteration of `scope` must write all that it reads of `buffer` (E303).

    Writes count when they are complete within the iteration: maps, and reductions whose reduce
    iterators are bound inside and whose initialisation is inside too.
    """
    inside = [p for p in places(scope) if buffer in writes_of(p.block) | reads_of(p.block)]
    outer = {f.var for f in _chain(func, scope)}
    for p in inside:
        if not p.block.combiner or buffer not in writes_of(p.block):
            continue
        for it, value in zip(p.block.iters, p.block.bindings, strict=True):
            if it.kind != "spatial" and any(mentions(value, v) for v in outer):
                raise error(
                    "E303",
                    f"set_scope({buffer.name}): block {p.block.name} carries a partial result "
                    f"from one iteration of {scope.var.name} to the next",
                )
    if not any(_starts(p, buffer) for p in inside):
        raise error("E303", f"set_scope({buffer.name}): nothing initialises it inside the scope")
    _require_covered(func, buffer, scope)


def _chain(func: Func, scope: For) -> tuple[For, ...]:
    for p in places(func.body):
        for k, f in enumerate(p.loops):
            if f is scope:
                return p.loops[: k + 1]
    return ()


def _starts(place: Place, buffer: Buffer) -> bool:
    """Whether a block gives `buffer` its first value."""
    block = place.block
    return buffer in writes_of(block) and (not block.combiner or block.init is not None)


def _require_covered(func: Func, buffer: Buffer, scope: For) -> None:
    try:
        read = region_under(func, scope, buffer, write=False)
    except CompileError:
        return  # nothing reads it
    written = region_under(func, scope, buffer, write=True)
    index = indexer(_chain(func, scope), func.dims)
    for r_low, r_size, w_low, w_size in zip(
        read.low, read.extent, written.low, written.extent, strict=True
    ):
        if not (index.proves(w_low <= r_low) and index.proves(r_low + r_size <= w_low + w_size)):
            raise error(
                "E303",
                f"set_scope({buffer.name}): an iteration of {scope.var.name} reads what another "
                "one writes",
            )


def private_allocs(stmt: Stmt) -> list[Buffer]:
    """Buffers declared below a statement."""
    return [n.buffer for n in walk(stmt) if isinstance(n, Alloc)]
