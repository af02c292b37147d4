"""Where tuning records are, and whether they have changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aisc.ir.diagnostics import AiscError, error
from aisc.ir.measured import default_folder
from aisc.ir.target import Target
from aisc.records.source import Source

NONE = "none"  # instead of a path: no records are looked at


def default_path(folder: str = "") -> Path:
    """Where records are unless somebody says otherwise: in the folder of the cache."""
    return (Path(folder) if folder else default_folder()) / "tuning.sqlite"


def records_path(source: Source) -> Path | None:
    """The database that a compilation looks at, if there is one; E503 where one was named that is
    not there."""
    if source.tuned == NONE:
        return None
    path = Path(source.tuned) if source.tuned else default_path(source.cache_dir)
    if path.is_file():
        return path
    if source.tuned:
        raise error("E503", f"there is no tuning database {path}", "make it with aisc tune")
    return None


def state_of(source: Source, targets: Sequence[Target]) -> str:
    """A text that changes whenever tuned choices do: a part of the key of whole models."""
    if source.locked:
        try:
            return Path(source.locked).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as fault:
            raise error("E503", f"{source.locked} cannot be read", str(fault)) from None
    path = records_path(source)
    if path is None:
        return ""
    from aisc.records.database import Database

    try:
        with Database(path, read_only=True) as database:
            states = [database.state(t) for t in targets]
    except AiscError:
        return "damaged"
    return f"{source.threads}:{','.join(states)}" if any(states) else ""
