"""The assembler of accelerators: a kernel of instructions as text for people, with what it
takes."""

from __future__ import annotations

from itertools import islice

from aisc.codegen.dsa.stream import Code, Execution, Place, Signal, Site
from aisc.codegen.dsa.timing import Timing, timing
from aisc.ir.target import Target
from aisc.ir.text import lexical

# Instructions of a stream that a listing shows.
SHOWN = 512


def listing(stream: Code, target: Target) -> str:
    """The stream with a head that says what it needs and takes."""
    found = timing(stream, target)
    total = sum(found.counts.values())
    used = [f"; {space}: {size} bytes" for space, size in stream.memory.items()]
    lines = [f"; {stream.name} on {target.name}", *used, *spent(found, target)]
    lines += [executed(stream.sites[x[0]], x) for x in islice(stream, SHOWN)]
    lines += [f"; and {total - SHOWN} more"] if total > SHOWN else []
    return "\n".join([*lines, ""])


def spent(found: Timing, target: Target) -> list[str]:
    """Lines about time."""
    units = (f"; {unit}: {busy} cycles" for unit, busy in sorted(found.busy.items()))
    share = utilization(found, target)
    return [*units, f"; all: {found.cycles} cycles, {share:.1%} of the array's multiply-adds"]


def utilization(found: Timing, target: Target) -> float:
    """Multiply-adds of those that the array could do in the time."""
    if target.chip is None or not found.cycles:
        return 0.0
    array = target.chip.array
    return found.macs / (found.cycles * array.rows * array.columns)


def executed(site: Site | Signal, execution: Execution) -> str:
    """One execution of an instruction as a line."""
    if isinstance(site, Signal):
        return site.name
    _, args, offsets = execution
    operands = (operand(p, at) for p, at in zip(site.places, offsets, strict=True))
    return f"{site.name} {', '.join([*operands, *(f'#{a}' for a in args)])}"


def operand(place: Place, offset: int) -> str:
    """Where an operand lies: memory or buffer, offset, strides in bytes."""
    own = place.strides
    usual = bool(own) and own[-1] == place.param.dtype.bytes  # elements of rows beside each other
    strides = "/".join(map(str, own[:-1] if usual else own))
    name = lexical.name(place.name)
    head = f"{name}:{offset:#06x}" if place.local else f"{name}+{offset:#x}"
    return f"{head}/{strides}" if strides else head
