"""Kernels through steps 7, 8, 10 and 11, and what the cache holds of them.

The key of a kernel is its printed canonical Func, the code-affecting options, the target and the
versions; its record holds the object and, as IR text, the signature that the plan needs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from aisc.artifact import kernel_signature as signature
from aisc.artifact.cache import key_of
from aisc.artifact.fingerprint import fingerprint
from aisc.codegen.artefact import Artefact
from aisc.codegen.backend import Backend, Scheduled
from aisc.driver.options import Options
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import AiscError, Diagnostic, InternalError, warn
from aisc.ir.optional import left_out
from aisc.ir.tensor.func import Func
from aisc.ir.text.printer import print_ir
from aisc.passes.lower.canonical import canonical
from aisc.passes.plan.bind import ScheduledKernel, Version
from aisc.passes.schedule.picks import choices_to_json, stale
from aisc.passes.schedule.rules.chooser import NONE
from aisc.passes.schedule.schedule import Schedule
from aisc.records.source import Lookup, untuned


@dataclass(frozen=True, slots=True)
class Look:
    """What is wanted of kernels: their code, and the texts on the way to it."""

    code: bool = True
    text: bool = False


UNSEEN = Look()


def schedule_kernel(
    lowered: Func, backend: Backend, options: Options, lookup: Lookup = untuned
) -> Scheduled:
    """Steps 7 and 8: the rules of the target with the recorded choices, if there are any; and what
    the kernel was assembled to where these have looked at that."""
    if options.level < 1:
        return _naive(lowered, backend), None
    choices, quick = lookup(lowered), options.level < 2
    try:
        made = backend.schedule(lowered, choices, quick)
        unknown = stale(choices, made[0].picks)
        if unknown:
            _warn_of_record(lowered, unknown)
            made = backend.schedule(lowered, NONE, quick)
        return made
    except AiscError:
        raise
    except Exception as fault:
        left_out(f"the schedule of {lowered.name}", fault)
        return _naive(lowered, backend), None


def _warn_of_record(lowered: Func, unknown: Sequence[str]) -> None:
    """A record that another version of the rules made may not fit any more."""
    notes = (f"not decided so any more: {', '.join(unknown)}",
             "it gets its default schedule; tune it again")  # fmt: skip
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
    choices = choices_to_json(lookup(lowered))
    return key_of(
        lowered.name, text, choices, options.key, backend.target.key, backend.version, fingerprint()
    )


def make_kernel(
    lowered: Func,
    options: Options,
    backend: Backend,
    lookup: Lookup = untuned,
    look: Look = UNSEEN,
    given: ScheduledKernel | None = None,
    code: Artefact | None = None,
) -> BuiltKernel:
    """A kernel made now; `given`: as it has been scheduled, `code`: what that was assembled to."""
    made = code
    if given is None:
        scheduled, made = schedule_kernel(lowered, backend, options, lookup)
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
        made = backend.assemble(text, look.text)
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
