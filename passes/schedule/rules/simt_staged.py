"""Products by matrix instructions whose panels are filled ahead by asynchronous copies.

That is done where the machine has copies and loads of matrices for the types of a product (they
have a rate in its description), and threads can fetch both operands in whole pieces. How many
chunks are under way follows from shared memory: as many as leave room for another block beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, replace

from aisc.ir.diagnostics import CompileError, error
from aisc.ir.dtypes import DType
from aisc.ir.target import Target, instruction_set, instructions_name
from aisc.ir.tensor.intrinsic import Intrinsic
from aisc.ir.tensor.tree import extent_of, find_loop, find_place, places
from aisc.passes.analysis.simt_kernel import COPIES, LOADS
from aisc.passes.schedule.kinds import MAX_UNROLL
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.simt_machine import most_threads, over_blocks, side_by_side
from aisc.passes.schedule.rules.simt_tiles import OWN_REGISTERS, rounds, size_of
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.schedule.variants.panel_form import Factor, PanelForm, panel_form
from aisc.passes.schedule.variants.staged_panels import PIECE, row_bytes
from aisc.passes.schedule.variants.warp_panels import WarpPanels

# Steps of an instruction in a chunk, and chunks that have panels at a time, the best first. Blocks
# that a multiprocessor shall hold beside each other.
STEPS, STAGES, BESIDE = (2, 4, 1), (4, 3, 2), 2


def instructions(target: Target, unit: str, dtype: DType) -> list[Intrinsic]:
    """What a unit of the machine does with a type."""
    declared = instruction_set(target.triple).instructions
    return [
        i for n, i in sorted(declared.items())
        if i.unit == unit and n in target.rates and i.semantics.params[0].dtype is dtype
    ]  # fmt: skip


def is_staged(form: PanelForm, target: Target) -> bool:
    """Whether both operands of a product can be copied in whole pieces, and loaded."""
    return all(
        instructions(target, COPIES, f.value.dtype)
        and instructions(target, LOADS, f.value.dtype)
        and form.lanes(f, PIECE // f.value.dtype.bytes) * f.value.dtype.bytes == PIECE
        for f in (form.data, form.weights)
    )


def simt_staged(
    s: Schedule, block: str, found: Intrinsic, tiles: list[WarpPanels], d: Chooser
) -> Schedule:
    """Schedule one product, by one of some tiles; E302 or E402 where that is not possible."""
    form = panel_form(s.func, block)
    s = s.variant(block, "staged_panels", *astuple(_pick(form, block, found, tiles, d)))
    outer = len(form.outer)
    names = [p.block.name for p in places(find_place(s.func, block).loops[0])]
    around = [f.var.name for f in find_place(s.func, names[0]).loops[: outer + 2]]
    done: list[tuple[str, list[Intrinsic]]] = []
    for name in names:
        s, last = _nest(s, name, block, d.target)
        done += last
    step = find_place(s.func, block).loops[outer + 3]
    if (extent_of(step) or MAX_UNROLL + 1) <= MAX_UNROLL:
        s = s.unroll(step.var.name)
    s = over_blocks(s, around)
    for loop, every in [*done, (f"{block}_rh", [found])]:
        s = _by_one_of(s, loop, every, d.target)
    return s


def _by_one_of(s: Schedule, loop: str, every: list[Intrinsic], target: Target) -> Schedule:
    """A nest by the instruction that means the same."""
    refused: CompileError | None = None
    for found in every:
        try:
            return s.tensorize(loop, found.name, instructions_name(target.triple))
        except CompileError as fault:
            refused = fault
    raise refused or error("E302", f"no instruction for {loop}")


def _nest(
    s: Schedule, name: str, block: str, target: Target
) -> tuple[Schedule, list[tuple[str, list[Intrinsic]]]]:
    """One nest of a tile: threads, or warps and lanes, then what each of them does; and the loop
    that becomes an instruction at last."""
    place, stem = find_place(s.func, name), f"{name}_"
    loops = [f.var.name for f in place.loops]
    own = {n.removeprefix(stem): n for n in loops if n.startswith(stem)}
    dtype = place.block.writes[0].buffer.dtype
    if "tx" in own:  # a copy
        s = s.reorder(*(own[k] for k in ("ty", "tx", "o", "v"))).bind(own["tx"], "thread.x")
        s = _unrolled(s.bind(own["ty"], "thread.y"), [own["o"]])
        return s, [(own["v"], instructions(target, COPIES, dtype))]
    if "kk" in own:
        s = _unrolled(s.bind(own["ty"], "thread.y"), [own[k] for k in _SEVERAL if k in own])
        return s, [] if name == block else [(own["g"], instructions(target, LOADS, dtype))]
    rest = [own[k] for k in ("hm", "hn", "rh", "jj") if k in own]
    s = s.reorder(*(own[k] for k in ("ty", "g", "t")), *rest)
    s = s.fuse(own["g"], own["t"], name=f"{stem}lane")
    s = s.bind(own["ty"], "thread.y").bind(f"{stem}lane", "thread.x")
    last = find_loop(s.func, rest[-1])
    wide = extent_of(last) != 1 and side_by_side(find_place(s.func, name), last)
    s = _unrolled(s, rest[:-1] if wide else rest)
    return (s.vectorize(rest[-1]) if wide else s), []


# Loops over instructions.
_SEVERAL = ("hm", "hp", "hj")


def _unrolled(s: Schedule, loops: list[str]) -> Schedule:
    for name in loops:
        if (extent_of(find_loop(s.func, name)) or MAX_UNROLL + 1) <= MAX_UNROLL:
            s = s.unroll(name)
    return s


def _pick(
    form: PanelForm, block: str, found: Intrinsic, tiles: list[WarpPanels], d: Chooser
) -> WarpPanels:
    """A tile, the depth of its chunks, and how many of them are under way."""
    fitting = [t for t in tiles if next(_chunks(form, t, d.target), None) is not None]
    if not fitting:
        raise error("E402", f"{d.target.name} has no tile that is copied in whole pieces")
    best = min(fitting, key=lambda p: _cost(form, found, p, d.target))
    options = [(p.wm, p.wn, p.hm, p.hn) for p in fitting]
    chosen = d.pick(f"{block}.warps", options, (best.wm, best.wn, best.hm, best.hn))
    tile = next(p for p, option in zip(fitting, options, strict=True) if option == chosen)
    chunks = list(_chunks(form, tile, d.target))
    room = d.target.limits.get("shared_per_multiprocessor", 0)
    beside = [p for p in chunks if BESIDE * _bytes(form, p) <= room]
    own = (beside or chunks)[0]
    usual = [(p.depth // p.step, p.stages) for p in chunks]
    steps, stages = d.pick(f"{block}.steps", usual, (own.depth // own.step, own.stages))
    return chunks[usual.index((steps, stages))]


def _chunks(form: PanelForm, tile: WarpPanels, target: Target) -> Iterator[WarpPanels]:
    """A tile with the chunks that fit the machine."""
    widths = [PIECE // f.value.dtype.bytes for f in (form.data, form.weights)]
    for steps in STEPS:
        for stages in STAGES:
            p = replace(
                tile, depth=steps * tile.step, stages=stages, data=widths[0], weights=widths[1]
            )
            useful = (stages - 1) * p.depth < size_of(form.depth.extent) or stages == STAGES[-1]
            if useful and _fits(form, p, target):
                yield p


def _fits(form: PanelForm, p: WarpPanels, target: Target) -> bool:
    threads = p.ty * p.tx
    whole = all(
        side * p.depth % (width * threads) == 0
        and (p.depth if _is_across(form, f) else side) % width == 0
        for f, side, width in (
            (form.data, p.rows, p.data), (form.weights, p.columns, p.weights)
        )
    )  # fmt: skip
    sums, parts = p.hm * p.hn * p.rh * p.jj, (p.hm * p.rh + p.hn) * p.kh * p.kk
    registers = target.limits.get("registers_per_thread", target.vector_registers)
    room = target.limits.get("shared_bytes", target.memory("shared").bytes)
    fits = sums + parts + OWN_REGISTERS <= registers and _bytes(form, p) <= room
    return whole and fits and threads <= most_threads(target)


def _is_across(form: PanelForm, f: Factor) -> bool:
    return f.along is form.depth.iters[-1]


def _bytes(form: PanelForm, p: WarpPanels) -> int:
    """What panels take of shared memory."""
    total = 0
    for f, side in ((form.data, p.rows), (form.weights, p.columns)):
        rows, columns = (side, p.depth) if _is_across(form, f) else (p.depth, side)
        total += p.stages * rows * row_bytes(columns, f.value.dtype)
    return total


def _cost(form: PanelForm, found: Intrinsic, p: WarpPanels, target: Target) -> float:
    """Rounds of tiles, each as long as its multiply-adds, what it loads from panels and what is
    copied there take, for a step of the depth."""
    data, weights = (f.value.dtype.bytes for f in (form.data, form.weights))
    copied = p.rows * data + p.columns * weights
    loaded = p.ty * (p.hm * p.rh * data + p.hn * weights) * p.g
    shared, memory = target.memory("shared").bandwidth, target.memory("global").bandwidth
    work = p.rows * p.columns / target.rates[found.name]
    work += loaded / max(1.0, shared) + copied * target.cores / max(1.0, memory)
    return rounds(form, p.rows, p.columns, target) * work
