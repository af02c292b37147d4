"""Random layers and small nets beside other runtimes: drawn, measured, shown, kept."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import layer_fuzz
import numpy as np
import onnx
import pytest
import small_nets
from fuzzing import command, measuring, nets, page, report, results
from fuzzing.draft import Layer
from fuzzing.families import FAMILIES, draw, family_of, numbers
from fuzzing.measuring import Plan
from fuzzing.worker import PATIENCE, Maker, Worker
from rich.console import Console

QUICK = Plan(("onnxruntime",), rounds=1, turn=0.0)
TINY = nets.Recurrent("GRU", 8, steps=2, batch=2, layers=2, lengths=True, before=1)
Row = dict[str, Any]


@pytest.fixture
def onnxruntime() -> None:
    pytest.importorskip("onnxruntime")


class Here:
    """In the place of a worker: this process, and the smallest layer whatever is wanted."""

    def __init__(self, plan: Plan, limit: float) -> None:
        self.plan = plan

    def measure(self, make: Maker) -> Row:
        return measuring.measured(nets.smallest(), self.plan)

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, onnxruntime: None) -> None:
    monkeypatch.setattr(command, "Worker", Here)


# -- drawing -------------------------------------------------------------------------------------


def test_a_layer_depends_on_seed_and_number_only() -> None:
    one, same, other = draw(3, 14), draw(3, 14), draw(4, 14)
    assert one.model.SerializeToString() == same.model.SerializeToString()
    assert one.about == same.about != other.about
    assert all(np.array_equal(a, same.feeds[n]) for n, a in one.feeds.items())


def test_layers_are_models_of_all_families() -> None:
    layers = [draw(0, k) for k in range(40)]
    assert {x.family for x in layers} == set(FAMILIES)
    for x in layers:
        onnx.shape_inference.infer_shapes(x.model, check_type=True, strict_mode=True)
        assert [i.name for i in x.model.graph.input] == list(x.feeds)


def test_families_are_chosen() -> None:
    found = numbers(5, 4, ["rows", "maps"])
    assert {family_of(5, k) for k in found} <= {"rows", "maps"}
    assert numbers(5, 4, []) == [0, 1, 2, 3]


def test_a_description_says_what_is_unusual() -> None:
    d = nets.Draft("conv", "")
    window = {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [0] * 4, "group": 1}
    y = d.op("Conv", d.array(1, 8, 9, 9), d.weight(4, 8, 3, 3), **window)
    text = d.layer([d.op("ReduceMax", y, d.ints(2), keepdims=0)]).about
    assert text == (
        "Conv(kernel 3x3, strides 2x1) ReduceMax(keepdims 0): 1x8x9x9; weights 4x8x3x3; "
        "constants [2]"
    )


def test_nets_have_names_of_their_own() -> None:
    names = [r.name for r in nets.RECURRENT]
    assert len(set(names)) == len(names) >= 10
    assert len(nets.makers("chains")) == 2 * len(nets.CHAIN_ROWS)


# -- measuring -----------------------------------------------------------------------------------


def test_small_nets_are_measured(onnxruntime: None, monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [TINY.layer(), nets.makers("chains", small=True)[2]()]
    for row in (measuring.measured(x, QUICK) for x in layers):
        assert row["best"] == "onnxruntime" and row["ratio"] > 0, row
        assert row["us"].keys() == {"aisc", "onnxruntime"}
    monkeypatch.setattr(measuring, "ceilings", lambda threads: {"gflops": 1e3, "gbytes": 1e2})
    chain = measuring.measured(layers[1], replace(QUICK, roofline=True))
    assert chain["peak"] > 0 and 0 < chain["allowed"] <= 1
    assert "allowed" in [c.header for c in report.row_table([chain], "").columns]
    calls = nets.calls(QUICK, 20)
    assert calls["us"]["aisc, called"] > 0 and calls["ratio"] > 0


def test_faults_and_absences_are_told(onnxruntime: None, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nets.smallest()
    skipped = measuring.measured(layer, Plan(("torch-compile",), turn=0.0))
    assert "skipped" in skipped or "ratio" in skipped  # where torch is installed
    monkeypatch.setattr(measuring, "agree", lambda got, want: False)
    assert measuring.measured(layer, QUICK)["fault"] == "results differ"
    broken = Layer("rows", "nothing", onnx.ModelProto(), {})
    assert "onnxruntime" in measuring.measured(broken, QUICK)["skipped"]


def test_results_agree_up_to_roundings() -> None:
    a = np.array([1.0, -2.0, np.inf, np.nan], np.float32)
    assert measuring.agree([a], [a * np.float32(1 + 1e-5)])
    assert not measuring.agree([a], [a * np.float32(1.01)])
    assert not measuring.agree([a], [a, a])
    whole = np.arange(3)
    assert measuring.agree([whole], [whole]) and not measuring.agree([whole + 1], [whole])
    assert not measuring.agree([whole], [whole[:, None]])


def test_a_worker_that_does_not_answer_is_a_fault() -> None:
    with Worker(QUICK, -PATIENCE) as hasty:
        assert "no result within" in hasty.measure(nets.smallest)["fault"]
    with Worker(QUICK, 1) as ended:
        ended._start()
        ended._process.kill()
        ended._process.join()
        assert "ended with status -9" in ended.measure(nets.smallest)["fault"]


# -- showing and keeping -------------------------------------------------------------------------


def measured_row(number: int, family: str, ours: float, theirs: float) -> Row:
    us = {"aisc": ours, "onnxruntime": theirs}
    return {"number": number, "family": family, "what": "Some(axis 1): " + "128x" * 40, "us": us,
            "left_out": {"openvino": "no"}, "best": "onnxruntime",
            "ratio": theirs / ours}  # fmt: skip


ROWS = [
    measured_row(0, "conv", 100, 200), measured_row(1, "conv", 100, 50),
    measured_row(2, "rows", 100, 80), measured_row(3, "maps", 2, 4),
    {"number": 4, "family": "maps", "what": "a map", "left_out": {}, "fault": "results differ"},
    {"number": 5, "family": "maps", "what": "a map", "left_out": {}, "skipped": "onnxruntime: no"},
]  # fmt: skip


def test_a_summary_counts_layers_calls_and_faults() -> None:
    found = report.summary(ROWS, worst=2)
    groups = {g["family"]: g for g in found["families"]}
    assert list(groups) == ["conv", "rows", "all"]
    assert groups["conv"]["mean"] == 1.0 and groups["conv"]["below_0.6"] == 1
    assert groups["all"]["layers"] == 3 and groups["all"]["below_0.9"] == 2
    assert found["calls"]["layers"] == 1 and found["calls"]["mean"] == 2.0
    assert [r["number"] for r in found["worst_calls"]] == [3]
    assert [r["number"] for r in found["worst"]] == [1, 2]
    assert [r["number"] for r in found["faults"]] == [4] and found["skipped"] == 1
    assert report.notes(found)[-1] == "openvino took no part in 4 layers"
    assert report.summary(ROWS[4:])["families"] == []


def test_tables_fit_80_columns() -> None:
    found, out = report.summary(ROWS), io.StringIO()
    console = Console(file=out, width=80)
    console.print(report.family_table(found, "best of onnxruntime, openvino / aisc"))
    console.print(report.row_table(found["worst"], "the worst layers"))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text and "#1 Some" in text and "33.3%" in text


def kept(kind: str, threads: int = 1, **values: object) -> Row:
    conditions = {
        "command": "python x", "threads": threads, "versions": {"aisc": "1"},
        "ceilings": {"gflops": 100.0, "gbytes": 10.0},
    }  # fmt: skip
    return {"kind": kind, "conditions": conditions, **values}


def test_entries_are_replaced_by_kind_and_threads(tmp_path: Path) -> None:
    for threads, value in ((1, 1), (2, 2), (1, 3)):
        path = results.save(kept("calls", threads, nets=[], value=value), "some-core", tmp_path)
    found = results.saved(tmp_path)
    assert [e["value"] for e in found["some-core"]] == [3, 2]
    assert json.loads(path.read_text())["processor"] == "some-core"
    assert [p.name for p in tmp_path.iterdir()] == ["some-core.json"]  # no temporary file is left


def test_the_page_is_renewed_between_its_marks() -> None:
    entries = {"some-core": [kept("layers", **report.summary(ROWS)),
                             kept("calls", nets=[report.brief(ROWS[0])])]}  # fmt: skip
    text = f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n"
    new = page.renewed(text, entries)
    assert new.startswith("before\n") and new.endswith("\nafter\n") and "old" not in new
    assert "| conv | 2 | 1.00 | 50.0% | 50.0% | 0.50 |" in new
    assert "peak 100 GFLOP/s" in new and "| 2.00 |" in new
    assert page.renewed(new, entries) == new
    with pytest.raises(AssertionError):
        page.renewed("no marks", entries)


def test_commands_are_kept_without_files_of_a_machine() -> None:
    argv = ["/a/b/layer_fuzz.py", "--json", "/a/x.json", "--seed", "7", "--json=/a/y.json"]
    assert results.command_line(argv) == "python benchmarks/layer_fuzz.py --seed 7"


# -- the commands --------------------------------------------------------------------------------

USUAL = ["--against", "onnxruntime", "--rounds", "1", "--turn", "0"]


def test_layers_are_measured_shown_and_kept(
    here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(results, "PEAK_TRIES", 1)
    file = tmp_path / "all.txt"
    assert layer_fuzz.main([*USUAL, "--count", "2", "--json", str(file), "--save"]) == 0
    assert "#1 relu of one number" in capsys.readouterr().out
    assert [r["number"] for r in json.loads(file.read_text())["rows"]] == [0, 1]
    (entry,) = results.saved(tmp_path)[results.processor()]
    assert entry["kind"] == "layers" and entry["conditions"]["ceilings"]["gflops"] > 0


def test_a_mismatch_is_exit_code_1(
    here: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measuring, "agree", lambda got, want: False)
    assert layer_fuzz.main([*USUAL, "--only", "5"]) == 1
    assert "#5 results differ" in capsys.readouterr().out
    assert small_nets.main([*USUAL, "chains", "--small"]) == 1


def test_wrong_options_and_absent_peers(
    here: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for bad in (["--family", "no"], ["--against", "no"], ["--rounds", "0"]):
        with pytest.raises(SystemExit) as caught:
            layer_fuzz.main(bad)
        assert caught.value.code == 2
    there = command.find_spec
    monkeypatch.setattr(command, "find_spec", lambda n: None if n == "openvino" else there(n))
    assert small_nets.main([*USUAL[2:], "calls", "--small"]) == 0
    assert "openvino is not installed: left out" in capsys.readouterr().err
