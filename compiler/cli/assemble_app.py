"""``aisc assemble``: the command and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def assemble(
    file: Annotated[Path, typer.Argument(help="Text of --emit dsa, or its bytes.")],
    target: Annotated[str, typer.Option(help="The accelerator.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The other form.")] = None,
) -> None:
    """Make bytes of an accelerator's instructions, or text of its bytes."""
    from aisc.cli.instruction_commands import assemble

    assemble(file, target, output)
