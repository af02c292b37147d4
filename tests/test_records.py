"""What was tuned: kept, merged, found, locked, and told of where it is damaged."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tuned import graph, lowered, other_tile

import aisc
from aisc.driver.api import build, lower, resolve_target
from aisc.driver.options import from_environment
from aisc.ir.diagnostics import CompileError
from aisc.ir.tensor.func import Func
from aisc.passes.schedule.picks import Choices
from aisc.records.database import Database, Past, Record, Wanted, workload_key
from aisc.records.lock import Lock
from aisc.records.lookup import lookup_for
from aisc.records.paths import default_path, state_of
from aisc.records.source import Source, untuned
from aisc.tuning.lock_model import lock_of


@pytest.fixture(scope="module")
def kernel() -> Func:
    return lowered(graph())[0]


def test_records_are_used_by_the_compiler(kernel: Func, tmp_path: Path) -> None:
    target, path = resolve_target("cpu"), tmp_path / "tuning.sqlite"
    slow, fast = other_tile(kernel), other_tile(kernel, 1)
    key = workload_key(kernel)
    with Database(path) as database:
        assert database.best(key, target) is None
        database.choose(key, target, Record("first", slow, 0.9))
        database.choose(key, target, Record("last", fast, 0.8))
        database.choose(key, target, Record("of two threads", slow, 0.8, threads=2))
    with Database(path) as database:
        assert database.count() == 3
        best, two = (database.best(key, target, n) for n in (1, 2))
        assert best is not None and two is not None
        assert (best.choices, two.choices) == (fast, slow)
    tuned = aisc.compile(graph(), threads=1, cache=False, tuned=path)
    x = np.random.default_rng(1).standard_normal((64, 48)).astype(np.float32)
    plain = aisc.compile(graph(), threads=1, cache=False)
    np.testing.assert_array_equal(tuned(x), plain(x), "to the bit")
    stop = from_environment(stop_after="optimize", tuned=str(path), threads=1)
    assert build(graph(), target, stop).product != lower(graph(), "tensor")


def test_the_users_own_records_are_found(
    kernel: Func, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without being told; the key of a whole model changes with them."""
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("AISC_TUNED")
    target, options = resolve_target("cpu"), from_environment(threads=1)
    assert lookup_for(options.records, target) is untuned
    assert state_of(options.records, [target]) == ""
    chosen = other_tile(kernel)
    with Database(default_path()) as database:
        database.choose(workload_key(kernel), target, Record("x", chosen, 0.9))
    assert lookup_for(options.records, target)(kernel) == chosen
    before = state_of(options.records, [target])
    assert before
    with Database(default_path()) as database:
        database.choose(workload_key(kernel), target, Record("y", {}, 1.0))
    assert state_of(options.records, [target]) != before
    assert lookup_for(Source(tuned="none"), target) is untuned
    default_path().write_bytes(b"damaged" * 300)
    with pytest.warns(aisc.AiscWarning, match="no tuning database"):
        assert lookup_for(options.records, target) is untuned
    with pytest.raises(CompileError):
        lookup_for(Source(tuned=str(tmp_path / "missing.sqlite")), target)


def test_databases_are_merged(kernel: Func, tmp_path: Path) -> None:
    target, key = resolve_target("cpu"), workload_key(kernel)
    past = Past("t", {"a": (6, 2)}, "ok", 0.9, 1e-3, (1.0, 2.0), (1.0, 1.0))
    with Database(tmp_path / "a.sqlite") as a, Database(tmp_path / "b.sqlite") as b:
        a.choose(key, target, Record("a", {"x": 1}, 0.9))
        b.choose(key, target, Record("b", {"x": 2}, 0.8))
        b.note(key, target, [past])
        lines = list(b.rows())
        assert a.add_rows(lines) == 2
        assert a.add_rows(lines) == 0, "once"
        assert (a.count(), a.count("trial")) == (2, 1)
        assert a.trials(target, key) == [past]
        best = a.best(key, target)
        assert best is not None
        assert best.choices == {"x": 2}
        for bad in (
            "x",
            "{}",
            '{"table": "choice"}',
            lines[0].replace('"ratio": 0.8', '"ratio": "a"'),
        ):
            with pytest.raises(CompileError):
                a.add_rows([*lines, bad])


