"""Legality of moving a block to another place of the program."""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.diagnostics import error
from aisc.ir.node import Node, children
from aisc.ir.tensor.expr import Load
from aisc.ir.tensor.func import Buffer, Func
from aisc.ir.tensor.stmt import Alloc, Block, Region, Seq, Store, seq
from aisc.ir.tensor.tree import Place, places
from aisc.ir.tensor.visitor import touched


def reads_of(block: Block) -> set[Buffer]:
    """Buffers that a block reads; a reduction reads what it writes."""
    own = {w.buffer for w in block.writes} if block.combiner else set()
    return {r.buffer for r in block.reads} | own


def updates(block: Block) -> bool:
    """Whether a block reads what it writes, other than to reduce."""
    written, seen = writes_of(block), set[int]()
    stack: list[Node] = [block.body]
    while stack:
        n = stack.pop()
        if id(n) in seen:
            continue
        seen.add(id(n))
        if isinstance(n, Load) and n.buffer in written:
            return not block.combiner
        stack.extend(children(n))
    return False


def writes_of(block: Block) -> set[Buffer]:
    """Buffers that a block writes."""
    return {w.buffer for w in block.writes}


def require_unchanged(
    step: str,
    func: Func,
    moved: Block,
    start: Block,
    stop: Block,
    exempt: set[Buffer],
    shared: int = 0,
) -> None:
    """No block from `start` to `stop` (in program order, `moved` aside) may write what `moved`
    reads, or touch what it writes; `exempt` buffers are accounted for by the caller. E303.

    Loops around either run all of their blocks in between, so whole nests are looked at: those
    inside of the first `shared` loops, in the same iteration of which `moved` stays."""
    found = list(places(func.body))
    blocks = [p.block for p in found]
    ends = sorted(next(k for k, b in enumerate(blocks) if b is x) for x in (start, stop))
    first, last = (_nest_from(found, e, d, shared) for e, d in zip(ends, (-1, 1), strict=True))
    reads, writes = reads_of(moved) - exempt, writes_of(moved) - exempt
    for other in blocks[first : last + 1]:
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


def _nest_from(found: list[Place], at: int, step: int, depth: int) -> int:
    """The first or last block of the outermost nest, `depth` loops down, that a block stands in."""
    top = found[at].loops[depth : depth + 1]
    while top and 0 <= at + step < len(found) and found[at + step].loops[depth : depth + 1] == top:
        at += step
    return at


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
        if all(b.name in known for b in touched(node)):
            return
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
