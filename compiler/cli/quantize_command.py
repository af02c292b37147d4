"""``aisc quantize``: what it shows while it runs, and what it says of the result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from aisc.quantization.observe import Progress
from aisc.quantization.quantize import quantize
from aisc.quantization.settings import Settings


def quantize_model(
    model: str,
    output: Path,
    data: Path,
    chosen: Mapping[str, Any],
    target: str,
    threads: int | None,
) -> None:
    """Quantize a model, and say which part of it was."""
    settings = Settings(**chosen)
    with bars(Path(model).name) as progress:
        made = quantize(
            model, data, output, settings=settings, target=target, threads=threads,
            progress=progress,
        )  # fmt: skip
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