def test_writers_do_not_disturb_each_other(kernel: Func, tmp_path: Path) -> None:
    """Several processes on one database, one of which is killed while it writes."""
    text = """
import sys
from pathlib import Path
from aisc.driver.api import resolve_target
from aisc.records.database import Database, Record
target = resolve_target("cpu")
with Database(Path(sys.argv[1])) as database:
    for k in range(int(sys.argv[2])):
        database.choose("w", target, Record(f"{sys.argv[3]}:{k}", {"x": k}, 0.9))
"""
    path = tmp_path / "tuning.sqlite"
    started = [
        subprocess.Popen([sys.executable, "-c", text, str(path), str(n), name])
        for name, n in (("a", 50), ("b", 50), ("killed", 10**9))
    ]
    for p in started[:2]:
        assert p.wait(60) == 0
    started[2].kill()
    started[2].wait()
    with Database(path) as database:
        labels = [r.label for r in database.last(10**9)]
        assert (
            sum(x.startswith("a:") for x in labels) == sum(x.startswith("b:") for x in labels) == 50
        )


def test_a_lock_gives_the_same_code_or_says_why(kernel: Func, tmp_path: Path) -> None:
    database, path = tmp_path / "tuning.sqlite", tmp_path / "tune.lock"
    target, options = resolve_target("cpu"), from_environment(threads=1)
    with Database(database) as records:
        records.choose(workload_key(kernel), target, Record("x", other_tile(kernel), 0.9))
    lock = lock_of(graph(), "cpu", options, database)
    lock.write(path)
    assert Lock.read(path).kernels == lock.kernels
    aisc.compile(graph(), threads=1, locked=path)
    code = (
        "import sys, aisc\nsys.path.insert(0, sys.argv[2])\nfrom tuned import graph\n"
        "aisc.compile(graph(), threads=1, locked=sys.argv[1], cache=False)"
    )
    command = [sys.executable, "-c", code, str(path), str(Path(__file__).parent)]
    subprocess.run(command, check=True, timeout=120)
    ((name, entry),) = lock.kernels.items()
    for changed, message in (
        (replace(lock, kernels={name: replace(entry, digest="0")}), "became other code"),
        (replace(lock, kernels={}), "does not have kernel"),
        (replace(lock, target="x"), "another machine"),
        (
            replace(lock, kernels={name: replace(entry, digest="0")}, compiler="x"),
            "another version",
        ),
    ):
        changed.write(path)
        with pytest.raises(CompileError, match=message) as caught:
            aisc.compile(graph(), threads=1, locked=path, cache=False)
        assert caught.value.codes == ("E402",)
    path.write_text("{}")
    with pytest.raises(CompileError) as caught:
        aisc.compile(graph(), threads=1, locked=path)
    assert caught.value.codes == ("E503",)


@pytest.mark.parametrize(
    "choices", [{"matmul_1.tile": (31, 31)}, {"nothing.known": 3}, {"matmul_1.packed": "maybe"}]
)
def test_a_record_that_does_not_replay_is_warned_of(choices: Choices) -> None:
    """The kernel gets its default schedule."""
    options = from_environment(threads=1, use_cache=False)
    with pytest.warns(aisc.AiscWarning, match="does not replay") as caught:
        tuned = build(graph(), "cpu", options, lookup=lambda func: choices).executable
    assert "tune it again" in str(caught[0].message)
    assert next(iter(choices)) in str(caught[0].message)
    assert tuned is not None
    x = np.random.default_rng(1).standard_normal((64, 48)).astype(np.float32)
    plain = aisc.compile(graph(), threads=1, cache=False)
    np.testing.assert_array_equal(tuned(x), plain(x))


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    path.write_bytes(b"this is no database, but long enough to be read as a header" * 20)
    with pytest.raises(CompileError) as caught:
        Database(path)
    assert caught.value.codes == ("E503",)


