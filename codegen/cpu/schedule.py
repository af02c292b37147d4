"""The schedule of a kernel for the CPU: the default rules, with the assembly as a gate.

A register tile whose hot loop touches the stack gives way to the next one of the rule. Kernels of
any number of rows get another version for one.
"""

from __future__ import annotations

from dataclasses import replace

from aisc.codegen.artefact import Artefact
from aisc.codegen.backend import Backend, Making, Scheduled
from aisc.codegen.llvm.assembly import spills
from aisc.ir.target import Target
from aisc.ir.tensor.func import Func
from aisc.passes.plan.bind import ScheduledKernel, Version
from aisc.passes.schedule.rules.default import (
    complete,
    default_schedule,
    packer_schedule,
    prepared,
    tiles,
)
from aisc.passes.schedule.rules.tile import Tile
from aisc.passes.schedule.rules.versions import for_one, like, one_row, row_dimension
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.tensor.optimize import optimize_schedule

# Tiles that the gate looks at before it settles for the first.
MAX_TILES = 4


def gated(lowered: Func, backend: Backend) -> Making[Scheduled]:
    """The kernel by the first tile of the rule that keeps its values in registers."""
    first: tuple[ScheduledKernel, Artefact | None] | None = None
    target = backend.target
    start = prepared(lowered, target)
    dim = row_dimension(start, target)
    choices: list[Tile | None] = [*tiles(start, target)[:MAX_TILES]]
    for tile in choices or [None]:
        schedule = complete(start, target, tile)
        scheduled = optimized(lowered, schedule, target)
        if tile is None:
            return scheduled, None
        if dim is not None:
            scheduled = _with_version(lowered, scheduled, schedule, tile, target, dim)
        assembled = yield backend.emit(scheduled.funcs), True
        if spills(assembled.listing) == 0:
            return scheduled, assembled
        first = first or (scheduled, assembled)
    assert first is not None, "there is at least one tile"
    return first


def optimized(lowered: Func, schedule: Schedule, target: Target) -> ScheduledKernel:
    """Step 8 for a kernel and its packers."""
    packers = tuple(
        replace(packer_schedule(p, target).func, name=f"{lowered.name}_pack{k}")
        for k, p in enumerate(schedule.packers)
    )
    return optimize_schedule(lowered, schedule, packers)


def _with_version(
    lowered: Func,
    scheduled: ScheduledKernel,
    schedule: Schedule,
    tile: Tile,
    target: Target,
    dim: str,
) -> ScheduledKernel:
    """`scheduled` with a version for a single row, `dim` being the number of rows."""
    special = for_one(lowered, dim)
    other = default_schedule(special, target, one_row(tile))
    if other.packers != schedule.packers:
        return scheduled
    func = optimize_schedule(special, other, scheduled.packers).func
    func = replace(like(func, scheduled.func), name=f"{lowered.name}_{dim}1")
    return replace(scheduled, versions=(Version(dim, 1, func),))
