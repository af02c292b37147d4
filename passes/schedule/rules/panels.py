"""Panels of weights: the vectors of them that a tile takes at each step of a reduction.

Which loops are around that over panels, so that a panel stays in cache while it is used, and where
the next one is asked for. What chooses a panel is the loop over lanes, and of images whose lanes
are places in a line those over lines and images too::

    for image { for line { for panel { for channels … } } }
"""

from __future__ import annotations

from functools import partial
from itertools import takewhile
from math import prod

from aisc.ir.target import LINE_BYTES, Target
from aisc.ir.tensor.expr import Const, Load, variables
from aisc.ir.tensor.linear import Indexer, mentions
from aisc.ir.tensor.stmt import For
from aisc.ir.tensor.tree import Place, find_loop, find_place, places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.groups import lie_apart
from aisc.passes.schedule.rules.structure import Reduction, plain_axis, shared_iters
from aisc.passes.schedule.rules.tile_cost import Tile, extent_of
from aisc.passes.schedule.schedule import Schedule, unless_refused

# Steps of the innermost reduce loops that may be unrolled.
MOST_UNROLLED = 16
# Lines of memory that may be asked for at once, without waiting for the first of them.
BURST = 8
# Rows of which each reads a matrix that the run gives: so many that packing it pays.
RUNTIME_PACK_ROWS = 32


def panels_outside(reduction: Reduction, d: Chooser) -> bool:
    """Whether the loop over panels of weights is around that over rows: then a panel stays in
    cache over all rows. Where all panels do, results are better written one row after the other,
    unless what is read lies in parts, as the channels of groups do."""
    if not reduction.contraction:
        return False
    stay = _stay_in_cache(reduction, d.target) and not lie_apart(reduction)
    own = "rows" if stay else "panels"
    return d.pick(f"{reduction.block.name}.outside", ("panels", "rows"), own) == "panels"


