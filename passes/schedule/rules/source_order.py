"""Private copies that a contraction reads one element at a time keep the order of their source.

An image of few channels comes with its channels first, and the copy with a border that its
convolution reads would have them last: three elements in a row. Stored in the order of the source,
it is copied by vectors along the width.
"""

from __future__ import annotations

from functools import partial

from aisc.ir.node import walk
from aisc.ir.target import Target
from aisc.ir.tensor.expr import Load
from aisc.ir.tensor.linear import Indexer
from aisc.ir.tensor.stmt import Block, Store
from aisc.ir.tensor.tree import find_place, places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.dots import candidates
from aisc.passes.schedule.rules.structure import analyse, lanes_of
from aisc.passes.schedule.schedule import Schedule, unless_refused


def keep_source_order(s: Schedule, d: Chooser) -> Schedule:
    """Store such copies in the order of what they copy, and make them by vectors."""
    for name in [p.block.name for p in places(s.func.body)]:
        axis = _source_axis(s, find_place(s.func, name).block, d.target)
        if axis is not None and d.pick(f"{name}.as_source", (True, False), True):
            s = unless_refused(s, partial(_reordered, name, axis, d.target))
    return s


def _source_axis(s: Schedule, block: Block, target: Target) -> int | None:
    """The axis of a copy that is contiguous in its source, if it is not so in the copy and may
    be: whoever reads the copy reads single elements."""
    store = block.body
    iters = [it.var for it in block.iters]
    if block.combiner or not isinstance(store, Store) or list(store.indices) != iters:
        return None
    b = store.buffer
    readers = [p.block for p in places(s.func.body) if b in {r.buffer for r in p.block.reads}]
    singly = all(_reads_singly(r, b.name, target) for r in readers)
    if b.role != "scratch" or not readers or not singly:
        return None
    axes = {_unit_axis(n, block) for n in walk(store.value) if isinstance(n, Load)}
    axis = axes.pop() if len(axes) == 1 else None
    return None if axis == b.rank - 1 else axis


def _reads_singly(block: Block, name: str, target: Target) -> bool:
    """Whether a contraction reads the buffer so, and no instruction reads neighbours at a time."""
    found = analyse(block)
    if found is None or not found.contraction or found.data is None:
        return False
    lanes = target.lanes(found.block.writes[0].buffer.dtype)
    return found.data.buffer.name == name and not candidates(found, lanes, target)


def _unit_axis(load: Load, block: Block) -> int | None:
    """The iterator along which a load moves by one element."""
    if not load.indices:
        return None
    form = Indexer().linear(load.indices[-1])
    for k, it in enumerate(block.iters):
        if form.coeff(it.var) == 1:
            return k
    return None


def _reordered(name: str, axis: int, target: Target, s: Schedule) -> Schedule:
    place = find_place(s.func, name)
    store = place.block.body
    assert isinstance(store, Store), "a copy stores"
    order = (*(k for k in range(len(place.loops)) if k != axis), axis)
    loops = [place.loops[k].var.name for k in order]
    s = s.permute(store.buffer.name, order).reorder(*loops)
    lanes = lanes_of(place.block, target)
    last = loops[-1]
    return s.split(last, lanes, names=(f"{last}_o", f"{last}_l")).vectorize(f"{last}_l")
