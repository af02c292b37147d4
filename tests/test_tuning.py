"""The tuner: candidates replay, crashes cost one trial, the choice never loses to the default."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import aisc
from aisc.api import build, lower, resolve_target
from aisc.ir import dtypes
from aisc.ir.diagnostics import CompileError
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.tensor.func import Func, Program
from aisc.ir.types import TensorType
from aisc.options import from_environment
from aisc.passes.schedule.schedule import Schedule, Step
from aisc.tuning.database import Database, Record
from aisc.tuning.measure import Worker
from aisc.tuning.search import grid_search
from aisc.tuning.space import Candidate, candidates

# A worker that dies when a candidate carries the planted mark.
CRASHING = """
import os, sys
from aisc.tuning import worker
answer = worker.answer
def dying(request):
    if any("crash" in t for t in request["traces"]):
        os.abort()
    if any("hang" in t for t in request["traces"]):
        import time; time.sleep(60)
    return answer(request)
worker.answer = dying
worker.main()
"""


def graph() -> Graph:
    b = GraphBuilder()
    x = b.input("x", TensorType((64, 48), dtypes.f32))
    w = np.random.default_rng(0).standard_normal((48, 64)).astype(np.float32)
    return b.finish([b.add("matmul", (x, b.constant(w)))])


@pytest.fixture(scope="module")
def kernel() -> Func:
    program = build(graph(), "cpu", from_environment(stop_after="lower")).product
    assert isinstance(program, Program)
    return program.kernels[0]


@pytest.fixture(scope="module")
def space(kernel: Func) -> list[Candidate]:
    return candidates(kernel, resolve_target("cpu"), limit=6)


def test_candidates_replay(kernel: Func, space: list[Candidate]) -> None:
    assert space[0].label == "default"
    assert len({c.trace for c in space}) == len(space) == 6
    for c in space:
        assert Schedule.of(kernel).replay(c.trace).trace == c.trace


def test_the_choice_is_never_slower(kernel: Func, space: list[Candidate]) -> None:
    with Worker() as worker:
        outcome = grid_search(kernel, space, worker)
    assert len(outcome.trials) == len(space)
    assert all(t.seconds is not None and t.seconds > 0 for t in outcome.trials)
    assert outcome.record.seconds <= outcome.record.default_seconds
    assert worker.restarts == 0


@pytest.mark.parametrize("mark", ["crash", "hang"])
def test_a_crashing_candidate_costs_one_trial(
    kernel: Func, space: list[Candidate], mark: str
) -> None:
    loop = "matmul_i0"
    planted = Candidate(mark, (Step("annotate", (loop, mark, 1)),))
    command = (sys.executable, "-c", CRASHING)
    with Worker(command=command, timeout=8.0) as worker:
        outcome = grid_search(kernel, [space[0], planted, space[1]], worker)
    failed = [t.label for t in outcome.trials if t.seconds is None]
    assert failed == [mark]
    assert worker.restarts == 1


def test_a_refused_candidate_is_reported(kernel: Func, space: list[Candidate]) -> None:
    bad = Candidate("bad", (Step("split", ("nix", 4)),))
    with Worker() as worker:
        outcome = grid_search(kernel, [space[0], bad], worker)
    assert "E302" in outcome.trials[1].failure
    assert worker.restarts == 0


def test_the_budget_is_kept(kernel: Func, space: list[Candidate]) -> None:
    with Worker() as worker:
        outcome = grid_search(kernel, space, worker, budget=0.0)
    assert len(outcome.trials) == 1
    assert outcome.record.label == "default"


def test_records_are_used_by_the_compiler(
    kernel: Func, space: list[Candidate], tmp_path: Path
) -> None:
    target = resolve_target("cpu")
    database = Database(tmp_path / "tune.sqlite")
    assert database.best(kernel, target) is None
    database.add(kernel, target, Record("slow", space[2].trace, 2.0, 1.0))
    database.add(kernel, target, Record("fast", space[1].trace, 1.0, 2.0))
    database.close()
    database = Database(tmp_path / "tune.sqlite")
    assert database.count() == 2
    best = database.best(kernel, target)
    assert best is not None
    assert best.trace == space[1].trace

    def lookup(func: Func) -> tuple[Step, ...] | None:
        record = database.best(func, target)
        return None if record is None else record.trace

    options = from_environment(threads=1, use_cache=False)
    tuned = build(graph(), target, options, lookup=lookup).executable
    assert tuned is not None
    x = np.random.default_rng(1).standard_normal((64, 48)).astype(np.float32)
    plain = aisc.compile(graph(), threads=1, cache=False)
    np.testing.assert_allclose(tuned(x), plain(x), rtol=1e-5, atol=1e-5)
    stop = from_environment(stop_after="optimize")
    assert build(graph(), target, stop, lookup=lookup).product != lower(graph(), "tensor")


@pytest.mark.parametrize("step", [Step("split", ("nowhere", 4)), Step("frobnicate", ("mm",))])
def test_a_record_that_does_not_replay_is_warned_of(step: Step) -> None:
    """The kernel gets its default schedule."""
    options = from_environment(threads=1, use_cache=False)
    with pytest.warns(aisc.AiscWarning, match="does not replay") as caught:
        tuned = build(graph(), "cpu", options, lookup=lambda func: (step,)).executable
    assert "tune it again" in str(caught[0].message)
    assert tuned is not None
    x = np.random.default_rng(1).standard_normal((64, 48)).astype(np.float32)
    plain = aisc.compile(graph(), threads=1, cache=False)
    np.testing.assert_array_equal(tuned(x), plain(x))


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    path.write_bytes(b"this is no database, but long enough to be read as a header" * 20)
    with pytest.raises(CompileError) as caught:
        Database(path)
    assert caught.value.codes == ("E503",)
