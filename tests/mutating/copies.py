"""A copy of the tree in which a fault can be planted, and the tests run on it.

The folders are one package only through the finder of the editable install: the copy has its own,
found first because its folder leads ``PYTHONPATH``, also in processes that tests start.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from mutating.places import Place
from mutating.reach import FOLDERS, ROOT

OTHERS = ("tests", "benchmarks", "examples", "docs")
SLACK = 30.0  # seconds to start, beside twice what the tests took
PASSED, NONE_COLLECTED = 0, 5  # of pytest's exit codes


class Copy:
    """The tree in another folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        skipped = shutil.ignore_patterns("__pycache__", ".hypothesis")
        for name in (*FOLDERS, *OTHERS):
            shutil.copytree(ROOT / name, folder / name, ignore=skipped)
        for page in (*ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "Makefile"):
            shutil.copy(page, folder)
        own = folder / "finder"
        own.mkdir()
        for finder in Path(sysconfig.get_path("purelib")).glob("__editable___aisc_*_finder.py"):
            text = finder.read_text(encoding="utf-8").replace(f"'{ROOT}/", f"'{folder}/")
            (own / finder.name).write_text(text, encoding="utf-8")
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(own), str(folder / "tests"))),
            "AISC_CHOSEN": str(folder / "chosen.json"),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        self._check()

    def _check(self) -> None:
        """That what is imported is the copy."""
        code = "import aisc, aisc.ir, aisc.frontend, aisc.passes, aisc.codegen, sys\n"
        code += "print(*(sys.modules[m].__file__ for m in sys.modules if m.startswith('aisc')))"
        printed = subprocess.run(
            [sys.executable, "-c", code], env=self.environment, capture_output=True, text=True,
            check=True,
        ).stdout.split()  # fmt: skip
        assert {Path(p).relative_to(self.folder).parts[0] for p in printed} == set(FOLDERS), printed

    def plant(self, place: Place) -> None:
        """Write a fault."""
        self._write(place, place.applied((ROOT / place.path).read_text(encoding="utf-8")))

    def mend(self, place: Place) -> None:
        """Take it out again."""
        self._write(place, (ROOT / place.path).read_text(encoding="utf-8"))

    def _write(self, place: Place, text: str) -> None:
        path = self.folder / place.path
        path.write_text(text, encoding="utf-8")
        # Compiled files are told apart by size and second only.
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()
        shutil.rmtree(self.folder / ".hypothesis", ignore_errors=True)
        shutil.rmtree(self.folder / "cache", ignore_errors=True)

    def run(self, tests: Sequence[str], seconds: float) -> tuple[str, str]:
        """Run tests until one fails: "passed", "failed" or "time", and the test that failed, ""
        when none could begin.

        seconds: what the tests take without a fault.
        """
        (self.folder / "chosen.json").write_text(json.dumps(list(tests)))
        files = sorted({t.split("::")[0] for t in tests})
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-x", "-p", "mutating.chosen",
             "-p", "no:cacheprovider", "--tb=no", "--hypothesis-seed=0", *files],
            cwd=self.folder, env=self.environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        try:
            printed, _ = process.communicate(timeout=2 * seconds + SLACK)
        except subprocess.TimeoutExpired:
            return "time", ""
        finally:
            self._end(process)
        if process.returncode in (PASSED, NONE_COLLECTED):
            return "passed", ""
        return "failed", next((t for t in tests if f"\nFAILED {t}" in printed), "")

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        """End a process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
