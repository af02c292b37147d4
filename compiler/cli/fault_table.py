"""``aisc check --faults``: what is wrong or slow with the instructions of a model's layers."""

from __future__ import annotations

from collections.abc import Sequence

from aisc.codegen.backend import Backend, Examined
from aisc.ir.diagnostics import error
from aisc.ir.tensor.func import Program


def examined(program: Program, devices: Sequence[Backend]) -> list[str]:
    """Run every kernel of the devices that can be examined, on operands of any values: a line for
    each, with notes behind it; E402 where there are none. Raises what is wrong."""
    able = {d.target.name: d for d in devices if isinstance(d, Examined)}
    if not able:
        names = ", ".join(d.target.name for d in devices) or "the host alone"
        raise error("E402", "instructions are known of simulated targets only", f"got {names}")
    lines = []
    for kernel in program.kernels:
        if kernel.target in able:
            notes = able[kernel.target].examine(kernel)
            lines.append(f"{kernel.name}: no faults, {len(notes)} conflicts of banks")
            lines += [f"  {note}" for note in notes[:SHOWN]]
    return lines


# Conflicts of a kernel that are shown.
SHOWN = 3
