"""Processes that make and measure candidates, and may crash, hang or run out of memory.

A worker gets one JSON request per line on its standard input and gives one reply per line. One
that dies or exceeds its time is replaced; that costs the one request. Nothing but text crosses the
border: code goes as base64.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from aisc.codegen.child import Child
from aisc.ir.dataclass import dataclass

MAKER = (sys.executable, "-P", "-m", "aisc.tuning.maker")
RUNNER = (sys.executable, "-P", "-m", "aisc.tuning.runner")
# Seconds that a process may take to begin, beside what a request may.
BEGINNING = 30.0
_POLL = 0.0005

Request = Mapping[str, Any]
Reply = dict[str, Any]


@dataclass(slots=True)
class Worker:
    """A process, started when it is needed. `timeout`: seconds for one request; `memory` bounds its
    address space in bytes."""

    command: Sequence[str]
    timeout: float = 20.0
    memory: int = 8 << 30
    restarts: int = 0
    _child: Child | None = None
    _deadline: float = 0.0

    def ask(self, request: Request) -> Reply:
        """The reply to a request; one with only an ``error`` where there is none."""
        self.begin(request)
        while (reply := self.poll()) is None:
            time.sleep(_POLL)
        return reply

    def begin(self, request: Request) -> None:
        """Give it a request, whose reply :meth:`poll` gives later."""
        self._deadline = time.monotonic() + self.timeout
        if self._child is None:
            self._child = Child.start([*self.command, str(self.memory)])
            self._deadline += BEGINNING
        if self._child is not None:
            self._child.send(json.dumps(request))

    def poll(self) -> Reply | None:
        """The reply, if there is one by now, or if there will be none."""
        child = self._child
        if child is None:
            return {"error": "the process could not be started"}
        if child.has_answered:
            line = child.receive()
            if line:
                reply = _object(line)
                return reply
            return self._lost("the process died")
        if time.monotonic() > self._deadline:
            return self._lost(f"it took more than {self.timeout:g} s")
        return None

    def _lost(self, why: str) -> Reply:
        self.close()
        self.restarts += 1
        return {"error": why, "lost": True}

    def close(self) -> None:
        """Kill the process, if it runs."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _object(line: str) -> Reply:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"error": "the process gave no reply"}


class Asked(Protocol):
    """Who is asked: a process here, or one elsewhere."""

    restarts: int

    def ask(self, request: Request) -> Reply:
        """The reply to a request."""

    def begin(self, request: Request) -> None:
        """Give it a request, whose reply :meth:`poll` gives later."""

    def poll(self) -> Reply | None:
        """The reply, if there is one by now. One with ``gone`` says that it will never give any."""

    def close(self) -> None:
        """End it."""


def ask_all(
    workers: Sequence[Asked],
    requests: Sequence[Request],
    until: Callable[[], bool] = lambda: False,
) -> list[Reply | None]:
    """Replies to requests in their order, from several workers at once. What one that is gone had
    begun another one gets. Once `until` holds, or none is left, no more requests begin: those are
    ``None``."""
    replies: list[Reply | None] = [None] * len(requests)
    waiting = deque(enumerate(requests))
    busy: dict[int, int] = {}
    gone: set[int] = set()
    while busy or (waiting and len(gone) < len(workers) and not until()):
        for k, worker in enumerate(workers):
            if k in busy:
                reply = worker.poll()
                if reply is None:
                    continue
                number = busy.pop(k)
                if reply.get("gone"):
                    gone.add(k)
                    waiting.appendleft((number, requests[number]))
                else:
                    replies[number] = reply
            if waiting and k not in gone and not until():
                number, request = waiting.popleft()
                worker.begin(request)
                busy[k] = number
        if busy:
            time.sleep(_POLL)
    return replies
