"""Products on a SIMT machine: by panels in shared memory, whose sizes the description gives.

Products are those of :mod:`aisc.passes.schedule.variants.panels`: of matrices, batches of them,
convolutions. All that follows from a machine is a list of tiles that fit it, and an order among
them.
"""

from __future__ import annotations

from dataclasses import astuple

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import CompileError, error
from aisc.ir.target import Target
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.tree import Place, extent_of, find_loop, find_place, places
from aisc.passes.schedule.kinds import MAX_UNROLL
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.simt_machine import (
    lanes_of,
    most_threads,
    over_blocks,
    side_by_side,
    warp_of,
)
from aisc.passes.schedule.rules.simt_matrix import matrix_instruction, simt_matrix
from aisc.passes.schedule.rules.simt_tiles import OWN_REGISTERS, rounds, size_of
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.schedule.variants.panel_form import FEW, PanelForm, panel_form
from aisc.passes.schedule.variants.panels import PAD, Panels

# Pieces of rows and columns that a thread has, deepest first; depths of chunks.
PIECES, DEPTHS, STAGES = ((2, 2), (1, 2), (2, 1), (1, 1)), (8, 4), (2, 1)
# Turns of the loop over the depth that there shall be at least.
TURNS = 1


@dataclass(frozen=True, slots=True)
class Tile:
    """Threads along rows and columns, and pieces of each thread along both."""

    ty: int
    tx: int
    hm: int
    hn: int


def is_product(func: Func, block: str) -> bool:
    """Whether a block is a product of enough rows and columns for panels."""
    try:
        form = panel_form(func, block)
    except CompileError:
        return False
    sizes = [size_of(axis.extent) for axis in (form.rows, form.columns)]
    return min(sizes) >= FEW and size_of(form.depth.extent) >= FEW


def simt_product(s: Schedule, block: str, d: Chooser) -> Schedule:
    """Schedule one product; E302 when it is none, E402 when no tile fits the target."""
    form = panel_form(s.func, block)
    found = matrix_instruction(form, d.target)
    if found is not None and d.pick(f"{block}.matrix", (True, False), True):
        return simt_matrix(s, block, found, d)
    panels = _pick(form, block, d)
    s = s.variant(block, "shared_panels", *astuple(panels))
    return _bound(s, block, len(form.outer))


def _pick(form: PanelForm, block: str, d: Chooser) -> Panels:
    lanes = lanes_of(d.target, form.out.dtype)
    fitting = [
        p for t in _tiles(d.target) if (p := _panels(form, t, d.target, lanes, 4, 1)) is not None
    ]
    if not fitting:
        raise error("E402", f"{d.target.name} has no room for panels")
    best = min(fitting, key=lambda p: _cost(form, p, d.target))
    options = tuple((p.ty, p.tx, p.hm, p.hn) for p in fitting)
    ty, tx, hm, hn = d.pick(f"{block}.tile", options, (best.ty, best.tx, best.hm, best.hn))
    tile = Tile(ty, tx, hm, hn)
    whole = size_of(form.depth.extent)
    usual = [
        (n, m) for m in STAGES for n in DEPTHS
        if (n * TURNS <= whole or n == DEPTHS[-1]) and _panels(form, tile, d.target, lanes, n, m)
    ]  # fmt: skip
    depth, stages = d.pick(f"{block}.chunk", usual, (usual or [(DEPTHS[-1], STAGES[-1])])[0])
    found = _panels(form, tile, d.target, lanes, depth, stages)
    if found is None:
        raise error("E402", f"{d.target.name} has no room for a tile of {tile} and {depth}")
    return found


