"""The tuner: candidates replay, crashes cost one trial, the choice never loses to the default."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tuned import graph, lowered, other_tile, sketch_of

import aisc
from aisc.cli.main import main
from aisc.codegen.backend import backend_of
from aisc.codegen.backend import space as decisions
from aisc.codegen.cpu import schedule
from aisc.codegen.llvm.assembly import spills
from aisc.driver.api import build, resolve_target
from aisc.driver.options import from_environment
from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.diagnostics import CompileError
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.graph.core import Value
from aisc.ir.tensor.func import Func
from aisc.ir.text.printer import print_ir
from aisc.ir.types import TensorType
from aisc.passes.schedule.picks import Choices, Pick, choices_to_json, stale
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.schedule import Schedule
from aisc.records.database import Database, workload_key
from aisc.records.paths import default_path
from aisc.tuning import background
from aisc.tuning.bench import KernelBench, Workshop
from aisc.tuning.learned import Learned
from aisc.tuning.pairs import Ratio, rank, ratio_of
from aisc.tuning.report import as_html
from aisc.tuning.search import Search
from aisc.tuning.session import Budget, Progress, workshop
from aisc.tuning.space import Sketch, label_of, mutated, neighbours, share_changed
from aisc.tuning.tasks import Task, next_task
from aisc.tuning.trial import Trial
from aisc.tuning.tune import tune_kernels
from aisc.tuning.workers import Worker, ask_all

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits" / "digits.onnx"

# A process that misbehaves where a request carries a planted mark.
PLANTED = """
import os, sys, time
import aisc.tuning.{module} as served
from aisc.tuning.serving import serve
def planted(request):
    text = str(request.get("choices", "")) + str(request.get("exact", ""))
    if "crash" in text:
        os.abort()
    if "hang" in text:
        time.sleep(120)
    if "memory" in text:
        request = dict(request, choices="{{}}")
        hold = bytearray(1 << 33)
    return served.answer(request)
serve(planted)
"""


@pytest.fixture(scope="module")
def kernel() -> Func:
    return lowered(graph())[0]


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    made = workshop("cpu", 1, makers=1)
    yield made
    made.close()


def test_neighbours_are_schedules_of_their_own(kernel: Func) -> None:
    """Each gives what was asked for and another trace than the default's."""
    backend = backend_of(resolve_target("cpu"))
    every = neighbours(sketch_of(kernel), exact=True)
    assert len(every) > 20
    default = backend.rules(kernel, Chooser(backend.target)).trace
    for choices in every:
        s = backend.rules(kernel, Chooser(backend.target, choices))
        assert not stale(choices, s.picks)
        assert s.trace != default, label_of(choices)
        assert Schedule.of(kernel).replay(s.trace) == s


def test_what_rounds_otherwise_is_tried_only_if_allowed() -> None:
    b = GraphBuilder()
    x = b.input("x", TensorType((64, 1024), dtypes.f32))
    (func,) = lowered(b.finish([b.add("softmax", (x,), {"axis": 1})]))
    picks = decisions(backend_of(resolve_target("cpu")), func)
    assert {p.name for p in picks if not p.exact} == {"max.partials", "sum.partials"}
    sketch = sketch_of(func)
    same, every = ({n for c in neighbours(sketch, e) for n in c} for e in (True, False))
    assert every - same == {"max.partials", "sum.partials"}
    rng = random.Random(0)
    drawn = {n for _ in range(200) for n in mutated(sketch, rng, exact=True)}
    assert drawn <= same


def test_what_stands_is_replaced_only_by_what_is_faster_for_sure(
    kernel: Func, shop: Workshop
) -> None:
    search = Search(KernelBench(shop, kernel), Learned())
    trials = [*search.round(4), *search.round(4)]
    assert {t.fate for t in trials} <= {"ok", "same", "refused"}
    assert sum(t.ratio is not None for t in trials) >= 4
    assert len({t.sketch.key for t in trials}) == len(trials), "none twice"
    chosen = search.settle()
    if chosen is not None:
        assert chosen.ratio is not None
        assert chosen.ratio.high < 1
    assert all(w.restarts == 0 for w in (*shop.makers, *shop.runners))


