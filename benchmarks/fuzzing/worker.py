"""Layers are measured in a process that may end: by a crash, or because its time is over.

The process makes the layer itself, from a function that is sent to it, and sends plain numbers
back. A process that did not answer is replaced by a fresh one.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from fuzzing.draft import Layer
from fuzzing.measuring import Plan, Row, measured

Maker = Callable[[], Layer]
PATIENCE = 60  # seconds for a process to start, beside a layer's own


class Worker:
    """A process that measures; a context manager that ends it. `limit`: seconds of a layer."""

    def __init__(self, plan: Plan, limit: float) -> None:
        self.plan, self.limit = plan, limit
        self._process: Any = None
        self._pipe: Connection

    def measure(self, make: Maker) -> Row:
        """What :func:`measuring.measured` says; a fault when there is no answer."""
        fresh = self._process is None
        if fresh:
            self._start()
        try:
            self._pipe.send(make)
            if not self._pipe.poll(self.limit + PATIENCE * fresh):
                return self._lost(make, f"no result within {self.limit:g} s")
            row: Row = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(1)
            return self._lost(make, f"its process ended with status {self._process.exitcode}")
        return row

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, self.plan), daemon=True)
        self._process.start()
        other.close()

    def _lost(self, make: Maker, why: str) -> Row:
        self._end()
        layer = make()
        return {"family": layer.family, "what": layer.about, "left_out": {}, "fault": why}

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
            self._process = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()


def _serve(pipe: Connection, plan: Plan) -> None:
    """Answer until the other end is gone."""
    while True:
        try:
            make = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(measured(make(), plan))
        except BrokenPipeError:
            return
