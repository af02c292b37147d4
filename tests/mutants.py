"""Plants small random faults in the sources and sees whether the tests find them.

    python tests/mutants.py --count 80 --seed 0 --folders ir passes codegen frontend --jobs 2

Each fault is written into a copy of the tree and tests run there, those that meet it first, until
one fails (docs/mutants.md). Exits with 0 when at least 92 % of the faults are found; survivors are
written as diffs to build/mutants/survivors.diff.
"""

from __future__ import annotations

import argparse
import difflib
import queue
import random
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from mutating.copies import Copy
from mutating.places import Place, parses, places
from mutating.reach import FOLDERS, ROOT
from mutating.tests_of import Test, Tests
from rich.console import Console
from rich.table import Table

ENOUGH = 0.92
SURVIVORS = ROOT / "build" / "mutants" / "survivors.diff"
WAYS = ("quick", "llvm", "time", "survived")


@dataclass(frozen=True)
class Outcome:
    """How a fault was found: one of :data:`WAYS`, with the test that failed."""

    place: Place
    way: str
    by: str
    seconds: float


def chosen(folders: list[str], count: int, seed: int) -> list[Place]:
    """Faults at random, at most one on a line."""
    found: list[Place] = []
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            found += places(path.relative_to(ROOT).as_posix(), text)
    random.Random(seed).shuffle(found)
    taken: dict[tuple[str, int], Place] = {}
    for place in found:
        if len(taken) == count:
            break
        key = place.path, place.line
        if key not in taken and parses(place.applied((ROOT / place.path).read_text())):
            taken[key] = place
    return list(taken.values())


def judged(place: Place, copy: Copy, tests: Tests, most: float) -> Outcome:
    """Plant a fault and run tests until one fails, that does not fail without it."""
    start = time.monotonic()
    way, by = "survived", ""
    stages = [(tier, stage) for tier, stage in tests.stages(place, most) if stage]
    for tier, stage in stages:
        left = [t for t in stage if t.id not in tests.broken]
        ended, by = _with_fault(place, copy, left)
        while ended == "failed" and _fails_anyway(copy, by, left, tests):
            left = [t for t in left if t.id not in tests.broken]
            ended, by = _with_fault(place, copy, left)
        if ended != "passed":
            way = tier if ended == "failed" else "time"
            break
    return Outcome(place, way, by, time.monotonic() - start)


def _with_fault(place: Place, copy: Copy, tests: list[Test]) -> tuple[str, str]:
    copy.plant(place)
    try:
        return copy.run([t.id for t in tests], sum(t.seconds for t in tests))
    finally:
        copy.mend(place)


def _fails_anyway(copy: Copy, test: str, tests: list[Test], known: Tests) -> bool:
    """Whether a test that failed fails without the fault too: then it is left out from here on."""
    again = [t for t in tests if t.id == test] or tests
    ended, failed = copy.run([t.id for t in again], sum(t.seconds for t in again))
    if ended == "failed":
        assert failed, "tests cannot begin without a fault"
        known.broken.add(failed)
    return ended == "failed"


def diff(place: Place) -> str:
    """A fault as a unified diff."""
    text = (ROOT / place.path).read_text(encoding="utf-8")
    before, after = (t.splitlines(keepends=True) for t in (text, place.applied(text)))
    return "".join(difflib.unified_diff(before, after, place.path, f"{place.path}: {place.what}"))


def table(outcomes: list[Outcome]) -> Table:
    """Outcomes by folder."""
    result = Table("folder", "faults", *WAYS, "found", title="small faults and what found them")
    for folder in (*FOLDERS, ""):
        some = [o for o in outcomes if o.place.path.startswith(folder)]
        if some:
            ways = Counter(o.way for o in some)
            counts = [str(ways[w]) for w in WAYS]
            result.add_row(folder or "all", str(len(some)), *counts, f"{share(some):.1%}")
    return result


def share(outcomes: list[Outcome]) -> float:
    """How many of the faults were found."""
    return sum(o.way != "survived" for o in outcomes) / len(outcomes)


def run(options: argparse.Namespace, tests: Tests, console: Console) -> list[Outcome]:
    """Judge the faults, on as many copies as there are jobs."""
    faults = chosen(options.folders, options.count, options.seed)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        free: queue.Queue[Copy] = queue.Queue()
        for k in range(options.jobs):
            free.put(Copy(Path(folder).resolve() / str(k)))

        def one(place: Place) -> Outcome:
            copy = free.get()
            try:
                return judged(place, copy, tests, options.most)
            finally:
                free.put(copy)

        waiting = as_completed([pool.submit(one, place) for place in faults])
        for k, outcome in enumerate((done.result() for done in waiting), 1):
            outcomes.append(outcome)
            p = outcome.place
            text = f"{k}/{len(faults)} {p.path}:{p.line} {p.what}: {outcome.way}"
            line = f"{text} ({outcome.seconds:.0f} s) {outcome.by}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
            if outcome.way == "survived":
                with open(SURVIVORS, "a", encoding="utf-8") as file:
                    file.write(diff(p) + "\n")
    return outcomes


def main() -> int:
    """Run, report, and say whether enough was found."""
    parser = argparse.ArgumentParser(description="whether the tests find small faults")
    parser.add_argument("--count", type=int, default=80, help="faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folders", nargs="+", choices=FOLDERS, default=list(FOLDERS))
    parser.add_argument("--jobs", type=int, default=2, help="copies of the tree that run at a time")
    parser.add_argument("--most", type=float, default=60, help="seconds of the tests of a stage")
    options = parser.parse_args()
    SURVIVORS.parent.mkdir(parents=True, exist_ok=True)
    SURVIVORS.write_text("")
    console = Console()
    tests = Tests(console.print)
    outcomes = run(options, tests, console)
    console.print(table(outcomes))
    for name in sorted(tests.broken):
        console.print(f"fails without a fault: {name}", markup=False)
    if any(o.way == "survived" for o in outcomes):
        console.print(f"survivors: {SURVIVORS.relative_to(ROOT)}")
    return 0 if share(outcomes) >= ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main())
