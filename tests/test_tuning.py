"""The tuner: candidates replay, crashes cost one trial, the choice never loses to the default."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import aisc
from aisc.cli.main import main
from aisc.codegen.backend import backend_of
from aisc.codegen.backend import space as decisions
from aisc.codegen.cpu import schedule
from aisc.codegen.llvm.assembly import spills
from aisc.driver.api import build, lower, resolve_target
from aisc.driver.options import from_environment
from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.diagnostics import CompileError
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph, Value
from aisc.ir.tensor.func import Func, Program
from aisc.ir.types import TensorType
from aisc.passes.schedule.picks import Choices, stale
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.schedule import Schedule
from aisc.tuning.database import Database, Record
from aisc.tuning.measure import Worker
from aisc.tuning.search import grid_search
from aisc.tuning.space import Candidate, candidates

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits" / "digits.onnx"

# A worker that dies when a candidate carries the planted mark.
CRASHING = """
import os, sys
from aisc.tuning import worker
answer = worker.answer
def dying(request):
    if any("crash" in c for c in request["choices"]):
        os.abort()
    if any("hang" in c for c in request["choices"]):
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


def lowered(graph: Graph) -> tuple[Func, ...]:
    program = build(graph, "cpu", from_environment(stop_after="lower")).product
    assert isinstance(program, Program)
    return program.kernels


@pytest.fixture(scope="module")
def kernel() -> Func:
    return lowered(graph())[0]


@pytest.fixture(scope="module")
def space(kernel: Func) -> list[Candidate]:
    return candidates(decisions(backend_of(resolve_target("cpu")), kernel), limit=6)


def test_candidates_are_schedules_of_their_own(kernel: Func) -> None:
    """Each gives what was asked for and another trace than the default's."""
    backend = backend_of(resolve_target("cpu"))
    every = candidates(decisions(backend, kernel), limit=1000)
    assert every[0].label == "default"
    assert every[0].choices == {}
    assert len(every) > 20
    default = backend.rules(kernel, Chooser(backend.target)).trace
    for c in every[1:]:
        s = backend.rules(kernel, Chooser(backend.target, c.choices))
        assert not stale(c.choices, s.picks)
        assert s.trace != default, c.label
        assert Schedule.of(kernel).replay(s.trace) == s


def test_what_rounds_otherwise_is_tried_only_if_allowed() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType((64, 1024), dtypes.f32))
    (func,) = lowered(b.finish([b.add("softmax", (x,), {"axis": 1})]))
    picks = decisions(backend_of(resolve_target("cpu")), func)
    assert {p.name for p in picks if not p.exact} == {"max.partials", "sum.partials"}
    same, every = (candidates(picks, 1000, exact) for exact in (True, False))
    assert {n for c in every for n in c.choices} - {n for c in same for n in c.choices} == {
        "max.partials", "sum.partials",
    }  # fmt: skip


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
    planted = Candidate(mark, {mark: mark})
    command = (sys.executable, "-c", CRASHING)
    with Worker(command=command, timeout=8.0) as worker:
        outcome = grid_search(kernel, [space[0], planted, space[1]], worker)
    failed = [t.label for t in outcome.trials if t.seconds is None]
    assert failed == [mark]
    assert worker.restarts == 1


def test_a_refused_candidate_is_reported(kernel: Func, space: list[Candidate]) -> None:
    bad = Candidate("bad", {"matmul_1.tile": (31, 31)})
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
    database.add(kernel, target, Record("slow", space[2].choices, 2.0, 1.0))
    database.add(kernel, target, Record("fast", space[1].choices, 1.0, 2.0))
    database.close()
    database = Database(tmp_path / "tune.sqlite")
    assert database.count() == 2
    best = database.best(kernel, target)
    assert best is not None
    assert best.choices == space[1].choices

    def lookup(func: Func) -> Choices:
        record = database.best(func, target)
        return {} if record is None else record.choices

    options = from_environment(threads=1, use_cache=False)
    tuned = build(graph(), target, options, lookup=lookup).executable
    assert tuned is not None
    x = np.random.default_rng(1).standard_normal((64, 48)).astype(np.float32)
    plain = aisc.compile(graph(), threads=1, cache=False)
    np.testing.assert_allclose(tuned(x), plain(x), rtol=1e-5, atol=1e-5)
    stop = from_environment(stop_after="optimize")
    assert build(graph(), target, stop, lookup=lookup).product != lower(graph(), "tensor")


@pytest.mark.parametrize(
    "choices", [{"matmul_1.tile": (31, 31)}, {"nothing.known": 3}, {"matmul_1.packed": "maybe"}]
)
def test_a_record_that_does_not_replay_is_warned_of(choices: Choices) -> None:
    """The kernel gets its default schedule."""
    options = from_environment(threads=1, use_cache=False)
    with pytest.warns(aisc.AiscWarning, match="does not replay") as caught:
        tuned = build(graph(), "cpu", options, lookup=lambda func: choices).executable
    assert "tune it again" in str(caught[0].message)
    assert next(iter(choices)) in str(caught[0].message)
    assert tuned is not None
    x = np.random.default_rng(1).standard_normal((64, 48)).astype(np.float32)
    plain = aisc.compile(graph(), threads=1, cache=False)
    np.testing.assert_array_equal(tuned(x), plain(x))


