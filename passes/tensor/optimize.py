"""Step 8 for one kernel: from a scheduled Func to what a back end prints."""

from __future__ import annotations

from aisc.ir.tensor.func import Func
from aisc.passes.analysis.cost import work
from aisc.passes.analysis.faults import can_fail
from aisc.passes.base import FuncPass
from aisc.passes.plan.bind import ScheduledKernel
from aisc.passes.schedule.schedule import Schedule, trace_to_json
from aisc.passes.tensor.barriers import InsertBarriers, is_parallel
from aisc.passes.tensor.compact import Compact
from aisc.passes.tensor.hoist_scratch import HoistScratch
from aisc.passes.tensor.lower_blocks import LowerBlocks
from aisc.passes.tensor.peel_tails import PeelTails
from aisc.passes.tensor.separate_inits import SeparateInits
from aisc.passes.tensor.skip_turns import SkipTurns

PASSES: tuple[FuncPass, ...] = (
    SeparateInits(), LowerBlocks(), SkipTurns(), PeelTails(), Compact(), HoistScratch(),
    InsertBarriers(),
)  # fmt: skip


def optimize(func: Func) -> Func:
    """Lower blocks, compact private storage, hoist scratch, insert barriers."""
    for step in PASSES:
        func = step.run(func)
    if can_fail(func.body):
        func = func.with_attrs(status=True)
    return func.with_attrs(parallel=True) if is_parallel(func.body) else func


def optimize_schedule(
    lowered: Func, schedule: Schedule, packers: tuple[Func, ...]
) -> ScheduledKernel:
    """The scheduled kernel with its (already scheduled) packers."""
    once, twice = (work(schedule.func.body, unknown) for unknown in (1, 2))
    func = optimize(schedule.func).with_attrs(work=once, scales=once != twice)
    if schedule.algorithm:  # for profiles: how much is computed is not what was lowered
        func = func.with_attrs(algorithm=trace_to_json(schedule.algorithm))
    before = {b.name: k for k, b in enumerate(lowered.params)}
    packed = []
    for packer in packers:
        source, result = packer.params[0], packer.params[1]
        position = before.get(source.name)
        if position is None:  # packed twice: found by the name of the first result
            position = next(k for k, b in enumerate(func.params) if b.name == result.name)
        packed.append((position, packer.name))
    done = tuple(map(optimize, packers))
    return ScheduledKernel(func, done, tuple(packed), picks=schedule.picks)
