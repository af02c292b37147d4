"""Maps that change the order of axes: tiles over the axis contiguous in what they read and the one
contiguous in what they write.

``y[i, j] = x[j, i]`` has a vector of results along j, whose operands lie apart. With a tile over
both axes each operand is a vector along i, and the tile is transposed in registers
(:mod:`aisc.codegen.llvm.transpose`)::

    for io, jo: unroll i in 0..16 { vectorize j in 0..16 { y[io*16+i, jo*16+j] = x[jo*16+j, …] } }

Where one of the axes is a few channels long, the tile has all of them and is one piece of memory
on that side. What whole tiles leave over of few channels is computed element by element, of other
axes by tiles that have fewer turns, or lanes that are not executed.
"""

from __future__ import annotations

from dataclasses import replace

from aisc.ir.dataclass import dataclass
from aisc.ir.node import walk
from aisc.ir.tensor.expr import Const, Expr, Load, Var
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.stmt import Block, Store
from aisc.ir.tensor.tree import Place, find_place, linear_address, places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.parallel import nests_apart
from aisc.passes.schedule.rules.structure import lanes_of
from aisc.passes.schedule.schedule import Schedule

MAX_CHANNELS = 8
LEAST = 5  # iterations of an axis from which on a tile pays that has as many in use


# Elements from one iteration to the next; nothing for those that depend on sizes at run time.
Steps = dict[Var, int | None]


@dataclass(frozen=True, slots=True)
class _Axis:
    """Iterators that count through memory as one in every access, by the variable of the last."""

    var: Var
    loops: tuple[str, ...]
    size: int | Var | None  # a dimension known at run time; nothing for other extents

    def holds(self, count: int) -> bool:
        """Whether it may have `count` iterations."""
        return isinstance(self.size, Var) or (self.size is not None and self.size >= count)


@dataclass(frozen=True, slots=True)
class _Tile:
    """The axis of the turns and the axis of the lanes, and how many of each a tile has."""

    rows: _Axis
    lanes: _Axis
    count: int
    width: int
    few: bool  # whether one of the axes is a few channels
    by_rows: bool  # whether the next tile has the next rows: those of few, long steps in memory


