"""Measuring candidates in a worker process that may crash, hang or run out of memory.

The worker is ``python -m aisc.tuning.worker``: one JSON request per line on its standard input, one
reply per line on its output. A worker that dies or exceeds its time is replaced; that costs the one
trial. Nothing but text crosses the boundary.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aisc.codegen.child import Child
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
    """A measuring process, started when it is needed. `target` is a name or a description; `memory`
    bounds its address space."""

    target: str = "cpu"
    timeout: float = 20.0
    memory: int = 8 << 30
    command: Sequence[str] = COMMAND
    restarts: int = 0
    _child: Child | None = None

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
        child = self._running()
        answer = None
        if child is not None:
            child.send(line)
            answer = child.receive(self.timeout)
        if not answer:
            self.close()
            self.restarts += 1
            return None
        reply: dict[str, Any] = json.loads(answer)
        return reply

    def _running(self) -> Child | None:
        if self._child is None:
            self._child = Child.start([*self.command, str(self.memory)])
        return self._child

    def close(self) -> None:
        """Kill the process, if it runs."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