def test_a_tuned_kernel_keeps_its_version_for_one_row() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType((symbol("n"), 48), dtypes.f32))
    w = np.random.default_rng(0).standard_normal((48, 64)).astype(np.float32)
    symbolic = b.finish([b.add("matmul", (x, b.constant(w)))])
    (func,) = lowered(symbolic)
    backend = backend_of(resolve_target("cpu"))
    (pick,) = [p for p in decisions(backend, func) if p.name.endswith(".tile")]
    for shape in pick.options[1:4]:
        kernel, code = backend.schedule(func, {pick.name: shape})
        assert not stale({pick.name: shape}, kernel.picks)
        assert code is not None, "the gate has looked at it"
        assert [(v.dim, v.value) for v in kernel.versions] == [("n", 1)]


@pytest.mark.parametrize("count", [1, 99])
def test_a_given_tile_that_spills_is_refused(
    kernel: Func, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate looks at given tiles, too: the kernel gets the first of its own that stays in
    registers, or its own first where none does."""
    seen: list[str] = []

    def spills(listing: str) -> int:
        seen.append(listing)
        return len(seen) <= count

    monkeypatch.setattr(schedule, "spills", spills)
    backend = backend_of(resolve_target("cpu"))
    (pick,) = [p for p in decisions(backend, kernel) if p.name.endswith(".tile")]
    given = {pick.name: pick.options[7]}
    made, _ = backend.schedule(kernel, given)
    assert stale(given, made.picks) == [pick.name]
    assert {p.name: p.choice for p in made.picks}[pick.name] == pick.options[0]


LOOP = """
f:
\tmovq\t%rsp, %rax
.LBB0_1:
\tvfmadd231ps\t(%rdi), %zmm0, %zmm1{spill}
\tvfmadd231ps\t64(%rdi), %zmm0, %zmm2
\tjne\t.LBB0_1
\tvmovups\t%zmm1, 64(%rsp)
\tretq
"""


def test_spills_are_seen_in_the_loop_and_only_there() -> None:
    """A loop is what jumps to its own label; what falls out of it is no part of it."""
    assert spills(LOOP.format(spill="")) == 0
    assert spills(LOOP.format(spill="\n\tvmovups\t%zmm1, 128(%rsp)")) == 1
    assert spills(LOOP.format(spill="\n\tmovq\t8(%rsp), %rdi")) == 0, "an address"


SPACES = {
    "matmul": lambda b: b.add("matmul", (input_of(b, 64, 48), weight(b, 48, 64))),
    "softmax": lambda b: b.add("softmax", (input_of(b, 64, 1000),), {"axis": 1}),
    "transpose": lambda b: b.add("transpose", (input_of(b, 300, 200),), {"perm": (1, 0)}),
    "depthwise": lambda b: b.add(
        "conv", (input_of(b, 1, 28, 28, 32), weight(b, 3, 3, 1, 32)),
        {"group": 32, "data_layout": "NHWC", "pads": (1, 1, 1, 1)},
    ),
    "attention": lambda b: b.add("matmul", (
        b.add("softmax", (b.add("matmul", (input_of(b, 64, 32), input_of(b, 32, 64))),),
              {"axis": 1}),
        input_of(b, 64, 32),
    )),
    "winograd": lambda b: b.add(
        "conv", (input_of(b, 1, 28, 28, 32), weight(b, 3, 3, 32, 32)),
        {"data_layout": "NHWC", "pads": (1, 1, 1, 1)},
    ),
}  # fmt: skip


def input_of(b: GraphBuilder, *shape: int) -> Value:
    return b.input(f"x{len(b.inputs)}", TensorType(shape, dtypes.f32))


def weight(b: GraphBuilder, *shape: int) -> Value:
    return b.constant(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("name", SPACES)
def test_every_option_of_a_kernel_computes_the_same(name: str) -> None:
    """Each option alone, compiled: to the bit where the decision is exact."""
    b = GraphBuilder()
    graph = b.finish([SPACES[name](b)])
    rng = np.random.default_rng(2)
    inputs = [rng.standard_normal(v.type.static_shape).astype(np.float32) for v in graph.inputs]
    options = from_environment(threads=2, use_cache=False)
    backend = backend_of(resolve_target("cpu"))
    spaces = {f.name: decisions(backend, f) for f in lowered(graph)}
    assert max(len(picks) for picks in spaces.values()) >= 3
    plain = build(graph, "cpu", options).executable
    assert plain is not None
    expected = plain(*inputs)
    for kernel, picks in spaces.items():
        for c in candidates(picks, limit=200, exact=False):
            made = build(graph, "cpu", options, lookup=lookup_of(kernel, c.choices)).executable
            assert made is not None
            got = made(*inputs)
            exact = all(p.exact for p in picks if p.name in c.choices)
            if exact:
                np.testing.assert_array_equal(got, expected, err_msg=c.label)
            else:
                np.testing.assert_allclose(got, expected, 1e-4, 1e-5, err_msg=c.label)


def lookup_of(name: str, choices: Choices) -> Callable[[Func], Choices]:
    """The choices for the kernel of a name."""
    return lambda func: choices if func.name == name else {}


def test_the_spaces_of_a_model_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["tune", str(DIGITS), "--list"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert re.search(r"on cpu: [\d,]{3,} schedules", text)
    assert ".tile" in text
    assert ".divided" in text


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    path.write_bytes(b"this is no database, but long enough to be read as a header" * 20)
    with pytest.raises(CompileError) as caught:
        Database(path)
    assert caught.value.codes == ("E503",)