def tile_transposed(s: Schedule, place: Place, d: Chooser) -> Schedule:
    """Tile a map that transposes; the same schedule for others."""
    block = place.block
    if block.combiner or not isinstance(block.body, Store) or len(block.iters) < 2:
        return s
    plain = [f.var for f in place.loops] == list(block.bindings)
    if not plain or any(it.kind != "spatial" for it in block.iters):
        return s
    store = block.body
    accesses = [_steps(store.buffer, store.indices)]
    accesses += [_steps(n.buffer, n.indices) for n in walk(store.value) if isinstance(n, Load)]
    steps = [x for x in accesses if x is not None]
    if len(steps) < len(accesses):
        return s
    own, axes = lanes_of(place.block, d.target), _axes(block, steps)
    widths = (n for n in (own // 2, own) if n > 1 and _tile(axes, steps[0], steps[1:], n))
    if _tile(axes, steps[0], steps[1:], own) is None:
        return s
    width = d.pick(f"{block.name}.turned", (*widths, 0), own)
    found = _tile(axes, steps[0], steps[1:], width) if width else None
    if found is None:
        return s
    by_rows = d.pick(f"{block.name}.next_tile", ("rows", "lanes"), _names(found.by_rows)) == "rows"
    return _tiled(s, block.name, replace(found, by_rows=by_rows))


def _names(by_rows: bool) -> str:
    return "rows" if by_rows else "lanes"


def _axes(block: Block, steps: list[Steps]) -> list[_Axis]:
    """The iterators of a block, neighbours that every access passes through as one together."""
    axes: list[_Axis] = []
    for it, value in zip(block.iters, block.bindings, strict=True):
        assert isinstance(value, Var), "a freshly lowered block"
        size = int(it.extent.value) if isinstance(it.extent, Const) else None
        axis = _Axis(it.var, (value.name,), it.extent if isinstance(it.extent, Var) else size)
        if axes and isinstance(axes[-1].size, int) and size is not None:
            outer, whole = axes[-1], axes[-1].size * size
            if all(_times(x.get(it.var, 0), size) == x.get(outer.var, 0) for x in steps):
                axis = _Axis(it.var, (*outer.loops, value.name), whole)
                axes.pop()
        axes.append(axis)
    return axes


def _times(step: int | None, size: int) -> int:
    """The step of an outer iterator that continues an inner one; -1 where there is none."""
    return -1 if step is None else step * size


def _tile(axes: list[_Axis], written: Steps, reads: list[Steps], width: int) -> _Tile | None:
    last = axes[-1]
    if written.get(last.var) != 1:
        return None
    for read in reads:
        rows = next((a for a in axes[:-1] if read.get(a.var) == 1), None)
        if rows is None or read.get(last.var, 0) in (0, 1):
            continue
        far = (read.get(last.var) or 0) > (written.get(rows.var) or 0)
        for few, many in ((rows, last), (last, rows)):
            count = few.size if isinstance(few.size, int) else 0
            whole = count in (read.get(many.var), written.get(many.var))
            if 2 <= count <= MAX_CHANNELS and whole and many.holds(width):
                return _Tile(few, many, count, width, True, far)
        if rows.holds(LEAST) and last.holds(LEAST):
            return _Tile(rows, last, width, width, False, far)
    return None


def _steps(b: Buffer, indices: tuple[Expr, ...]) -> Steps | None:
    """What an access moves by with each iterator; nothing where it is not linear."""
    steps: Steps = {}
    for mono, c in linear_address(b, indices).terms:
        for atom in mono:
            if not isinstance(atom, Var):
                return None
            steps[atom] = c if len(mono) == 1 and atom not in steps else None
    return steps


def _tiled(s: Schedule, block: str, t: _Tile) -> Schedule:
    """Tiles as the innermost loops of a nest that has whole ones only; what is left over of the
    lanes and of the rows are nests after it."""
    s, row = _fused(s, t.rows)
    s, lane = _fused(s, t.lanes)
    order = [f.var.name for f in find_place(s.func, block).loops]
    outer = [name for name in order if name not in (row, lane)]
    s = s.reorder(*outer, row, lane)
    pieces = [_Piece(block, t.width, t.count)]
    s, pieces = _apart(s, pieces, t.lanes, t.width, lanes=True)
    s, pieces = _apart(s, pieces, t.rows, t.count, lanes=False)
    s = nests_apart(s, [p.block for p in pieces], len(outer))  # whose loops can be divided
    for piece in pieces:
        s = _as_tiles(s, piece, t)
    return s


@dataclass(frozen=True, slots=True)
class _Piece:
    """A nest over a part of both axes: its block, lanes and turns, 0 for those that are unknown."""

    block: str
    width: int
    count: int


def _apart(
    s: Schedule, pieces: list[_Piece], axis: _Axis, count: int, lanes: bool
) -> tuple[Schedule, list[_Piece]]:
    """What whole tiles leave over of an axis becomes a nest of its own."""
    whole, rest = _whole_tiles(axis, count)
    if rest is None:
        return s, pieces
    found: list[_Piece] = []
    for piece in pieces:
        last = replace(piece, width=rest) if lanes else replace(piece, count=rest)
        if whole == 0:
            found.append(last)
            continue
        before = {p.block.name for p in places(s.func.body)}
        loops = [f.var.name for f in find_place(s.func, piece.block).loops]
        s = s.partition(loops[-1 if lanes else -2], whole)
        if lanes:
            s = s.fission(loops[-2], piece.block)
        (new,) = [p.block.name for p in places(s.func.body) if p.block.name not in before]
        found += [piece, replace(last, block=new)]
    return s, found


def _whole_tiles(axis: _Axis, count: int) -> tuple[int | str, int | None]:
    """Iterations in whole tiles, and how many are left over; ``None`` where these are all."""
    if isinstance(axis.size, Var):
        return f"{axis.size.name} // {count} * {count}", 0
    assert axis.size is not None, "a tile is made of known axes"
    return axis.size // count * count, axis.size % count or None


def _as_tiles(s: Schedule, piece: _Piece, t: _Tile) -> Schedule:
    """Tiles of a nest, the last of the lanes perhaps not whole; an unknown rest stays as it is."""
    if not piece.width or not piece.count:
        return s
    row, lane = (f.var.name for f in find_place(s.func, piece.block).loops[-2:])
    s = s.split(row, piece.count, names=(f"{row}_t", f"{row}_e"))
    s = s.split(lane, t.width, names=(f"{lane}_t", f"{lane}_e"))
    tiles = (f"{lane}_t", f"{row}_t") if t.by_rows else (f"{row}_t", f"{lane}_t")
    s = s.reorder(*tiles, f"{row}_e", f"{lane}_e")
    return s.unroll(f"{row}_e").vectorize(f"{lane}_e")


def _fused(s: Schedule, axis: _Axis) -> tuple[Schedule, str]:
    """One loop for the iterators of an axis."""
    loop, *others = axis.loops
    for k, other in enumerate(others):
        s = s.fuse(loop, other, name=f"{axis.loops[0]}_m{k}")
        loop = f"{axis.loops[0]}_m{k}"
    return s, loop
