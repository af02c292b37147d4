"""A process that works on cases, within limits of time and memory.

What kills it is a finding. The parent asks through a pipe and starts another after each death.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from aisc.fuzz.case import Case
from aisc.fuzz.check import Finding, Kind, Outcome
from aisc.ir.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What one case may take. load: modules that a worker imports first: more operators or rules,
    or faults that are planted to see whether they are found."""

    seconds: float = 60.0
    memory: int = 8 << 30
    target: str = "cpu"
    oracles: tuple[str, ...] = ()
    nodes: int = 12
    load: tuple[str, ...] = ()


class Session:
    """What a worker keeps between cases; also used without a process of its own."""

    def __init__(self, limits: Limits) -> None:
        from aisc.driver.api import resolve_target
        from aisc.fuzz.oracles import oracles_named

        os.environ["AISC_STRICT"] = "1"  # a fault in an optional rule is a finding
        for module in limits.load:
            importlib.import_module(module)
        self.limits, self.target = limits, resolve_target(limits.target)
        self.oracles = oracles_named(limits.oracles)

    def case(self, seed: int) -> Case:
        """The case of a seed."""
        from aisc.fuzz.generate import Shape, make

        return make(seed, Shape(nodes=self.limits.nodes))

    def graph(self, seed: int) -> Outcome:
        """Check the graph of a seed."""
        return self.check(self.case(seed))

    def check(self, case: Case, only: str = "") -> Outcome:
        """Check a case, by one oracle or by all."""
        from aisc.fuzz.check import check

        asked = tuple(replace(o, every=1) for o in self.oracles if o.name == only)
        return check(case, self.target, asked or self.oracles)

    def schedule(self, seed: int) -> Outcome:
        """Check random schedules of the nest of a seed."""
        from aisc.fuzz.schedules import check_seed

        return check_seed(seed)

    def reduced(self, seed: int, finding: Finding, seconds: float) -> tuple[Case, Finding, str]:
        """A small case with a finding like the given one, and the step that is to blame."""
        from aisc.fuzz.check import blame
        from aisc.fuzz.reduce import Reducer

        def like(case: Case) -> list[Finding]:
            return [f for f in self.check(case, finding.oracle).findings if f.like(finding)]

        small = Reducer(lambda c: bool(like(c)), seconds).run(self.case(seed), finding.feed)
        again = like(small)
        found = again[0] if again else finding
        return small, found, blame(small, self.target, found) if again else ""


def _serve(pipe: Connection, limits: Limits) -> None:
    _limit_memory(limits.memory)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    session = Session(limits)
    pipe.send(None)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            name, args = pipe.recv()
            try:
                pipe.send(getattr(session, name)(*args))
            except MemoryError as fault:
                pipe.send(_alone("memory", str(fault)))
            except Exception as fault:  # of the fuzzer itself, or of what it uses of aisc
                pipe.send(_alone("internal", f"{type(fault).__name__}: {fault}"))


def _alone(kind: Kind, message: str) -> Outcome:
    return Outcome([Finding(kind, "worker", message)])


def _limit_memory(most: int) -> None:
    try:
        import resource
    except ImportError:  # a system that cannot bound a process
        return
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Worker:
    """The parent's side of one process."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._context = multiprocessing.get_context("spawn")
        self._process: Any = None
        self._pipe: Connection | None = None

    def ask(self, name: str, *args: object, seconds: float = 0.0) -> Any:
        """The answer of a method of :class:`Session`, or an :class:`Outcome` with the finding that
        the process died or took too long."""
        pipe = self._running()
        pipe.send((name, args))
        try:
            if pipe.poll(seconds or self.limits.seconds):
                return pipe.recv()
        except (EOFError, ConnectionResetError):
            return _alone(*self._death())
        self.close()
        return _alone("hang", f"no answer in {seconds or self.limits.seconds:g} seconds")

    def _running(self) -> Connection:
        if self._process is None or not self._process.is_alive() or self._pipe is None:
            self.close()
            self._pipe, other = self._context.Pipe()
            self._process = self._context.Process(
                target=_serve, args=(other, self.limits), daemon=True
            )
            self._process.start()
            other.close()
            if not self._pipe.poll(120):
                raise TimeoutError("a worker does not start")
            self._pipe.recv()
        return self._pipe

    def _death(self) -> tuple[Kind, str]:
        self._process.join(10)
        code = self._process.exitcode
        self.close()
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return ("memory" if name == "SIGKILL" else "crash"), name
        return "crash", f"exit code {code}"

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def crash_reducer(worker: Worker, finding: Finding) -> Callable[[Case], bool]:
    """Whether a case ends its process in the same way; each try may cost a new process."""

    def fails(case: Case) -> bool:
        outcome = worker.ask("check", case)
        return any(f.kind == finding.kind for f in outcome.findings)

    return fails
