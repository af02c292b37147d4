"""Maps on a SIMT machine: an element, or as many as are accessed at a time, for each thread."""

from __future__ import annotations

from math import gcd

from aisc.ir.diagnostics import error
from aisc.ir.node import Node, walk
from aisc.ir.tensor.expr import Const, Load, Select, Var, has_loads, variables
from aisc.ir.tensor.linear import mentions
from aisc.ir.tensor.stmt import For, Store
from aisc.ir.tensor.tree import Place, extent_of, find_loop, find_place, linear_address, places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.simt_machine import (
    lanes_of,
    most_threads,
    over_blocks,
    side_by_side,
    warp_of,
)
from aisc.passes.schedule.schedule import Schedule

# Warps of a block: enough of them hide latencies, and few blocks have idle ones.
WARPS, OWN_WARPS = (1, 2, 4, 8, 16), 4


def threads_of(block: str, d: Chooser) -> int:
    """Threads of a block, by choice."""
    warp, most = warp_of(d.target), most_threads(d.target)
    options = [n * warp for n in WARPS if n * warp <= most]
    return d.pick(f"{block}.threads", options, min(OWN_WARPS * warp, most))


def spatial_loops(place: Place) -> list[For]:
    """The loops around a block that only choose among its results."""
    block = place.block
    chosen = {v for it, v in zip(block.iters, block.bindings, strict=True) if it.kind == "spatial"}
    others = [v for v in block.bindings if v not in chosen]

    def free(f: For) -> bool:
        return f.var in chosen and not any(mentions(v, f.var) for v in others)

    return [f for f in place.loops if free(f)]


def simt_map(s: Schedule, name: str, d: Chooser) -> Schedule:
    """Divide the results of one nest among the threads of all blocks."""
    place = find_place(s.func, name)
    loops = spatial_loops(place)
    if not loops:
        raise error("E302", f"block {name} gives a single element")
    s = _outermost(s, place, loops)
    place = find_place(s.func, name)
    names = [f.var.name for f in loops]
    s, lanes = _lanes(s, place, names, d)
    s, names = flat(s, names)
    *outer, inner = names
    s = s.split(inner, threads_of(name, d), names=(f"{inner}_b", f"{inner}_t"))
    s = over_blocks(s, [*outer, f"{inner}_b"]).bind(f"{inner}_t", "thread.x")
    if not lanes:
        return s
    loop = find_loop(s.func, lanes)
    wide = side_by_side(find_place(s.func, name), loop)
    return s.vectorize(lanes) if wide else s.unroll(lanes)


def _outermost(s: Schedule, place: Place, loops: list[For]) -> Schedule:
    """Spatial loops around all others."""
    rest = [f for f in place.loops if f not in loops]
    wanted = [*loops, *rest]
    if list(place.loops) == wanted:
        return s
    return s.reorder(*(f.var.name for f in wanted))


def _lanes(s: Schedule, place: Place, names: list[str], d: Chooser) -> tuple[Schedule, str]:
    """As many results as lie side by side and are accessed at a time become a loop of their own,
    the innermost; none where that is not so."""
    last = find_loop(s.func, names[-1])
    size = extent_of(last)
    wide = together(place, last.var, d)
    if size is None or wide < 2 or size % wide:
        return s, ""
    name = f"{names[-1]}_l"
    s = s.split(names[-1], wide, names=(f"{names[-1]}_p", name))
    names[-1] = f"{names[-1]}_p"
    inner = [f.var.name for f in find_place(s.func, place.block.name).loops]
    if inner[-1] != name:
        s = s.reorder(*inner[inner.index(name) + 1 :], name)
    return s, name


def together(place: Place, var: Var, d: Chooser) -> int:
    """How many results a thread computes: those that one access stores, where no condition and no
    place that is looked up depends on which it is."""
    block = place.block
    values = dict(zip(block.bindings, block.iters, strict=True))
    size = next((extent_of(f) for f in place.loops if f.var == var), None)
    if var not in values or size is None or not isinstance(block.body, Store):
        return 1
    it = values[var].var
    if any(_varies(n, it) for n in walk(block.body)):
        return 1
    step = linear_address(block.body.buffer, block.body.indices).coeff(it)
    lanes = lanes_of(d.target, block.body.buffer.dtype)
    return gcd(lanes, size) if step == 1 else 1


def _varies(n: Node, it: Var) -> bool:
    """Whether what is read or stored under a condition, or at a place that is read, depends on an
    iterator in other ways than by a plain index."""
    if isinstance(n, Select):
        return it in variables(n.cond)
    if not isinstance(n, Load | Store):
        return False
    return any(has_loads(i) and it in variables(i) for i in n.indices)


def flat(s: Schedule, names: list[str]) -> tuple[Schedule, list[str]]:
    """The last loops of a nest as one: those of constant extent, and one before."""
    names = list(names)
    while len(names) > 1:
        first, second = names[-2:]
        if not isinstance(find_loop(s.func, second).extent, Const):
            break
        s = s.fuse(first, second, name=f"{first}_f")
        names[-2:] = [f"{first}_f"]
    return s, names


def in_one_block(s: Schedule, d: Chooser) -> Schedule:
    """Nest after nest, each divided among the threads of one block."""
    threads = threads_of("kernel", d)
    for name in [p.block.name for p in places(s.func.body)]:
        loops = spatial_loops(find_place(s.func, name))
        if not loops:
            continue
        s, names = flat(s, [f.var.name for f in loops])
        loop = names[-1]
        s = s.split(loop, threads, names=(f"{loop}_o", f"{loop}_t"))
        s = s.reorder(f"{loop}_t", f"{loop}_o").bind(f"{loop}_t", "thread.x")
    return s
