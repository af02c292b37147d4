"""The process of one side: reads requests as JSON lines, answers each with one line.

``open``: make the model ready; ``turn``: run it for a while, the median of the calls;
``results``: write what it computes to files; ``flops``: count a run's operations (aisc only);
``peak``: the machine's multiply-adds per second. An answer has ``error`` when it did not work.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

import aisc
from aisc.driver.api import build
from aisc.driver.options import from_environment
from aisc.ir.diagnostics import AiscError
from aisc.measure.machine_limits import fma_gflops
from aisc.measure.peers import peer
from aisc.measure.profile import count_flops

Request = Mapping[str, Any]
Answer = dict[str, Any]
MAX_CALLS = 1000


class Worker:
    """What a side holds between requests; a method for each of them."""

    def __init__(self) -> None:
        self.run: Callable[[], Sequence[Any]] | None = None

    def open(self, request: Request) -> Answer:
        """``side, model, inputs, threads``: seconds it took, and the version."""
        feeds = _inputs(request)
        side, model, threads = request["side"], request["model"], request["threads"]
        start = time.perf_counter()
        if side == "aisc":
            exe, version = aisc.compile(model, threads=threads), aisc.__version__
            self.run = lambda: exe.run(None, feeds)
        else:
            self.run, version = peer(side).open(model, feeds, threads), peer(side).version
        return {"seconds": time.perf_counter() - start, "version": version}

    def turn(self, request: Request) -> Answer:
        """One call that is not counted, then calls for about ``seconds``."""
        assert self.run is not None, "open comes first"
        start = time.perf_counter()
        self.run()
        wanted = request["seconds"] / max(time.perf_counter() - start, 1e-9)
        times = []
        for _ in range(min(MAX_CALLS, max(1, round(wanted)))):
            start = time.perf_counter()
            self.run()
            times.append(time.perf_counter() - start)
        return {"seconds": statistics.median(times), "calls": len(times)}

    def results(self, request: Request) -> Answer:
        """``files``: the beginning of the names of files, which follow by number."""
        assert self.run is not None, "open comes first"
        paths = []
        for k, array in enumerate(self.run()):
            paths.append(f"{request['files']}-{k}.npy")
            np.save(paths[-1], np.asarray(array), allow_pickle=False)
        return {"files": paths}

    def flops(self, request: Request) -> Answer:
        """``model, inputs``: operations of a run."""
        options = from_environment(threads=1, profile=True)
        compiled = build(request["model"], "cpu", options)
        return {"flops": count_flops(compiled, _inputs(request))}

    def peak(self, request: Request) -> Answer:
        """``rounds, threads``: GFLOP/s, the most of three measurements: nothing makes it more than
        it is."""
        burns = (fma_gflops(request["rounds"], request["threads"]) for _ in range(3))
        return {"gflops": max(burns)}

    def answer(self, request: Request) -> Answer:
        """What a request asks for."""
        actions = {f.__name__: f for f in (self.open, self.turn, self.results, self.flops)}
        action = {**actions, "peak": self.peak}[request["do"]]
        try:
            return action(request)
        except AiscError as fault:
            notes = [n for d in fault.diagnostics for n in (d.message, *d.notes)]
            return {"error": "; ".join(notes[:2])}
        except Exception as fault:  # the other side of the pipe decides what to make of it
            return {"error": f"{type(fault).__name__}: {fault}"}


def _inputs(request: Request) -> dict[str, Any]:
    return {n: np.load(p, allow_pickle=False) for n, p in request["inputs"].items()}


def serve(lines: TextIO, out: TextIO) -> None:
    """Answer until the input ends."""
    worker = Worker()
    for line in lines:
        print(json.dumps(worker.answer(json.loads(line))), file=out, flush=True)


def main() -> None:
    # Runtimes print what they like: the pipe is for answers only.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.append(str(Path(__file__).parents[1]))
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
