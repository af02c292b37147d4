"""A whole model by default and tuned, run in turn.

Kernels that are faster alone need not be so where they stand; what is slower together, for sure, is
taken back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from aisc.codegen.run.bound import Bound
from aisc.codegen.run.executable import Executable
from aisc.driver import api
from aisc.driver.options import Options
from aisc.ir.arith.poly import evaluate
from aisc.ir.dataclass import dataclass
from aisc.ir.diagnostics import AiscError
from aisc.records.paths import NONE
from aisc.tuning.pairs import Ratio, calls_for, ratio_of, seconds_of, take
from aisc.tuning.session import Tuned

# Pairs of runs, or as many as there is time for (seconds); fewer say nothing.
PAIRS, SECONDS, LEAST = 41, 20.0, 9
# A sample repeats a model for so many seconds: what disturbs a machine comes in slices of time.
SAMPLE = 0.01
# Weights are in memory twice while both run: models that have more bytes of them are not compared.
MOST_WEIGHTS = 2 << 30


@dataclass(frozen=True, slots=True)
class Report:
    """What came of tuning a model: its kernels, and the time of a whole run over that by default,
    where both could be run."""

    kernels: Sequence[Tuned]
    model: Ratio | None = None

    def __iter__(self) -> Iterator[Tuned]:
        return iter(self.kernels)

    def __len__(self) -> int:
        return len(self.kernels)

    def __getitem__(self, k: int) -> Tuned:
        return self.kernels[k]


def compare(
    model: Any, target: api.Targets, options: Options, database: Path, sizes: Mapping[str, int]
) -> Ratio | None:
    """Run a model by default and by the records of a database, in turn; ``None`` where that cannot
    be: on another machine, for inputs that it does not take, without memory for both."""
    made: list[Bound] = []
    try:
        for tuned in (NONE, str(database)):
            exe = api.build(model, target, replace(options, tuned=tuned)).executable
            if exe is None or sum(w.nbytes for w in exe.image.weights) > MOST_WEIGHTS:
                return None
            made.append(exe.bind(*_inputs(exe, sizes)))
        return _paired(made)
    except AiscError:
        return None


def _inputs(exe: Executable, sizes: Mapping[str, int]) -> list[Any]:
    """Inputs of a model: numbers between -1 and 1, indices 0."""
    rng = np.random.default_rng(0)
    found = []
    for port, dtype in zip(exe.inputs, exe.input_dtypes, strict=True):
        names = {s.name: 1 for s in port.type.symbols}
        shape = tuple(evaluate(d, {**names, **sizes}) for d in port.type.shape)
        found.append(rng.uniform(-1, 1, shape).astype(dtype))
    return found


def _paired(both: Sequence[Bound]) -> Ratio:
    for run in both:
        run()
    calls = [calls_for(run, SAMPLE) for run in both]
    end = time.monotonic() + SECONDS
    sides = [partial(seconds_of, run, n) for run, n in zip(both, calls, strict=True)]
    return ratio_of(*take(sides, PAIRS, lambda turn: turn < LEAST or time.monotonic() < end))
