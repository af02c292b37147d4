"""``aisc quantize``: what it shows while it runs, and what it says of the result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from aisc.cli.layer_table import layer_table
from aisc.codegen.files import write_whole
from aisc.quantization.observe import Progress
from aisc.quantization.quantize import quantize
from aisc.quantization.report import as_html
from aisc.quantization.settings import Settings


def quantize_model(
    model: str,
    output: Path,
    data: Path,
    chosen: Mapping[str, Any],
    target: str,
    threads: int | None,
    measure: bool,
    places: tuple[Path | None, Path | None],
) -> None:
    """Quantize a model, and say which part of it was. `places`: of the report as JSON, and of a
    page."""
    settings = Settings(**chosen)
    with bars(Path(model).name) as progress:
        made = quantize(
            model, data, output, settings=settings, target=target, threads=threads,
            measure=measure or any(places), progress=progress,
        )  # fmt: skip
    if made.report is not None:
        out = Console()
        out.print(layer_table(made.report, out.width, Path(model).name))
        numbers, page = places
        if numbers is not None:
            write_whole(numbers, json.dumps(made.report.to_json(), indent=2).encode())
        if page is not None:
            write_whole(page, as_html(Path(model).name, made.report).encode())
    print(f"quantized {len(made.layers)} layers; written to {output}")


@contextmanager
def bars(title: str) -> Iterator[Progress]:
    """A bar for each thing that is done in several runs, where somebody looks."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bars(
        *columns, TimeRemainingColumn(), console=console, transient=True,
        disable=not console.is_terminal,
    ) as shown:  # fmt: skip
        tasks = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = shown.add_task(f"{title}: {what}", total=total)
            shown.update(tasks[what], completed=done, total=total)

        yield show
