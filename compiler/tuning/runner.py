"""The process that measures candidates: ``python -m aisc.tuning.runner``, one JSON line at a time.

A request holds a kernel and the records of two of its makes: the one that stands, and the
candidate. Both run on the same contents in turn, each time in the state that the whole model
leaves: what it moves between two calls of the kernel is moved here, too, and then inputs that are
small are touched, as the kernel before has just written them. The reply has the seconds of each
pair, and whether the results are the same: to the bit, or as nearly as sums in another order are.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import lru_cache, partial
from statistics import geometric_mean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aisc.codegen.backend import is_host
from aisc.codegen.run.bound import Bound
from aisc.codegen.run.executable import Executable
from aisc.driver.kernel import from_record
from aisc.ir.diagnostics import error
from aisc.tuning.alone import Alone, arrays_of, executable_of, program_of
from aisc.tuning.maker import backend_for, parsed
from aisc.tuning.pairs import calls_for, seconds_of, take
from aisc.tuning.serving import serve

# One sample repeats a kernel that finds all in caches at least so many seconds.
SAMPLE = 0.0005
# Inputs up to so many bytes are in the cache when the kernel before has written them.
TOUCHED = 1 << 19
# What another order of sums may change, of the largest result.
REASSOCIATED = 1e-4

Array = NDArray[Any]


class Prepared:
    """A kernel with its contents, ready to be called."""

    def __init__(self, alone: Alone, exe: Executable, sizes: Mapping[str, int]) -> None:
        self.inputs = arrays_of(alone.inputs, sizes, np.random.default_rng(1))
        self.bound: Bound = exe.bind(*self.inputs)
        self.small = [a.reshape(-1) for a in self.inputs if 0 < a.nbytes <= TOUCHED]

    def results(self) -> list[Array]:
        """The outputs of a call, on outputs that held something else."""
        for a in self.bound.outputs:
            a.view(np.uint8)[...] = 0xAB
        self.bound()
        return [a.copy() for a in self.bound.outputs]

    def touch(self) -> None:
        """Read the small inputs."""
        for a in self.small:
            a[:: max(1, 64 // a.itemsize)].copy()


@lru_cache(maxsize=2)
def _alone(text: str, target: str) -> Alone:
    return program_of(parsed(text, target), np.random.default_rng(0))


@lru_cache(maxsize=12)
def _prepared(text: str, record: str, target: str, threads: int, sizes: str) -> Prepared:
    parts = {n: base64.b64decode(v) for n, v in json.loads(record).items()}
    built, backend = from_record(parts), backend_for(target)
    alone = _alone(text, backend.target.name)
    if built is None or not is_host(backend):
        raise error("E402", "a kernel can only be measured on the machine that runs it")
    exe = executable_of(alone, built, backend, threads)
    made = Prepared(alone, exe, json.loads(sizes))
    made.bound()
    return made


@lru_cache(maxsize=1)
def _between(size: int) -> Array:
    """What is read between two calls."""
    return np.ones(max(1, size // 8), np.int64)


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """Times of the one that stands and of the candidate, in turn: for several sizes, the geometric
    mean of each turn."""
    several = [json.dumps(s, sort_keys=True) for s in request.get("sizes") or [{}]]
    seconds = []
    for sizes in several:
        both = [_of_record(request, r, sizes) for r in request["records"]]
        results = [p.results() for p in both]
        wrong = _difference(results[0], results[-1], bool(request["exact"]))
        if wrong:
            return {"wrong": wrong}
        seconds.append(_times(both, int(request["samples"]), int(request["moved"])))
    sides = zip(*seconds, strict=True)
    means = [[geometric_mean(turn) for turn in zip(*side, strict=True)] for side in sides]
    return {"seconds": means}


def _of_record(request: Mapping[str, Any], record: object, sizes: str) -> Prepared:
    text = json.dumps(record, sort_keys=True)
    target, threads = request["target"], int(request["threads"])
    return _prepared(request["kernel"], text, target, threads, sizes)


def _times(both: list[Prepared], samples: int, moved: int) -> list[list[float]]:
    """Seconds of each, one list per kernel."""
    return take([partial(_sample, p, _calls(p, moved), moved) for p in both], samples)


def _calls(p: Prepared, moved: int) -> int:
    return 1 if moved else calls_for(p.bound, SAMPLE)


def _sample(p: Prepared, calls: int, moved: int) -> float:
    """Seconds of a call, after what the model moves in between."""
    if moved:
        _between(moved).sum()
        p.touch()
    return seconds_of(p.bound, calls)


def _difference(wanted: list[Array], got: list[Array], exact: bool) -> str:
    """What is wrong with results; nothing if they are right."""
    for w, g in zip(wanted, got, strict=True):
        if w.tobytes() == g.tobytes():
            continue
        if exact:
            return "the results have other bits"
        if w.dtype.kind in "iub":
            return "the results are other numbers"
        scale = float(np.nanmax(np.abs(w), initial=0.0)) or 1.0
        if not np.allclose(g, w, 0.0, REASSOCIATED * scale, equal_nan=True):
            return "the results differ by more than sums in another order"
    return ""


if __name__ == "__main__":
    serve(answer)
