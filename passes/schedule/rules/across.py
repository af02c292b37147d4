"""Rows as lanes: blocks that do something of their own with each row, many rows at a time.

A selection, a scan, a search goes through a row step by step, with a state that the next step
needs. Nothing is vectorized within the row; but other rows do the same. So those that lie beside
each other are lanes, or if there are none, rows apart from each other, whose elements are
gathered::

    for o, i: row(o, i)
    -> for o, i_o: { alloc state;  vectorize i_l in 0..16: row(o, i_o*16 + i_l) }

The state of the rows of one vector is private to it, with the lanes in its last axis.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import TypeGuard

from aisc.ir.dataclass import dataclass
from aisc.ir.node import walk
from aisc.ir.tensor.expr import Const, Load, Var, has_loads
from aisc.ir.tensor.func import Buffer
from aisc.ir.tensor.linear import Indexer, mentions
from aisc.ir.tensor.stmt import Alloc, Block, For, If, Iter, Stmt, Store
from aisc.ir.tensor.tree import Place, find_place, linear_address, loops_of, places, statements
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.tensor.compact import Compact
from aisc.passes.tensor.lower_blocks import LowerBlocks

# Rows from which on they are lanes.
FEWEST = 4
# Loops over the state that are unrolled, so that it is in registers: turns, and copies in all.
FEW_TURNS = 6
COPIES = 40
# Vectors of totals that a scan keeps in registers.
FEW_VECTORS = 8
# What an element that is gathered, or stored apart from its neighbours, costs more than one that
# is not: what is done with it counts, too.
APART = 3


@dataclass(frozen=True, slots=True)
class _Run:
    """Iterators that count through memory as one in every access; `apart` are the accesses whose
    elements do not lie beside each other."""

    iters: tuple[Iter, ...]
    size: int | None
    apart: int

    def lanes(self, full: int) -> int:
        """Lanes for its rows: `full` ones, or as many as it needs."""
        return full if self.size is None else min(full, 1 << (self.size - 1).bit_length())

    def waste(self, full: int) -> float:
        """How much longer than with full vectors of neighbours it takes; fewer than half of the
        lanes take as long as that."""
        lanes = max(self.lanes(full), full // 2)
        taken = 1.0 if self.size is None else -(-self.size // lanes) * lanes / self.size
        return taken * (APART if self.apart else 1)


def rows_as_lanes(s: Schedule, place: Place, d: Chooser) -> Schedule:
    """Make lanes of the rows of a block, where there are enough; the same schedule for others."""
    block = place.block
    if not _is_rows(place):
        return s
    own = _own(s, block)
    full = min(16, d.target.vector_bits // 32)
    runs = [r for r in _runs(block, own) if r.size is None or r.size >= FEWEST]
    if not runs or _skips(block):
        return _few_turns(_with_state(s, own, "", d), block.name, d)
    best = min(runs, key=lambda r: r.waste(full))
    lanes = best.lanes(full)
    width = d.pick(f"{block.name}.lanes", (n for n in (lanes // 2, lanes, 0) if n != 1), lanes)
    if width == 0:
        s = _with_state(s, own, "", d)
    else:
        s = d.attempt(s, partial(_vectors, block=block, run=best, width=width, own=own, d=d))
    return _few_turns(s, block.name, d)


def _vectors(
    s: Schedule, block: Block, run: _Run, width: int, own: list[Buffer], d: Chooser
) -> Schedule:
    """Rows of a run as `width` lanes, innermost."""
    bound = dict(zip(block.iters, block.bindings, strict=True))
    names = [v.name for it in run.iters if isinstance(v := bound[it], Var)]
    for b in own:
        axis = _axis_of(block, b, run)
        if axis is not None and axis + 1 < b.rank:
            s = s.permute(b.name, (*(k for k in range(b.rank) if k != axis), axis))
    last = names[0]
    for k, name in enumerate(names[1:]):
        s = s.fuse(last, name, name=f"{names[0]}_f{k}")
        last = f"{names[0]}_f{k}"
    s = s.split(last, width, names=(f"{last}_o", f"{last}_l"))
    inner = [f.var.name for f in find_place(s.func, block.name).loops]
    behind = inner[inner.index(f"{last}_l") + 1 :]
    if behind:
        s = s.reorder(*behind, f"{last}_l")
    around = find_place(s.func, block.name).loops[-2].var.name
    return _with_state(s, own, around, d).vectorize(f"{last}_l")


def _axis_of(block: Block, b: Buffer, run: _Run) -> int | None:
    """The axis of a buffer that counts the rows of a run."""
    for n in walk(block.body):
        if isinstance(n, Load | Store) and n.buffer == b:
            found = [k for k, i in enumerate(n.indices) if mentions(i, run.iters[-1].var)]
            return found[0] if len(found) == 1 else None
    return None


def _with_state(s: Schedule, own: list[Buffer], loop: str, d: Chooser) -> Schedule:
    """The state of rows is private to the loop around them, or to the innermost one, where it is
    small."""
    for b in own:
        s = _on_stack(s, b.name, loop, d)
    return s


def _on_stack(s: Schedule, name: str, loop: str, d: Chooser) -> Schedule:
    """A buffer becomes private to a loop, where the part that an iteration uses is known, and is no
    more than the first cache may pass on to the second."""
    after = d.attempt(s, partial(_set_scope, name, loop))
    if after is s:
        return s
    lowered = Compact().run(LowerBlocks().run(after.func))
    (b,) = (x.buffer for x in statements(lowered.body) if _declares(x, name))
    sizes = [x for x in b.shape if isinstance(x, int)]
    small = prod(sizes) * b.dtype.bytes <= 2 * d.target.first_cache.bytes
    return after if len(sizes) == b.rank and small else s


def _declares(s: Stmt, name: str) -> TypeGuard[Alloc]:
    return isinstance(s, Alloc) and s.buffer.name == name


def _set_scope(name: str, loop: str, s: Schedule) -> Schedule:
    return s.set_scope(name, "stack", loop)


def _few_turns(s: Schedule, name: str, d: Chooser) -> Schedule:
    """Unroll loops over a few elements of the state, which are kept in registers then."""
    found = list(loops_of(find_place(s.func, name).block.body))
    few = [f for f in found if max(turns := _turns(f)) <= FEW_TURNS and prod(turns) <= COPIES]
    if few and d.pick(f"{name}.in_registers", (True, False), True):
        for f in few:
            s = d.attempt(s, partial(_unroll, f.var.name))
    return s


def _unroll(loop: str, s: Schedule) -> Schedule:
    return s.unroll(loop)


def _turns(loop: For) -> list[float]:
    """The most turns of a loop and of all inside of it."""
    found, ranges = [loop, *loops_of(loop.body)], Indexer()
    for f in found:
        ranges = ranges.bind(f.var, 0, ranges.bounds(f.extent)[1] - 1)
    return [ranges.bounds(f.extent)[1] for f in found]


def _skips(block: Block) -> bool:
    """Whether the data say what of a row is looked at: rows of one vector would differ in it."""
    inside = (n.then for n in walk(block.body) if isinstance(n, If) and has_loads(n.cond))
    return any(
        isinstance(n, Load) and n.buffer.role != "scratch" for then in inside for n in walk(then)
    )


def _is_rows(place: Place) -> bool:
    """Whether a block has statements of its own for each point, in loops over all of them."""
    block = place.block
    return (
        not block.combiner
        and block.init is None
        and not isinstance(block.body, Store)
        and any(isinstance(n, For) for n in walk(block.body))
        and [f.var for f in place.loops] == list(block.bindings)
        and all(it.kind == "spatial" for it in block.iters)
        and bool(block.iters)
    )


def keep_totals(s: Schedule, block: Block, d: Chooser) -> Schedule:
    """What a scan keeps from step to step is private to the loop around its steps, and in registers
    where that is a few vectors."""
    kinds = dict(zip(block.bindings, (it.kind for it in block.iters), strict=True))
    loops = find_place(s.func, block.name).loops
    steps = [k for k, f in enumerate(loops) if kinds.get(f.var) == "ordered"]
    if not steps or not steps[0]:
        return s
    inside = loops[steps[-1] + 1 :]
    s = _with_state(s, _own(s, block), loops[steps[0] - 1].var.name, d)
    most = prod(_turns(f)[0] for f in inside[:-1])
    if len(inside) == 2 and inside[-1].kind == "vectorize" and most <= FEW_VECTORS:
        return d.attempt(s, partial(_unroll, inside[0].var.name))
    return s


def _own(s: Schedule, block: Block) -> list[Buffer]:
    """Scratch buffers that only `block` uses."""
    others = [p.block for p in places(s.func.body) if p.block.name != block.name]
    taken = {b for o in others for b in _touched(o)}
    return [b for b in _touched(block) if b.role == "scratch" and b not in taken]


def _touched(block: Block) -> list[Buffer]:
    return list(dict.fromkeys(r.buffer for r in (*block.reads, *block.writes)))


def _runs(block: Block, own: list[Buffer]) -> list[_Run]:
    """All runs of iterators that follow each other, each as long as possible."""
    accesses = [
        linear_address(n.buffer, n.indices)
        for n in walk(block.body)
        if isinstance(n, Load | Store) and n.buffer not in own
    ]
    steps = {it.var: [a.coeff(it.var) for a in accesses] for it in block.iters}
    runs: list[list[Iter]] = []
    for it in block.iters:
        before = steps[runs[-1][-1].var] if runs else []
        joint = isinstance(it.extent, Const) and before == [
            None if c is None else c * int(it.extent.value) for c in steps[it.var]
        ]
        if joint and None not in before:
            runs[-1].append(it)
        else:
            runs.append([it])
    return [_run(r, steps[r[-1].var]) for r in runs]


def _run(iters: list[Iter], steps: list[int | None]) -> _Run:
    size: int | None = 1
    for it in iters:
        size = size * int(it.extent.value) if size and isinstance(it.extent, Const) else None
    return _Run(tuple(iters), size, sum(c != 1 for c in steps))
