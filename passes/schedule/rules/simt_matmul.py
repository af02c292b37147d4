"""The default schedule of a matrix product on a SIMT machine: primitives only.

A block computes a tile of the result. Per step of the reduce loop its threads copy a panel of each
operand into shared memory and multiply from there into register tiles; the map that follows the
product runs on the register tile. Edges are filled with zeros in the shared panels, so the inner
loops have no conditions; only the stores of the result are guarded.
"""

from __future__ import annotations

from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.node import walk
from aisc.ir.target import Target
from aisc.ir.tensor.expr import Load, Var
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import ForKind
from aisc.ir.tensor.tree import find_place, fresh, places
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.epilogue import in_place_reader, result_of, through_private
from aisc.passes.schedule.rules.structure import Reduction, analyse
from aisc.passes.schedule.schedule import Schedule

# Tiles, threads of a block (y, x) and depths of panels, from which one is picked.
TILES = ((32, 32), (64, 64), (64, 128), (128, 64), (128, 128))
TILE_THREADS = ((8, 8), (8, 16), (16, 16))
DEPTHS = (4, 8, 16)


@dataclass(frozen=True, slots=True)
class SimtTile:
    """A block's tile of the result, the depth of its shared panels, and its threads (y, x)."""

    rows: int = 64
    columns: int = 64
    depth: int = 8
    threads: tuple[int, int] = (16, 16)


def simt_matmul(func: Func, d: Chooser) -> Schedule:
    """Schedule the one matrix product of `func`; E302 when there is none, E402 when the tile does
    not fit the target."""
    tile = _pick_tile(d)
    _require_fit(d.target, tile)
    s = Schedule.of(func)
    found = [r for p in places(func.body) if (r := analyse(p.block)) is not None]
    if len(found) != 1 or len(found[0].block.iters) != 3 or found[0].row is None:
        raise error("E302", f"{func.name} is not one matrix product")
    block = found[0].block.name
    i, j, k = (v.name for v in find_place(func, block).block.bindings)  # type: ignore[attr-defined]
    s, consumer = _consumer(s, block)
    panels = _panels(func, found[0])
    s = _shared_panels(s, found[0], panels, tile)
    s = s.pad_reduction(block, k, tile.depth)
    s = s.clamp_tail(block, i, tile.rows).clamp_tail(block, j, tile.columns)
    s = _tile_loops(s, block, (i, j, k), tile)
    for name in panels:
        s = s.compute_at(f"{name}_fill", f"{k}_o").set_scope(name, "shared")
        s = _cooperative(s, f"{name}_fill", tile.threads)
    s = _epilogue(s, block, consumer, f"{j}_b", tile)
    s = s.decompose_reduction(block, f"{k}_o")
    s = s.bind(f"{i}_b", "block.y").bind(f"{j}_b", "block.x")
    for suffix in ("", "_init"):
        s = s.bind(f"{i}_t{suffix}", "thread.y").bind(f"{j}_t{suffix}", "thread.x")
        s = s.unroll(f"{i}_r{suffix}").unroll(f"{j}_r{suffix}")
    return s.unroll(f"{k}_i")


def _pick_tile(d: Chooser) -> SimtTile:
    own = SimtTile()
    rows, columns = d.pick("kernel.tile", TILES, (own.rows, own.columns))
    threads = d.pick("kernel.tile_threads", TILE_THREADS, own.threads)
    ty, tx = threads
    return SimtTile(rows, columns, d.pick("kernel.depth", DEPTHS, own.depth), (ty, tx))


def _require_fit(target: Target, tile: SimtTile) -> None:
    ty, tx = tile.threads
    limits = target.limits
    if ty * tx > limits.get("threads_per_block", 1024):
        raise error("E402", f"{target.name} has no blocks of {ty * tx} threads")
    if tile.rows % ty or tile.columns % tx:
        raise error("E302", "the threads do not divide the tile", f"got {tile}")
    shared = 4 * tile.depth * (tile.rows + tile.columns)
    if shared > target.memory("shared").bytes:
        raise error("E402", f"{target.name} has no {shared} bytes of shared memory")


def _consumer(s: Schedule, block: str) -> tuple[Schedule, str]:
    """The map that reads the product; a copy is made when there is none."""
    reader = in_place_reader(s, block)
    if reader is not None:
        return s, reader.name
    name = fresh(s.func, f"{result_of(s, block).name}_tile")
    return through_private(s, block, "register", name)


