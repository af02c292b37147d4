"""Tuning in idle time what a user's programs compile: ``AISC_TUNE=background``.

A compilation leaves its kernels in the database and goes on; a process of its own, at the lowest
priority and the only one of its kind, tunes one after the other while the machine has nothing else
to do, and ends when there are none left. Programs that run already are never touched: the next
compilation finds what was chosen.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from aisc.driver.instruments import Product
from aisc.driver.kernel_process import can_start
from aisc.driver.options import Options
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import AiscError, Diagnostic, warn
from aisc.ir.node import walk
from aisc.ir.target import Target
from aisc.ir.tensor.func import Program
from aisc.ir.tensor.stmt import CallKernel
from aisc.ir.text.parser import parse_func
from aisc.ir.text.printer import print_ir
from aisc.records.database import Database, Wanted, workload_key
from aisc.records.paths import default_path
from aisc.tuning.session import Budget, Session, Workload, workshop

# Seconds between looks at a busy machine, and after which waiting is in vain.
PAUSE, PATIENCE = 5.0, 3600.0
BUDGET = Budget(seconds=20.0)  # for each kernel
# The part of the cores that others may use while the machine counts as idle.
IDLE = 0.25


@dataclass(slots=True)
class Noting:
    """An instrument that leaves the kernels of a compilation for later, and sees to it that
    somebody tunes them."""

    needs_products: ClassVar[bool] = False
    target: Target
    options: Options

    def before(self, step: str) -> None:
        """Nothing yet."""

    def after(self, step: str, product: Product | None) -> None:
        """The program is there: its kernels of known sizes that run here."""
        if step == "lower" and isinstance(product, Program):
            wanted = list(_wanted(product, self.target, self.options.threads))
            path = default_path(self.options.cache_dir)
            try:
                with Database(path) as database:
                    added = database.want(self.target, wanted)
                if added and can_start():
                    start(path)
            except (AiscError, OSError) as fault:
                why = fault.diagnostics[0].message if isinstance(fault, AiscError) else str(fault)
                text = "kernels cannot be left for the tuner"
                warn(Diagnostic("E503", text, notes=(why,), severity="warning"))


def _wanted(program: Program, target: Target, threads: int) -> Iterator[Wanted]:
    calls = [s.kernel for s in walk(program.entry.body) if isinstance(s, CallKernel)]
    for k in program.kernels:
        if not k.dims and k.target == target.name and k.name in calls:
            yield Wanted(workload_key(k), print_ir(k), threads, calls.count(k.name))


def start(path: Path) -> None:
    """Start the process, which ends at once where there is one; it outlives this one."""
    command = [sys.executable, "-P", "-m", "aisc.tuning.background", str(path)]
    quiet = subprocess.DEVNULL
    subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether this is the only process that tunes in the background for a database."""
    with path.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def busy(seconds: float = 0.5) -> float:
    """The part of the cores that was in use for so many seconds; 0 where it cannot be told."""
    before = _times()
    time.sleep(seconds)
    after = _times()
    total = sum(after) - sum(before)
    idle = after[3] + after[4] - before[3] - before[4] if len(after) > 4 else total
    return 1 - idle / total if total > 0 else 0.0


def _times() -> list[int]:
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
        return [int(n) for n in first.split()[1:]]
    except (OSError, ValueError, IndexError):
        return []


def tune_wanted(path: Path, target: Target, described: str, patience: float = PATIENCE) -> int:
    """Tune what is wanted while the machine is idle, what waits longest first: how many kernels."""
    done, waited = 0, 0.0
    while waited < patience:
        with Database(path) as database:
            wanted = database.next_wanted(target)
            if wanted is None:
                return done
            if busy() > IDLE:
                time.sleep(PAUSE)
                waited += PAUSE
                continue
            waited = 0.0
            func = replace(parse_func(wanted.kernel), target=target.name)
            shop = workshop(described, wanted.threads)
            try:
                session = Session(target, database, shop)
                session.run([Workload(func, wanted.calls)], BUDGET)
            finally:
                shop.close()
            database.tuned(target, wanted)
            done += 1
    return done


def main() -> None:
    """Tune what is wanted in the database that is named."""
    from aisc.driver.api import resolve_target

    os.nice(19)
    path = Path(sys.argv[1])
    with _alone(path) as alone:
        if alone:
            tune_wanted(path, resolve_target("cpu"), "cpu")


if __name__ == "__main__":
    main()
