"""Groups of channels, each with weights of its own: a loop over groups, images of groups apart.

Where a vector is no longer than the channels of a group, all its lanes read one element, and the
channels of the result are two iterators: the group, and the channel in it. The copy with a border
that a convolution reads has the channels of a group together, and all places of a group before
those of the next: a tile of one group reads lines one after the other, which would else lie as far
apart as the pixels of all channels, often in a few sets of the cache::

    padded[y, x, g*8 + c]  →  padded[g, y, x, c]
"""

from __future__ import annotations

from functools import partial

from aisc.ir.node import distinct
from aisc.ir.tensor.expr import Binary, Const, Var
from aisc.ir.tensor.linear import Indexer, mentions
from aisc.ir.tensor.stmt import Block
from aisc.ir.tensor.tree import find_place, places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.epilogue import (
    in_place_reader,
    only_reader,
    result_of,
    through_private,
)
from aisc.passes.schedule.rules.structure import Reduction, analyse, shared_iters
from aisc.passes.schedule.schedule import Schedule


def use_groups(s: Schedule, d: Chooser) -> Schedule:
    """Give reductions over the channels of groups these loops and images."""
    for name in [p.block.name for p in places(s.func.body)]:
        size = _channels_of_group(find_place(s.func, name).block, d)
        if size and d.pick(f"{name}.grouped", (True, False), True):
            s = d.attempt(s, partial(_with_groups, name, size))
        found = analyse(find_place(s.func, name).block)
        apart = None if found is None else _images_of_groups(s, found)
        if apart is not None and d.pick(f"{name}.images_apart", (True, False), True):
            s = d.attempt(s, partial(_apart, *apart))
    return s


def _channels_of_group(block: Block, d: Chooser) -> int:
    """The channels of the result that read the same elements, if these are whole vectors, and the
    result has them of several groups side by side; else 0."""
    found = analyse(block)
    if found is None or found.contraction or found.data is None:
        return 0
    lanes, lane = d.target.lanes(found.block.writes[0].buffer.dtype), found.lane.var
    sizes = set[int]()
    for index in found.data.indices:
        if not mentions(index, lane):
            continue
        quotients = [n for n in distinct(index) if isinstance(n, Binary) and n.a == lane]
        if len(quotients) != 1 or quotients[0].op != "floordiv":
            return 0
        by = quotients[0].b
        sizes.add(int(by.value) if isinstance(by, Const) else 0)
    size = sizes.pop() if len(sizes) == 1 else 0
    return size if size % lanes == 0 else 0


def _with_groups(name: str, size: int, s: Schedule) -> Schedule:
    """The result with an axis of groups, in a buffer of its own, and iterators for both axes where
    it is made and where it is read in place."""
    if only_reader(s, result_of(s, name)) is None:
        s, _ = through_private(s, name, "global")
    out, reader = result_of(s, name), in_place_reader(s, name)
    for block in [name] if reader is None else [name, reader.name]:
        s = _in_parts(block, size, s)
    return s.split_axis(out.name, out.rank - 1, size)


def _in_parts(name: str, size: int, s: Schedule) -> Schedule:
    """The last of a block's iterators over results as a group and a channel in it."""
    block = find_place(s.func, name).block
    position = max(k for k, it in enumerate(block.iters) if it.kind == "spatial")
    loop = block.bindings[position]
    if isinstance(loop, Var):
        s = s.split(loop.name, size)
    return s.split_iter(name, position, size)


def _images_of_groups(s: Schedule, found: Reduction) -> tuple[str, int, int, int] | None:
    """A private copy that has the channels of all groups in one axis: its name, that axis, the
    channels of a group, and the first axis over which windows move."""
    load, groups = found.data, shared_iters(found)
    if not found.contraction or load is None or only_reader(s, load.buffer) is None:
        return None
    steps = {it.var: it.extent for it in found.block.iters if it.kind == "reduce"}
    moving = [k for k, i in enumerate(load.indices) if any(mentions(i, v) for v in steps)]
    for g in groups:
        axis = next(k for k, i in enumerate(load.indices) if mentions(i, g.var))
        form = Indexer().linear(load.indices[axis])
        size, extent = form.coeff(g.var), load.buffer.shape[axis]
        own = [v for v in steps if form.coeff(v) == 1]
        if size is None or size < 2 or len(own) != 1 or steps[own[0]] != Const(size):
            continue
        if axis == load.buffer.rank - 1 and isinstance(extent, int) and extent % size == 0:
            return (load.buffer.name, axis, size, moving[0]) if moving[0] < axis else None
    return None


def _apart(name: str, axis: int, size: int, first: int, s: Schedule) -> Schedule:
    """The buffer with its groups before the places of an image."""
    s = s.split_axis(name, axis, size)
    before, after = range(first), range(first, axis)
    return s.permute(name, (*before, axis, *after, axis + 1))


def lie_apart(found: Reduction) -> bool:
    """Whether what a group of channels reads lies together, and there is more than one."""
    load = found.data
    if load is None:
        return False
    groups = {it.var for it in shared_iters(found)}
    return any(i in groups for i in load.indices[1:])
