"""Measuring candidates in a worker process that may crash, hang or run out of memory.

The worker is ``python -m aisc.tuning.worker``: one JSON request per line on its standard input, one
reply per line on its output. A worker that dies or exceeds its time is replaced; that costs the one
trial. Nothing but text crosses the boundary.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aisc.ir.tensor.func import Func
from aisc.ir.text.printer import print_ir
from aisc.passes.schedule.picks import Choices, choices_to_json

COMMAND = (sys.executable, "-m", "aisc.tuning.worker")


@dataclass(frozen=True, slots=True)
class Measurement:
    """Seconds per run, one list per candidate, interleaved; or why there are none."""

    seconds: tuple[tuple[float, ...], ...] = ()
    failure: str = ""


@dataclass(slots=True)
class Worker:
    """A measuring process, started when it is needed. `memory` bounds its address space."""

    target: str = "cpu"
    timeout: float = 20.0
    memory: int = 8 << 30
    command: Sequence[str] = COMMAND
    restarts: int = 0
    _process: subprocess.Popen[str] | None = None
    _lines: queue.Queue[str] = field(default_factory=queue.Queue)

    def measure(
        self, func: Func, choices: Sequence[Choices], repeats: int, threads: int = 1
    ) -> Measurement:
        """Run the kernel with each of the choices, `repeats` times in turn."""
        request = {
            "func": print_ir(func),
            "choices": [choices_to_json(c) for c in choices],
            "target": self.target,
            "repeats": repeats,
            "threads": threads,
        }
        reply = self._ask(json.dumps(request))
        if reply is None:
            return Measurement(failure="the worker died or exceeded its time")
        if "error" in reply:
            return Measurement(failure=str(reply["error"]))
        return Measurement(tuple(tuple(map(float, s)) for s in reply["seconds"]))

    def _ask(self, line: str) -> dict[str, Any] | None:
        process = self._running()
        assert process.stdin is not None, "the worker has a pipe"
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            answer = self._lines.get(timeout=self.timeout)
        except (OSError, queue.Empty):
            answer = ""
        if not answer:
            self.close()
            self.restarts += 1
            return None
        reply: dict[str, Any] = json.loads(answer)
        return reply

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._lines = queue.Queue()
            self._process = subprocess.Popen(
                [*self.command, str(self.memory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            reader = threading.Thread(target=_read, args=(self._process, self._lines), daemon=True)
            reader.start()
        return self._process

    def close(self) -> None:
        """Kill the process, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    """Pass the worker's lines on; an empty line says that it is gone."""
    assert process.stdout is not None, "the worker has a pipe"
    for line in process.stdout:
        lines.put(line.strip())
    lines.put("")
