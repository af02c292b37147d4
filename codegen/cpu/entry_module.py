"""The text of a program's entry: what one thread does before the fork, what all do behind it, and
the function that the caller calls."""

from __future__ import annotations

from collections.abc import Mapping

from aisc.codegen.cpu.entry import EntryEmitter
from aisc.codegen.cpu.fork import DECLARATIONS, fork_text
from aisc.codegen.cpu.memory import Memory, memory_of
from aisc.codegen.cpu.profile import CLOCK, Stamps, sites_of, stamp_text
from aisc.codegen.cpu.threads import decides, least_sizes
from aisc.ir.target import Costs
from aisc.ir.tensor.func import Func, Program


def entry_text(
    program: Program, costs: Costs, profile: bool = False
) -> tuple[str, dict[str, None], list[str]]:
    """Definition of ``aisc_entry``; declarations and globals that it needs. `costs`: what threads
    of the machine cost; `profile`: whether the entry fills the frame's profile."""
    kernels = {k.name: k for k in program.kernels}
    entry = program.entry
    parts: list[str] = []
    declarations: dict[str, None] = {}
    memory = memory_of(entry)
    stamps = Stamps(sites_of(entry, kernels)) if profile else None
    for emitter, text in _emitted(entry, kernels, memory, costs, stamps):
        parts.append(text)
        declarations.update(emitter.w.declarations)
    asleep, awake = (least_sizes(entry, kernels, w) for w in (costs.fork_work, costs.follow_work))
    meets = decides(entry, kernels)
    parts.append(fork_text(memory.entry, len(entry.dims), asleep, awake, meets))
    declarations.update(dict.fromkeys(DECLARATIONS))
    if profile:
        declarations[CLOCK] = None
        parts.append(stamp_text())
    return "\n\n".join(parts), declarations, memory.globals()


def _emitted(
    func: Func,
    kernels: Mapping[str, Func],
    memory: Memory,
    costs: Costs,
    stamps: Stamps | None,
) -> list[tuple[EntryEmitter, str]]:
    setup = EntryEmitter(func, kernels, memory, costs.parallel_work)
    body = EntryEmitter(func, kernels, memory, costs.parallel_work, stamps)
    return [
        (setup, setup.emit_setup(f"aisc_{memory.entry}_setup")),
        (body, body.emit(f"aisc_{memory.entry}_body")),
    ]
