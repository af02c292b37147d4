"""Kernels through steps 7, 8, 10 and 11, and what the cache holds of them.

A kernel is made by a generator: it yields modules and goes on with what they were assembled to, so
that others can be made meanwhile (:mod:`aisc.building`).

The key of a kernel is its printed canonical Func, the code-affecting options, the target and the
versions; its record holds the object and, as IR text, the signature that the plan needs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from aisc import signature
from aisc.cache import key_of
from aisc.codegen.artefact import Artefact
from aisc.codegen.backend import Backend, Making, Scheduled
from aisc.fingerprint import fingerprint
from aisc.ir.diagnostics import AiscError, CompileError, Diagnostic, InternalError, warn
from aisc.ir.optional import left_out
from aisc.ir.tensor.func import Func
from aisc.ir.text.printer import print_ir
from aisc.options import Options
from aisc.passes.lower.canonical import canonical
from aisc.passes.plan.bind import ScheduledKernel, Version
from aisc.passes.schedule.schedule import Schedule, Step, trace_to_json

# The tuned trace of a kernel, or nothing: how step 7 asks the tuning database.
Lookup = Callable[[Func], "tuple[Step, ...] | None"]


def untuned(lowered: Func) -> tuple[Step, ...] | None:
    """The lookup without a database."""
    return None


@dataclass(frozen=True, slots=True)
class Look:
    """What is wanted of kernels: their code, and the texts on the way to it."""

    code: bool = True
    text: bool = False


UNSEEN = Look()


def schedule_kernel(
    lowered: Func, backend: Backend, options: Options, lookup: Lookup = untuned
) -> Making[Scheduled]:
    """Steps 7 and 8: the recorded trace if there is one, else the rules of the target; and what
    the kernel was assembled to where these have looked at that."""
    if options.level < 2:
        return _naive(lowered, backend), None
    trace = lookup(lowered)
    if trace is not None:
        try:
            return backend.optimize(lowered, Schedule.of(lowered).replay(trace)), None
        except CompileError as fault:
            _warn_of_record(lowered, fault)
    try:
        return (yield from backend.schedule(lowered))
    except AiscError:
        raise
    except Exception as fault:
        left_out(f"the schedule of {lowered.name}", fault)
        return _naive(lowered, backend), None


def _warn_of_record(lowered: Func, fault: CompileError) -> None:
    """A record that another version of the rules or primitives made may not fit any more."""
    first = fault.diagnostics[0]
    notes = (f"{first.code}: {first.message}", "it gets its default schedule; tune it again")
    text = f"the record of kernel {lowered.name} does not replay"
    warn(Diagnostic("E302", text, lowered.loc, notes, "warning"))


def _naive(lowered: Func, backend: Backend) -> ScheduledKernel:
    return backend.optimize(lowered, Schedule.of(lowered))


@dataclass(frozen=True, slots=True)
class BuiltKernel:
    """A kernel ready to be linked. Its Funcs are signatures only when it came from the cache; its
    text and listing are there when somebody looks at the steps."""

    scheduled: ScheduledKernel
    object: bytes
    cached: bool = False
    text: str = ""
    listing: str = ""


def kernel_key(lowered: Func, options: Options, backend: Backend, lookup: Lookup = untuned) -> str:
    """Everything that affects the code of a kernel, hashed."""
    text = print_ir(canonical(lowered))
    trace = trace_to_json(lookup(lowered) or ())
    return key_of(
        lowered.name, text, trace, options.key, backend.target.key, backend.version, fingerprint()
    )


def make_kernel(
    lowered: Func,
    options: Options,
    backend: Backend,
    lookup: Lookup = untuned,
    look: Look = UNSEEN,
    given: ScheduledKernel | None = None,
) -> Making[BuiltKernel]:
    """A kernel made now; `given`: as it has been scheduled."""
    made: Artefact | None = None
    if given is None:
        scheduled, made = yield from schedule_kernel(lowered, backend, options, lookup)
    else:
        scheduled = given
    if not look.code:
        return BuiltKernel(scheduled, b"")
    text = ""
    if made is None or look.text:
        try:
            text = backend.emit(scheduled.funcs)
        except InternalError as fault:
            left_out(f"the schedule of {lowered.name}", fault)
            scheduled, made = _naive(lowered, backend), None
            text = backend.emit(scheduled.funcs)
    if made is None:
        made = yield text, look.text
    return BuiltKernel(scheduled, made.object, False, text, made.listing)


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
