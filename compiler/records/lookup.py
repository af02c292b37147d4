"""Who tells the compiler what was tuned: a database, the user's own unless another is named, or a
lock file, whose code must result.

Nothing of this is loaded while there is no such file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aisc.codegen.backend import Backend
from aisc.ir.diagnostics import AiscError, Diagnostic, warn
from aisc.ir.target import Target
from aisc.ir.tensor.func import Func
from aisc.passes.schedule.picks import Choices
from aisc.records.paths import NONE, records_path
from aisc.records.source import Lookup, Source, untuned

# Looks at the object of a kernel that was made.
Approve = Callable[[Func, bytes], None]


def lookup_for(source: Source, *targets: Target) -> Lookup:
    """The tuned choices of kernels for some targets; E503 for a file that was named and is no
    database. One of the user's own that is damaged is warned of, and left alone."""
    if source.locked:
        from aisc.records.lock import Lock

        return Lock.read(Path(source.locked)).lookup
    path = records_path(source)
    if path is None:
        return untuned
    from aisc.records.database import Database, workload_key

    try:
        Database(path, read_only=True).close()
    except AiscError as fault:
        _excused(fault, source)
        return untuned
    known: dict[str, Choices] = {}
    named = {t.name: t for t in targets}

    def lookup(func: Func) -> Choices:
        if func.name not in known:
            home = named.get(func.target, targets[0])
            try:
                with Database(path, read_only=True) as database:
                    record = database.best(workload_key(func), home, source.threads)
            except AiscError as fault:
                _excused(fault, source)
                record = None
            known[func.name] = {} if record is None else record.choices
        return known[func.name]

    return lookup


def _excused(fault: AiscError, source: Source) -> None:
    """Warn of a database that cannot be used; raise the fault where the user has named it."""
    if source.tuned not in ("", NONE):
        raise fault
    note = "remove it, or tune again: the rules decide alone until then"
    text = fault.diagnostics[0].message
    warn(Diagnostic("E503", text, notes=(note,), severity="warning"))


def approval_for(source: Source, host: Backend) -> Approve | None:
    """Who looks at kernels that were made, if they must be those of a lock file; E402 where it was
    made for another machine."""
    if not source.locked:
        return None
    from aisc.records.lock import Lock

    return Lock.read(Path(source.locked)).checked(host).approve
