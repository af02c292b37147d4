"""The kernels of a program: from the cache, or made now, by processes beside this one as well where
cores are idle; the result is the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from aisc.artifact.cache import Cache
from aisc.codegen.backend import Backend
from aisc.driver.crew import ALONE, Crew, Task
from aisc.driver.kernel import (
    UNSEEN,
    BuiltKernel,
    Look,
    from_record,
    kernel_key,
    make_kernel,
    to_record,
)
from aisc.driver.options import Options
from aisc.ir.tensor.func import Func
from aisc.ir.text.printer import print_ir
from aisc.passes.plan.bind import ScheduledKernel
from aisc.passes.schedule.picks import choices_to_json
from aisc.records.source import Lookup, untuned


def build_kernels(
    kernels: Sequence[Func],
    backend: Backend,
    options: Options,
    cache: Cache | None,
    lookup: Lookup = untuned,
    look: Look = UNSEEN,
    given: Mapping[str, ScheduledKernel] | None = None,
    crew: Crew = ALONE,
) -> dict[str, BuiltKernel]:
    """Kernels by name, in their order; `given` are scheduled already, and not kept."""
    given = given or {}
    built: dict[str, BuiltKernel] = {}
    keys: dict[str, str] = {}
    for kernel in kernels if cache is not None and not given else ():
        key = keys[kernel.name] = kernel_key(kernel, options, backend, lookup)
        record = cache.get(key) if cache is not None else None
        found = None if record is None else from_record(record)
        if found is not None:
            built[kernel.name] = found
    missing = [k for k in kernels if k.name not in built]
    for kernel, result in _made(missing, backend, options, lookup, look, given, crew):
        built[kernel.name] = result
        if kernel.name in keys and cache is not None:
            cache.put(keys[kernel.name], to_record(result))
    if cache is not None and missing:
        cache.trim()
    return {k.name: built[k.name] for k in kernels}


def _made(
    kernels: Sequence[Func], backend: Backend, options: Options, lookup: Lookup, look: Look,
    given: Mapping[str, ScheduledKernel], crew: Crew,
) -> Iterator[tuple[Func, BuiltKernel]]:  # fmt: skip
    """Each kernel, as it is made."""

    def here(number: int) -> BuiltKernel:
        kernel = kernels[number]
        return make_kernel(kernel, options, backend, lookup, look, given.get(kernel.name))

    def task(kernel: Func) -> Task | None:
        if kernel.name in given or look != UNSEEN:
            return None
        return Task(print_ir(kernel), backend.target.key, choices_to_json(lookup(kernel)))

    tasks = [task(k) for k in kernels] if crew.processes else [None] * len(kernels)
    return ((kernels[number], made) for number, made in crew.made(tasks, here))
