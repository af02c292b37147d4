"""Products on a SIMT machine by instructions of whole warps, where they have a rate there.

An instruction is chosen by what it means: the types of its operands, and how its results are spread
over lanes, which its axes say (:mod:`aisc.passes.schedule.variants.warp_panels`). The nest that it
stands for is found by ``tensorize``.
"""

from __future__ import annotations

from dataclasses import astuple, replace

from aisc.ir.dataclass import dataclass
from aisc.ir.target import Target, instruction_set, instructions_name
from aisc.ir.tensor.intrinsic import Intrinsic
from aisc.ir.tensor.tree import extent_of, find_loop, find_place, places
from aisc.passes.schedule.kinds import MAX_UNROLL
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.simt_machine import (
    lanes_of,
    most_threads,
    over_blocks,
    side_by_side,
    warp_of,
)
from aisc.passes.schedule.rules.simt_staged import is_staged, simt_staged
from aisc.passes.schedule.rules.simt_tiles import OWN_REGISTERS, rounds
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.schedule.variants.panel_form import PanelForm, panel_form
from aisc.passes.schedule.variants.warp_panels import PAD_BYTES, WarpPanels

# Warps along rows and columns; results of the instruction that each has along both; steps of an
# instruction in a chunk; chunks at a time.
WARPS, RESULTS, STEPS = ((1, 1), (1, 2), (2, 2), (2, 4)), ((1, 2), (2, 4), (4, 4)), (2, 1)
STAGES = (2, 1)
# What a register holds, in bytes.
WORD = 4


@dataclass(frozen=True, slots=True)
class Lanes:
    """How the operands of an instruction lie in lanes and their registers."""

    g: int
    t: int
    rh: int
    jj: int
    kh: int
    kk: int


def matrix_instruction(form: PanelForm, target: Target) -> Intrinsic | None:
    """The instruction of the machine for factors and sums of these types, if it has one."""
    types = (form.data.value.dtype, form.weights.value.dtype, form.out.dtype)
    if form.data.value.dtype.bytes >= form.out.dtype.bytes:
        return None  # they multiply what is narrower than its sums; reading them takes a while
    fitting = [
        i for n, i in sorted(instruction_set(target.triple).instructions.items())
        if n in target.rates and tuple(p.dtype for p in i.semantics.params) == types
        and _lanes(i).g * _lanes(i).t == warp_of(target)
    ]  # fmt: skip
    return max(fitting, key=lambda i: target.rates[i.name], default=None)


def _lanes(found: Intrinsic) -> Lanes:
    data, _, sums = (p.type.static_shape for p in found.semantics.params)
    g, t, kh, rh, kk = data
    return Lanes(g, t, rh, sums[3], kh, kk)


def simt_matrix(s: Schedule, block: str, found: Intrinsic, d: Chooser) -> Schedule:
    """Schedule one product by an instruction; E302 where it has not the form of it."""
    form = panel_form(s.func, block)
    if is_staged(form, d.target) and d.pick(f"{block}.staged", (True, False), True):
        tiles = [_tile(_lanes(found), w, r) for w in WARPS for r in RESULTS]
        after = d.attempt(s, lambda t: simt_staged(t, block, found, tiles, d))
        if after is not s:
            return after
    panels = _pick(form, block, found, d)
    s = s.variant(block, "warp_panels", *astuple(panels))
    outer = len(form.outer)
    nests = places(find_place(s.func, block).loops[0])
    around = [f.var.name for f in nests[0].loops[: outer + 2]]
    for name in [p.block.name for p in nests]:
        s = _nest(s, name, name == block)
    step = find_place(s.func, block).loops[outer + 3]
    if (extent_of(step) or MAX_UNROLL + 1) <= MAX_UNROLL:
        s = s.unroll(step.var.name)
    s = over_blocks(s, around)
    return s.tensorize(f"{block}_rh", found.name, instructions_name(d.target.triple))