def damage(path: Path, column: str, value: object) -> None:
    """Overwrite a column of every choice, as a fault of a disk or a program may."""
    with sqlite3.connect(path) as raw:
        raw.execute(f"update choice set {column} = ?", (value,))


def test_a_damaged_row_is_told(
    kernel: Func, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E503 for a database that was named, a warning for the user's own."""
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("AISC_TUNED")
    target, path = resolve_target("cpu"), default_path()
    with Database(path) as database:
        database.choose(workload_key(kernel), target, Record("x", other_tile(kernel), 0.9))
    damage(path, "choices", "{nonsense")
    with pytest.raises(CompileError) as caught:
        aisc.compile(graph(), threads=1, cache=False, tuned=path)
    assert caught.value.codes == ("E503",)
    with pytest.warns(aisc.AiscWarning, match="cannot be used"):
        exe = aisc.compile(graph(), threads=1, cache=False)
    x = np.random.default_rng(1).standard_normal((64, 48)).astype(np.float32)
    plain = aisc.compile(graph(), threads=1, cache=False, tuned="none")
    np.testing.assert_array_equal(exe(x), plain(x))
    with Database(path) as database:
        for ask in (lambda: database.last(9), lambda: database.liked(target, 9)):
            with pytest.raises(CompileError) as caught:
                ask()
            assert caught.value.codes == ("E503",)


def test_a_table_that_is_gone_is_told(tmp_path: Path) -> None:
    path, target = tmp_path / "tuning.sqlite", resolve_target("cpu")
    with Database(path) as database:
        with sqlite3.connect(path) as raw:
            raw.executescript("drop table choice; drop table trial; drop table wanted")
        for use in (
            lambda: database.best("w", target),
            lambda: database.choose("w", target, Record("x", {}, 1.0)),
            lambda: database.trials(target),
            lambda: database.want(target, [Wanted("w", "k", 1, 1)]),
            lambda: list(database.rows()),
            database.count,
        ):
            with pytest.raises(CompileError, match="cannot be used") as caught:
                use()
            assert caught.value.codes == ("E503",)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("choice", "ratio", 0),
        ("choice", "ratio", None),
        ("choice", "ratio", float("nan")),
        ("choice", "low", -1),
        ("choice", "threads", True),
        ("choice", "workload", None),
        ("choice", "choices", "[]"),
        ("trial", "made", None),
        ("trial", "fate", 3),
        ("nothing", "made", 1.0),
    ],
)
def test_a_row_with_a_wrong_value_is_no_record(
    tmp_path: Path, table: str, column: str, value: object
) -> None:
    target = resolve_target("cpu")
    with Database(tmp_path / "a.sqlite") as a, Database(tmp_path / "b.sqlite") as b:
        a.choose("w", target, Record("x", {"k": 1}, 0.9))
        a.note("w", target, [Past("t", {}, "crash", None, 0.0, (), ())])
        rows = {r["table"]: r for r in map(json.loads, a.rows())}
        row = {**rows.get(table, rows["choice"]), "table": table, column: value}
        with pytest.raises(CompileError, match="line 1 is no record"):
            b.add_rows([json.dumps(row)])
        assert b.add_rows(map(json.dumps, rows.values())) == 2
        assert b.trials(target)[0].ratio is None


def test_what_cannot_be_left_for_the_tuner_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And compiled all the same."""
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("AISC_TUNE", "background")
    default_path().write_bytes(b"damaged" * 300)
    with pytest.warns(aisc.AiscWarning, match="left for the tuner"):
        exe = aisc.compile(graph(), threads=1, cache=False)
    assert exe(np.ones((64, 48), np.float32)).shape == (64, 64)
