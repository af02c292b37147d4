"""When a 3×3 convolution is computed by Winograd's F(4×4, 3×3), and how its transforms run.

Each tile of 16 results costs 36 products per pair of channels instead of 144, but its weights are
four times as large. So the variant pays where the image has enough tiles to use them for.
"""

from __future__ import annotations

from functools import partial

from aisc.ir.target import Target
from aisc.ir.tensor.expr import Const
from aisc.ir.tensor.stmt import Block
from aisc.passes.schedule.rules.tile import Tile, in_place_reader, schedule_consumer
from aisc.passes.schedule.schedule import Schedule, unless_refused
from aisc.passes.schedule.tree import find_place, places
from aisc.passes.schedule.variants.winograd import KERNEL, OUT

# Channels below which transforms cost more than the products they save.
LEAST_CHANNELS = 32
# Results per image and channel that must be saved, in units of the 108 bytes of additional weights
# per pair of channels: reading a byte from memory costs about as much as four operations.
LEAST_SAVED = 48


def use_winograd(s: Schedule, target: Target) -> Schedule:
    """Replace the convolutions of `s` for which it pays; their products are left to be tiled."""
    lanes = max(1, target.vector_bits // 32)
    for place in list(places(s.func.body)):
        if _pays(place.block, lanes) and in_place_reader(s, place.block.name) is not None:
            s = unless_refused(s, partial(_schedule, name=place.block.name, lanes=lanes))
    return s


def _pays(block: Block, lanes: int) -> bool:
    sizes = [int(it.extent.value) if isinstance(it.extent, Const) else 0 for it in block.iters]
    kinds = [it.kind for it in block.iters]
    if kinds != ["spatial"] * 4 + ["reduce"] * 3 or sizes[4:6] != [KERNEL, KERNEL]:
        return False
    height, width, outputs, inputs = sizes[1], sizes[2], sizes[3], sizes[6]
    if min(inputs, outputs) < LEAST_CHANNELS or inputs % lanes or outputs % lanes:
        return False
    tiles = -(-height // OUT) * -(-width // OUT)
    return height * width - OUT * tiles > LEAST_SAVED


def _schedule(s: Schedule, name: str, lanes: int) -> Schedule:
    s = s.variant(name, "winograd")
    s, _ = _vectorized(s, f"{name}_in", lanes)
    s, outer = _vectorized(s, f"{name}_out", lanes)
    reader = in_place_reader(s, f"{name}_out")
    assert reader is not None, "it was there before the variant"
    result = find_place(s.func, f"{name}_out").block.writes[0].buffer.name
    s = s.reverse_compute_at(reader, outer[-1]).set_scope(result, "register")
    return schedule_consumer(s, reader, outer, Tile(OUT, 1, lanes))


def _vectorized(s: Schedule, block: str, lanes: int) -> tuple[Schedule, list[str]]:
    """Channels as lanes; also the loops around them."""
    *outer, last = (f.var.name for f in find_place(s.func, block).loops)
    s = s.split(last, lanes, names=(f"{last}_o", f"{last}_l")).vectorize(f"{last}_l")
    return s, [*outer, f"{last}_o"]
