"""Step 8 for one kernel of an accelerator: from a scheduled Func to what the assembler walks."""

from __future__ import annotations

from aisc.ir.target import Target
from aisc.ir.tensor.func import Func
from aisc.passes.base import FuncPass
from aisc.passes.tensor.handovers import InsertHandovers
from aisc.passes.tensor.lower_blocks import LowerBlocks
from aisc.passes.tensor.select_instructions import SelectInstructions


def dsa_optimize(func: Func, target: Target) -> Func:
    """Instructions in place of nests, indices simplified, units in order where they need tokens
    for that."""
    steps: tuple[FuncPass, ...] = (
        SelectInstructions(target),
        LowerBlocks(),
        InsertHandovers(target),
    )
    for step in steps:
        func = step.run(func)
    return func
