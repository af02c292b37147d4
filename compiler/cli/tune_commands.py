"""``aisc tune``: the decisions of a model's kernels, listed or searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aisc.cli.commands import progress
from aisc.codegen.backend import space
from aisc.driver.options import from_environment
from aisc.passes.schedule.picks import Choice, Pick, space_size, written
from aisc.tuning.database import Database
from aisc.tuning.tune import kernels_of, tune_kernels

# Options of a decision that a table shows.
SHOWN = 8
_out = Console()


def list_spaces(model: str, target: str, choices: Mapping[str, Any]) -> None:
    """``aisc tune --list``: every decision of every kernel, nothing of which is built."""
    for kernel, backend in kernels_of(model, target, from_environment(**choices)):
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
    table = Table("kernel", "tried", "chosen", "faster by")
    with progress(Path(model).name) as steps:

        def report(number: int, count: int) -> None:
            steps.report(f"kernel {number} of {count}")

        options = from_environment(**choices)
        results = tune_kernels(model, target, options, budget, path, exact, report)
    for r in results:
        tried = f"{r.tried} of {r.candidates}"
        table.add_row(r.kernel, tried, r.label, f"{r.speedup:.2f} x")
    _out.print(table)
    with Database(path) as database:
        print(f"{database.count()} records in {path}; use them with --tuned {path}")
