"""``aisc tune``: the decisions of a model's kernels, listed, searched or explained."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aisc.cli.tuning_display import display
from aisc.codegen.backend import space
from aisc.codegen.files import write_whole
from aisc.driver.options import Options, from_environment
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.passes.schedule.picks import Choice, Pick, space_size, written
from aisc.records.database import Database
from aisc.records.paths import default_path
from aisc.tuning.explain import explain
from aisc.tuning.lock_model import lock_of
from aisc.tuning.pairs import Ratio
from aisc.tuning.report import as_html, whole
from aisc.tuning.session import Budget, Tuned
from aisc.tuning.tune import kernels_of, tune_kernels

# Options of a decision that a table shows.
SHOWN = 8
_out = Console()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What ``aisc tune`` shall do and write: `places` are those of the numbers as JSON, of a page,
    and of a lock file; `at`: for which sizes."""

    budget: Budget
    database: Path | None
    exact: bool
    seed: int
    places: tuple[Path | None, Path | None, Path | None]
    at: Mapping[str, Sequence[int]]
    workers: str = ""


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


def explain_kernel(
    model: str, target: str, kernel: str, database: Path | None, choices: Mapping[str, Any]
) -> None:
    """``aisc tune --explain``: the schedule of a kernel as Python; E401 for a name of none."""
    options = from_environment(**choices)
    found = {k.name: (k, backend) for k, backend in kernels_of(model, target, options)}
    if kernel not in found:
        near = difflib.get_close_matches(kernel, found, 3, 0.3)
        raise error(
            "E401", f"the model has no kernel '{kernel}'", f"has {', '.join(near or found)}"
        )
    path = database or default_path(options.cache_dir)
    records = Database(path, read_only=True) if path.is_file() else None
    for line in explain(*found[kernel], records, options.threads).lines():
        print(line)


def _others(p: Pick) -> str:
    others: Sequence[Choice] = [o for o in p.options if o != p.choice]
    more = f" … ({len(others)})" if len(others) > SHOWN else ""
    return ", ".join(map(written, others[:SHOWN])) + more


def tune_model(model: str, target: str, wanted: Wanted, choices: Mapping[str, Any]) -> None:
    """``aisc tune``: kernels of known sizes share the budget by what each promises."""
    options = from_environment(**choices)
    path = wanted.database or default_path(options.cache_dir)
    with display(Path(model).name, wanted.budget) as show:
        results = tune_kernels(
            model,
            target,
            options,
            wanted.budget,
            path,
            wanted.exact,
            wanted.seed,
            show,
            wanted.at,
            wanted.workers,
        )
    _out.print(_table(results.kernels))
    numbers = whole(results.kernels)
    _out.print(
        f"kernels together: {numbers['speedup']:.3f} x as fast; {numbers['trials']} candidates,"
        f" {numbers['failed']} of which failed"
    )
    if results.model is not None:
        _out.print(_together(results.model))
    _write(model, target, wanted, options, path, results.kernels)
    named = f" --tuned {path}" if wanted.database else ""
    print(f"records in {path}; used by: aisc compile {Path(model).name}{named}")


def _write(
    model: str, target: str, wanted: Wanted, options: Options, path: Path, results: Sequence[Tuned]
) -> None:
    numbers, page, lock = wanted.places
    if numbers is not None:
        data = {"model": Path(model).name, **whole(results), "kernels": list(map(asdict, results))}
        write_whole(numbers, json.dumps(data, indent=2).encode())
    if page is not None:
        write_whole(page, as_html(Path(model).name, results).encode())
    if lock is not None:
        lock_of(model, target, options, path).write(lock)
        print(f"locked in {lock}; the same code again: aisc compile --locked {lock}")


def _together(ratio: Ratio) -> str:
    """What a whole run takes, in a sentence."""
    bounds = f"{1 / ratio.high:.3f} to {1 / ratio.low:.3f}"
    if ratio.is_slower:
        return f"the whole model is slower: {1 / ratio.median:.3f} x ({bounds}); all taken back"
    return f"the whole model: {1 / ratio.median:.3f} x as fast ({bounds})"


def _table(results: Sequence[Tuned]) -> Table:
    table = Table("kernel", "us", "tried", "faster by", "sure of", "chosen")
    for r in sorted(results, key=lambda r: -r.seconds * r.calls):
        calls = f" x {r.calls}" if r.calls > 1 else ""
        sure = f"{1 / r.high:.2f}" if r.choices else ""
        faster = f"{r.speedup:.2f} x" if r.choices else "-"
        table.add_row(
            r.kernel, f"{r.seconds * 1e6:.0f}{calls}", str(r.trials), faster, sure, r.label
        )
    return table
