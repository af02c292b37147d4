"""Weights that a kernel computes from what is stored of them: numbers of few bits with scales.

A map that makes a factor of a contraction from constants alone is no kernel's pass of its own, for
then floats would be moved after all. Where a tile has all rows, the map is inlined, so that codes
become floats in registers, once::

    for panel { for block { for pair { x[k] * (f32(codes << 28 >> 28) * scale) + … } } }

Where rows are many, each panel of floats is computed before the tiles that read it, and stays in
cache meanwhile::

    for panel { w[K, width] = …;  for tile of rows { … } }

Constants are packed like weights of a panel, so that a step reads its vectors side by side.
"""

from __future__ import annotations

from functools import partial
from math import prod

from aisc.ir.dtypes import i64
from aisc.ir.node import distinct
from aisc.ir.tensor.expr import Binary, Cast, Const, Load, Var
from aisc.ir.tensor.linear import mentions
from aisc.ir.tensor.stmt import Block, Iter, Store
from aisc.ir.tensor.tree import find_loop, find_place, places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.structure import Reduction, known_factor, plain_axis
from aisc.passes.schedule.schedule import Schedule, unless_refused

# Rows of weights that share a byte, at most.
IN_A_BYTE = 4
# The part of the first-level cache that is asked for before it is read.
PART_AHEAD = 16
# Steps for an element that take no longer than storing it in cache and reading it, for each tile.
MOST_STEPS = 6


def maker_of(s: Schedule, reduction: Reduction) -> Block | None:
    """The map that computes the weights of a contraction from constants, for it alone."""
    weights = reduction.weights
    if weights is None or not reduction.contraction or weights.buffer.role != "scratch":
        return None
    blocks = [p.block for p in places(s.func.body)]
    makers = [b for b in blocks if weights.buffer in {w.buffer for w in b.writes}]
    readers = [b for b in blocks if weights.buffer in {r.buffer for r in b.reads}]
    if len(makers) != 1 or readers != [reduction.block] or makers[0].init is not None:
        return None
    (maker,) = makers
    stored = [r.buffer for r in maker.reads]
    own = isinstance(maker.body, Store) and maker.body.indices == tuple(
        it.var for it in maker.iters
    )
    return maker if own and stored and all(b.role == "weight" for b in stored) else None


