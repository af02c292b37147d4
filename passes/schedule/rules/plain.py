"""Maps that no other rule takes: vectors along their last axis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod

from aisc.ir.node import distinct
from aisc.ir.tensor.expr import Binary, Const, Var
from aisc.ir.tensor.stmt import Block, For, Iter
from aisc.ir.tensor.tree import Place, find_place, places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.memory import burst_of, in_bursts, is_far
from aisc.passes.schedule.rules.parallel import are_few, nests_apart
from aisc.passes.schedule.rules.stretches import ENOUGH, Walk, filled, walk_of
from aisc.passes.schedule.rules.structure import (
    has_calls,
    lane_options,
    lanes_of,
    vectors_together,
)
from aisc.passes.schedule.schedule import Schedule

# Rows of fewer vectors are joined to longer ones before they are cut.
SHORT_ROW = 4
# The part of a vector's lanes from which on it is better than one element after the other.
LEAST_PART = 4
# Nests into which one is cut where conditions change, and turns of a row that are apart for them.
MOST_PIECES = 16
# Turns of a loop that are told apart because lanes are masked differently in each.
FEW_PHASES = 4
# Vectors of a period that are told apart: with elementary functions and without.
PERIOD_OF_CALLS, PERIOD = 8, 16


def vectorize_map(s: Schedule, place: Place, d: Chooser) -> Schedule:
    """Vectorize the last spatial loop of a nest; what lies together is first fused into one loop,
    and the nest is cut where it changes what it does."""
    s = _without_quotients(s, place.block)
    return _vectorize(s, place.block.name, d, MOST_PIECES)


def _without_quotients(s: Schedule, block: Block) -> Schedule:
    """Two loops and two iterators for one whose remainder is an index: what is repeated along an
    axis, ``x[i % 8]``, is there once for each value of the outer one."""
    for position, (it, value) in enumerate(zip(block.iters, block.bindings, strict=True)):
        factor = _divisor(block, it)
        if factor is not None and isinstance(value, Var):
            s = s.split(value.name, factor).split_iter(block.name, position, factor)
            return _without_quotients(s, find_place(s.func, block.name).block)
    return s


def _divisor(block: Block, it: Iter) -> int | None:
    """A constant by which indices divide an iterator, and that divides its extent."""
    for n in distinct(block.body):
        if isinstance(n, Binary) and n.op in ("floordiv", "mod") and n.a == it.var:
            size = int(n.b.value) if isinstance(n.b, Const) else 0
            whole = int(it.extent.value) if isinstance(it.extent, Const) else 0
            if 1 < size < whole and whole % size == 0:
                return size
    return None


def _vectorize(s: Schedule, name: str, d: Chooser, pieces: int) -> Schedule:
    """:func:`vectorize_map` for one block, cut into at most `pieces` nests."""
    w = walk_of(s.func, find_place(s.func, name))
    if w is None:
        return s
    last = len(w.loops) - 1
    first = w.stretch(last)
    for f in w.loops[:first]:
        cuts = w.cuts.get(f.var, ())
        if 0 < len(cuts) < pieces:
            s, made = _partitioned(s, name, f.var.name, cuts, d)
            for piece in made:
                s = _vectorize(s, piece, d, pieces // (len(cuts) + 1))
            return s
    return _lanes(s, name, w, first, d)


def _partitioned(
    s: Schedule, name: str, loop: str, at: Sequence[int], d: Chooser, rest: str = ""
) -> tuple[Schedule, list[str]]:
    """A loop around a block in pieces, nests of their own where there are few turns around it, and
    the blocks in them; `rest` names the last of two loops."""
    before = {p.block.name for p in places(s.func.body)} - {name}
    loops = list(find_place(s.func, name).loops)
    outer = loops[: [f.var.name for f in loops].index(loop)]
    s = s.partition(loop, *at, names=(loop, rest)) if rest else s.partition(loop, *at)
    made = [p.block.name for p in places(s.func.body) if p.block.name not in before]
    if are_few(outer, d):
        s = nests_apart(s, made, len(outer))
    return s, made


def _lanes(s: Schedule, name: str, w: Walk, first: int, d: Chooser) -> Schedule:
    """Vectors along the innermost stretch, or along periods where that is short."""
    block = find_place(s.func, name).block
    lanes, last = lanes_of(block, d.target), len(w.loops) - 1
    most = PERIOD_OF_CALLS if has_calls(block) else PERIOD
    size = prod(w.size(k) or lanes for k in range(first, last + 1))
    used = filled(size, lanes) if size >= lanes // LEAST_PART else 1 / lanes
    if used < ENOUGH and first > 0:
        found = w.period(last, lanes, most, used)
        if found is not None and d.pick(f"{name}.period", (True, False), True):
            return _periods(s, name, w, found, lanes, d)
    alone = first == last and w.loops[last].var in w.bent and w.size(last) is not None
    if alone and size <= most * lanes and d.pick(f"{name}.apart", (True, False), True):
        return _periods(s, name, w, (last, size), lanes, d)
    s = _with_neighbour(s, w, first)
    first = _static(w, first, lanes)
    joint = d.pick(f"{name}.joint", range(1, last - first + 2), last - first + 1)
    loops = w.loops[last + 1 - joint :]
    s, loop = _fused(s, loops)
    if all(isinstance(f.extent, Const) for f in loops):
        size, edges = 1, list[int]()
        for f in reversed(loops):  # but for loops of one turn, only the first has edges
            edges += [size * t for t in w.edges.get(f.var, ())]
            size *= int(f.extent.value) if isinstance(f.extent, Const) else 1
        return _row(s, block, loop, size, tuple(edges), len(loops) == len(w.loops), d)
    return cut(s, block, loop, None, (), d)


def _with_neighbour(s: Schedule, w: Walk, first: int) -> Schedule:
    """The loop around a stretch unrolled, where it is short and a condition takes it together with
    what is in the stretch, as the phases of places a stride apart: then lanes are masked by what is
    known while code is made."""
    if first == 0 or not {f.var for f in w.loops[first:]} & w.tangled:
        return s
    around = w.loops[first - 1]
    short = 1 < (w.size(first - 1) or FEW_PHASES + 1) <= FEW_PHASES
    return s.unroll(around.var.name) if short and around.var in w.tangled else s


def _fused(s: Schedule, loops: Sequence[For]) -> tuple[Schedule, str]:
    names = [f.var.name for f in loops]
    last = names[0]
    for k, name in enumerate(names[1:]):
        s = s.fuse(last, name, name=f"{names[0]}_f{k}")
        last = f"{names[0]}_f{k}"
    return s, last


def _static(w: Walk, first: int, lanes: int) -> int:
    """The first of the loops of a stretch whose fused index needs no division at run time: those
    of constant extent, and one symbolic loop around them where they are short."""
    if w.size(first) is not None or first == len(w.loops) - 1:
        return first
    size = prod(w.size(k) or 1 for k in range(first + 1, len(w.loops)))
    return first if size < SHORT_ROW * lanes else first + 1


def _periods(
    s: Schedule, name: str, w: Walk, found: tuple[int, int], lanes: int, d: Chooser
) -> Schedule:
    """Loops from the first one on as periods of `count` elements, whose vectors are told apart."""
    first, count = found
    size = prod(w.size(k) or 1 for k in range(first, len(w.loops)))
    s, loop = _fused(s, w.loops[first:])
    whole = size // count * count
    rest = ""
    if 0 < whole < size:
        rest = f"{loop}_rest"
        s, _ = _partitioned(s, name, loop, (whole,), d, rest)
    if size > count:
        s = s.split(loop, count, names=(f"{loop}_o", f"{loop}_p"))
        loop = f"{loop}_p"
    for part in (loop, rest) if rest else (loop,):
        s = s.split(part, lanes, names=(f"{part}_v", f"{part}_l"))
        s = s.unroll(f"{part}_v").vectorize(f"{part}_l")
    return s


def _row(
    s: Schedule, block: Block, loop: str, size: int, edges: tuple[int, ...], alone: bool, d: Chooser
) -> Schedule:
    """Vectors of a loop of known size; in bursts where it is `alone` and on far memory."""
    if alone and not edges:
        usual = burst_of(block, d.target)
        own = usual if has_calls(block) and is_far(s.func, d.target) else 0
        bursts = (0, *(usual * n // 4 for n in (1, 2, 4, 8, 16)))
        burst = d.pick(f"{block.name}.burst", (n for n in bursts if 2 * n <= size), own)
        whole = s
        if burst:
            step = partial(in_bursts, block=block.name, loop=loop, burst=burst, d=d)
            s = d.attempt(s, step)
        if s is not whole:
            return s
    return cut(s, block, loop, size, edges, d)


def cut(
    s: Schedule, block: Block, loop: str, size: int | None, edges: tuple[int, ...], d: Chooser
) -> Schedule:
    """Vectors of a loop's iterations, some of them in each turn; those with an edge are apart."""
    own = lanes_of(block, d.target)
    if size is not None and size < own // LEAST_PART:
        return s
    if size is not None and size < own:
        own = 1 << (size - 1).bit_length()
    own *= vectors_together(block, size, own)
    lanes = d.pick(f"{block.name}.lanes", lane_options(own, size), own)
    turns = (n for n in (1, 2, 4) if size is None or n * lanes <= size)
    turn = d.pick(f"{block.name}.unrolled", turns, 1)
    if turn == 1:
        s = s.split(loop, lanes, names=(f"{loop}_o", f"{loop}_l"))
        s, count = s.vectorize(f"{loop}_l"), -(-(size or 0) // lanes)
        ends = {k for t in edges for k in (t // lanes, -(-t // lanes))}
        points = sorted(k for k in ends if 0 < k < count)
        if 0 < len(points) <= MOST_PIECES:
            s, _ = _partitioned(s, block.name, f"{loop}_o", points, d)
        return s
    s = s.split(loop, turn * lanes, names=(f"{loop}_o", f"{loop}_i"))
    s = s.split(f"{loop}_i", lanes, names=(f"{loop}_v", f"{loop}_l"))
    return s.unroll(f"{loop}_v").vectorize(f"{loop}_l")
