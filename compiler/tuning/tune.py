"""Tuning a model: a search for each of its kernels, whose records a database keeps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from aisc.codegen.backend import Backend, space
from aisc.driver import api
from aisc.driver.kernel import Lookup
from aisc.driver.options import Options, from_environment
from aisc.ir.annotations import checked_arguments
from aisc.ir.arith.poly import Extent
from aisc.ir.description import to_toml
from aisc.ir.diagnostics import error
from aisc.ir.target import Target
from aisc.ir.tensor.func import Func, Program
from aisc.passes.analysis.cost import work
from aisc.passes.schedule.picks import Choices
from aisc.tuning.database import Database
from aisc.tuning.measure import Worker
from aisc.tuning.search import grid_search
from aisc.tuning.space import candidates

# What a symbolic extent counts for when kernels are ordered by their work.
UNKNOWN_EXTENT = 256


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came of one kernel: the choices that were best, how much faster than the default they
    are, and how many of the candidates were tried."""

    kernel: str
    choices: Choices
    label: str
    speedup: float
    tried: int
    candidates: int


@checked_arguments
def tune(
    model: Any,
    target: api.Targets = "cpu",
    *,
    budget: float = 60.0,
    database: str | PathLike[str] = "tune.sqlite",
    shapes: Mapping[str, Extent] | None = None,
    reassociate: bool = False,
) -> list[Tuned]:
    """Search for faster schedules of a model's kernels and record them.

    budget: seconds to spend; the costliest kernels come first, all get equal shares.
    database: the file of records, made if it is not there; ``aisc.compile(model, tuned=file)`` uses
    them.
    shapes: values of symbolic dimensions: only kernels of known sizes can be measured.
    reassociate: try also what rounds otherwise than the default schedule.
    Raises ``CompileError`` when the model cannot be compiled; E402 when no kernel of it can be
    measured here, E503 when the file is no such database.
    """
    options = from_environment(shapes=shapes)
    return tune_kernels(model, target, options, budget, Path(database), not reassociate)


def tune_kernels(
    model: Any,
    target: api.Targets,
    options: Options,
    budget: float,
    path: Path,
    exact: bool,
    report: Callable[[int, int], None] = lambda number, count: None,
) -> list[Tuned]:
    """What :func:`tune` does. `report` is told the number of each kernel and of all."""
    host = api.backends_of(target)[0]
    found = kernels_of(model, target, options)
    kernels = [k for k, backend in found if not k.dims and backend.target == host.target]
    if not kernels:
        raise error("E402", "no kernel of the model can be measured here",
                    "sizes must be known (--shape), and kernels run on this machine")  # fmt: skip
    deadline, results = time.monotonic() + budget, list[Tuned]()
    with Database(path) as database, Worker(_described(host.target)) as worker:
        for k, kernel in enumerate(kernels):
            left = (deadline - time.monotonic()) / (len(kernels) - k)
            if left <= 0:
                break
            report(k + 1, len(kernels))
            these = candidates(space(host, kernel), exact=exact)
            outcome = grid_search(kernel, these, worker, left)
            database.add(kernel, host.target, outcome.record)
            tried, best = len(outcome.trials), outcome.record
            results.append(
                Tuned(kernel.name, best.choices, best.label, outcome.speedup, tried, len(these))
            )
    return results


def _described(target: Target) -> str:
    """What a measuring process finds the target by: the machine of this process has a name."""
    if target == api.resolve_target("cpu"):
        return "cpu"
    return target.source or to_toml(target)


def kernels_of(model: Any, target: api.Targets, options: Options) -> list[tuple[Func, Backend]]:
    """The lowered kernels of a model and the back ends that schedule them, costliest first."""
    host, devices = api.backends_of(target)
    homes: dict[str, Backend] = {b.target.name: b for b in (*devices, host)}
    program = api.build(model, target, options.until("lower")).product
    assert isinstance(program, Program), "the product of lower is a Program"
    ordered = sorted(program.kernels, key=lambda k: -work(k.body, UNKNOWN_EXTENT))
    return [(k, homes[k.target]) for k in ordered]


def records_of(path: str | PathLike[str], target: Target) -> Lookup:
    """The best records of a database for kernels of a target; E503 when there is no such file."""
    if not Path(path).is_file():
        raise error("E503", f"there is no tuning database {path}", "make it with aisc tune")
    database = Database(Path(path))

    def lookup(func: Func) -> Choices:
        record = database.best(func, target)
        return {} if record is None else record.choices

    return lookup