def operands_of(found: Reduction) -> tuple[Load, ...]:
    """The two factors of a product, in the order in which they stand; E302 if they are no two
    loads at plain iterators."""
    result = found.block.writes[0].buffer
    loads = [n for n in walk(found.block.body) if isinstance(n, Load) and n.buffer != result]
    plain = all(isinstance(i, Var) for load in loads for i in load.indices)
    if len(loads) != 2 or loads[0].buffer == loads[1].buffer or not plain:
        raise error("E302", f"block {found.block.name} is no product of two plain operands")
    return tuple(loads)


def _panels(func: Func, found: Reduction) -> tuple[str, ...]:
    """Names of the shared copies of the operands."""
    return tuple(fresh(func, f"{load.buffer.name}_shared") for load in operands_of(found))


def _shared_panels(
    s: Schedule, found: Reduction, panels: tuple[str, ...], tile: SimtTile
) -> Schedule:
    """Copies of both operands, padded to whole tiles: rows clamped, the reduce axis zero."""
    sizes = _multiples(found, tile)
    for load, name in zip(operands_of(found), panels, strict=True):
        s = s.cache_read(found.block.name, load.buffer.name, "shared", name)
        for axis, index in enumerate(load.indices):
            multiple, zero = sizes[index.name]  # type: ignore[attr-defined]
            s = s.clamp_tail(f"{name}_fill", f"{name}_fill_i{axis}", multiple, zero=zero)
    return s


def _multiples(found: Reduction, tile: SimtTile) -> dict[str, tuple[int, bool]]:
    i, j, k = (it.var.name for it in found.block.iters)
    return {i: (tile.rows, False), j: (tile.columns, False), k: (tile.depth, True)}


def _tile_loops(s: Schedule, block: str, names: tuple[str, str, str], tile: SimtTile) -> Schedule:
    i, j, k = names
    ty, tx = tile.threads
    for name, size, threads in ((i, tile.rows, ty), (j, tile.columns, tx)):
        s = s.split(name, size, names=(f"{name}_b", f"{name}_in"))
        s = s.split(f"{name}_in", size // threads, names=(f"{name}_t", f"{name}_r"))
    s = s.split(k, tile.depth, names=(f"{k}_o", f"{k}_i"))
    order = (f"{i}_b", f"{j}_b", f"{k}_o", f"{i}_t", f"{j}_t", f"{k}_i", f"{i}_r", f"{j}_r")
    return s.reorder(*order)


def _cooperative(s: Schedule, block: str, threads: tuple[int, int]) -> Schedule:
    """All threads copy a panel together, neighbours neighbouring elements."""
    first, second = (f.var.name for f in find_place(s.func, block).loops[-2:])
    flat = f"{block}_f"
    s = s.fuse(first, second, name=flat)
    s = s.split(flat, threads[0] * threads[1], names=(f"{flat}o", f"{flat}t"))
    s = s.split(f"{flat}t", threads[1], names=(f"{flat}ty", f"{flat}tx"))
    s = s.reorder(f"{flat}ty", f"{flat}tx", f"{flat}o")
    s = s.bind(f"{flat}ty", "thread.y").bind(f"{flat}tx", "thread.x")
    return s.unroll(f"{flat}o")


def _epilogue(s: Schedule, block: str, consumer: str, loop: str, tile: SimtTile) -> Schedule:
    """The map after the product, on the register tile of each thread."""
    s = s.reverse_compute_at(consumer, loop)
    result = find_place(s.func, block).block.writes[0].buffer.name
    s = s.set_scope(result, "register")
    loops = [f.var.name for f in find_place(s.func, consumer).loops[-2:]]
    sizes = (tile.rows // tile.threads[0], tile.columns // tile.threads[1])
    axes: list[ForKind] = ["thread.y", "thread.x"]
    for name, size in zip(loops, sizes, strict=True):
        s = s.split(name, size, names=(f"{name}_t", f"{name}_r"))
    y, x = loops
    s = s.reorder(f"{y}_t", f"{x}_t", f"{y}_r", f"{x}_r")
    for name, axis in zip(loops, axes, strict=True):
        s = s.bind(f"{name}_t", axis).unroll(f"{name}_r")
    return s
