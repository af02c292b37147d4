"""When a 3×3 convolution is computed by Winograd's F(4×4, 3×3), and how its transforms run.

Each tile of 16 results costs 36 products per pair of channels instead of 144, but its weights are
four times as large. So the variant pays where the image has enough tiles to use them for. It is
several times as much code as the convolution, and takes as much longer to make: not where kernels
shall be there quickly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod

from aisc.ir.dtypes import f32
from aisc.ir.target import Target
from aisc.ir.tensor.expr import Const, Select
from aisc.ir.tensor.stmt import Block, Store
from aisc.ir.tensor.tree import find_loop, find_place, places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.epilogue import lanes_reader
from aisc.passes.schedule.rules.inlining import inline_where_legal
from aisc.passes.schedule.rules.structure import known_factor
from aisc.passes.schedule.rules.tile import schedule_consumer
from aisc.passes.schedule.rules.tile_cost import Tile
from aisc.passes.schedule.schedule import Schedule, unless_refused
from aisc.passes.schedule.variants.winograd import IN, KERNEL, OUT

# Channels below which transforms cost more than the products they save.
LEAST_CHANNELS = 32
# Bytes of additional weights per pair of channels, and operations that each result saves there.
MORE_WEIGHTS, SAVED = 108, 9
# The size of an image that only the run knows.
USUAL_SIZE = 28
# The part of a second-level cache that transformed tiles get, before and after the products, beside
# the weights that pass by.
BLOCK_PART = 5, 8
# Pieces of an image that may run at the same time, each with a block of its own; and how much of
# the cores' time they must be able to use.
PIECES, BALANCED = 8, 0.9
# Bytes that are asked for ahead while one is waited for.
AHEAD = 3
# Blocks of tiles, down and across, of images whose sizes only the run knows, largest first.
BLOCKS = (4, 8), (4, 4), (2, 4), (2, 2)
# Sizes of blocks that are offered.
MOST_BLOCKS = 6


def use_winograd(s: Schedule, d: Chooser) -> Schedule:
    """Replace the convolutions of `s` for which it pays; their products are left to be tiled."""
    lanes = d.target.lanes(f32)
    for place in list(places(s.func.body)):
        name = place.block.name
        if not _is_fit(place.block, lanes) or lanes_reader(s, name) is None:
            continue
        own = "winograd" if not d.quick and _pays(place.block, d.target) else "direct"
        if d.pick(f"{name}.algorithm", ("direct", "winograd"), own, exact=False) == "winograd":
            step = partial(_chosen, name=name, block=_block(place.block, d))
            s = unless_refused(s, partial(_schedule, name=name, lanes=lanes, step=step))
    return s


def _sizes(block: Block) -> list[int]:
    return [int(it.extent.value) if isinstance(it.extent, Const) else 0 for it in block.iters]


def _is_fit(block: Block, lanes: int) -> bool:
    """Whether a block is such a convolution, with whole vectors of channels."""
    sizes = _sizes(block)
    kinds = [it.kind for it in block.iters]
    if kinds != ["spatial"] * 4 + ["reduce"] * 3 or sizes[4:6] != [KERNEL, KERNEL]:
        return False
    outputs, inputs = sizes[3], sizes[6]
    return min(inputs, outputs) > 0 and inputs % lanes == 0 and outputs % lanes == 0


def _pays(block: Block, target: Target) -> bool:
    _, height, width, outputs, _, _, inputs = _sizes(block)
    height, width = height or USUAL_SIZE, width or USUAL_SIZE
    if min(inputs, outputs) < LEAST_CHANNELS:
        return False
    tiles = -(-height // OUT) * -(-width // OUT)
    return SAVED * (height * width - OUT * tiles) > MORE_WEIGHTS * target.costs.byte_work


def _block(block: Block, d: Chooser) -> tuple[int, int]:
    """Tiles of a block, down and across, of images whose sizes only the run knows: as many as the
    second-level cache holds transformed; none for others."""
    _, height, width, outputs, _, _, inputs = _sizes(block)
    if height and width:
        return 0, 0
    room = block_bytes(d.target) // (IN * IN * (inputs + outputs) * f32.bytes)
    own = next((b for b in BLOCKS if prod(b) <= room), BLOCKS[-1])
    down, across = d.pick(f"{block.name}.block", BLOCKS, own)
    return down, across


def _chosen(s: Schedule, name: str, block: tuple[int, int]) -> Schedule:
    return s.variant(name, "winograd_blocks", *block) if block[0] else s.variant(name, "winograd")


def _schedule(s: Schedule, name: str, lanes: int, step: Callable[[Schedule], Schedule]) -> Schedule:
    s = _without_border(step(s), f"{name}_in")
    s, _ = _vectorized(s, f"{name}_in", lanes)
    s, outer = _vectorized(s, f"{name}_out", lanes)
    reader = lanes_reader(s, f"{name}_out")
    assert reader is not None, "it was there before the variant"
    result = find_place(s.func, f"{name}_out").block.writes[0].buffer.name
    s = s.reverse_compute_at(reader, outer[-1]).set_scope(result, "register")
    return schedule_consumer(s, reader, outer, Tile(OUT, 1, lanes))


def _without_border(s: Schedule, block: str) -> Schedule:
    """Let the tiles read an image where it lies instead of a copy with a border of zeros."""
    read = {r.buffer for r in find_place(s.func, block).block.reads}
    for place in list(places(s.func.body)):
        body = place.block.body
        if isinstance(body, Store) and isinstance(body.value, Select) and body.buffer in read:
            s = inline_where_legal(s, place.block.name)
    return s


def _vectorized(s: Schedule, block: str, lanes: int) -> tuple[Schedule, list[str]]:
    """Channels as lanes; also the loops around them."""
    *outer, last = (f.var.name for f in find_place(s.func, block).loops)
    s = s.split(last, lanes, names=(f"{last}_o", f"{last}_l")).vectorize(f"{last}_l")
    return s, [*outer, f"{last}_o"]


def block_tiles(s: Schedule, d: Chooser) -> Schedule:
    """Take the tiles of Winograd convolutions block by block through transform, products and
    transform back, so that what lies between stays in cache; for products that are tiled."""
    for step in s.algorithm:
        if step.primitive == "variant" and step.args[1] == "winograd":
            s = d.attempt(s, partial(_blocked, name=str(step.args[0]), d=d))
        if step.primitive == "variant" and step.args[1] == "winograd_blocks":
            s = d.attempt(s, partial(_whole_blocks, name=str(step.args[0])))
    return s


def _blocked(s: Schedule, name: str, d: Chooser) -> Schedule:
    found = _blocks(s, name, d.target)
    size, turns = d.pick(f"{name}.blocks", (*found[:MOST_BLOCKS], (0, 0)), (*found, (0, 0))[0])
    if size == 0:
        return s
    images = _image_axes(find_place(s.func, name).block)
    into, back = f"{name}_in_i{images}", f"{name}_out_i{images}"
    points, rows, lanes = f"{name}_i0", f"{name}_i{images + 1}_t", f"{name}_i{images + 2}_t"
    s = s.split(into, size, names=(f"{into}_b", f"{into}_i"))
    s = s.split(back, size, names=(f"{back}_b", f"{back}_i"))
    per_tile = known_factor(find_loop(s.func, rows.removesuffix("t") + "r").extent)
    s = s.split(rows, size // per_tile, names=(f"{rows}_b", f"{rows}_i"))
    if images:
        s = s.reorder(f"{name}_i1", f"{rows}_b", points, lanes, f"{rows}_i")
        s = s.fuse_loops(f"{name}_in_i0", f"{name}_i1")
        s = s.fuse_loops(f"{name}_in_i0", f"{name}_out_i0")
    else:
        s = s.reorder(f"{rows}_b", points, lanes, f"{rows}_i")
    s = s.fuse_loops(f"{into}_b", f"{rows}_b").fuse_loops(f"{into}_b", f"{back}_b")
    s = s.split(f"{into}_b", turns, names=(f"{into}_q", f"{into}_n"))
    return _between_in_cache(s, name)


def _image_axes(block: Block) -> int:
    """Axes of images before that of tiles: one where only the run knows their number."""
    return len([it for it in block.iters if it.kind == "spatial"]) - 3


def _whole_blocks(s: Schedule, name: str) -> Schedule:
    """The three nests of blocks as one."""
    axes = range(3)
    rows, lanes = f"{name}_i4_t", f"{name}_i5_t"
    s = s.reorder(*(f"{name}_i{k + 1}" for k in axes), f"{name}_i0", lanes, rows)
    for k in axes:
        s = s.fuse_loops(f"{name}_in_i{k}", f"{name}_i{k + 1}")
        s = s.fuse_loops(f"{name}_in_i{k}", f"{name}_out_i{k}")
    return _between_in_cache(s, name)


def _between_in_cache(s: Schedule, name: str) -> Schedule:
    """Transformed tiles live as long as their block."""
    between = {r.buffer.name for r in find_place(s.func, f"{name}_in").block.writes}
    between |= {r.buffer.name for r in find_place(s.func, f"{name}_out").block.reads}
    for buffer in sorted(between):
        s = s.set_scope(buffer, "thread")
    return s


def block_bytes(target: Target) -> int:
    """Bytes of transformed tiles of a block."""
    part, of = BLOCK_PART
    return target.second_cache.bytes * part // of


def _blocks(s: Schedule, name: str, target: Target) -> list[tuple[int, int]]:
    """Tiles of a block, and how many blocks a piece takes one after the other, those first that
    move the least. A block is whole register tiles; all blocks make up the image, and pieces keep
    the cores busy."""
    block = find_place(s.func, name).block
    *_, tile, lane, inner = block.iters
    image = known_factor(tile.extent)
    per_tile = known_factor(find_loop(s.func, f"{name}_i{_image_axes(block) + 1}_r").extent)
    channels = known_factor(inner.extent), known_factor(lane.extent)
    cores, found = target.cores, []
    for size in range(image // per_tile * per_tile, 0, -per_tile):
        blocks = image // size
        for turns in range(blocks // PIECES, 0, -1) if blocks >= PIECES else (1,):
            pieces = blocks // turns
            whole = image == pieces * turns * size
            if whole and pieces >= BALANCED * cores * -(-pieces // cores):
                found.append((size, turns))
    return sorted(found, key=lambda f: _moved(f[0], image // f[0], channels, target))


def _moved(size: int, blocks: int, channels: tuple[int, int], target: Target) -> float:
    """What blocks of `size` tiles wait for that comes from behind the second-level cache, in bytes.
    All weights pass by between a tile's transform and the last of its products: tiles that are more
    than the cache with half of them move once in each direction. Weights stay between blocks only
    where they fit themselves, but are asked for ahead."""
    weights, tiles = (IN * IN * f32.bytes * n for n in (prod(channels), size * sum(channels)))
    cache = target.second_cache.bytes
    stay = tiles <= block_bytes(target) and tiles + weights // 2 <= cache
    again = 0 if stay and weights <= cache else weights / AHEAD
    return blocks * (again + (0 if stay else 2 * tiles))
