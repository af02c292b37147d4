"""Rows on a SIMT machine whose lanes exchange registers: a row stays there from end to end.

That is done where the description has a rate for ``shuffle``, and a row has a known length that
some warps hold. Others go through shared memory (:mod:`aisc.passes.schedule.rules.simt_rows`).
"""

from __future__ import annotations

from math import gcd

from aisc.ir.diagnostics import error
from aisc.ir.tensor.expr import Const
from aisc.ir.tensor.tree import extent_of, find_loop, find_place, places
from aisc.passes.analysis.simt_kernel import SHUFFLE
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.simt_machine import (
    lanes_of,
    most_threads,
    over_blocks,
    side_by_side,
    warp_of,
)
from aisc.passes.schedule.rules.simt_nests import reduce_loops
from aisc.passes.schedule.schedule import Schedule

# Warps of a row; elements that a thread shall have at most, and may have; rows of a block whose
# rows have one warp each.
WARPS, OWN, MOST, ROWS = (1, 2, 4, 8, 16, 32), 16, 64, 4


def simt_registers(s: Schedule, group: list[str], count: int, d: Chooser) -> Schedule:
    """Schedule blocks that share `count` loops over rows as one launch; E302 where a row does not
    fit."""
    if SHUFFLE not in d.target.rates:
        raise error("E302", f"lanes of {d.target.name} exchange nothing")
    first = next(p for n in group if (p := find_place(s.func, n)).block.combiner)
    loops = reduce_loops(first)
    if len(loops) != 1 or not isinstance(loops[0].extent, Const):
        raise error("E302", "the length of a row is not known")
    length, lanes = int(loops[0].extent.value), warp_of(d.target)
    dtype = first.block.writes[0].buffer.dtype
    wide = gcd(length, lanes_of(d.target, dtype))
    fitting = [
        n for n in WARPS
        if n * lanes <= most_threads(d.target) and _own(length, n * lanes, wide) <= MOST
    ]  # fmt: skip
    if not fitting:
        raise error("E302", f"{length} elements do not fit the registers of a block")
    own = next((n for n in fitting if _own(length, n * lanes, wide) <= OWN), fitting[-1])
    warps = d.pick(f"{group[0]}.row_warps", fitting, own, exact=False)
    rows = ROWS if warps == 1 else 1
    sizes = (len(group), count, rows, warps, lanes, wide)
    s = s.variant(group[0], "row_registers", *sizes)
    top = find_loop(s.func, f"{group[0]}_g0")
    found = places(top)
    around = [f.var.name for f in found[0].loops[:count]]
    for name in [p.block.name for p in found]:
        s = _nest(s, name)
    return over_blocks(s, around)


def _own(length: int, threads: int, wide: int) -> int:
    """Elements of a thread."""
    return -(-length // (threads * wide)) * wide


def _nest(s: Schedule, name: str) -> Schedule:
    """One nest: warps and lanes are threads, what each of them does is written out."""
    place, stem = find_place(s.func, name), f"{name}_"
    loops = [f.var.name for f in place.loops]
    own = {n.removeprefix(stem): n for n in loops if n.startswith(stem)}
    s = s.fuse(own["w"], own["l"], name=f"{stem}tx")
    s = s.bind(own["ty"], "thread.y").bind(f"{stem}tx", "thread.x")
    if "o" in own:
        s = s.unroll(own["o"])
    if "k" not in own:
        return s
    loop = find_loop(s.func, own["k"])
    plain = not place.block.combiner and extent_of(loop) != 1
    if plain and side_by_side(find_place(s.func, name), loop):
        return s.vectorize(own["k"])
    return s.unroll(own["k"])