@pytest.mark.parametrize(
    ("mark", "fate"), [("crash", "lost"), ("hang", "lost"), ("memory", "refused")]
)
@pytest.mark.parametrize("where", ["maker", "runner"])
def test_a_candidate_that_misbehaves_costs_one_trial(
    kernel: Func, mark: str, fate: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (sys.executable, "-c", PLANTED.format(module=where))
    bad = Worker(command, timeout=5.0, memory=4 << 30)
    made = workshop("cpu", 1, makers=1)
    both = replace(made, makers=[bad]) if where == "maker" else replace(made, runners=[bad])
    if where == "runner":
        monkeypatch.setattr(
            Worker, "begin", marking(Worker.begin, bad, mark, other_tile(kernel, 1))
        )
    bench = KernelBench(both, kernel)
    tile = other_tile(kernel)
    good, planted = sketch_of(kernel, tile), sketch_of(kernel)
    planted = replace(planted, choices={"planted": mark})
    try:
        first, second, third = (bench.trials([s], 3)[0] for s in (good, planted, good))
    finally:
        both.close()
    assert (first.fate, third.fate) == ("ok", "ok")
    assert second.fate == fate, second.detail
    assert bad.restarts == (fate == "lost")


def marking(begin: Any, bad: Worker, mark: str, choices: Choices) -> Any:
    """Requests of planted candidates carry the mark to the runner."""
    count = [0]

    def marked(self: Worker, request: Any) -> None:
        if self is bad:
            count[0] += 1
            request = {**request, "exact": mark} if count[0] == 2 else request
        elif "planted" in request["choices"]:
            request = {**request, "choices": choices_to_json(choices)}
        begin(self, request)

    return marked


def test_a_wrong_result_is_seen(kernel: Func, shop: Workshop) -> None:
    """The record of a kernel that computes something else."""
    bench = KernelBench(shop, kernel)
    (default,) = bench.trials([sketch_of(kernel)], 3)
    assert default.fate == "ok"
    b = GraphBuilder()
    x = b.input("x", TensorType((64, 48), dtypes.f32))
    w = np.random.default_rng(0).standard_normal((48, 64)).astype(np.float32)
    (other,) = lowered(b.finish([b.add("neg", (b.add("matmul", (x, b.constant(w))),))]))
    request = bench._request("make", {})
    renamed = replace(other, name=kernel.name)
    reply = shop.makers[0].ask({**request, "kernel": print_ir(renamed)})
    assert "record" in reply, reply
    other_sketch = replace(default.sketch, choices={"a": 1})
    run = bench._run(other_sketch, reply, 3)
    assert run is not None
    trial = bench._trial(other_sketch, reply, shop.runners[0].ask(run))
    assert trial.fate == "wrong"
    assert "other bits" in trial.detail


def test_a_refused_candidate_is_reported(kernel: Func, shop: Workshop) -> None:
    bench = KernelBench(shop, kernel)
    (found,) = bench.sketches([{"matmul_1.tile": (31, 31)}])
    assert isinstance(found, str)
    assert "E302" in found


@dataclass
class Recorded:
    """A bench whose measurements are known: times are a function of the choices."""

    space: Sequence[Pick]
    best: Choices
    asked: list[str] = field(default_factory=list)

    def sketches(self, several: Sequence[Choices]) -> list[Sketch | str]:
        picks = [
            tuple(replace(p, choice=c.get(p.name, p.default)) for p in self.space) for c in several
        ]
        return [Sketch(c, p, 100.0, "core", ()) for c, p in zip(several, picks, strict=True)]

    def trials(self, sketches: Sequence[Sketch], samples: int) -> list[Trial]:
        found = []
        for s in sketches:
            self.asked.append(s.key)
            wrong = sum(s.choices.get(n, None) != v for n, v in self.best.items())
            ratio = 0.5 + 0.1 * wrong + 0.01 * len(set(s.choices) - set(self.best))
            found.append(Trial(s, "ok", Ratio(ratio, ratio - 0.01, ratio + 0.01), 1e-3))
        return found


SPACE = [Pick(f"k.p{k}", 0, 0, tuple(range(5)), True) for k in range(6)]


def test_a_search_finds_what_is_best_and_can_be_repeated() -> None:
    best = {"k.p0": 3, "k.p2": 1, "k.p5": 4}
    runs = []
    for _ in range(2):
        bench = Recorded(SPACE, best)
        search = Search(bench, Learned(), seed=7)
        while not search.exhausted and search.rounds < 30:
            search.round()
        assert search.best is not None
        assert search.best.sketch.choices == best, "of 15,625 in some 200 trials"
        runs.append(bench.asked)
    assert runs[0] == runs[1]
    other = Recorded(SPACE, best)
    search = Search(other, Learned(), seed=8)
    for _ in range(10):
        search.round()
    assert other.asked != runs[0][: len(other.asked)]


def test_what_changes_little_of_the_time_waits() -> None:
    """Of two that the model takes for equal, the one that changes more is made first."""
    default = Sketch({}, (), 100.0, "core", (), (("border", 3.0), ("product", 97.0)))
    border = replace(default, parts=(("other border", 3.0), ("product", 97.0)))
    product = replace(default, parts=(("border", 3.0), ("other product", 97.0)))
    assert share_changed(default, default) == 0
    assert share_changed(border, default) == pytest.approx(0.03)
    assert share_changed(product, default) == pytest.approx(0.97)
    assert share_changed(border, replace(default, parts=())) == 1, "nothing is known"
    found = Search(Recorded(SPACE, {}), Learned(), default=default)
    found._waiting = [
        (replace(border, choices={"a": 1}), 0.0),
        (replace(product, choices={"b": 1}), 0.0),
    ]
    assert [s.choices for s in found._choose(random.Random(0), 1)] == [{"b": 1}]


def test_what_failed_is_not_tried_again() -> None:
    search = Search(Recorded(SPACE, {}), Learned(), dead={'{"k.p0": 1}'})
    search.round(100)
    tried = {t.sketch.key for t in search.trials}
    assert '{"k.p0": 1}' not in tried
    assert '{"k.p1": 1}' in tried


def test_time_goes_where_the_model_gains() -> None:
    heavy, light = (
        Task(n, Search(Recorded(SPACE, {}), Learned()), calls) for n, calls in (("a", 9), ("b", 1))
    )
    for t in (heavy, light):
        t.search.begin()
    assert next_task([light, heavy]) is heavy
    heavy.search.gains = [0.0] * 8
    assert next_task([light, heavy]) is light
    light.search.exhausted = heavy.search.exhausted = True
    assert next_task([light, heavy]) is None


def test_bounds_of_the_median() -> None:
    """They hold the true ratio as often as they say."""
    rng, held, runs = np.random.default_rng(0), 0, 400
    for _ in range(runs):
        noise = np.exp(0.1 * rng.standard_normal((2, 15)) + rng.exponential(0.3, 15))
        r = ratio_of(list(noise[0]), list(0.9 * noise[1]))
        held += r.low <= 0.9 <= r.high
    assert held / runs > 0.93
    assert rank(5) == 0, "few samples bound nothing but their extremes"


def test_the_learned_model_ranks() -> None:
    """What it learnt of some schedules orders others."""
    pytest.importorskip("sklearn")
    rng, learned = np.random.default_rng(1), Learned()
    base = rng.uniform(0, 4, 6)
    for _ in range(80):
        f = rng.uniform(0, 4, 6)
        learned.add(list(f), list(base), float(np.exp(f[2] - base[2])))
    fresh = rng.uniform(0, 4, (40, 6))
    expected = learned.predict([list(f) for f in fresh], list(base))
    assert expected is not None
    order = np.argsort(np.argsort(expected)), np.argsort(np.argsort(fresh[:, 2]))
    assert np.corrcoef(*order)[0, 1] > 0.9
    assert learned.predict([list(f) for f in fresh], list(base)) == expected
    assert Learned().predict([[1.0]], [1.0]) is None, "nothing is known"


def test_a_session_tunes_and_resumes(tmp_path: Path) -> None:
    path = tmp_path / "tuning.sqlite"
    seen: list[Progress] = []
    options, budget = from_environment(threads=1), Budget(60.0, trials=10)
    (first,) = tune_kernels(graph(), "cpu", options, budget, path, True, 0, seen.append)
    assert 0 < first.trials <= 10
    assert first.ratio <= 1
    assert seen[-1].trials == first.trials
    with Database(path) as database:
        assert database.count() == 1
        tried = database.count("trial")
        target = resolve_target("cpu")
        past = {choices_to_json(p.choices) for p in database.trials(target)}
    assert tried == first.trials
    tune_kernels(graph(), "cpu", options, budget, path, True)
    with Database(path) as database:
        again = [choices_to_json(p.choices) for p in database.trials(target)[tried:]]
    assert len(again) > 1
    assert len(set(again) - past) >= len(again) // 2, "it goes on where it was"
    page = as_html("m<odel", [first])
    assert "m&lt;odel" in page
    assert first.kernel in page


def test_kernels_of_any_size_are_tuned_for_some(tmp_path: Path) -> None:
    """One schedule for all of them; those whose sizes are not told are left alone."""
    b = GraphBuilder()
    x = b.input("x", TensorType((symbol("n"), 48), dtypes.f32))
    w = np.random.default_rng(0).standard_normal((48, 64)).astype(np.float32)
    model = b.finish([b.add("matmul", (x, b.constant(w)))])
    options, path = from_environment(threads=2), tmp_path / "tuning.sqlite"
    with pytest.raises(CompileError) as caught:
        tune_kernels(model, "cpu", options, Budget(), path, True, at={"m": 3})
    assert caught.value.codes == ("E402",)
    at = {"n": (1, 33)}
    (found,) = tune_kernels(model, "cpu", options, Budget(60, 4), path, True, at=at)
    assert 0 < found.trials <= 4
    assert found.seconds > 0
    with Database(path) as database:
        assert database.count() in (1, 2), "or taken back, where the whole became slower"


def test_what_is_slower_together_is_taken_back(
    kernel: Func, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, options = tmp_path / "tuning.sqlite", from_environment(threads=1)
    chosen = other_tile(kernel)
    sure = Trial(sketch_of(kernel, chosen), "ok", Ratio(0.8, 0.7, 0.9), 1e-3)
    monkeypatch.setattr(Search, "settle", lambda self: sure)
    budget = Budget(60, 1)
    found = tune_kernels(graph(), "cpu", options, budget, path, True)
    assert found.model is not None, "both ran"
    assert 0.2 < found.model.median < 5
    slower = Ratio(1.2, 1.1, 1.3)
    monkeypatch.setattr("aisc.tuning.tune.compare", lambda *given: slower)
    (back,) = tune_kernels(graph(), "cpu", options, budget, path, True)
    assert (back.choices, back.ratio) == ({}, 1.0)
    with Database(path) as database:
        record = database.best(workload_key(kernel), resolve_target("cpu"))
    assert record is not None
    assert record.choices == {}


def test_what_is_compiled_is_tuned_in_idle_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("AISC_TUNE", "background")
    started: list[Path] = []
    monkeypatch.setattr(background, "start", started.append)
    monkeypatch.setattr(background, "BUDGET", Budget(60, 2))
    monkeypatch.setattr(background, "PAUSE", 0.01)
    target, path = resolve_target("cpu"), default_path()
    aisc.compile(graph(), threads=1, cache=False)
    aisc.compile(graph(), threads=1, cache=False)
    assert started == [path], "once"
    load = [1.0, 1.0]
    monkeypatch.setattr(background, "busy", lambda: load.pop() if load else 0.0)
    assert background.tune_wanted(path, target, "cpu", patience=10) == 1
    assert not load, "it waited until the machine was idle"
    with Database(path) as database:
        assert database.count() == 1
        assert database.next_wanted(target) is None
    aisc.compile(graph(), threads=1, cache=False)
    assert started == [path], "what was tuned is not wanted again"
    with background._alone(path) as first, background._alone(path) as second:
        assert (first, second) == (True, False)


def test_how_busy_a_machine_is() -> None:
    assert 0 <= background.busy(0.05) <= 1


@dataclass
class Scripted:
    """A worker whose replies are known; it is gone after some."""

    name: str
    lasts: int
    restarts: int = 0
    asked: list[Any] = field(default_factory=list)

    def begin(self, request: Any) -> None:
        self.asked.append(request)

    def poll(self) -> dict[str, Any] | None:
        if len(self.asked) > self.lasts:
            return {"error": "gone", "gone": True}
        return {"by": self.name, "got": self.asked[-1]["n"]}

    def ask(self, request: Any) -> dict[str, Any]:
        raise NotImplementedError

    def close(self) -> None:
        pass


def test_what_a_worker_that_is_gone_had_begun_another_one_gets() -> None:
    requests = [{"n": k} for k in range(12)]
    a, b = Scripted("a", 3), Scripted("b", 100)
    replies = ask_all([a, b], requests)
    assert [r and r["got"] for r in replies] == list(range(12))
    assert sum(r is not None and r["by"] == "a" for r in replies) == 3
    assert ask_all([Scripted("a", 2)], requests)[2:] == [None] * 10, "nobody is left"


def test_a_cluster_loses_a_worker_on_the_way(tmp_path: Path) -> None:
    """Two nodes on this machine, one of which is killed while a session runs."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(True, connect=True, head_node_args={"num_cpus": 1})
    try:
        other = cluster.add_node(num_cpus=1)
        seen: list[Progress] = []

        def report(p: Progress) -> None:
            seen.append(p)
            if len(seen) == 2:
                cluster.remove_node(other, allow_graceful=False)

        options, path = from_environment(threads=1), tmp_path / "tuning.sqlite"
        (found,) = tune_kernels(
            graph(), "cpu", options, Budget(300, 20), path, True, 0, report, None,
            "ray://",
        )  # fmt: skip
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert found.trials == 20
    assert not found.failed


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
    seen.clear()
    made, code = backend.schedule(kernel, {}, quick=True)
    assert (seen, code) == ([], None), "a quick compilation does not look"
    assert {p.name: p.choice for p in made.picks}[pick.name] == pick.default


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
        sketch = Sketch({}, picks, 1.0, "core", ())
        for choices in neighbours(sketch, exact=False):
            made = build(graph, "cpu", options, lookup=lookup_of(kernel, choices)).executable
            assert made is not None
            got = made(*inputs)
            exact = all(p.exact for p in picks if p.name in choices)
            if exact:
                np.testing.assert_array_equal(got, expected, err_msg=label_of(choices))
            else:
                np.testing.assert_allclose(got, expected, 1e-4, 1e-5, err_msg=label_of(choices))


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
