"""Tuning records in SQLite: append-only, mergeable, safe against crashes.

A record belongs to a workload (the hash of the canonical lowered Func), a target and a version of
the compiler; the best record of a key is the one with the least median.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from aisc.artifact.cache import key_of
from aisc.ir.diagnostics import error
from aisc.ir.target import Target
from aisc.ir.tensor.func import Func
from aisc.ir.text.printer import print_ir
from aisc.ir.version import VERSION
from aisc.passes.lower.canonical import canonical
from aisc.passes.schedule.picks import Choices, choices_from_json, choices_to_json

_SCHEMA = """create table if not exists choices (
  workload text not null, target text not null, version text not null, label text not null,
  choices text not null, seconds real not null, default_seconds real not null,
  made text not null default current_timestamp)"""


@dataclass(frozen=True, slots=True)
class Record:
    """Tuned decisions and what they gained."""

    label: str
    choices: Choices
    seconds: float
    default_seconds: float


def workload_key(func: Func) -> str:
    """The workload of a lowered kernel: its structure, not its names."""
    return key_of(print_ir(canonical(func)))


class Database:
    """A file of records; E503 when the file is no such database."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path)
            self._db.execute("pragma journal_mode=wal")
            with self._db:
                self._db.execute(_SCHEMA)
        except sqlite3.DatabaseError as fault:
            raise error("E503", f"{path} is no tuning database", str(fault)) from None

    def add(self, func: Func, target: Target, record: Record) -> None:
        """Append a record, in one transaction."""
        row = (
            workload_key(func), target.key, VERSION, record.label,
            choices_to_json(record.choices), record.seconds, record.default_seconds,
        )  # fmt: skip
        with self._db:
            self._db.execute(
                "insert into choices (workload, target, version, label, choices, seconds,"
                " default_seconds) values (?, ?, ?, ?, ?, ?, ?)",
                row,
            )

    def best(self, func: Func, target: Target) -> Record | None:
        """The record with the least ratio to its own default, which was measured beside it."""
        row = self._db.execute(
            "select label, choices, seconds, default_seconds from choices where workload = ?"
            " and target = ? and version = ? order by seconds / default_seconds limit 1",
            (workload_key(func), target.key, VERSION),
        ).fetchone()
        if row is None:
            return None
        return Record(str(row[0]), choices_from_json(row[1]), float(row[2]), float(row[3]))

    def count(self) -> int:
        """Number of records."""
        return int(self._db.execute("select count(*) from choices").fetchone()[0])

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()