def in_registers(reduction: Reduction, maker: Block, rows: int) -> bool:
    """Whether tiles of so many rows compute their weights themselves: where one has all rows, or
    where several do so in fewer steps than storing a panel and reading it takes."""
    if reduction.row is None:
        return True
    tiles = -(-known_factor(reduction.row.extent) // rows)
    return tiles == 1 or 0 < tiles * _steps(maker) <= MOST_STEPS


def _steps(maker: Block) -> int:
    """Operations for an element, those on its place aside."""
    values = [n for n in distinct(maker.body) if isinstance(n, Binary | Cast | Load)]
    return sum(not isinstance(n, Load) and n.dtype is not i64 for n in values)


def with_codes(
    s: Schedule, reduction: Reduction, width: int, inlined: bool
) -> tuple[Schedule, str]:
    """Stored weights packed in panels; and the map that makes floats of them, none where it is
    inlined or there is none, or it was refused."""
    maker = maker_of(s, reduction)
    if maker is None:
        return s, ""
    if inlined:
        after = unless_refused(s, partial(_inlined, reduction, maker, width))
        if after is not s:
            return after, ""
    after = unless_refused(s, partial(_in_panels, reduction, maker, width))
    return after, "" if after is s else maker.name


def _inlined(reduction: Reduction, maker: Block, width: int, s: Schedule) -> Schedule:
    s = _packed(s, reduction, maker, width).inline(maker.name)
    return _without_quotients(s, reduction.block.name, reduction.lane.var)


def _in_panels(reduction: Reduction, maker: Block, width: int, s: Schedule) -> Schedule:
    s = _packed(s, reduction, maker, width)
    place = find_place(s.func, maker.name)
    lane = _lane(reduction, maker)
    return s.clamp_tail(maker.name, place.loops[maker.iters.index(lane)].var.name, width)


def _lane(reduction: Reduction, maker: Block) -> Iter:
    """The iterator of a map for the lanes of a contraction."""
    assert reduction.weights is not None, "a contraction has weights"
    axis = plain_axis(reduction.weights, reduction.lane.var)
    return maker.iters[-1 if axis is None else axis]


def _packed(s: Schedule, reduction: Reduction, maker: Block, width: int) -> Schedule:
    """Each constant with the columns of a panel side by side, panel by panel."""
    lane = _lane(reduction, maker).var
    loads = [n for n in distinct(maker.body) if isinstance(n, Load)]
    for load in {n.buffer.name: n for n in loads}.values():
        axis = plain_axis(load, lane)
        if axis is None:
            continue
        rest = [k for k in range(load.buffer.rank + 1) if k not in (axis, axis + 1)]
        s = s.pack(load.buffer.name, axis, width, (axis, *rest, axis + 1))
    return s


def _without_quotients(s: Schedule, name: str, lane: Var) -> Schedule:
    """Two loops and two iterators for one of the rows of weights that is divided by a constant in
    an index, as blocks of rows are, and rows that share a byte."""
    block = find_place(s.func, name).block
    for position, (it, loop) in enumerate(zip(block.iters, block.bindings, strict=True)):
        kind = "spatial" if block.init is None else "reduce"
        size = _divisor(block, it) if it.kind == kind and it.var != lane else 0
        if size and isinstance(loop, Var):
            s = s.split(loop.name, size).split_iter(name, position, size)
            return _without_quotients(s, name, lane)
    return s


def _divisor(block: Block, it: Iter) -> int:
    """The least constant by which indices divide an iterator, and that divides its extent; 0 where
    there is none. Lanes are divided by panels."""
    extent = int(it.extent.value) if isinstance(it.extent, Const) else 0
    found = []
    for n in distinct(block.body):
        if isinstance(n, Binary) and n.op in ("floordiv", "mod") and mentions(n.a, it.var):
            size = int(n.b.value) if isinstance(n.b, Const) and n.a == it.var else 0
            if 1 < size < extent and extent % size == 0:
                found.append(size)
    return min(found, default=0)


def floats_of_panel(s: Schedule, maker: str, panels: str, lanes: int, d: Chooser) -> Schedule:
    """The map that makes the floats of a panel, in the loop over panels, with vectors; they lie on
    the stack, where the next panel takes their place, unless they are more than the second-level
    cache holds: then each turn of that loop has memory of its own."""
    buffer = find_place(s.func, maker).block.writes[0].buffer
    s = s.compute_at(maker, panels)
    turns = [f.extent for f in find_place(s.func, maker).loops]
    size = prod(int(n.value) for n in turns[1:] if isinstance(n, Const)) * buffer.dtype.bytes
    few = size <= d.target.second_cache.bytes
    s = s.set_scope(buffer.name, "stack" if few else "thread")
    s = _without_quotients(s, maker, find_place(s.func, maker).block.iters[-1].var)
    loops = find_place(s.func, maker).loops
    last = loops[-1].var.name
    s = s.split(last, lanes, names=(f"{last}_v", f"{last}_l")).vectorize(f"{last}_l")
    inner = [loops[-2].var.name] if len(loops) > 2 else []
    for name in (*(n for n in inner if is_short(s, n)), f"{last}_v"):
        s = s.unroll(name)
    rows = [f for f in find_place(s.func, maker).loops[1:] if f.kind == "serial"]
    return codes_ahead(s, maker, rows[-1].var.name, d) if rows else s


def is_short(s: Schedule, loop: str) -> bool:
    """Whether a loop is over the rows of weights that share a byte."""
    extent = find_loop(s.func, loop).extent
    return isinstance(extent, Const) and int(extent.value) <= IN_A_BYTE


def codes_ahead(s: Schedule, block: str, loop: str, d: Chooser) -> Schedule:
    """Ask for the codes that a tile reads some steps later: what makes floats of them keeps a core
    from looking so far ahead that memory is never idle."""
    place = find_place(s.func, block)
    stored = [r.buffer for r in place.block.reads if r.buffer.role == "weight"]
    codes = max(stored, key=lambda b: prod(n for n in b.shape if isinstance(n, int)))
    width = codes.shape[-1]
    assert isinstance(width, int), "constants have known sizes"
    own = d.target.first_cache.bytes // PART_AHEAD // (width * codes.dtype.bytes)
    ahead = d.pick(f"{block}.codes_ahead", (0, own // 2, 2 * own), own)
    if not ahead:
        return s
    return unless_refused(s, lambda s: s.prefetch(block, codes.name, loop, ahead=ahead))
