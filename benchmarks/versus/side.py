"""The handle of a side's process: asks, waits for the answer, ends it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[1]
LOG = "AISC_BENCH_LOG"  # a file for what the processes print


class SideFailed(Exception):
    """A side cannot take part; the message says why."""


class Side:
    """A process that runs one runtime; a context manager that ends it."""

    def __init__(self, name: str, threads: int, timeout: float = 900) -> None:
        self.name, self.timeout = name, timeout
        counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        env = {**os.environ, **counts, "PYTHONPATH": str(BENCHMARKS)}
        with open(os.environ.get(LOG) or os.devnull, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "versus.worker"], cwd=BENCHMARKS, env=env,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """The answer to a request; :class:`SideFailed` when there is none."""
        assert self._process.stdin is not None and self._process.stdout is not None, "pipes"
        line = b""
        try:
            self._process.stdin.write(json.dumps({"do": do, **values}).encode() + b"\n")
            self._process.stdin.flush()
            ready, _, _ = select.select([self._process.stdout], [], [], self.timeout)
            if not ready:
                raise SideFailed(f"no answer within {self.timeout:.0f} s")
            line = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            raise SideFailed(f"its process ended with status {self._process.wait(10)}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SideFailed(answer["error"])
        return answer

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                # Closing writes what is left of a request that the process did not live to read.
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
