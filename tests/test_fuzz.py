"""The fuzzer: its cases are well formed, its screen tells rounding from faults, and it finds
planted faults and makes them small."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted import FAULTS, planted

from aisc.cli.main import main
from aisc.fuzz import driver
from aisc.fuzz.case import Case, nodes_of, size_of
from aisc.fuzz.check import Finding, check
from aisc.fuzz.generate import make
from aisc.fuzz.onnx_export import exported
from aisc.fuzz.oracles import oracles_named
from aisc.fuzz.proposals import EXCLUDED
from aisc.fuzz.screen import Screen, close
from aisc.fuzz.worker import Limits, Session
from aisc.fuzz.write import as_test, write_finding
from aisc.ir import dtypes
from aisc.ir.graph import opdef
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.same import same
from aisc.ir.graph.verify import verify
from aisc.ir.text.parser import blobs_of, parse_graph
from aisc.ir.text.printer import print_ir
from aisc.ir.types import TensorType

MOST_GRAPHS, MOST_NODES, START = 2000, 10, 3000
SEEDS = range(START, START + 100)
# Found within a few graphs, so that a save is not delayed.
QUICK = (
    "fusion_swaps_operands", "a_triangle_off_by_one", "negative_indices_not_wrapped",
    "constants_lose_their_fractions", "arms_swapped", "the_last_turns_forgotten",
    "all_buffers_at_one_place", "signed_numbers_become_unsigned_floats",
)  # fmt: skip
COMPILED = Limits(oracles=("compiled",))


# --- cases ------------------------------------------------------------------------------------
def test_cases_are_well_formed_and_hold_every_operator() -> None:
    met: set[str] = set()
    for seed in range(500):
        graph = make(seed).graph
        met |= {n.op for n in nodes_of(graph)}
        if seed < 100:
            verify(graph)
            assert same(parse_graph(print_ir(graph), blobs_of(graph)), graph)
    assert {o.name for o in opdef.all_ops()} - met <= set(EXCLUDED)


def test_a_seed_gives_one_case() -> None:
    for seed in range(40):
        a, b = make(seed), make(seed)
        assert print_ir(a.graph) == print_ir(b.graph)
        for x, y in zip(a.feeds, b.feeds, strict=True):
            assert x.keys() == y.keys()
            assert all(x[k].tobytes() == y[k].tobytes() for k in x)


def test_exported_models_give_what_the_interpreter_gives() -> None:
    pytest.importorskip("onnxruntime")
    target, known = Session(COMPILED).target, 0
    asked = tuple(replace(o, every=1) for o in oracles_named(("onnxruntime",)))
    for seed in range(40):
        case = make(seed)
        found = exported(case.graph)
        known += 0 if found is None else len(found[1])
        outcome = check(case, target, asked)
        assert not outcome.findings, seed
    assert known > 20


# --- the screen -------------------------------------------------------------------------------
def graph_of(op: str, *shapes: tuple[int, ...], then: str = "") -> Graph:
    b = GraphBuilder()
    y = b.add(op, [b.input(f"x{k}", TensorType(s, dtypes.f32)) for k, s in enumerate(shapes)])
    return b.finish([b.add(then, (y,)) if then else y])


def test_cancellation_is_no_fault_and_a_wrong_digit_is_one() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 8)), rng.standard_normal((8, 3))
    a[:, 4:], b[4:] = -a[:, :4] * (1 + 1e-6), b[:4]  # nearly nothing is left of the sums
    graph = graph_of("matmul", (2, 8), (8, 3))
    feed = {"x0": a.astype(np.float32), "x1": b.astype(np.float32)}
    (want,) = interpret(graph, feed)
    reordered = sum(np.outer(a.astype(np.float32)[0, k], feed["x1"][k]) for k in (3, 7, 0, 4))
    assert reordered is not None
    screen = Screen(graph, feed)
    near = want + np.float32(1e-7)
    assert not close(near, want)
    assert not screen.judge(0, near).faults.any()
    assert screen.judge(0, want + np.float32(1e-4)).faults.all()


def test_whole_numbers_must_be_right_to_the_bit() -> None:
    graph = graph_of("matmul", (2, 8), (8, 3))
    feed = {"x0": np.full((2, 8), 3, np.float32), "x1": np.full((8, 3), 5, np.float32)}
    (want,) = interpret(graph, feed)
    wrong = np.nextafter(want, np.float32(1e9)) + np.float32(2e-3)
    assert Screen(graph, feed).judge(0, wrong).faults.all()


def test_what_a_rounding_decides_is_no_fault() -> None:
    graph = graph_of("exp", (2,), then="floor")
    feed = {"x0": np.array([np.log(7.0), 1.5], np.float32)}
    (want,) = interpret(graph, feed)
    verdict = Screen(graph, feed).judge(0, want + np.float32(1))
    assert verdict.faults.tolist() == [False, True]


def test_what_the_order_of_factors_decides_is_no_fault() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType((2, 4), dtypes.f32))
    graph = b.finish([b.add("reduce_prod", (x,), {"axes": (1,), "keepdims": False})])
    feed = {"x": np.array([[1e30, 1e30, 1e-30, 0], [2, 3, 4, 0]], np.float32)}
    screen = Screen(graph, feed)
    assert screen.judge(0, np.array([np.nan, np.nan], np.float32)).faults.tolist() == [False, True]
    feed = {"x": np.array([[1e30, 1e30, 1e-30, 1e-30], [2, 3, 4, 5]], np.float32)}
    screen = Screen(graph, feed)
    assert screen.judge(0, np.array([np.inf, 121], np.float32)).faults.tolist() == [False, True]


def test_what_the_order_of_terms_decides_is_no_fault() -> None:
    graph = graph_of("matmul", (2, 3), (3, 1))
    feed = {
        "x0": np.array([[np.inf, -3e38, -3e38], [np.inf, -3, -3]], np.float32),
        "x1": np.ones((3, 1), np.float32),
    }
    verdict = Screen(graph, feed).judge(0, np.full((2, 1), np.nan, np.float32))
    assert verdict.faults.tolist() == [[False], [True]]


def test_numbers_that_meet_when_they_are_rounded_are_no_fault() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType((2,), dtypes.f16))
    one = b.constant(np.float16(1))
    sign = b.add("sign", (b.add("sub", (b.add("erf", (x,)), one)),))
    feed = {"x": np.array([3.5, 1.0], np.float16)}
    verdict = Screen(b.finish([sign]), feed).judge(0, np.zeros(2, np.float16))
    assert verdict.faults.tolist() == [False, True]


# --- planted faults -----------------------------------------------------------------------------
def found_and_reduced(name: str, session: Session, seeds: range) -> Case:
    """The small case of the first seed that shows a fault which is not there without it."""
    for seed in seeds:
        with planted(name):
            findings = session.graph(seed).findings
        if not findings or any(f.like(findings[0]) for f in session.graph(seed).findings):
            continue
        with planted(name):
            small, _, _ = session.reduced(seed, findings[0], 30)
            assert session.check(small).findings
        assert not session.check(small).findings
        return small
    raise AssertionError(f"{name} is not found in {len(seeds)} graphs")


@pytest.mark.parametrize("name", QUICK)
def test_planted_faults_are_found(name: str) -> None:
    small = found_and_reduced(name, Session(COMPILED), SEEDS)
    assert size_of(small.graph) <= MOST_NODES


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_can_be_planted(name: str) -> None:
    with planted(name):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_all_planted_faults_are_found(name: str) -> None:
    small = found_and_reduced(name, Session(COMPILED), range(START, START + MOST_GRAPHS))
    assert size_of(small.graph) <= MOST_NODES


@pytest.mark.slow
@pytest.mark.parametrize("start", range(100_000, 102_000, 100))
def test_nothing_is_found(start: int) -> None:
    session = Session(Limits())
    for seed in range(start, start + 100):
        assert not session.graph(seed).findings, seed


# --- files, processes, the command ----------------------------------------------------------------
def test_a_finding_becomes_a_test(tmp_path: Path) -> None:
    session = Session(COMPILED)
    small = found_and_reduced("a_triangle_off_by_one", session, SEEDS)
    with planted("a_triangle_off_by_one"):
        finding = session.check(small).findings[0]
        text = as_test(small, finding, "cpu", "lower")
        path = write_finding(tmp_path, "test_finding", text)
        with pytest.raises(AssertionError):
            runpy.run_path(str(path), run_name="__main__")
    runpy.run_path(str(path), run_name="__main__")


def test_the_end_of_a_process_is_a_finding() -> None:
    limits = Limits(seconds=3, load=("deadly",))
    plan = driver.Plan(count=4, jobs=1, reduce_seconds=0, limits=limits)
    summary = driver.run(plan)
    kinds = {f.seed: f.finding.kind for f in summary.failures}
    assert kinds == {0: "crash", 1: "hang", 2: "memory"}
    assert summary.exit_code == driver.INTERNAL


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stopped:
        main(["fuzz", "--jobs", "1", "--reduce", "5s", "--oracle", "compiled", *arguments])
    code = stopped.value.code
    assert isinstance(code, int)
    return code, capsys.readouterr().out


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = command(capsys, "--count", "5", "--seed", "40")
    assert code == 0, out
    assert "5 cases" in out
    place = ["--out", str(tmp_path), "--load", "planted_triangle"]
    code, out = command(capsys, "--count", "12", "--seed", "3000", *place)
    assert code == driver.MISMATCH, out
    assert "lower" in out
    assert "trilu" in next(iter(tmp_path.glob("test_mismatch_*.py"))).read_text()


def test_findings_are_told_apart() -> None:
    a = Finding("mismatch", "compiled", "value: 1 of 2 elements")
    assert a.like(replace(a, message="value: 3 of 4 elements", feed=2))
    assert not a.like(replace(a, message="type: f32[1]"))
