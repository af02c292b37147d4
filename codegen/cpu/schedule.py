"""The schedule of a kernel for the CPU: the default rules, with the assembly as a gate.

A register tile whose hot loop touches the stack gives way to the next one of the rule, unless the
kernel shall be there quickly. Kernels of any number of rows get another version for one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from aisc.codegen.artefact import Artefact
from aisc.codegen.backend import Backend, Scheduled
from aisc.codegen.llvm.assembly import spills
from aisc.ir.target import Target
from aisc.ir.tensor.func import Func
from aisc.ir.tensor.stmt import While
from aisc.ir.tensor.tree import statements
from aisc.passes.plan.bind import ScheduledKernel, Version
from aisc.passes.schedule.picks import Choices
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.default import (
    complete,
    default_schedule,
    packer_schedule,
    prepared,
    tiled_contractions,
)
from aisc.passes.schedule.rules.tile import tiles_of
from aisc.passes.schedule.rules.versions import for_one, like, row_dimension
from aisc.passes.schedule.schedule import Schedule
from aisc.passes.tensor.count_turns import CountTurns
from aisc.passes.tensor.optimize import optimize_schedule
from aisc.passes.tensor.turns_as_lanes import TurnsAsLanes

# Tiles that the gate looks at before it settles for the first.
MAX_TILES = 4


def gated(lowered: Func, backend: Backend, choices: Choices, quick: bool = False) -> Scheduled:
    """The kernel by the first tile of the rule that keeps its values in registers; a tile among
    the `choices` comes first. `quick`: by the first tile, whatever its code is like."""
    first: tuple[ScheduledKernel, Artefact | None] | None = None
    target = backend.target
    decided = Chooser(target, choices, quick=quick)
    if any(isinstance(n, While) for n in statements(lowered.body)):  # turns in order, of numbers
        counted = TurnsAsLanes(target).run(CountTurns().run(lowered))
        return optimized(lowered, Schedule.of(counted), target), None
    start = prepared(lowered, decided)
    dim = row_dimension(start, target)
    for given, tiles in _tries(start, decided):
        d = decided.fork(given, tiles)
        schedule = complete(start, d)
        scheduled = optimized(lowered, schedule, target)
        if not tiles:
            return scheduled, None
        if dim is not None:
            scheduled = _with_version(lowered, scheduled, schedule, d, dim)
        if quick:
            return scheduled, None
        assembled = backend.assemble(backend.emit(scheduled.funcs), True)
        if spills(assembled.listing) == 0:
            return scheduled, assembled
        if given is not choices:  # a tile that was given and spills is not fallen back to
            first = first or (scheduled, assembled)
    assert first is not None, "there is at least one tile"
    return first


def _tries(start: Schedule, d: Chooser) -> Iterator[tuple[Choices, Choices]]:
    """What is given and what is preferred, one try after the other: tiles that are given, then the
    best of each contraction, then the next best."""
    shapes = {
        f"{r.block.name}.tile": tiles_of(start, r, d) for r in tiled_contractions(start, d.target)
    }
    rest = {name: choice for name, choice in d.choices.items() if name not in shapes}
    count = max((min(len(tiles), MAX_TILES) for tiles in shapes.values()), default=1)
    for k in range(count):
        best = {name: tiles[min(k, len(tiles) - 1)].shape for name, tiles in shapes.items()}
        if k == 0 and len(rest) < len(d.choices):
            yield d.choices, best
        yield rest, best


def optimized(lowered: Func, schedule: Schedule, target: Target) -> ScheduledKernel:
    """Step 8 for a kernel and its packers."""
    packers = tuple(
        replace(packer_schedule(p, target).func, name=f"{lowered.name}_pack{k}")
        for k, p in enumerate(schedule.packers)
    )
    return optimize_schedule(lowered, schedule, packers)


def _with_version(
    lowered: Func, scheduled: ScheduledKernel, schedule: Schedule, d: Chooser, dim: str
) -> ScheduledKernel:
    """`scheduled` with a version for a single row, `dim` being the number of rows: tiles of one row
    over weights that are packed alike."""
    special = for_one(lowered, dim)
    wide = {p.name: p.choice for p in schedule.picks if p.name.endswith((".tile", ".columns"))}
    tiles = {name: (1, shape[1]) for name, shape in wide.items() if isinstance(shape, tuple)}
    rest = {name: choice for name, choice in d.choices.items() if name not in tiles}
    other = default_schedule(special, Chooser(d.target, rest, tiles, d.quick))
    if other.packers != schedule.packers:
        return scheduled
    func = optimize_schedule(special, other, scheduled.packers).func
    func = replace(like(func, scheduled.func), name=f"{lowered.name}_{dim}1")
    return replace(scheduled, versions=(Version(dim, 1, func),))