def _stay_in_cache(reduction: Reduction, target: Target) -> bool:
    """Whether weights are no more than a quarter of the second-level cache."""
    assert reduction.weights is not None, "a contraction has weights"
    return _fits(reduction.weights, target.second_cache.bytes // 4)


def _fits(load: Load, most: int) -> bool:
    """Whether all of a buffer is known to be no more than so many bytes."""
    known = [n for n in load.buffer.shape if isinstance(n, int)]
    whole = len(known) == len(load.buffer.shape)
    return whole and prod(known) * load.dtype.bytes <= most


def around_rows(
    reduction: Reduction, outer: list[str], panels: str, loops: dict[str, str], d: Chooser
) -> list[str]:
    """The loops `outer` with that over panels around those over rows."""
    others = [n for n in outer if n != panels]
    around = _around_panels(reduction, others, loops, d)
    return [*around, panels, *(n for n in others if n not in around)]


def _around_panels(
    reduction: Reduction, outer: list[str], loops: dict[str, str], d: Chooser
) -> list[str]:
    """Of the loops `outer`, those that stay around that over panels: they choose among matrices, or
    a panel too."""
    shared = _shared_first(reduction, outer, loops, d.target)
    return shared + _panels_too(reduction, [n for n in outer if n not in shared], loops, d)


def _shared_first(
    reduction: Reduction, outer: list[str], loops: dict[str, str], target: Target
) -> list[str]:
    """The loops that choose among matrices, other weights in each iteration, and stay around all
    others: those that are the outermost, as in batches of products, and where what an iteration
    reads lies together, or the weights of all iterations are more than the first-level cache holds,
    those of groups of channels too."""
    shared = [loops[it.var.name] for it in shared_iters(reduction) if it.var.name in loops]
    weights = reduction.weights
    assert weights is not None, "a contraction has weights"
    known = [d for d in weights.buffer.shape if isinstance(d, int)]
    if lie_apart(reduction) or prod(known) * weights.dtype.bytes > target.first_cache.bytes:
        return [n for n in outer if n in shared]
    return list(takewhile(lambda n: n in shared, outer))


def _panels_too(
    reduction: Reduction, outer: list[str], loops: dict[str, str], d: Chooser
) -> list[str]:
    """The loops beside that over lanes that choose a panel of weights, as lines of an image do:
    around that over rows where the other factor stays in the second-level cache meanwhile."""
    weights, data = reduction.weights, reduction.data
    assert weights is not None and data is not None, "a contraction has two factors"
    only = variables(weights) - variables(data)
    chosen = {loops[it.var.name] for it in reduction.block.iters if it.var in only}
    found = [n for n in outer if n in chosen]
    if not found or reduction.row is None:
        return []
    own = "all" if _fits(data, d.target.second_cache.bytes // 2) else "one"
    pick = d.pick(f"{reduction.block.name}.panels", ("one", "all"), own)
    return found if pick == "all" else []


def turns_of(s: Schedule, loops: list[str]) -> list[int]:
    """Steps of the innermost reduce loop that may make one turn."""
    size = _count(find_loop(s.func, loops[-1])) if loops else 0
    return [n for n in (1, 2, 4, 8) if size > MOST_UNROLLED and size % n == 0] or [1]


def panel_ahead(
    s: Schedule, reduction: Reduction, outer: list[str], panels: str, steps: list[str], d: Chooser
) -> tuple[str, int]:
    """Where the next panel of weights is asked for while one is used, and how many steps of the
    reduction make a turn then: some lines at each tile, or where these are too many, one with every
    few steps. Weights that stay in the second-level cache need not be asked for."""
    weights, name = reduction.weights, reduction.block.name
    if panels not in outer or weights is None or _stay_in_cache(reduction, d.target):
        return "never", 1
    packed = [r.buffer for r in find_place(s.func, name).block.reads if r.buffer.role == "weight"]
    inner = outer[outer.index(panels) + 1 :]
    tiles, depth = (prod(_count(find_loop(s.func, n)) for n in loops) for loops in (inner, steps))
    width = packed[0].shape[-1] if packed else 0
    if not tiles * depth or len(packed) != 1 or not isinstance(width, int):
        return "never", 1
    lines = -(-depth * width * packed[0].dtype.bytes // LINE_BYTES)
    turn = max(n for n in turns_of(s, steps) if n == 1 or lines * n <= tiles * depth)
    own = "tiles" if lines <= BURST * tiles else "steps" if turn > 1 else "never"
    ahead = d.pick(f"{name}.ahead", ("never", "tiles", "steps"), own)
    return ahead, turn if ahead == "steps" else 1


def prefetch_next_panel(block: str, panels: str, at: str, s: Schedule) -> Schedule:
    """Ask for the next panel of the packed weights of `block` in the loop `at`."""
    weights = [r.buffer for r in find_place(s.func, block).block.reads if r.buffer.role == "weight"]
    return s.prefetch_next(block, weights[0].name, panels, at)


def pack_weights(s: Schedule, reduction: Reduction, tile: Tile, d: Chooser) -> Schedule:
    """Pack the weights into panels of the tile's width, where each is read by many rows. What the
    kernel makes itself, such as a copy with a border, is not there to be packed."""
    load = reduction.weights
    if load is None or not reduction.contraction or load.buffer.role == "scratch":
        return s
    axis = _panel_axis(reduction, load, tile)
    if axis is None:
        return s
    if not d.pick(f"{reduction.block.name}.packed", (False, True), is_packed(reduction)):
        return s
    rank = load.buffer.rank
    axes = [plain_axis(load, it.var) for it in shared_iters(reduction)]
    first = [k for k in axes if k is not None and k < axis]
    rest = [k for k in range(rank + 1) if k not in (axis, axis + 1, *first)]
    before = {p.block.name for p in places(s.func.body)}
    s = s.pack(load.buffer.name, axis, tile.width, (*first, axis, *rest, axis + 1))
    made = [p for p in places(s.func.body) if p.block.name not in before]
    if made and load.buffer.role != "weight" and len(rest) == 1:
        s = _some_lines(s, made[0], len(first), d)
    whole = extent_of(reduction.lane) // tile.width
    if made and not first and whole and extent_of(reduction.lane) % tile.width:
        s = unless_refused(s, partial(_whole_panels, made[0].loops[0].var.name, whole))
    return s


def is_packed(reduction: Reduction) -> bool:
    """Whether it is worth packing weights, and they can be."""
    load = reduction.weights
    if load is None or load.buffer.role == "scratch":
        return False
    own = load.buffer.role == "weight" or extent_of(reduction.row) >= RUNTIME_PACK_ROWS
    uses = sum(mentions(i, reduction.lane.var) for i in load.indices)
    return own and uses == 1


def _some_lines(s: Schedule, place: Place, panel: int, d: Chooser) -> Schedule:
    """Let a matrix that is packed in each run be read some lines at a time: from a panel to the
    next, each line is read on, while one panel after the other would read a little of all of them,
    each far from the one before."""
    names, known = [f.var.name for f in place.loops], [_count(f) for f in place.loops]
    options = [n for n in (16, 10, 8, 5, 4, 2) if known[panel + 1] % n == 0]
    if not known[panel + 1] or not options:
        return s
    own = options[0] if prod(known) * 4 > d.target.second_cache.bytes else 1
    lines = d.pick(f"{place.block.name}.lines", (1, *options), own)
    if lines == 1:
        return s
    line = names[panel + 1]
    s = s.split(line, lines, names=(f"{line}_o", f"{line}_i"))
    return s.reorder(f"{line}_o", names[panel], f"{line}_i")


def _whole_panels(loop: str, whole: int, s: Schedule) -> Schedule:
    """Let panels that are packed in each run be copied without masks, but for the last one."""
    return s.partition(loop, whole)


def _panel_axis(reduction: Reduction, weights: Load, tile: Tile) -> int | None:
    """The axis of the weights that panels divide: that of the lane, or where channels lie in groups
    of whole panels, that of both."""
    lane = reduction.lane.var
    plain = plain_axis(weights, lane)
    found = [k for k, i in enumerate(weights.indices) if mentions(i, lane)]
    if plain is not None or len(found) != 1 or extent_of(reduction.lane) % tile.width:
        return plain
    form = Indexer().linear(weights.indices[found[0]])
    others = [c for mono, c in form.terms if mono != (lane,)]
    whole = form.coeff(lane) == 1 and not any(c % tile.width for c in (form.const, *others))
    return found[0] if whole else None


def _count(loop: For) -> int:
    return int(loop.extent.value) if isinstance(loop.extent, Const) else 0
