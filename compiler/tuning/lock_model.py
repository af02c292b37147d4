"""The lock file of a model: what its kernels become with the records of a database."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from aisc.artifact.fingerprint import fingerprint
from aisc.driver import api
from aisc.driver.instruments import instruments_for
from aisc.driver.options import Options
from aisc.driver.pipeline import Context, run_pipeline
from aisc.ir.tensor.func import Func
from aisc.records.lock import Entry, Lock, digest_of, name_of
from aisc.records.lookup import lookup_for


def lock_of(model: Any, target: api.Targets, options: Options, database: Path) -> Lock:
    """Compile a model by the records of a database, and lock what comes of it."""
    host, devices = api.backends_of(target)
    options = replace(options, tuned=str(database), load=False)
    lookup = lookup_for(options.records, *(b.target for b in (host, *devices)))
    kernels: dict[str, Entry] = {}

    def note(func: Func, code: bytes) -> None:
        kernels[name_of(func)] = Entry(lookup(func), digest_of(code))

    context = Context(host, options, instruments_for(options), lookup, devices, approve=note)
    run_pipeline(model, context)
    return Lock(host.target.key, fingerprint(), host.version, kernels)
