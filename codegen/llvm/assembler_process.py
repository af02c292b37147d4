"""Code generation in a process beside this one.

llvmlite serialises its calls, and they wait for Python's lock, so that only another process
generates code while this one goes on. It is never needed: it gets nothing to do until it has said
that it is the same code generator, and what it does not give back this process generates itself.
Only text and object bytes cross the border.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aisc.codegen.artefact import Artefact
from aisc.codegen.child import Child
from aisc.codegen.llvm.assembler import greeting
from aisc.ir.target import Target

COMMAND = (sys.executable, "-P", "-m", "aisc.codegen.llvm.assembler")
# Requests under way: with one more than it works on, the other process never waits for this one.
DEPTH = 3


def can_start() -> bool:
    """Whether this process is one of Python, whose command line is known."""
    return Path(sys.executable or "").name.startswith("python")


@dataclass(slots=True)
class AssemblerProcess:
    """The other process; `waiting` are the requests that it has not answered."""

    child: Child
    waiting: list[int] = field(default_factory=list)
    _count: int = 0
    _greeted: bool = False
    _gone: bool = False

    @staticmethod
    def start(target: Target, command: Sequence[str] = COMMAND) -> AssemblerProcess | None:
        """Start it; it becomes ready later, or never."""
        words = target.triple, target.arch, ",".join(target.features)
        child = Child.start([*command, *words])
        return None if child is None else AssemblerProcess(child)

    @property
    def is_free(self) -> bool:
        """Whether to give it more to do."""
        if not self._greeted and not self._gone and self.child.has_answered:
            self._greeted = self.child.receive() == greeting()
            self._gone = not self._greeted
        return self._greeted and not self._gone and len(self.waiting) < DEPTH

    def give(self, text: str, want_listing: bool) -> int:
        """Ask for the code of a module; the number of the request, which no other has."""
        self._count += 1
        request = {"id": self._count, "text": text, "listing": want_listing}
        self.waiting.append(self._count)
        self.child.send(json.dumps(request))
        return self._count

    def take(self, patience: float = 0.0) -> tuple[int, Artefact] | None:
        """An answer, with the number of its request, waited for as many seconds; ``None`` when
        there is none."""
        while self.waiting and not self._gone:
            line = self.child.receive(patience)
            if line is None:
                return None
            answer = _decoded(line)
            if answer is None:
                self._gone = True
            elif answer[0] in self.waiting:  # others were taken back
                self.waiting.remove(answer[0])
                return answer
        return None

    def take_back(self) -> int:
        """Do not wait for the last request any more: its number."""
        return self.waiting.pop()

    def close(self) -> None:
        """End the process."""
        self.child.close()


def _decoded(line: str) -> tuple[int, Artefact] | None:
    """The number and the code of a reply; ``None`` for one without code."""
    try:
        reply = json.loads(line)
        code = base64.b64decode(reply["object"], validate=True)
        return int(reply["id"]), Artefact(code, str(reply["listing"]))
    except (ValueError, KeyError, TypeError):
        return None
