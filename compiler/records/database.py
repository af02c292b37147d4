"""Tuning records in SQLite: append-only, mergeable, safe against crashes and concurrent writers.

A *trial* is a candidate that was measured or failed; a *choice* is what a search settled for. Both
belong to a workload (the hash of the canonical lowered Func), a target and a version of the
compiler. The last choice of a key counts. Rows have names of their own (a hash of what they say
and when), so that databases of several machines are merged by adding what is not there yet.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from math import isfinite
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from aisc.artifact.cache import key_of
from aisc.artifact.fingerprint import fingerprint
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import error
from aisc.ir.target import Target
from aisc.ir.tensor.func import Func
from aisc.ir.text.printer import print_ir
from aisc.ir.version import VERSION
from aisc.passes.lower.canonical import canonical
from aisc.passes.schedule.picks import Choices, choices_from_json, choices_to_json

_SCHEMA = """
create table if not exists choice (
  name text primary key, workload text not null, target text not null, version text not null,
  compiler text not null, threads integer not null, label text not null, choices text not null,
  ratio real not null, low real not null, high real not null, seconds real not null,
  digest text not null, made real not null);
create table if not exists trial (
  name text primary key, workload text not null, target text not null, version text not null,
  compiler text not null, threads integer not null, label text not null, choices text not null,
  fate text not null, ratio real, seconds real, features text not null, base text not null,
  detail text not null, made real not null);
create table if not exists wanted (
  name text primary key, workload text not null, target text not null, version text not null,
  kernel text not null, threads integer not null, calls integer not null, made real not null);
create index if not exists choice_of on choice (workload, target, version);
create index if not exists trial_of on trial (target, version, workload);
"""
TABLES: Mapping[str, tuple[str, ...]] = {
    "choice": ("name", "workload", "target", "version", "compiler", "threads", "label", "choices",
               "ratio", "low", "high", "seconds", "digest", "made"),
    "trial": ("name", "workload", "target", "version", "compiler", "threads", "label", "choices",
              "fate", "ratio", "seconds", "features", "base", "detail", "made"),
}  # fmt: skip
P = ParamSpec("P")
T = TypeVar("T")
_NUMBERS = ("ratio", "low", "high", "seconds", "threads", "made")
# Seconds that a writer waits for another one.
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Record:
    """What a search settled for: the choices, how long they take over the default's time, with the
    bounds of that, the default's seconds, and the hash of the code."""

    label: str
    choices: Choices
    ratio: float
    low: float = 0.0
    high: float = 0.0
    seconds: float = 0.0
    threads: int = 1
    digest: str = ""
    compiler: str = ""


