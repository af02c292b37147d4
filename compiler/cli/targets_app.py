"""``aisc targets list | show | validate | probe``: the commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aisc.cli.arguments import AsJson

machines = typer.Typer(rich_markup_mode=None, help="The machines that code can be made for.")


@machines.callback()
def targets(context: typer.Context) -> None:
    """The machines that code can be made for; without a command, all of them."""
    if context.invoked_subcommand is None:
        targets_list()


@machines.command("list")
def targets_list(as_json: AsJson = False) -> None:
    """Every target that is known by name."""
    from aisc.cli.target_commands import list_targets

    list_targets(as_json)


@machines.command("show")
def targets_show(
    name: Annotated[str, typer.Argument(metavar="TARGET", help="A name, or FILE.toml.")],
) -> None:
    """The description of one target."""
    from aisc.cli.target_commands import show_target

    show_target(name)


@machines.command("validate")
def targets_validate(
    file: Annotated[Path, typer.Argument(help="A description, FILE.toml.")],
) -> None:
    """Check a description: what is wrong in it, or what it says."""
    from aisc.cli.target_commands import validate_target

    validate_target(file)


@machines.command("probe")
def targets_probe(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write here.")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure rates first; the tuner's model uses them.")
    ] = False,
) -> None:
    """The machine of this process as a description, to compile for it elsewhere."""
    from aisc.cli.target_commands import probe_host

    probe_host(output, measure)


@machines.command("import-scalesim")
def targets_import_scalesim(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A configuration, FILE.cfg.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Write the description here, FILE.toml.")
    ],
    layers: Annotated[
        Path | None, typer.Option("--topology", help="The layers of a network, FILE.csv.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="With --topology: write them here, FILE.onnx.")
    ] = None,
) -> None:
    """A configuration of SCALE-Sim as a description, and a topology as a model."""
    from aisc.cli.target_commands import import_scalesim

    import_scalesim(config, output, layers, model)
