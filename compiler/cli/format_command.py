"""``aisc fmt``: files of the model language in their one form."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import typer

from aisc.codegen.files import write_whole
from aisc.frontend.lang.formatting import formatted
from aisc.frontend.lang.model import text_of


def format_files(paths: Sequence[Path], check: bool) -> None:
    """Rewrite the files that are not in their one form; `check`: show what would change instead,
    and end with exit code 1."""
    changed = False
    for path in paths:
        before = text_of(path)
        after = formatted(before, str(path))
        if before == after:
            continue
        changed = True
        if check:
            lines = before.splitlines(), after.splitlines()
            print("\n".join(difflib.unified_diff(*lines, str(path), "formatted", lineterm="")))
        else:
            write_whole(path, after.encode())
            print(f"formatted {path}")
    if check and changed:
        raise typer.Exit(1)
