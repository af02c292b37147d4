"""Kernels through steps 7, 8, 10 and 11, and what the cache holds of them.

A kernel is made by a generator: it yields LLVM IR and goes on with its machine code, so that
others can be made while that is generated (:mod:`aisc.building`).

The key of a kernel is its printed canonical Func, the code-affecting options, the target and the
versions; its record holds the object and, as IR text, the signature that the plan needs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TypeVar

from aisc import signature
from aisc.cache import key_of
from aisc.codegen.cpu.backend import CpuBackend
from aisc.codegen.llvm.assembly import spills
from aisc.codegen.llvm.generate import Assembled
from aisc.fingerprint import fingerprint
from aisc.ir.diagnostics import AiscError, InternalError
from aisc.ir.optional import left_out
from aisc.ir.target import Target
from aisc.ir.tensor.func import Func
from aisc.ir.text.printer import print_ir
from aisc.options import Options
from aisc.passes.lower.canonical import canonical
from aisc.passes.plan.bind import ScheduledKernel, Version
from aisc.passes.schedule.rules.default import (
    complete,
    default_schedule,
    packer_schedule,
    prepared,
    tiles,
)
from aisc.passes.schedule.rules.tile import Tile
from aisc.passes.schedule.rules.versions import for_one, like, one_row, row_dimension
from aisc.passes.schedule.schedule import Schedule, Step, trace_to_json
from aisc.passes.tensor.optimize import optimize_schedule

# Tiles that the gate looks at before it settles for the first.
MAX_TILES = 4
# A module of LLVM IR, and whether its assembly is wanted.
Request = tuple[str, bool]
R = TypeVar("R")
Making = Generator[Request, Assembled, R]
# The tuned trace of a kernel, or nothing: how step 7 asks the tuning database.
Lookup = Callable[[Func], "tuple[Step, ...] | None"]


def untuned(lowered: Func) -> tuple[Step, ...] | None:
    """The lookup without a database."""
    return None


def schedule_kernel(
    lowered: Func, backend: CpuBackend, options: Options, lookup: Lookup = untuned
) -> ScheduledKernel:
    """Steps 7 and 8: the recorded trace if there is one, else the default rule."""
    return run_here(_schedule(lowered, backend, options, lookup), backend)[0]


def run_here(making: Making[R], backend: CpuBackend) -> R:
    """What comes out when this process generates the machine code."""
    try:
        text, want_assembly = next(making)
        while True:
            text, want_assembly = making.send(backend.assemble(text, want_assembly))
    except StopIteration as end:
        result: R = end.value
        return result


def _schedule(
    lowered: Func, backend: CpuBackend, options: Options, lookup: Lookup
) -> Making[tuple[ScheduledKernel, Assembled | None]]:
    """The scheduled kernel, and its machine code where the gate has made it already."""
    target = backend.target
    if options.level < 2:
        return scheduled_by(lowered, Schedule.of(lowered), target), None
    trace = lookup(lowered)
    if trace is not None:
        return scheduled_by(lowered, Schedule.of(lowered).replay(trace), target), None
    try:
        return (yield from _gated(lowered, backend))
    except AiscError:
        raise
    except Exception as fault:
        left_out(f"the schedule of {lowered.name}", fault)
        return scheduled_by(lowered, Schedule.of(lowered), target), None


def _gated(lowered: Func, backend: CpuBackend) -> Making[tuple[ScheduledKernel, Assembled | None]]:
    """The default schedule; a register tile whose hot loop touches the stack gives way to the
    next one of the rule."""
    first: tuple[ScheduledKernel, Assembled | None] | None = None
    start = prepared(lowered, backend.target)
    dim = row_dimension(start, backend.target)
    choices: list[Tile | None] = [*tiles(start, backend.target)[:MAX_TILES]]
    for tile in choices or [None]:
        schedule = complete(start, backend.target, tile)
        scheduled = scheduled_by(lowered, schedule, backend.target)
        if tile is None:
            return scheduled, None
        if dim is not None:
            scheduled = _with_version(lowered, scheduled, schedule, tile, backend.target, dim)
        assembled = yield backend.emit(scheduled.funcs), True
        if spills(assembled.assembly) == 0:
            return scheduled, assembled
        first = first or (scheduled, assembled)
    assert first is not None, "there is at least one tile"
    return first


def _with_version(
    lowered: Func,
    scheduled: ScheduledKernel,
    schedule: Schedule,
    tile: Tile,
    target: Target,
    dim: str,
) -> ScheduledKernel:
    """`scheduled` with a version for a single row, `dim` being the number of rows."""
    special = for_one(lowered, dim)
    other = default_schedule(special, target, one_row(tile))
    if other.packers != schedule.packers:
        return scheduled
    func = optimize_schedule(special, other, scheduled.packers).func
    func = replace(like(func, scheduled.func), name=f"{lowered.name}_{dim}1")
    return replace(scheduled, versions=(Version(dim, 1, func),))


def scheduled_by(lowered: Func, schedule: Schedule, target: Target) -> ScheduledKernel:
    """Step 8 for a kernel and its packers."""
    packers = tuple(
        replace(packer_schedule(p, target).func, name=f"{lowered.name}_pack{k}")
        for k, p in enumerate(schedule.packers)
    )
    return optimize_schedule(lowered, schedule, packers)


@dataclass(frozen=True, slots=True)
class BuiltKernel:
    """A kernel ready to be linked. Its Funcs are signatures only when it came from the cache."""

    scheduled: ScheduledKernel
    object: bytes
    cached: bool


def kernel_key(
    lowered: Func, options: Options, backend: CpuBackend, lookup: Lookup = untuned
) -> str:
    """Everything that affects the code of a kernel, hashed."""
    text = print_ir(canonical(lowered))
    trace = trace_to_json(lookup(lowered) or ())
    return key_of(
        lowered.name, text, trace, options.key, backend.target.key, backend.version, fingerprint()
    )


def make_kernel(
    lowered: Func, options: Options, backend: CpuBackend, lookup: Lookup = untuned
) -> Making[BuiltKernel]:
    """A kernel made now."""
    scheduled, assembled = yield from _schedule(lowered, backend, options, lookup)
    if assembled is None:
        try:
            text = backend.emit(scheduled.funcs)
        except InternalError as fault:
            left_out(f"the schedule of {lowered.name}", fault)
            scheduled = scheduled_by(lowered, Schedule.of(lowered), backend.target)
            text = backend.emit(scheduled.funcs)
        assembled = yield text, False
    return BuiltKernel(scheduled, assembled.object, False)


def to_record(built: BuiltKernel) -> dict[str, bytes]:
    """What the cache holds of a kernel."""
    s = built.scheduled
    head = {
        "func": signature.to_json(s.func),
        "packers": [signature.to_json(p) for p in s.packers],
        "packed": [list(p) for p in s.packed],
        "versions": [[v.dim, v.value, signature.to_json(v.func)] for v in s.versions],
    }
    return {"head": json.dumps(head).encode(), "object": built.object}


def from_record(record: dict[str, bytes]) -> BuiltKernel | None:
    """The kernel of a record; ``None`` when it has another form."""
    try:
        head = json.loads(record["head"])
        func = signature.from_json(head["func"])
        packers = tuple(map(signature.from_json, head["packers"]))
        packed = tuple((int(k), str(n)) for k, n in head["packed"])
        versions = tuple(
            Version(str(d), int(n), signature.from_json(f)) for d, n, f in head["versions"]
        )
        kernel = ScheduledKernel(func, packers, packed, versions)
        return BuiltKernel(kernel, record["object"], True)
    except (KeyError, ValueError, TypeError):
        return None
