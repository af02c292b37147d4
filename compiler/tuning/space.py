"""The search space of a kernel: the open decisions of the default rule's trace.

A candidate is a complete trace; the default's own trace is always the first. Candidates come from
the register tiles that fit the target, ordered by the analytical model, so that a search which is
cut short has seen the most promising ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from aisc.ir.diagnostics import CompileError
from aisc.ir.target import Target
from aisc.ir.tensor.func import Func
from aisc.passes.schedule.rules.default import complete, prepared, tiles
from aisc.passes.schedule.rules.tile import Tile
from aisc.passes.schedule.schedule import Schedule, Step


@dataclass(frozen=True, slots=True)
class Candidate:
    """A schedule to try: what was decided, and the trace that does it."""

    label: str
    trace: tuple[Step, ...]


def candidates(func: Func, target: Target, limit: int = 64) -> list[Candidate]:
    """The default schedule, then one candidate per register tile, best estimate first."""
    start = prepared(func, target)
    default = Candidate("default", complete(start, target).trace)
    found, seen = [default], {default.trace}
    for tile in tiles(start, target):
        if len(found) >= limit:
            break
        trace = _trace(start, target, tile)
        if trace is not None and trace not in seen:
            seen.add(trace)
            found.append(Candidate(f"{tile.rows}x{tile.vectors}", trace))
    return found


def _trace(start: Schedule, target: Target, tile: Tile) -> tuple[Step, ...] | None:
    try:
        return complete(start, target, tile).trace
    except CompileError:
        return None  # this tile does not apply to this kernel
