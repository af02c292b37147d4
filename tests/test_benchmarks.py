"""Other runtimes, the harness that measures against them, and kernels by family."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cold
import formulas
import kernels
import numpy as np
import onnx
import pytest
import tail
import zoo
from large import models as large
from large.streamed import StreamedNet, WeightFile
from onnx_models import const, model, node, value
from rich.console import Console
from versus import report, statistics, subjects, worker
from versus.rounds import Measurement, measure
from versus.side import Side, SideFailed

import aisc
from aisc.ir.diagnostics import CompileError
from aisc.measure.peers import PEERS, peer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """``y = softmax(x @ w)`` with a symbolic number of rows."""
    w = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    nodes = [node("MatMul", "x w", "h"), node("Softmax", "h", "y")]
    onnx.save(
        model(nodes, [value("x", shape=["n", 5])], [value("y", shape=["n", 3])], const("w", w)),
        str(tmp_path / "small.onnx"),
    )
    return tmp_path / "small.onnx"


# -- peers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch"])
def test_a_peer_runs_a_model(name: str, path: Path) -> None:
    needed = {"torch": ("torch", "onnx2torch")}.get(name, (name,))
    if not all(map(find_spec, needed)):
        pytest.skip(f"{name} is not installed")
    x = np.random.default_rng(1).standard_normal((4, 5)).astype(np.float32)
    (got,) = peer(name).open(str(path), {"x": x}, 1)()
    w = onnx.numpy_helper.to_array(onnx.load(str(path)).graph.initializer[0])
    e = np.exp(x @ w)
    np.testing.assert_allclose(got, e / e.sum(1, keepdims=True), rtol=1e-4)
    assert peer(name).version


@pytest.mark.parametrize("name", sorted(PEERS))
def test_a_peer_that_is_not_there_is_reported(
    name: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, PEERS[name].package, None)
    with pytest.raises(CompileError) as caught:
        peer(name).open(str(path), {"x": np.zeros((1, 5), np.float32)}, 1)
    assert caught.value.codes == ("E402",)
    assert f"aisc[{PEERS[name].extra}]" in str(caught.value)


def test_a_peer_that_fails_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model")
    with pytest.raises(CompileError) as caught:
        peer("onnxruntime").open(str(bad), {}, 1)
    assert caught.value.codes == ("E402",)
    with pytest.raises(CompileError) as caught:
        peer("nothing")
    assert caught.value.codes == ("E401",)


# -- subjects ------------------------------------------------------------------------------------


def test_subjects_have_sizes(path: Path, tmp_path: Path) -> None:
    mlp = subjects.prepare("mlp:batch=3", tmp_path)
    assert [a.shape[0] for a in mlp.feeds.values()] == [3]
    assert all(np.array_equal(np.load(p), mlp.feeds[n]) for n, p in mlp.inputs.items())
    small = subjects.prepare(f"{path}:n=7", tmp_path)
    assert small.model == path and small.feeds["x"].shape == (7, 5)
    assert subjects.prepare(str(path), tmp_path).feeds["x"].shape == (1, 5)
    turns = subjects.prepare("greedy_decoding:steps=2,dim=8,vocabulary=9", tmp_path)
    assert turns.feeds["limit"] == 2


@pytest.mark.parametrize(
    "text", ["", "no_such_model", "mlp:rows=3", "mlp:batch=x", "greedy_decoding:speed=9"]
)
def test_bad_subjects_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(subjects.BadSubject):
        subjects.prepare(text, tmp_path)


# -- statistics ----------------------------------------------------------------------------------


def test_paired_ratios_do_not_see_a_common_factor() -> None:
    drift = [1.0, 5.0, 2.0, 9.0, 3.0]
    found = statistics.ratio([3 * d for d in drift], [2 * d for d in drift])
    assert (found.value, found.low, found.high) == (1.5, 1.5, 1.5)


def test_bounds_hold_the_median() -> None:
    rng = np.random.default_rng(3)
    found = statistics.ratio(rng.uniform(1, 2, 40), [1.0] * 40)
    assert 1 < found.low < found.value < found.high < 2
    few = statistics.ratio(rng.uniform(1, 2, 5), [1.0] * 5)
    assert few.high - few.low > found.high - found.low


def test_geometric_mean_is_of_medians() -> None:
    found = statistics.geometric_mean([[2.0, 2.0, 100.0], [8.0, 8.0, 8.0]])
    assert found.value == pytest.approx(4.0)
    assert found.low == pytest.approx(4.0)
    assert statistics.best_peer({"a": [2.0, 2.0], "b": [1.5, 1.6]}, [1.0, 1.0]) == "b"


# -- measuring -----------------------------------------------------------------------------------


@pytest.fixture
def measured(path: Path, tmp_path: Path) -> Measurement:
    pytest.importorskip("onnxruntime")
    subject = subjects.prepare(f"{path}:n=6", tmp_path)
    return measure(subject, 2, ["onnxruntime", "nothing"], 3, tmp_path, lambda text: None)


def test_sides_are_measured_in_turn(measured: Measurement) -> None:
    assert measured.flops >= 6 * 3 * 5 * 2
    assert len(measured.peaks) == 3
    mine, theirs, missing = measured.sides.values()
    assert len(mine.seconds) == len(theirs.seconds) == 3
    assert (mine.results, theirs.results) == ("agrees", "near")
    assert not missing.seconds and "nothing" in missing.reason
    assert list(measured.peers) == ["onnxruntime"]


def test_reports_say_the_same(measured: Measurement, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    about, rows, means = report.machine(), report.rows_of(measured), report.summary([measured])
    assert json.loads(json.dumps([rows, means])) == [rows, means]
    assert [r["side"] for r in rows] == ["aisc", "onnxruntime", "nothing"]
    assert rows[1]["ratio_low"] <= rows[1]["ratio"] <= rows[1]["ratio_high"]
    assert [m["peer"] for m in means] == ["onnxruntime"]
    assert means[0]["ratio"] == pytest.approx(rows[1]["ratio"])  # a mean of logarithms
    out = io.StringIO()
    for table in report.tables(rows, means, about):
        Console(file=out, width=200).print(table)
    page = report.markdown(rows, means, about, "command")
    for text in (out.getvalue(), page):
        assert f"{rows[1]['ratio']:.2f}" in text
    assert "nothing" in page and about["cpu"] in page
    report.plot(rows, about, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"


def test_a_side_that_ends_is_an_answer() -> None:
    with Side("aisc", 1) as side:
        with pytest.raises(SideFailed):
            side.ask("open", side="aisc", model="no such file", inputs={}, threads=1)
        assert side.ask("peak", rounds=10, threads=1)["gflops"] > 0
        side._process.kill()
        with pytest.raises(SideFailed) as caught:
            side.ask("peak", rounds=10, threads=1)
        assert "ended" in str(caught.value)


def test_requests_and_answers_are_lines() -> None:
    lines = io.StringIO('{"do": "peak", "rounds": 10, "threads": 1}\n{"do": "turn"}\n')
    out = io.StringIO()
    worker.serve(lines, out)
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first["gflops"] > 0
    assert "error" in second


# -- kernels -------------------------------------------------------------------------------------


def test_kernels_are_counted_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "GEMMS", ((3, 8, 16, True), (4, 8, 16, False)))
    monkeypatch.setattr(kernels, "ROWS", {"here": 2})
    options = argparse.Namespace(threads=1, runs=2)
    products, rows = list(kernels.gemm(options)), list(kernels.rows(options))
    assert [e["flops"] for e in products] == [2 * m * 8 * 16 for m in (3, 4)]
    moved = {e["name"].split(",")[0]: e["bytes"] for e in rows}
    assert moved["relu"] == moved["softmax"] == 2 * 4 * 2 * 1024
    assert moved["add"] == 3 * 4 * 2 * 1024
    assert all(e["peak_share"] > 0 and e["copy_share"] > 0 for e in (*products, *rows))
    out = io.StringIO()
    for family, entries in (("gemm", products), ("rows", rows)):
        Console(file=out, width=100).print(kernels.table(family, entries))
    assert all(e["name"] in out.getvalue() for e in (*products, *rows))


def test_convolutions_are_measured_in_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    full = zoo.ZOO["resnet50"]
    small = replace(full, build=lambda: full.build(**full.tiny))
    monkeypatch.setitem(zoo.ZOO, "resnet50", small)
    *layers, whole = kernels.conv(argparse.Namespace(threads=1, runs=2))
    convolutions = sum(n.op_type == "Conv" for n in small.build().graph.node)
    assert sum(int(e["name"].rpartition(", ")[2].split()[0]) for e in layers) == convolutions
    assert whole["flops"] >= sum(e["flops"] for e in layers) > 0
    out = io.StringIO()
    Console(file=out, width=100).print(kernels.table("conv", [*layers, whole]))
    assert f"of {len(layers)} distinct layers" in out.getvalue()


def test_formulas_are_timed_beside_operators_and_loops() -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(formulas.against_operators(["average pool"], 1))
    console.print(formulas.against_loops(["bilateral filter"], 1))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "average pool" in text
    assert "bilateral filter" in text


@pytest.mark.parametrize("name", formulas.UNFORESEEN)
def test_formulas_give_what_numpy_gives(name: str) -> None:
    head, body, _, plain = formulas.UNFORESEEN[name]
    exe, inputs = formulas.compiled(head, body)
    if plain is not None:
        np.testing.assert_allclose(exe(*inputs), plain(*inputs), rtol=1e-3, atol=1e-3)


def test_the_tail_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "REST", 0.0)
    calls = Counter[str]()
    sides: dict[str, Any] = {name: partial(calls.update, [name]) for name in ("aisc", "other")}
    with tail.busy(1):
        times = tail.measure(sides, tail.TURN + 1, "calls")
    assert calls == {"aisc": 2 * (tail.TURN + 1), "other": 2 * (tail.TURN + 1)}
    assert all(len(t) == 2 * tail.TURN and t == sorted(t) for t in times.values())
    ordered = [float(n) for n in range(1, 1001)]
    assert [tail.percentile(ordered, p) for p in (0, 50, 99.9, 100)] == [1, 501, 1000, 1000]
    out = io.StringIO()
    table = tail.table_of("calls", {"aisc": ordered, "other": [2.0] * 100})
    Console(file=out, width=100).print(table)
    assert "p99.9 ms" in out.getvalue()
    assert "1.98" in out.getvalue()


def test_a_decoder_whose_weights_stream_to_a_file(tmp_path: Path) -> None:
    """A prompt at once, or in parts and token by token; and other models with the same weights."""
    path = large.decoder(tmp_path, large.TINY)
    run = aisc.compile(path, threads=1)
    ids = np.arange(9, dtype=np.int64).reshape(1, 9) * 7
    sizes = (1, large.TINY.heads, 0, large.TINY.hidden // large.TINY.heads)
    at_once, *kept = run(ids, *[np.zeros(sizes, np.float32)] * 2 * large.TINY.layers)
    assert np.isfinite(at_once).all()
    results = [np.zeros(sizes, np.float32)] * (1 + 2 * large.TINY.layers)
    for part in (ids[:, :5], ids[:, 5:8], ids[:, 8:]):
        results = run(part, *results[1:])
    for got, expected in zip(results, (at_once, *kept), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    file = WeightFile(tmp_path / "shared.data")
    for _ in range(2):
        net = StreamedNet("net", 0, file)
        x = net.op("MatMul", net.input("x", ("n", 128)), net.normal((128, 256), 0.1))
        net.output(x, "y", ("n", 256))
        net.save(tmp_path / "net.onnx")
    assert file.size == file.path.stat().st_size == 4 * 128 * 256
    assert aisc.compile(tmp_path / "net.onnx", threads=1)(np.ones((2, 128), np.float32)).any()
    with pytest.raises(ValueError, match=r"w has shape \(128, 256\)"):
        StreamedNet("net", 0, file).normal((256, 128), 0.1)


def test_from_nothing_to_the_first_result(tmp_path: Path) -> None:
    model, feeds = cold.prepared("wide:4", tmp_path)
    assert len(onnx.load(str(model)).graph.node) == 4
    times = {f"here -O{k}": [cold.measured(model, feeds, 1, "", k)] for k in (2, 1)}
    assert all(0 < t["compile"] < t["all"] for found in times.values() for t in found)
    out = io.StringIO()
    Console(file=out, width=120).print(cold.table_of(cold.rows_of("wide:4", times)))
    assert "wide:4" in out.getvalue() and "here -O1" in out.getvalue()
    for kind, count in (("deep", 8), ("wide", 6)):
        onnx.checker.check_model(cold.GRAPHS[kind](count))
    with pytest.raises(SystemExit, match="E1"):
        cold.measured(feeds, feeds, 1, "", 2)


def test_quantized_models_are_measured(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    import quantized

    out = tmp_path / "rows.json"
    few = ["--tiny", "--rounds", "1", "--threads", "1", "--against", "onnxruntime"]
    assert quantized.main(["mobilenet_v2", "bert:dynamic", *few, "--json", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert [r["side"] for r in rows] == ["aisc fp32", "aisc", "onnxruntime"] * 2
    assert all(r["ms"] > 0 for r in rows)
    assert all("of the range" in r["apart"] for r in rows if r["side"] != "aisc")
    assert quantized.apart([0.0, 0.5, 2.0], [0.0, 1.0, 2.0]) == "25.00% of the range"
