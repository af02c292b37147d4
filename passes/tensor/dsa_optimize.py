"""Step 8 for one DSA kernel: from a scheduled Func to what the assembler walks."""

from __future__ import annotations

from aisc.ir.tensor.func import Func
from aisc.passes.base import FuncPass
from aisc.passes.tensor.compact import Compact
from aisc.passes.tensor.hoist_scratch import HoistScratch
from aisc.passes.tensor.lower_blocks import LowerBlocks

PASSES: tuple[FuncPass, ...] = (LowerBlocks(), Compact(), HoistScratch())


def dsa_optimize(func: Func) -> Func:
    """Lower blocks, shrink tiles to what is live, make global scratch parameters."""
    for step in PASSES:
        func = step.run(func)
    return func
