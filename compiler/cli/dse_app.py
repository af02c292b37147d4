"""``aisc dse``: the command and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aisc.cli.arguments import Model, PrecisionName, Shapes, extent


def dse(
    chip: Annotated[Path, typer.Argument(metavar="CHIP", help="A description, FILE.toml.")],
    model: Model,
    sweep: Annotated[
        list[str],
        typer.Option(help="NAME=8,16,32 or NAME=64K..1M, which doubles; once for each number."),
    ],
    shape: Shapes = None,
    precision: PrecisionName = "f32",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write all numbers here, as JSON.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write a page with cycles against area and energy.")
    ] = None,
) -> None:
    """Compare designs of an accelerator: what a model takes on each, and proxies of area and
    energy. Nothing is run."""
    from aisc.cli.dse_command import compare_designs

    choices = {"shapes": dict(map(extent, shape or ())), "precision": precision}
    compare_designs(chip, model, sweep, choices, output, page)
