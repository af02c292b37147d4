"""A child process that is spoken to by lines of text, and may crash, hang or never read."""

from __future__ import annotations

import queue
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import field

from aisc.ir.dataclass import dataclass


@dataclass(slots=True)
class Child:
    """The process. Lines go through threads, so that neither side waits for the other's pipe."""

    process: subprocess.Popen[str]
    _requests: queue.Queue[str] = field(default_factory=queue.Queue)
    _replies: queue.Queue[str] = field(default_factory=queue.Queue)
    _threads: list[threading.Thread] = field(default_factory=list)

    @staticmethod
    def start(command: Sequence[str]) -> Child | None:
        """Start a command; ``None`` when that fails."""
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True,
                encoding="utf-8",
            )  # fmt: skip
        except OSError:
            return None
        made = Child(process)
        for work, lines in ((_read, made._replies), (_write, made._requests)):
            thread = threading.Thread(target=work, args=(process, lines), daemon=True)
            thread.start()
            made._threads.append(thread)
        return made

    def send(self, line: str) -> None:
        """Give it a line, whenever it reads."""
        self._requests.put(line + "\n")

    @property
    def has_answered(self) -> bool:
        """Whether there is a line to receive now."""
        return not self._replies.empty()

    def wait(self, patience: float) -> bool:
        """Wait for a line to receive, as many seconds; whether there is one."""
        limit = time.monotonic() + patience
        while self._replies.empty() and time.monotonic() < limit:
            time.sleep(0.001)
        return self.has_answered

    def receive(self, patience: float = 0.0) -> str | None:
        """Its next line, waited for as many seconds: ``None`` when there is none yet, an empty one
        when there will be no more."""
        try:
            return self._replies.get(patience > 0, patience or None)
        except queue.Empty:
            return None

    def close(self) -> None:
        """End the process, which may be in the middle of something that nobody waits for."""
        self.process.kill()
        self.process.wait()
        self._requests.put("")
        for thread in self._threads:
            thread.join()


def _read(process: subprocess.Popen[str], replies: queue.Queue[str]) -> None:
    """Pass lines on; an empty one says that there are no more."""
    assert process.stdout is not None, "the process has a pipe"
    with process.stdout:
        try:
            for line in process.stdout:
                replies.put(line.strip())
        except ValueError:  # no text
            pass
        replies.put("")


def _write(process: subprocess.Popen[str], requests: queue.Queue[str]) -> None:
    """Pass lines on until there is an empty one; a process that does not read stops only this."""
    assert process.stdin is not None, "the process has a pipe"
    try:
        with process.stdin:
            while line := requests.get():
                process.stdin.write(line)
                process.stdin.flush()
    except OSError:  # it is gone, and what was not written is for nobody
        pass
