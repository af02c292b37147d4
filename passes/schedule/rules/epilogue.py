"""The map that follows a reduction: the one that reads its result in place, or a copy."""

from __future__ import annotations

from aisc.ir.node import walk
from aisc.ir.tensor.expr import Load
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.stmt import Block, Store
from aisc.ir.tensor.tree import find_place, linear_address, places
from aisc.passes.schedule.schedule import Schedule


def result_of(s: Schedule, block: str) -> Buffer:
    """What a block writes."""
    return find_place(s.func, block).block.writes[0].buffer


def only_reader(s: Schedule, out: Buffer) -> Block | None:
    """The only block that reads a private buffer."""
    readers = [p.block for p in places(s.func.body) if out in {r.buffer for r in p.block.reads}]
    return readers[0] if out.role == "scratch" and len(readers) == 1 else None


def in_place_reader(s: Schedule, block: str) -> Block | None:
    """The only map that reads the private result of a block, always at its own iterators."""
    out = result_of(s, block)
    reader = only_reader(s, out)
    if reader is None or not isinstance(reader.body, Store):
        return None
    if any(it.kind != "spatial" for it in reader.iters):
        return None
    own = tuple(it.var for it in reader.iters)
    loads = (n for n in walk(reader.body) if isinstance(n, Load) and n.buffer == out)
    return reader if all(n.indices == own for n in loads) else None


def lanes_reader(s: Schedule, block: str) -> str | None:
    """The only map that reads the private result of a block at its own iterators, if it stores what
    lies side by side there side by side."""
    reader = in_place_reader(s, block)
    if reader is None or not reader.iters:
        return None
    store = reader.body
    assert isinstance(store, Store), "a plain block"
    lane = linear_address(store.buffer, store.indices).coeff(reader.iters[-1].var)
    return reader.name if lane == 1 else None


def through_private(s: Schedule, block: str, space: str, name: str = "") -> tuple[Schedule, str]:
    """Let a block write to a buffer of its own in `space`; also the copy from there."""
    before = {p.block.name for p in places(s.func.body)}
    s = s.cache_write(block, space, name) if name else s.cache_write(block, space)
    (copy,) = (p.block.name for p in places(s.func.body) if p.block.name not in before)
    return s, copy
