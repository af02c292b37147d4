"""Tuners and their processes are killed at random: what was measured stays."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aisc.driver.api import resolve_target
from aisc.records.database import Database

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits" / "digits.onnx"


def tuner(path: Path, seed: int, budget: str = "60s") -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-m", "aisc", "tune", str(DIGITS), "--shape", "batch=4", "--threads", "1",
        "--database", str(path), "--budget", budget, "--seed", str(seed),
    ]  # fmt: skip
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)


def trials(path: Path) -> list[str]:
    """Every trial that the database holds, read whole."""
    if not path.is_file():
        return []
    with Database(path) as database:
        assert database.is_whole()
        return [line for line in database.rows() if '"table": "trial"' in line]


def children(group: int) -> list[int]:
    """The processes of a session but for its first."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(stat[3]) == group and int(entry.name) != group:
                found.append(int(entry.name))
    return found


def kill_tuners(path: Path, count: int, seed: int) -> None:
    """Start two tuners on one database, and kill one of them, or a process of it, again and again;
    what was kept before is kept after."""
    rng, before = random.Random(seed), 0
    running = [tuner(path, seed), tuner(path, seed + 1)]
    try:
        for kill in range(count):
            time.sleep(rng.uniform(0.5, 4))
            k = rng.randrange(2)
            others = children(running[k].pid)
            if others and rng.random() < 0.5:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(others), signal.SIGKILL)
            else:
                running[k].kill()
                running[k].wait()
                running[k] = tuner(path, seed + 2 + kill)
            kept = len(trials(path))
            assert kept >= before
            before = kept
    finally:
        for p in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(p.pid, signal.SIGKILL)
            p.wait()
    last = tuner(path, seed, "12s")
    assert last.wait(120) == 0
    assert len(trials(path)) > before
    with Database(path) as database:
        assert database.count() == 9, "each kernel has a choice"
        assert all(p.fate != "wrong" for p in database.trials(resolve_target("cpu")))


def test_killed_now_and_then(tmp_path: Path) -> None:
    kill_tuners(tmp_path / "tuning.sqlite", 3, 5)


@pytest.mark.slow
def test_killed_thirty_times(tmp_path: Path) -> None:
    kill_tuners(tmp_path / "tuning.sqlite", 30, 1)
