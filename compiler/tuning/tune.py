"""Tuning from Python: the kernels of a model as workloads, a session, and who finds its records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from os import PathLike
from pathlib import Path
from typing import Any

from aisc.codegen.backend import Backend, Described
from aisc.driver import api
from aisc.driver.options import Options, from_environment
from aisc.ir.annotations import checked_arguments
from aisc.ir.arith.poly import Extent, evaluate
from aisc.ir.description import to_toml
from aisc.ir.diagnostics import error
from aisc.ir.node import walk
from aisc.ir.target import Target
from aisc.ir.tensor.func import Buffer, Func, Program
from aisc.ir.tensor.stmt import CallKernel
from aisc.passes.analysis.cost import work
from aisc.passes.plan.overlap import storage
from aisc.records.database import Database
from aisc.records.paths import default_path
from aisc.tuning.fleet import fleet
from aisc.tuning.session import Budget, Progress, Session, Tuned, Workload, workshop
from aisc.tuning.whole import Report, compare

# What a symbolic extent counts for when kernels are ordered by their work.
UNKNOWN_EXTENT = 256
# What moves between two calls is only known to be more than the caches hold.
MOST_MOVED = 256 << 20


@checked_arguments
def tune(
    model: Any,
    target: api.Targets = "cpu",
    *,
    budget: float = 60.0,
    trials: int = 0,
    until: float = 0.0,
    database: str | PathLike[str] | None = None,
    shapes: Mapping[str, Extent] | None = None,
    at: Mapping[str, int | Sequence[int]] | None = None,
    threads: int | None = None,
    reassociate: bool = False,
    seed: int = 0,
    workers: str = "",
) -> Report:
    """Search for faster schedules of a model's kernels and record them.

    budget: seconds to spend; the kernels that promise most for the model get most of them.
    trials: candidates to measure at most; 0: as many as there is time for.
    until: end when another round is not expected to save this part of the model's time.
    database: the file of records, by default that of the user, where ``aisc.compile`` finds them
    without being told.
    shapes: values of symbolic dimensions, in a model that is compiled for them.
    at: values for which kernels of symbolic dimensions are tuned, one schedule for all of them;
    kernels with dimensions that have no value are left alone.
    threads: how many threads the model will run on; by default the cores of this process.
    reassociate: try also what rounds otherwise than the default schedule.
    seed: of the search: the same measurements lead to the same choices.
    workers: a Ray cluster, ``ray://HOST:PORT``, whose nodes make and, where they are machines of
    the target, measure; by default this machine does.
    Raises ``CompileError`` when the model cannot be compiled; E402 when no kernel of it can be
    measured here, E503 when the file is no such database.
    """
    options = from_environment(shapes=shapes, threads=threads)
    path = default_path(options.cache_dir) if database is None else Path(database)
    spend = Budget(budget, trials, until)
    return tune_kernels(
        model, target, options, spend, path, not reassociate, seed, at=at, workers=workers
    )


def tune_kernels(
    model: Any,
    target: api.Targets,
    options: Options,
    budget: Budget,
    path: Path,
    exact: bool,
    seed: int = 0,
    report: Callable[[Progress], None] = lambda progress: None,
    at: Mapping[str, int | Sequence[int]] | None = None,
    workers: str = "",
) -> Report:
    """What :func:`tune` does. `report` is told of progress."""
    host = api.backends_of(target)[0]
    workloads = workloads_of(model, target, options, at or {})
    if not workloads:
        hint = "sizes must be known (--shape, --at), and kernels run on this machine"
        raise error("E402", "no kernel of the model can be measured here", hint)
    name = described(host.target)
    if workers:
        shop = fleet(workers, name, host.target.key, options.threads)
    else:
        shop = workshop(name, options.threads)
    with Database(path) as database:
        session = Session(host.target, database, shop, exact, seed, report)
        try:
            results = session.run(workloads, budget)
        finally:
            shop.close()
        together = None
        if any(r.choices for r in results) and all(w.device is None for w in workloads):
            together = compare(model, target, options, path, _usual(at or {}))
        if together is not None and together.is_slower:
            session.take_back(workloads)
            return Report([defaulted(r) for r in results], together)
    return Report(results, together)


def defaulted(r: Tuned) -> Tuned:
    """The report of a kernel whose choice was taken back."""
    return replace(r, label="default", choices={}, ratio=1.0, low=1.0, high=1.0, digest="")


def workloads_of(
    model: Any, target: api.Targets, options: Options, at: Mapping[str, int | Sequence[int]]
) -> list[Workload]:
    """The kernels of known sizes that the host runs, or of which a device knows what they take,
    costliest first, with how often one run calls them and what it moves in between. Dimensions
    have the values that `at` gives, all combinations of them."""
    host, devices = api.backends_of(target)
    described = {d.target.name: d for d in devices if isinstance(d, Described)}
    program = lowered(model, target, options)
    calls = [s for s in walk(program.entry.body) if isinstance(s, CallKernel)]
    used: dict[tuple[str, object], Buffer] = {}
    for b in (b for call in calls for b in call.args):
        used[storage(b), b.offset] = b
    sizes = [_bytes(b, _usual(at)) for b in used.values()]
    moved = min(MOST_MOVED, sum(sizes))
    found = []
    for k in _ordered(program):
        count = sum(call.kernel == k.name for call in calls)
        device = described.get(k.target)
        combined = _sizes(k, at)
        if combined and count and (device is not None or k.target == host.target.name):
            found.append(Workload(k, count, moved if len(calls) > 1 else 0, device, combined))
    return found


def _usual(at: Mapping[str, int | Sequence[int]]) -> dict[str, int]:
    """Of the values of each dimension that in the middle."""
    return {n: v if isinstance(v, int) else v[len(v) // 2] for n, v in at.items()}


def _bytes(b: Buffer, sizes: Mapping[str, int]) -> int:
    """Bytes of a buffer, dimensions without a value being 1."""
    symbols = {s.name: 1 for s in b.type.symbols}
    return evaluate(b.bytes, {**symbols, **sizes})


def _sizes(kernel: Func, at: Mapping[str, int | Sequence[int]]) -> tuple[dict[str, int], ...]:
    """All combinations of the values of a kernel's dimensions; none where one has no value."""
    names = [v.name for v in kernel.dims]
    if any(n not in at for n in names):
        return ()
    values = [(v,) if isinstance(v, int) else tuple(v) for v in (at[n] for n in names)]
    return tuple(dict(zip(names, c, strict=True)) for c in product(*values))


def lowered(model: Any, target: api.Targets, options: Options) -> Program:
    """A model before its kernels are scheduled."""
    program = api.build(model, target, options.until("lower")).product
    assert isinstance(program, Program), "the product of lower is a Program"
    return program


def _ordered(program: Program) -> list[Func]:
    return sorted(program.kernels, key=lambda k: -work(k.body, UNKNOWN_EXTENT))


def kernels_of(model: Any, target: api.Targets, options: Options) -> list[tuple[Func, Backend]]:
    """The lowered kernels of a model and the back ends that schedule them, costliest first."""
    host, devices = api.backends_of(target)
    homes: dict[str, Backend] = {b.target.name: b for b in (*devices, host)}
    return [(k, homes[k.target]) for k in _ordered(lowered(model, target, options))]


def described(target: Target) -> str:
    """What another process finds the target by: the machine of this process has a name."""
    if target == api.resolve_target("cpu"):
        return "cpu"
    return target.source or to_toml(target)
