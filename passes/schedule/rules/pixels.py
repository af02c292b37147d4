"""Register tiles over the pixels of an image, line after line as one axis.

A tile takes rows of one axis: of a convolution the pixels of a line. Seven pixels are no whole
tiles of four, but 49 are nearly, and the 196 of an image 14 wide are. What a tile reads lies at
places of its own for each row then, found once before the reduction.
"""

from __future__ import annotations

from functools import partial

from aisc.ir.diagnostics import error
from aisc.ir.node import walk
from aisc.ir.tensor.expr import ONE, Const, Load, Var
from aisc.ir.tensor.linear import mentions
from aisc.ir.tensor.stmt import Block, Iter
from aisc.ir.tensor.tree import find_place, places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.structure import Reduction
from aisc.passes.schedule.rules.tile import fewest_cycles
from aisc.passes.schedule.rules.tile_cost import extent_of
from aisc.passes.schedule.schedule import Schedule

# The part of the cycles that must be saved: more places to keep are not for nothing.
WORTH = 0.97


def use_pixels(s: Schedule, reduction: Reduction, d: Chooser) -> Schedule:
    """Let the tiles of a contraction take rows of two axes together where fewer are wasted."""
    outer, block = _line_of(reduction), reduction.block
    if outer is None or reduction.row is None:
        return s
    together = extent_of(outer) * extent_of(reduction.row)
    fewer = fewest_cycles(reduction, d, together) <= WORTH * fewest_cycles(reduction, d)
    own = "image" if fewer else "line"
    if d.pick(f"{block.name}.rows", ("line", "image"), own) == "line":
        return s
    return d.attempt(s, partial(_together, name=block.name, line=outer))


def _line_of(reduction: Reduction) -> Iter | None:
    """The axis before that of rows, if weights do not depend on it either."""
    block, row, weights, data = reduction.block, reduction.row, reduction.weights, reduction.data
    if not reduction.contraction or row is None or weights is None or data is None:
        return None
    at = block.iters.index(row)
    outer = block.iters[at - 1] if at else None
    if outer is None or outer.kind != "spatial" or ONE in (outer.extent, row.extent):
        return None
    if not isinstance(outer.extent, Const) or not isinstance(row.extent, Const):
        return None
    uses = [any(mentions(i, outer.var) for i in load.indices) for load in (weights, data)]
    return outer if uses == [False, True] else None


def _together(s: Schedule, name: str, line: Iter) -> Schedule:
    """One iterator for lines and pixels, of the contraction and of who reads its result."""
    block = find_place(s.func, name).block
    if block.writes[0].buffer.role != "scratch":
        s = s.cache_write(name, "global")
        block = find_place(s.func, name).block
    result, axis = block.writes[0].buffer, block.iters.index(line)
    readers = [p.block for p in places(s.func.body) if result in {r.buffer for r in p.block.reads}]
    positions = {b.name: _position(b, result.name, axis) for b in readers if b.name != name}
    for found, at in {name: axis, **positions}.items():
        outer, inner = find_place(s.func, found).block.bindings[at : at + 2]
        assert isinstance(outer, Var) and isinstance(inner, Var), "blocks are not scheduled yet"
        s = s.fuse(outer.name, inner.name).fuse_iters(found, at)
    return s.fuse_axes(result.name, axis)


def _position(block: Block, name: str, axis: int) -> int:
    """The position of the first of two iterators that choose an element of a buffer along `axis`
    and the axis behind it."""
    loads = [n for n in walk(block.body) if isinstance(n, Load) and n.buffer.name == name]
    pairs = {n.indices[axis : axis + 2] for n in loads}
    variables = tuple(it.var for it in block.iters)
    for at in range(len(variables) - 1):
        if pairs == {variables[at : at + 2]}:
            return at
    raise error("E302", f"{block.name} reads {name} in another order")
