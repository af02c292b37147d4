"""What kind of computation a block is, read from its access maps and never from names.

A block that accumulates products is a *contraction* when some spatial iterator, the **lane**, has
unit stride in the result and occurs in one factor only (the weights), and another, the **row**,
occurs in the other factor only. Blocks that reduce without such a pair are *window* reductions;
blocks without reduce iterators are *maps*.
"""

from __future__ import annotations

from math import prod

from aisc.ir.dataclass import dataclass
from aisc.ir.node import distinct, walk
from aisc.ir.target import Target
from aisc.ir.tensor.expr import ONE, Binary, Call, Const, Expr, Load, Unary, Var
from aisc.ir.tensor.linear import mentions
from aisc.ir.tensor.stmt import Block, Iter, Let, Seq, Stmt, Store
from aisc.ir.tensor.tree import linear_address
from aisc.passes.schedule.products import factors

# Places of a window, along its last axis, that are unrolled and read where the input lies.
MAX_WINDOW = 9
# Functions that are a few instructions.
SHORT_CALLS = frozenset({"fma", "isinf", "isnan", "ordinal"})
# Vectors of functions that are computed together, and the part of them that must be there.
TOGETHER, MOST_TOGETHER = (4, 2), 0.9


@dataclass(frozen=True, slots=True)
class Reduction:
    """A reduction whose result is indexed by its own spatial iterators.

    lane: the last spatial iterator; row: the iterator whose values share the weights (``None`` if
    there is none); weights: the factor that does not depend on `row` (``None`` for one factor);
    data: the other factor; contraction: the lane occurs in the weights only.
    """

    block: Block
    lane: Iter
    row: Iter | None
    weights: Load | None
    data: Load | None
    contraction: bool


def analyse(block: Block) -> Reduction | None:
    """The structure of a reduce block; ``None`` when it is no simple reduction."""
    store = block.body
    spatial = [it for it in block.iters if it.kind == "spatial"]
    if not isinstance(store, Store) or block.init is None or not spatial:
        return None
    if store.indices != tuple(it.var for it in spatial):
        return None
    lane = spatial[-1]
    pair = factors(store.value)
    if pair is not None and pair[0] != pair[1]:
        found = _contraction(spatial, lane, pair)
        if found is not None:
            weights, row = found
            data = pair[1] if weights is pair[0] else pair[0]
            pure = not _uses(data, lane.var)
            return Reduction(block, lane, row, weights, data, pure)
    row = spatial[-2] if len(spatial) > 1 else None
    return Reduction(block, lane, row, None, None, False)


def _contraction(
    spatial: list[Iter], lane: Iter, pair: tuple[Load, Load]
) -> tuple[Load, Iter | None] | None:
    """(weights, row): the factor that holds the lane at unit stride, and the last iterator that it
    lacks, of those with more than one value if there are any."""
    for weights in (pair[1], pair[0]):
        if not _uses(weights, lane.var):
            continue
        data = pair[0] if weights is pair[1] else pair[1]
        rows = [it for it in spatial[:-1] if not _uses(weights, it.var) and _uses(data, it.var)]
        several = [it for it in rows if it.extent != ONE] or rows
        return weights, several[-1] if several else None
    return None


def _uses(load: Load, var: Var) -> bool:
    return any(mentions(i, var) for i in load.indices)


def shared_iters(reduction: Reduction) -> list[Iter]:
    """Spatial iterators of a contraction that both factors depend on: they choose matrices."""
    weights, data = reduction.weights, reduction.data
    if weights is None or data is None:
        return []
    spatial = [it for it in reduction.block.iters if it.kind == "spatial"]
    return [it for it in spatial if _uses(weights, it.var) and _uses(data, it.var)]


def lanes_of(block: Block, target: Target) -> int:
    """Elements of the block's result in a vector, of the widest if it has several."""
    found = [n.buffer.dtype.bytes for n in walk(block.body) if isinstance(n, Store)]
    return min(16, target.vector_bits // 8 // max(found))


def vectors_together(block: Block, size: int | None, lanes: int) -> int:
    """How many vectors of a loop of `size` iterations a map computes step by step together. Each
    step of an elementary function waits for the one before, and a core keeps no more steps in mind
    than a few vectors have: those of one vector after the other would fill that with what waits."""
    if not calls_functions(block) or size is None:
        return 1
    count = -(-size // lanes)
    return next((n for n in TOGETHER if -(-count // n) * n * MOST_TOGETHER <= count), 1)


def calls_functions(block: Block) -> bool:
    """Whether a block calls elementary functions that are more than a few instructions."""
    return any(isinstance(n, Call) and n.name not in SHORT_CALLS for n in distinct(block.body))


def is_straight(block: Block) -> bool:
    """Whether a block's statements are executed one after the other, all of them."""
    return not any(isinstance(n, Stmt) and not isinstance(n, Let | Seq | Store)
                   for n in walk(block.body))  # fmt: skip


def lane_options(own: int, size: int | None) -> list[int]:
    """Lanes that a loop of `size` iterations may have instead of `own`: a half, twice as many."""
    most = [own // 2, 2 * own]
    return [n for n in most if n > 1 and (size is None or size >= n // 2)]


def plain_axis(load: Load, var: Var) -> int | None:
    """The axis of `load` that is indexed by exactly `var`, if no other axis uses it."""
    found = [k for k, i in enumerate(load.indices) if mentions(i, var)]
    return found[0] if len(found) == 1 and load.indices[found[0]] == var else None


def step_of(load: Load, var: Var) -> int | None:
    """How many elements lie between what is read for one value of `var` and for the next; ``None``
    where that is not always the same."""
    return linear_address(load.buffer, load.indices).coeff(var)


def is_window(block: Block) -> bool:
    """Whether a block reduces over a small window alone: no other iterator is folded."""
    found = analyse(block)
    sizes = window_sizes(block)
    small = bool(sizes) and sizes[-1] <= MAX_WINDOW and prod(sizes) <= MAX_WINDOW**2
    return found is not None and not found.contraction and small


def window_sizes(block: Block) -> list[int]:
    """Places that a block reduces over along each axis; none where that is not known."""
    sizes = [it.extent for it in block.iters if it.kind == "reduce"]
    known = [int(e.value) for e in sizes if isinstance(e, Const)]
    return known if len(known) == len(sizes) else []


def has_calls(block: Block) -> bool:
    """Whether a block calls elementary functions, takes roots or divides, which make it costly to
    compute twice."""
    return any(
        (isinstance(n, Call) and n.name not in SHORT_CALLS)
        or (isinstance(n, Binary) and n.op in ("pow", "div"))
        or (isinstance(n, Unary) and n.op == "sqrt")
        for n in distinct(block.body)
    )


def known_factor(extent: Expr) -> int:
    """The constant by which an extent is a multiple of something; 0 when there is none."""
    if isinstance(extent, Const):
        return int(extent.value)
    if isinstance(extent, Binary) and extent.op == "mul":
        return known_factor(extent.a) * known_factor(extent.b) or max(
            known_factor(extent.a), known_factor(extent.b)
        )
    return 0