@dataclass(frozen=True, slots=True)
class Past:
    """A trial of some time: its fate, ratio and features, and those of its default."""

    label: str
    choices: Choices
    fate: str
    ratio: float | None
    seconds: float
    features: tuple[float, ...]
    base: tuple[float, ...]
    threads: int = 1
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A kernel that shall be tuned when there is time: its text, the threads that it runs on, and
    how often one run calls it."""

    workload: str
    kernel: str
    threads: int
    calls: int


def _telling(
    method: Callable[Concatenate[Database, P], T],
) -> Callable[Concatenate[Database, P], T]:
    """A method that says E503 where the file is damaged, locked or cannot be written."""

    @wraps(method)
    def told(self: Database, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except (sqlite3.Error, ValueError, TypeError, KeyError) as fault:
            raise error(
                "E503", f"the tuning database {self.path} cannot be used", str(fault)
            ) from None

    return told


def workload_key(func: Func) -> str:
    """The workload of a lowered kernel: its structure, not its names."""
    return key_of(print_ir(canonical(func)))


class Database:
    """A file of records; E503 when the file is no such database."""

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        try:
            if read_only:
                self._db = sqlite3.connect(
                    f"{path.absolute().as_uri()}?mode=ro", PATIENCE, uri=True
                )
                self._db.execute("select count(*) from choice")
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, PATIENCE)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=normal")
            with self._db:
                self._db.executescript(_SCHEMA)
        except (sqlite3.DatabaseError, OSError) as fault:
            raise error("E503", f"{path} is no tuning database", str(fault)) from None

    # -- what was chosen ----------------------------------------------------------------------

    @_telling
    def choose(self, workload: str, target: Target, record: Record) -> None:
        """Append what a search settled for, in one transaction."""
        self._insert("choice", {
            "workload": workload, "target": target.key, "version": VERSION,
            "compiler": record.compiler or fingerprint(), "threads": record.threads,
            "label": record.label, "choices": choices_to_json(record.choices),
            "ratio": record.ratio, "low": record.low, "high": record.high,
            "seconds": record.seconds, "digest": record.digest,
        })  # fmt: skip

    @_telling
    def best(self, workload: str, target: Target, threads: int = 1) -> Record | None:
        """The last choice for a workload: if there is one of this very compiler, that, and if there
        is one for as many threads, that."""
        row = self._db.execute(
            "select label, choices, ratio, low, high, seconds, threads, digest, compiler"
            " from choice where workload = ? and target = ? and version = ?"
            " order by compiler = ? desc, threads = ? desc, made desc, name limit 1",
            (workload, target.key, VERSION, fingerprint(), threads),
        ).fetchone()
        if row is None:
            return None
        label, choices, *rest = row
        return Record(str(label), choices_from_json(choices), *rest)

    @_telling
    def liked(self, target: Target, limit: int) -> list[Choices]:
        """The last choices for any workload that gained something, different ones."""
        rows = self._db.execute(
            "select choices from choice where target = ? and version = ? and ratio < 0.98"
            " group by choices order by max(made) desc, choices limit ?",
            (target.key, VERSION, limit),
        ).fetchall()
        return [choices_from_json(r[0]) for r in rows]

    @_telling
    def last(self, limit: int) -> list[Record]:
        """The last choices for any target."""
        rows = self._db.execute(
            "select label, choices, ratio, low, high, seconds, threads, digest, compiler"
            " from choice order by made desc, name limit ?",
            (limit,),
        )
        return [Record(str(r[0]), choices_from_json(r[1]), *r[2:]) for r in rows]

    @_telling
    def state(self, target: Target) -> str:
        """A text that changes whenever the choices for a target do."""
        row = self._db.execute(
            "select count(*), max(made) from choice where target = ? and version = ?",
            (target.key, VERSION),
        ).fetchone()
        return f"{row[0]}:{row[1]}" if row[0] else ""

    # -- trials -------------------------------------------------------------------------------

    @_telling
    def note(self, workload: str, target: Target, several: Iterable[Past]) -> None:
        """Append trials, in one transaction."""
        with self._db:
            for p in several:
                self._insert_row("trial", {
                    "workload": workload, "target": target.key, "version": VERSION,
                    "compiler": fingerprint(), "threads": p.threads, "label": p.label,
                    "choices": choices_to_json(p.choices), "fate": p.fate, "ratio": p.ratio,
                    "seconds": p.seconds, "features": json.dumps(list(p.features)),
                    "base": json.dumps(list(p.base)), "detail": p.detail,
                })  # fmt: skip

    @_telling
    def trials(self, target: Target, workload: str = "", limit: int = 20_000) -> list[Past]:
        """Trials for a target, the last ones: of all workloads, or of one by this very compiler."""
        mine = " and workload = ? and compiler = ?" if workload else ""
        rows = self._db.execute(
            "select label, choices, fate, ratio, seconds, features, base, threads, detail"
            f" from trial where target = ? and version = ?{mine} order by made desc, name limit ?",
            (target.key, VERSION, *((workload, fingerprint()) if workload else ()), limit),
        ).fetchall()
        return [_past(r) for r in reversed(rows)]

    # -- what is wanted -----------------------------------------------------------------------

    @_telling
    def want(self, target: Target, several: Iterable[Wanted]) -> int:
        """Add kernels that have no choice yet: how many are new."""
        added = 0
        with self._db:
            for w in several:
                if self.best(w.workload, target, w.threads) is None:
                    name = key_of(w.workload, target.key, VERSION, str(w.threads))
                    added += self._db.execute(
                        "insert or ignore into wanted values (?, ?, ?, ?, ?, ?, ?, ?)",
                        (name, w.workload, target.key, VERSION, w.kernel, w.threads, w.calls,
                         time.time()),
                    ).rowcount  # fmt: skip
        return added

    @_telling
    def next_wanted(self, target: Target) -> Wanted | None:
        """The kernel that has waited longest."""
        row = self._db.execute(
            "select workload, kernel, threads, calls from wanted where target = ? and version = ?"
            " order by made, name limit 1",
            (target.key, VERSION),
        ).fetchone()
        return None if row is None else Wanted(str(row[0]), str(row[1]), int(row[2]), int(row[3]))

    @_telling
    def tuned(self, target: Target, wanted: Wanted) -> None:
        """A kernel is not wanted any more."""
        with self._db:
            self._db.execute(
                "delete from wanted where workload = ? and target = ? and threads = ?",
                (wanted.workload, target.key, wanted.threads),
            )

    def _insert(self, table: str, values: Mapping[str, Any]) -> None:
        with self._db:
            self._insert_row(table, values)

    def _insert_row(self, table: str, values: Mapping[str, Any]) -> None:
        row = {**values, "made": time.time()}
        row["name"] = key_of(json.dumps(row, sort_keys=True))
        self._put(table, row)

    def _put(self, table: str, row: Mapping[str, Any]) -> int:
        columns = TABLES[table]
        marks = ", ".join("?" for _ in columns)
        done = self._db.execute(
            f"insert into {table} ({', '.join(columns)}) values ({marks})"
            " on conflict (name) do nothing",
            [row.get(c) for c in columns],
        )
        return done.rowcount

    # -- other databases ----------------------------------------------------------------------

    def rows(self) -> Iterator[str]:
        """Every row as a line of JSON."""
        for table, columns in TABLES.items():
            for row in self._all(table):
                yield json.dumps({"table": table, **dict(zip(columns, row, strict=True))})

    @_telling
    def _all(self, table: str) -> list[Sequence[Any]]:
        columns = ", ".join(TABLES[table])
        return self._db.execute(f"select {columns} from {table} order by made, name").fetchall()

    @_telling
    def add_rows(self, lines: Iterable[str]) -> int:
        """Add rows that are not there yet, all or none: how many; E503 for what is no row."""
        added = 0
        with self._db:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    table, row = _row_of(line, number)
                    added += self._put(table, row)
        return added

    @_telling
    def is_whole(self) -> bool:
        """Whether SQLite finds the file undamaged."""
        return bool(self._db.execute("pragma integrity_check").fetchone()[0] == "ok")

    @_telling
    def count(self, table: str = "choice") -> int:
        """Number of choices, or trials."""
        return int(self._db.execute(f"select count(*) from {table}").fetchone()[0])

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _past(row: Sequence[Any]) -> Past:
    label, choices, fate, ratio, seconds, features, base, threads, detail = row
    return Past(
        str(label), choices_from_json(choices), str(fate),
        None if ratio is None else float(ratio), float(seconds or 0.0),
        tuple(json.loads(features)), tuple(json.loads(base)), int(threads), str(detail),
    )  # fmt: skip


def _row_of(line: str, number: int) -> tuple[str, dict[str, Any]]:
    """A line of :meth:`Database.rows`, its columns and their types checked."""
    try:
        row = json.loads(line)
        table = row.pop("table")
        choices_from_json(row["choices"])
        if set(row) == set(TABLES[table]) and all(_fits(table, *item) for item in row.items()):
            return table, row
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise error("E503", f"line {number} is no record of a tuning database", line[:80])


def _fits(table: str, column: str, value: object) -> bool:
    """Whether a column may have a value: numbers are positive or zero, factors never zero, and
    those of trials that failed are unknown."""
    if column not in _NUMBERS:
        return isinstance(value, str)
    if value is None:
        return table == "trial" and column in ("ratio", "seconds")
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return False
    return value > 0 if column == "ratio" else value >= 0