def _tiles(target: Target) -> list[Tile]:
    """Shapes of blocks from two to eight warps, with one or two pieces of a thread along each
    side."""
    warp = warp_of(target)
    short = max(1, warp // 4)
    shapes = ((short, short), (short, 2 * short), (2 * short, short), (2 * short, 2 * short))
    return [
        Tile(ty, tx, *p) for ty, tx in shapes for p in PIECES if ty * tx <= most_threads(target)
    ]


def _panels(
    form: PanelForm, tile: Tile, target: Target, lanes: int, depth: int, stages: int
) -> Panels | None:
    """A tile with panels of a depth, if the machine has room for them."""
    if tile.ty * tile.tx > most_threads(target):
        return None
    rows, columns = tile.hm * tile.ty * lanes, tile.hn * tile.tx * lanes
    widths = []
    for factor, side in ((form.data, rows), (form.weights, columns)):
        across = factor.along is form.depth.iters[-1]
        most = lanes_of(target, factor.value.dtype)
        width = form.lanes(factor, most)
        while width > 1 and (depth if across else side) % width:
            width //= 2
        widths.append(width)
    p = Panels(
        tile.ty, tile.tx, tile.hm, lanes, tile.hn, lanes, depth, stages, widths[0], widths[1]
    )
    bytes_ = (
        stages
        * depth
        * (
            (rows + PAD) * form.data.value.dtype.bytes
            + (columns + PAD) * form.weights.value.dtype.bytes
        )
    )
    if bytes_ > target.limits.get("shared_bytes", target.memory("shared").bytes):
        return None
    words = form.out.dtype.bytes // 4 or 1
    held = words * (tile.hm * lanes * tile.hn * lanes + (tile.hm + tile.hn) * lanes)
    fetched = (rows + columns) * depth // (tile.ty * tile.tx)
    most = min(
        target.limits.get("registers_per_thread", target.vector_registers),
        target.memory("register").bytes // (4 * tile.ty * tile.tx),
    )
    return p if held + fetched + OWN_REGISTERS <= most else None


def _cost(form: PanelForm, p: Panels, target: Target) -> float:
    """Rounds of tiles that all multiprocessors need, each as long as its multiply-adds and what
    they read from panels take."""
    sums = p.hm * p.vm * p.hn * p.vn
    reads = p.hm * p.vm + p.hn * p.vn
    return rounds(form, p.rows, p.columns, target) * p.ty * p.tx * (sums + reads)


def _bound(s: Schedule, block: str, outer: int) -> Schedule:
    """Loops over tiles to blocks, those over threads to threads."""
    top = find_place(s.func, block).loops[0]
    nests = places(top)
    around = [f.var.name for f in nests[0].loops[: outer + 2]]
    for name, own in [(p.block.name, _own(p)) for p in nests]:
        s = _threads(s, name, own)
    step = find_place(s.func, block).loops[outer + 3]
    if (extent_of(step) or MAX_UNROLL + 1) <= MAX_UNROLL:
        s = s.unroll(step.var.name)
    return over_blocks(s, around)


def _own(place: Place) -> dict[str, str]:
    """The loops of one nest, by what they are over."""
    stem = f"{place.block.name}_"
    found = {f.var.name.removeprefix(stem): f.var.name for f in place.loops}
    return {k: v for k, v in found.items() if k in _AXES and v == f"{stem}{k}"}


def _threads(s: Schedule, block: str, own: dict[str, str]) -> Schedule:
    """One nest: threads outside, then what each of them does, its last axis side by side where it
    is so in memory."""
    s = s.reorder(*(own[k] for k in _ORDER if k in own))
    s = s.bind(own["ty"], "thread.y").bind(own["tx"], "thread.x")
    last = "v" if "v" in own else "vn"
    for stem in ("o", "hm", "vm", "hn", last):
        if stem not in own:
            continue
        loop = find_loop(s.func, own[stem])
        if stem == last and extent_of(loop) != 1 and side_by_side(find_place(s.func, block), loop):
            s = s.vectorize(own[stem])
        elif (extent_of(loop) or MAX_UNROLL + 1) <= MAX_UNROLL:
            s = s.unroll(own[stem])
    return s


_ORDER = ("ty", "tx", "o", "hm", "vm", "hn", "vn", "v")
_AXES = frozenset(_ORDER)
