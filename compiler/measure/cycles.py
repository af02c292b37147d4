"""What layers take on machines that are described cycle by cycle, and nobody has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from aisc.codegen.backend import Backend, KernelTime, Timed
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.location import Loc
from aisc.ir.node import walk
from aisc.ir.tensor.func import Program
from aisc.ir.tensor.stmt import CallKernel

KernelWatch = Callable[[str, str, str, int, int], None]


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One call of a kernel: what it computes, on which target, and what that takes."""

    name: str
    kernel: str
    target: str
    time: KernelTime


def layer_times(
    program: Program, devices: Sequence[Backend], watch: KernelWatch | None = None
) -> list[LayerTime]:
    """The calls of a planned program on devices that know their cycles, in order; E402 where none
    of them does. `watch` is told once for each kernel what its units do."""
    timed = {d.target.name: d for d in devices if isinstance(d, Timed)}
    if not timed:
        names = ", ".join(d.target.name for d in devices) or "the host alone"
        raise error("E402", "cycles are known of simulated targets only", f"got {names}")
    kernels = {k.name: k for k in program.kernels}
    known: dict[str, KernelTime] = {}
    found = []
    for call in walk(program.entry.body):
        if not isinstance(call, CallKernel) or kernels[call.kernel].target not in timed:
            continue
        target = kernels[call.kernel].target
        if call.kernel not in known:
            told = None if watch is None else partial(watch, call.kernel)
            known[call.kernel] = timed[target].time(kernels[call.kernel], told)
        found.append(
            LayerTime(_name(call.loc) or call.kernel, call.kernel, target, known[call.kernel])
        )
    return found


def used_share(layers: Sequence[LayerTime]) -> float:
    """Multiply-adds of layers, of those that their arrays could do in the time."""
    possible = sum(x.time.cycles * x.time.peak for x in layers)
    return sum(x.time.work for x in layers) / possible if possible else 0.0


def _name(loc: Loc) -> str:
    """The first node of the model that a call computes."""
    return loc.node or next((n for part in loc.parts if (n := _name(part))), "")
