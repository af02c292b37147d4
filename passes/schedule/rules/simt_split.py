"""Products with few results are divided along their depth, too.

before: ``y[i, j] += x[i, k] * w[k, j]``
after:  ``part[c, i, j] += x[i, c*n + k] * w[c*n + k, j];  y[i, j] += part[c, i, j]``
The parts are one launch, their sum, with the maps that read it, another. The order of summation
depends on sizes and the description alone.
"""

from __future__ import annotations

from math import prod

from aisc.ir.diagnostics import error
from aisc.ir.target import Target
from aisc.ir.tensor.expr import Const
from aisc.ir.tensor.stmt import Store
from aisc.ir.tensor.tree import extent_of, find_place
from aisc.passes.schedule.products import factors
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.simt_machine import warp_of
from aisc.passes.schedule.rules.simt_nests import reduce_loops
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.schedule.variants.panel_form import FEW

# Parts of a depth, and the least depth of one.
PARTS, LEAST = (1, 2, 4, 8), 64


def split_depth(s: Schedule, name: str, d: Chooser) -> Schedule:
    """Divide the depth of one product as often as multiprocessors would be idle otherwise."""
    place = find_place(s.func, name)
    loops = reduce_loops(place)
    store = place.block.body
    product = isinstance(store, Store) and factors(store.value) is not None
    if len(loops) != 1 or place.block.combiner != "sum" or not product:
        raise error("E302", f"{name} is no product with one axis of depth")
    depth, results = extent_of(loops[0]), _results(s, name)
    if depth is None or results is None:
        raise error("E302", f"the sizes of {name} are not known")
    fitting = [n for n in PARTS if depth % n == 0 and depth // n >= LEAST]
    wanted = d.target.cores // max(1, _blocks(results, d.target))
    own = max((n for n in fitting if n <= max(1, wanted)), default=1)
    parts = d.pick(f"{name}.parts", fitting or [1], own, exact=False)
    return s if parts == 1 else _split(s, name, depth // parts)


def _results(s: Schedule, name: str) -> tuple[int, int] | None:
    """Results of a product, and those along its last axis."""
    sizes = [it.extent for it in find_place(s.func, name).block.iters if it.kind == "spatial"]
    known = [int(e.value) for e in sizes if isinstance(e, Const)]
    return (prod(known), known[-1]) if sizes and len(known) == len(sizes) else None


def _blocks(results: tuple[int, int], target: Target) -> int:
    """Blocks that they are divided among, about: a small tile each, or lanes where rows are few."""
    total, last = results
    warp = warp_of(target)
    return -(-total // (warp * warp)) if total // max(1, last) >= FEW else -(-total // warp)


def _split(s: Schedule, name: str, size: int) -> Schedule:
    place = find_place(s.func, name)
    (loop,) = [f.var.name for f in reduce_loops(place)]
    around = [f.var.name for f in place.loops if f.var.name != loop]
    part, rest = f"{loop}_c", f"{loop}_k"
    s = s.split(loop, size, names=(part, rest)).rfactor(name, part)
    for outer in reversed(around):
        s = s.fission(outer, name)
    made = find_place(s.func, name).block.writes[0].buffer
    s = s.permute(made.name, (made.rank - 1, *range(made.rank - 1)))
    return s.reorder(part, *around)
