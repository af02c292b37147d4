"""Kernels made in a process beside this one: from their printed form to records of the cache.

Python runs on one core, and making kernels is Python for the most part. The other process is never
needed: it gets nothing to do until it has said that it is the same compiler for the same machines,
and what it does not give back this process makes itself. Only text and object bytes cross the
border.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path

from aisc.codegen.child import Child
from aisc.driver.kernel import BuiltKernel, from_record
from aisc.ir.dataclass import dataclass

COMMAND = (sys.executable, "-P", "-m", "aisc.driver.kernel_worker")
# Requests under way: those beyond the one that it works on wait there, so that it never waits here.
DEPTH = 8


def can_start() -> bool:
    """Whether this process is one of Python, whose command line is known."""
    return Path(sys.executable or "").name.startswith("python")


@dataclass(slots=True)
class KernelProcess:
    """The other process; `greeting` is what it has to say first; `waiting` are the numbers of the
    requests that it has not answered."""

    child: Child
    greeting: Mapping[str, object]
    waiting: list[int] = field(default_factory=list)
    is_gone: bool = False
    _greeted: bool = False

    @staticmethod
    def start(
        descriptions: Sequence[str], level: int, greeting: Mapping[str, object],
        command: Sequence[str] | None = None,
    ) -> KernelProcess | None:  # fmt: skip
        """Start it for targets by their descriptions; it becomes ready later, or never."""
        child = Child.start(command or COMMAND)
        if child is None:
            return None
        child.send(json.dumps({"targets": list(descriptions), "level": level}))
        return KernelProcess(child, greeting)

    @property
    def is_free(self) -> bool:
        """Whether to give it more to do."""
        if not self._greeted and not self.is_gone and self.child.has_answered:
            self._greeted = _object(self.child.receive()) == self.greeting
            self.is_gone = not self._greeted
        return self._greeted and not self.is_gone and len(self.waiting) < DEPTH

    def give(self, number: int, kernel: str, target: int, choices: str) -> None:
        """Ask for a kernel, by its text, for the target of a number; no request has been `number`
        before."""
        request = {"id": number, "kernel": kernel, "target": target, "choices": choices}
        self.waiting.append(number)
        self.child.send(json.dumps(request))

    def take(self, patience: float = 0.0) -> tuple[int, BuiltKernel | None] | None:
        """An answer, with the number of its request, waited for as many seconds; ``None`` when
        there is none. The kernel is ``None`` where it could not be made there."""
        while self.waiting and not self.is_gone:
            line = self.child.receive(patience)
            if line is None:
                return None
            reply = _object(line)
            number = reply.get("id")
            if number is None:
                self.is_gone = True
            elif number in self.waiting:  # others were taken back
                self.waiting.remove(number)
                return number, _kernel(reply.get("record"))
        return None

    def take_back(self) -> int:
        """Do not wait for the last request any more: its number."""
        return self.waiting.pop()

    def close(self) -> None:
        """End the process."""
        self.child.close()


def _object(line: str | None) -> Mapping[str, object]:
    """The JSON object of a line; an empty one for anything else."""
    try:
        found = json.loads(line or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _kernel(record: object) -> BuiltKernel | None:
    """The kernel of a reply; ``None`` for one without."""
    if not isinstance(record, dict):
        return None
    try:
        parts = {str(k): base64.b64decode(v, validate=True) for k, v in record.items()}
    except (ValueError, TypeError):
        return None
    made = from_record(parts)
    return None if made is None else replace(made, cached=False)
