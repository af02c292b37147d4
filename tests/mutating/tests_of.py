"""Which tests run a function, from what tests/mutating/reach.py saw: a file for each file of tests,
kept in ``build/mutants/reach`` until that file of tests changes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mutating.places import Place
from mutating.reach import ROOT

KEPT = ROOT / "build" / "mutants" / "reach"
LIMIT = 300  # seconds for a file of tests; what it has not done by then is not asked
FEW = 40  # tests of a first process: most faults are found by any test that meets them


@dataclass(frozen=True)
class Test:
    """A test that passes without faults."""

    id: str
    seconds: float
    llvm: bool


class Tests:
    """The tests by function of the sources, and by file. broken: those seen to fail anyway."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.all: list[Test] = []
        self.broken: set[str] = set()
        self.by_function: dict[str, list[Test]] = defaultdict(list)
        self.by_file: dict[str, list[Test]] = defaultdict(list)
        for path in sorted((ROOT / "tests").glob("test_*.py")):
            for name, seen in json.loads(_seen(path, say).read_text()).items():
                if not seen["passed"]:
                    continue
                test = Test(name, seen["seconds"], seen["llvm"])
                self.all.append(test)
                for function in seen["functions"]:
                    self.by_function[function].append(test)
                for file in {f.split(":")[0] for f in seen["functions"]}:
                    self.by_file[file].append(test)

    def stages(self, place: Place, most: float) -> Iterator[tuple[str, list[Test]]]:
        """What to run one after the other, with the name of the tier: the tests that run the
        function, without machine code and then with it, then all others without.

        most: seconds of all tests of a stage without the fault.
        """
        met = self.by_function.get(f"{place.path}:{place.function}") if place.function else None
        met = _varied(met or self.by_file.get(place.path, []))
        quick, llvm = ([t for t in met if t.llvm == wanted] for wanted in (False, True))
        for tier, tests in (("quick", quick), ("llvm", llvm)):
            few, rest = tests[:FEW], tests[FEW:]
            yield tier, _within(few, most)
            yield tier, _within(rest, most)
        known = set(quick)
        yield "quick", _within([t for t in self.all if not t.llvm and t not in known], most)


def _varied(tests: list[Test]) -> list[Test]:
    """Fast tests first, but one case of every test function before a second case of any."""
    turns: dict[str, int] = defaultdict(int)
    order: list[tuple[int, float, Test]] = []
    for test in sorted(tests, key=lambda t: (t.seconds, t.id)):
        name = test.id.split("[")[0]
        order.append((turns[name], test.seconds, test))
        turns[name] += 1
    return [t for _, _, t in sorted(order, key=lambda o: o[:2])]


def _within(tests: list[Test], most: float) -> list[Test]:
    """The first tests that together take no longer."""
    taken, total = [], 0.0
    for test in tests:
        if total + test.seconds <= most:
            taken.append(test)
            total += test.seconds
    return taken


def _seen(path: Path, say: Callable[[str], None]) -> Path:
    """The file with what the tests of a file run; runs them when there is none."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    kept = KEPT / f"{path.stem}-{digest}.json"
    if kept.exists():
        return kept
    KEPT.mkdir(parents=True, exist_ok=True)
    say(f"which functions {path.name} runs")
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "mutating.reach", "-m", "not slow", str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests"), "AISC_REACH": str(kept)},
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # writes what it has
        process.wait()
    if not kept.exists():
        kept.write_text("{}")
    return kept
