"""``aisc records``: what was tuned, shown, written as JSON lines and read from there."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from aisc.codegen.files import write_whole
from aisc.ir.diagnostics import error
from aisc.records.database import Database
from aisc.records.paths import default_path

SHOWN = 40
_out = Console()


def handle_records(action: str, file: Path | None, database: Path | None) -> None:
    """One of ``show``, ``export`` and ``import``."""
    path = database or default_path()
    if action not in ("show", "export", "import"):
        raise error("E401", f"records cannot '{action}'", "expected show, export or import")
    if action != "show" and file is None:
        raise error("E401", f"records {action} needs a file", "a file of JSON lines")
    if action != "import" and not path.is_file():
        raise error("E503", f"there is no tuning database {path}", "make it with aisc tune")
    with Database(path) as records:
        if file is None:
            _show(records)
        elif action == "export":
            write_whole(file, "".join(f"{row}\n" for row in records.rows()).encode())
            print(f"{records.count()} choices and {records.count('trial')} trials in {file}")
        else:
            print(f"{_imported(records, file)} new rows in {path}")


def _imported(records: Database, file: Path) -> int:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise error("E503", f"{file} cannot be read", str(fault)) from None
    return records.add_rows(lines)


def _show(records: Database) -> None:
    print(f"{records.path}: {records.count()} choices, {records.count('trial')} trials")
    table = Table("kernel", "threads", "faster by", "us by default")
    for r in records.last(SHOWN):
        table.add_row(r.label, str(r.threads), f"{1 / r.ratio:.2f} x", f"{r.seconds * 1e6:.1f}")
    _out.print(table)