def _nest(s: Schedule, name: str, multiplies: bool) -> Schedule:
    """One nest of a tile: warps and lanes, then what each of them does."""
    stem = f"{name}_"
    loops = [f.var.name for f in find_place(s.func, name).loops]
    own = {n.removeprefix(stem): n for n in loops if n.startswith(stem)}
    if multiplies:
        s = s.bind(own["ty"], "thread.y")
        return s.unroll(own["hm"]).unroll(own["hn"])
    rest = [k for k in ("o", "hm", "hn", "kh", "rh", "kk", "jj", "v") if k in own]
    lane = f"{stem}lane" if "g" in own else own["tx"]
    threads = [own[k] for k in ("ty", "g", "t", "tx") if k in own]
    s = s.reorder(*threads, *(own[k] for k in rest))
    if "g" in own:
        s = s.fuse(own["g"], own["t"], name=lane)
    s = s.bind(own["ty"], "thread.y").bind(lane, "thread.x")
    for k in rest:
        loop = find_loop(s.func, own[k])
        wide = extent_of(loop) != 1 and side_by_side(find_place(s.func, name), loop)
        if k == rest[-1] and wide:
            s = s.vectorize(own[k])
        elif (extent_of(loop) or MAX_UNROLL + 1) <= MAX_UNROLL:
            s = s.unroll(own[k])
    return s


def _pick(form: PanelForm, block: str, found: Intrinsic, d: Chooser) -> WarpPanels:
    lanes = _lanes(found)
    every = [
        p for warps in WARPS for results in RESULTS
        if (p := _panels(form, lanes, warps, results, (1, 1), d.target)) is not None
    ]  # fmt: skip
    best = min(every, key=lambda p: _cost(form, p, d.target))
    options = [(p.wm, p.wn, p.hm, p.hn) for p in every]
    wm, wn, hm, hn = d.pick(f"{block}.warps", options, (best.wm, best.wn, best.hm, best.hn))
    usual = [
        (n, m) for m in STAGES for n in STEPS
        if _panels(form, lanes, (wm, wn), (hm, hn), (n, m), d.target) is not None
    ]  # fmt: skip
    steps, stages = d.pick(f"{block}.steps", usual, usual[0])
    made = _panels(form, lanes, (wm, wn), (hm, hn), (steps, stages), d.target)
    assert made is not None, "it is among those that fit"
    return made


def _panels(
    form: PanelForm, lanes: Lanes, warps: tuple[int, int], results: tuple[int, int],
    chunk: tuple[int, int], target: Target,
) -> WarpPanels | None:  # fmt: skip
    """A tile, if the machine has room for it."""
    steps, stages = chunk
    p = _tile(lanes, warps, results)
    p = replace(p, depth=steps * p.step, stages=stages)
    widths, taken, fetched = [], 0, 0
    for factor, side in ((form.data, p.rows), (form.weights, p.columns)):
        size = factor.value.dtype.bytes
        width = form.lanes(factor, lanes_of(target, factor.value.dtype))
        while width > 1 and (p.depth if factor.along is form.depth.iters[-1] else side) % width:
            width //= 2
        widths.append(width)
        taken += stages * side * (p.depth * size + PAD_BYTES)
        fetched += -(-side * p.depth * size // (WORD * p.ty * p.tx))
    sums = p.hm * p.hn * p.rh * p.jj
    parts = (p.hm * p.rh + p.hn) * p.kh * p.kk
    registers = target.limits.get("registers_per_thread", target.vector_registers)
    room = taken <= target.limits.get("shared_bytes", target.memory("shared").bytes)
    fits = sums + parts + fetched + OWN_REGISTERS <= registers
    if not room or not fits or p.ty * p.tx > most_threads(target):
        return None
    return replace(p, data=widths[0], weights=widths[1])


def _tile(lanes: Lanes, warps: tuple[int, int], results: tuple[int, int]) -> WarpPanels:
    """A tile with chunks of one step."""
    shape = (lanes.g, lanes.t, lanes.rh, lanes.jj, lanes.kh, lanes.kk)
    return WarpPanels(*warps, *results, *shape, lanes.kh * lanes.t * lanes.kk, 1, 1, 1)


def _cost(form: PanelForm, p: WarpPanels, target: Target) -> float:
    """Rounds of tiles, each as long as its multiply-adds and what they read from panels take."""
    work = p.hm * p.hn + (p.hm + p.hn) / 2
    return rounds(form, p.rows, p.columns, target) * p.ty * work
