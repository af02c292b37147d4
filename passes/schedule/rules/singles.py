"""Reductions whose results find no lanes: several results at a time, in registers.

What reads each element far from the next, as groups of a few channels do, has no vectors. One
result after the other would wait for its own last step, and for memory in between; several results
that lie beside each other are independent, and go through the steps together::

    for o { alloc r;  for k { unroll i in 0..8: r[i] += f(o*8 + i, k) };
            unroll i: y[o*8 + i] = r[i] }
"""

from __future__ import annotations

from math import prod

from aisc.ir.tensor.expr import Const, Var
from aisc.ir.tensor.stmt import For, Store
from aisc.ir.tensor.tree import find_place
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.epilogue import result_of, through_private
from aisc.passes.schedule.schedule import Schedule

# Results that are computed at once, the most first.
TOGETHER = (12, 10, 9, 8, 7, 6, 5, 4, 3, 2)


def several_results(s: Schedule, name: str, d: Chooser) -> Schedule:
    """Schedule a reduction of plain loops so; the same schedule for others."""
    place = find_place(s.func, name)
    block, kinds = place.block, {}
    for it, value in zip(block.iters, block.bindings, strict=True):
        if isinstance(value, Var):
            kinds[value] = it.kind
    spatial = [f for f in place.loops if kinds.get(f.var) == "spatial"]
    steps = [f.var.name for f in place.loops if kinds.get(f.var) == "reduce"]
    plain = [f.var for f in place.loops] == list(block.bindings)
    if not plain or not spatial or not steps or block.init is None:
        return s
    if len(spatial) + len(steps) < len(place.loops) or not isinstance(block.body, Store):
        return s
    if not d.pick(f"{name}.in_registers", (True, False), True):
        return s
    s, outer, inner = _together(s, name, spatial, d)
    if not outer:
        return s
    s, copy = through_private(s, name, "global")
    s = s.reorder(*outer, *steps, *inner)
    s = s.reverse_compute_at(copy, outer[-1]).set_scope(result_of(s, name).name, "register")
    for loop in inner:
        s = s.unroll(loop)
    s = s.decompose_reduction(name, steps[0])
    for f in find_place(s.func, copy).loops[len(outer) :]:
        s = s.unroll(f.var.name)
    return s


def _together(
    s: Schedule, name: str, spatial: list[For], d: Chooser
) -> tuple[Schedule, list[str], list[str]]:
    """The loops over results outside of all steps, and those inside: the last ones, which have a
    few results together, or a part of the last one."""
    first, last = len(spatial), spatial[-1].var.name
    while first > 1 and 0 < prod(map(_count, spatial[first - 1 :])) <= TOGETHER[0]:
        first -= 1
    names = [f.var.name for f in spatial]
    if first < len(spatial):
        return s, names[:first], names[first:]
    options = [n for n in TOGETHER if _count(spatial[-1]) % n == 0 and _count(spatial[-1])]
    part = d.pick(f"{name}.together", (1, *options), options[0] if options else 1)
    if part == 1:
        return s, names, []
    s = s.split(last, part, names=(f"{last}_t", f"{last}_r"))
    return s, [*names[:-1], f"{last}_t"], [f"{last}_r"]


def _count(loop: For) -> int:
    return int(loop.extent.value) if isinstance(loop.extent, Const) else 0
