"""Maps of several elementary functions in a row: one function after the other, for a part in cache.

A vector goes through a function step by step, each of which waits for the one before; a core looks
a few hundred instructions ahead, which is several vectors of one function, but not of three. So of
maps that follow each other, each is a pass of its own over a part of the elements, which stays in
the first-level cache::

    for t { for e in 0..1024: c[e] = tanh(x[t, e]);  for e in 0..1024: y[t, e] = exp(c[e]) }
"""

from __future__ import annotations

from functools import partial
from math import prod

from aisc.ir.node import walk
from aisc.ir.tensor.expr import Const, Load
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.linear import mentions
from aisc.ir.tensor.stmt import Block, For, Store
from aisc.ir.tensor.tree import find_place, places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.inlining import inline_maps
from aisc.passes.schedule.rules.memory import burst_of
from aisc.passes.schedule.rules.structure import calls_functions, lanes_of, vectors_together
from aisc.passes.schedule.schedule import Schedule


def use_chains(s: Schedule, d: Chooser) -> Schedule:
    """Schedule a function of nothing but maps so; the same schedule for others."""
    blocks = [p.block for p in places(s.func.body)]
    links = [b.name for b in blocks if _is_link(b, blocks)]
    if not links or any(b.combiner or b.init is not None for b in blocks):
        return s
    if not d.pick(f"{links[0]}.in_passes", (True, False), True):
        return s
    return d.attempt(s, partial(_in_passes, links=links, d=d))


def _is_link(block: Block, blocks: list[Block]) -> bool:
    """Whether a map calls functions of which the results go, at the same places, into others."""
    if not calls_functions(block):
        return False
    while True:
        made = _made(block)
        readers = [b for b in blocks if made in {r.buffer for r in b.reads}]
        if made is None or made.role != "scratch" or len(readers) != 1:
            return False
        if not _reads_in_place(readers[0], block, made):
            return False
        block = readers[0]
        if calls_functions(block):
            return True


def _made(block: Block) -> Buffer | None:
    """The private result of a map that stores at its own iterators."""
    store = block.body
    if not isinstance(store, Store) or any(it.kind != "spatial" for it in block.iters):
        return None
    return store.buffer if store.indices == tuple(it.var for it in block.iters) else None


def _reads_in_place(reader: Block, writer: Block, made: Buffer) -> bool:
    own = tuple(it.var for it in reader.iters)
    loads = [n for n in walk(reader.body) if isinstance(n, Load) and n.buffer == made]
    same = [it.extent for it in reader.iters] == [it.extent for it in writer.iters]
    return same and all(n.indices == own for n in loads)


def _in_passes(s: Schedule, links: list[str], d: Chooser) -> Schedule:
    s = inline_maps(s, d, frozenset(links))
    left = places(s.func.body)
    (last,) = (p for p in left if p.block.name not in links)
    most = d.pick(f"{last.block.name}.part", (256, 512, 1024, 2048), burst_of(last.block, d.target))
    s, loop = _parts(s, last.block, most)
    for name in reversed(links):
        made = find_place(s.func, name).block.writes[0].buffer.name
        s = s.compute_at(name, loop).set_scope(made, "stack")
    for name in (*links, last.block.name):
        s = _vectors(s, name, loop, lanes_of(last.block, d.target))
    return s


def _parts(s: Schedule, block: Block, most: int) -> tuple[Schedule, str]:
    """The loop of which an iteration has at most so many elements: around the last axes that are no
    more together, and a part of the axis before them."""
    loops = find_place(s.func, block.name).loops
    sizes, first = [_count(f) for f in loops], len(loops)
    while first > 0 and 0 < prod(sizes[first - 1 :]) <= most:
        first -= 1
    split, inner = max(first - 1, 0), prod(sizes[max(first, 1) :])
    name, size = loops[split].var.name, sizes[split]
    if first == len(loops) or first == 0:
        part = most if first else max(size, 1)
    else:
        part = max(n for n in range(1, most // inner + 1) if size % n == 0) if size else 1
    if part == 1:
        return s, name
    return s.split(name, part, names=(f"{name}_p", f"{name}_e")), f"{name}_p"


def _vectors(s: Schedule, name: str, loop: str, lanes: int) -> Schedule:
    """Vectors of a block's loops inside of that over parts: along all of them that lie together."""
    place = find_place(s.func, name)
    at = [f.var.name for f in place.loops].index(loop) + 1
    inner, joint = place.loops[at:], 1
    if not inner:
        return s
    while joint < len(inner) and _lie_together(place.block, joint + 1):
        joint += 1
    last = inner[-joint].var.name
    for f in inner[len(inner) - joint + 1 :]:
        s = s.fuse(last, f.var.name, name=f"{last}_j")
        last = f"{last}_j"
    lanes *= vectors_together(place.block, prod(_count(f) for f in inner[-joint:]), lanes)
    return s.split(last, lanes, names=(f"{last}_o", f"{last}_l")).vectorize(f"{last}_l")


def _lie_together(block: Block, count: int) -> bool:
    """Whether the last axes are one stretch in all that a map reads and writes."""
    ending = block.iters[-count:]
    for n in walk(block.body):
        if not isinstance(n, Load | Store) or not n.indices:
            continue
        used = [k for k, i in enumerate(n.indices) if any(mentions(i, it.var) for it in ending)]
        if not used:
            continue
        whole = n.buffer.shape[-count + 1 :] if count > 1 else ()
        if n.indices[-count:] != tuple(it.var for it in ending) or len(used) != count:
            return False
        if [Const(d) for d in whole if isinstance(d, int)] != [it.extent for it in ending[1:]]:
            return False
    return True


def _count(loop: For) -> int:
    return int(loop.extent.value) if isinstance(loop.extent, Const) else 0
