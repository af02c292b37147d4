"""Step 8 for one SIMT kernel: from a scheduled Func to what the SIMT back end prints."""

from __future__ import annotations

from aisc.ir.target import Target
from aisc.ir.tensor.func import Func
from aisc.passes.analysis.simt_kernel import joined
from aisc.passes.base import FuncPass
from aisc.passes.tensor.compact import Compact
from aisc.passes.tensor.copy_waits import InsertWaits
from aisc.passes.tensor.hoist_scratch import HoistScratch
from aisc.passes.tensor.lower_blocks import LowerBlocks
from aisc.passes.tensor.separate_inits import SeparateInits
from aisc.passes.tensor.simt_barriers import InsertBlockBarriers, check_private
from aisc.passes.tensor.simt_form import UnifyThreads, divided

# Shared panels shrink to one step of their loop before they are declared outside of it.
BEFORE: tuple[FuncPass, ...] = (SeparateInits(), LowerBlocks(), HoistScratch(), Compact())


def simt_optimize(func: Func, target: Target | None = None) -> Func:
    """Kernel form, private registers, barriers and waits; every step is proved or refused
    (E303-E306). `target` says what instructions mean."""
    for step in BEFORE:
        func = step.run(func)
    return joined(func, [_launch(part, target) for part in divided(func)])


def _launch(func: Func, target: Target | None) -> Func:
    func = UnifyThreads().run(func)
    check_private(func)
    func = InsertBlockBarriers(target).run(Compact().run(func))
    return InsertWaits(target).run(func)
