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
