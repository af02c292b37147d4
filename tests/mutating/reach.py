"""A pytest plugin: writes which functions of the sources each test runs, and how long it takes.

``AISC_REACH`` names the file to write. Calls only are traced, not lines: cheap enough for all
tests, and functions are short. A function is ``file:qualified name``, which survives edits
elsewhere.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("compiler", "ir", "frontend", "passes", "codegen")


class Recorder:
    """The functions and seconds of the tests that have ended."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.codes: set[CodeType] = set()
        self.names: dict[CodeType, str | None] = {}
        self.failed: set[str] = set()
        self.tests: dict[str, dict[str, Any]] = {}

    def call(self, frame: FrameType, event: str, arg: object) -> None:
        """What the interpreter calls at the start of every function."""
        self.codes.add(frame.f_code)

    def name(self, code: CodeType) -> str | None:
        """The name of a function of the tree, else None."""
        if code not in self.names:
            path = Path(code.co_filename)
            parts = path.relative_to(ROOT).parts if path.is_relative_to(ROOT) else ("",)
            inside = parts[0] in FOLDERS
            self.names[code] = f"{'/'.join(parts)}:{code.co_qualname}" if inside else None
        return self.names[code]

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.codes = set()
        start = time.perf_counter()
        threading.settrace(self.call)
        sys.settrace(self.call)
        yield
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        found = sorted({n for c in self.codes if (n := self.name(c)) is not None})
        self.tests[item.nodeid] = {  # one that was interrupted has none
            "file": item.path.name,
            "llvm": item.get_closest_marker("llvm") is not None,
            "passed": item.nodeid not in self.failed,
            "seconds": time.perf_counter() - start,
            "functions": found,
        }

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "passed":
            self.failed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self.out.write_text(json.dumps(self.tests))


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Recorder(Path(os.environ["AISC_REACH"])))
