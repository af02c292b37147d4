"""``aisc dse``: a model on many designs of an accelerator."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from aisc.codegen.files import write_whole
from aisc.exploring.outcomes import Outcome, explore
from aisc.exploring.report import as_html
from aisc.exploring.sweeps import designs


def compare_designs(
    chip: Path,
    model: str,
    sweep: Sequence[str],
    choices: Mapping[str, Any],
    output: Path | None,
    page: Path | None,
) -> None:
    """Print a table; `output` and `page`: files for the numbers and for plots."""
    given = designs(chip, sweep)
    errors = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(
        *columns, TimeRemainingColumn(), console=errors, transient=True,
        disable=not errors.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task("designs", total=len(given))

        def told(number: int, outcome: Outcome) -> None:
            bar.advance(task)

        found = explore(model, given, choices, told)
    Console().print(_table(found, f"{Path(model).name} on {chip.stem}"))
    for reason in dict.fromkeys(x.refused for x in found if x.refused):
        print(f"refused: {reason}")
    if output is not None:
        rows = [x.to_json() for x in found]
        write_whole(output, json.dumps({"model": model, "designs": rows}, indent=2).encode())
    if page is not None:
        write_whole(page, as_html(Path(model).name, chip.stem, found).encode())


def _table(found: Sequence[Outcome], title: str) -> Table:
    """Designs in their order; those that nothing beats in cycles and area have a mark."""
    caption = "area and energy are proxies; * none is better in both cycles and area"
    table = Table(box=box.SIMPLE, padding=(0, 1), title=title, caption=caption)
    for name in found[0].values:
        table.add_column(name, justify="right")
    for name in ("cycles", "used", "MB moved", "mm²", "µJ"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for x in found:
        values = [f"{v:g}" if isinstance(v, float) else str(v) for v in x.values.values()]
        if x.refused:
            table.add_row(*values, "-", "-", "-", "-", "-", "refused")
            continue
        table.add_row(
            *values, f"{x.cycles:,}", f"{x.used:.1%}", f"{x.moved / 1e6:.2f}",
            f"{x.area / 1e6:.3f}", f"{x.energy:.1f}", "*" if x.best else "",
        )  # fmt: skip
    return table
