"""``aisc tune``: the decisions of a model's kernels, listed or searched."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aisc.cli.commands import progress
from aisc.codegen.backend import Backend, space
from aisc.driver import api
from aisc.driver.options import from_environment
from aisc.ir.diagnostics import error
from aisc.ir.tensor.func import Func, Program
from aisc.passes.analysis.cost import work
from aisc.passes.schedule.picks import Choice, Pick, space_size, written

# Options of a decision that a table shows, and what a symbolic extent counts for.
SHOWN = 8
UNKNOWN_EXTENT = 256
_out = Console()


def list_spaces(model: str, target: str, choices: Mapping[str, Any]) -> None:
    """``aisc tune --list``: every decision of every kernel, nothing of which is built."""
    for kernel, backend in _kernels(model, target, choices):
        picks = space(backend, kernel)
        title = f"{kernel.name} on {backend.target.name}: {space_size(picks):,} schedules"
        table = Table("decision", "default", "or", "same bits", title=title, title_justify="left")
        for p in picks:
            same = "yes" if p.exact else "no"
            table.add_row(p.name, written(p.choice), _others(p), same)
        _out.print(table)


def _others(p: Pick) -> str:
    others: Sequence[Choice] = [o for o in p.options if o != p.choice]
    more = f" … ({len(others)})" if len(others) > SHOWN else ""
    return ", ".join(map(written, others[:SHOWN])) + more


def tune_model(
    model: str, target: str, budget: float, path: Path, exact: bool, choices: Mapping[str, Any]
) -> None:
    """``aisc tune``: kernels of known sizes get their shares of the budget, the costliest first."""
    from aisc.tuning.database import Database
    from aisc.tuning.measure import Worker
    from aisc.tuning.search import grid_search
    from aisc.tuning.space import candidates

    found = _kernels(model, target, choices)
    host = api.backends_of(target)[0]
    kernels = [k for k, backend in found if not k.dims and backend.target == host.target]
    if not kernels:
        raise error("E402", f"no kernel of {Path(model).name} can be measured here",
                    "sizes must be known (--shape), and kernels run on this machine")  # fmt: skip
    database = Database(path)
    table = Table("kernel", "tried", "chosen", "faster by")
    deadline = time.monotonic() + budget
    with Worker(host.target.name) as worker, progress(Path(model).name) as steps:
        for k, kernel in enumerate(kernels):
            left = (deadline - time.monotonic()) / (len(kernels) - k)
            if left <= 0:
                break
            steps.report(f"kernel {k + 1} of {len(kernels)}")
            these = candidates(space(host, kernel), exact=exact)
            outcome = grid_search(kernel, these, worker, left)
            database.add(kernel, host.target, outcome.record)
            tried = f"{len(outcome.trials)} of {len(these)}"
            table.add_row(kernel.name, tried, outcome.record.label, f"{outcome.speedup:.2f} x")
    _out.print(table)
    print(f"{database.count()} records in {path}; use them with --tuned {path}")


def _kernels(model: str, target: str, choices: Mapping[str, Any]) -> list[tuple[Func, Backend]]:
    """The lowered kernels of a model and the back ends that schedule them, costliest first."""
    host, devices = api.backends_of(target)
    homes: dict[str, Backend] = {b.target.name: b for b in (*devices, host)}
    options = from_environment(**{**choices, "stop_after": "lower"})
    program = api.build(model, target, options).product
    assert isinstance(program, Program), "the product of lower is a Program"
    ordered = sorted(program.kernels, key=lambda k: -work(k.body, UNKNOWN_EXTENT))
    return [(k, homes[k.target]) for k in ordered]
