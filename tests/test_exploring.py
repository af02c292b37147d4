"""``aisc dse``: sweeps over a description, and what a model takes on each design."""

from __future__ import annotations

import itertools
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from aisc.cli.main import app
from aisc.exploring.outcomes import explore
from aisc.exploring.sweeps import designs
from aisc.ir.diagnostics import CompileError
from aisc.measure import timeline

CHIP = Path(__file__).parent.parent / "ir/targets/gemmini16.toml"


def product(m: int, k: int, n: int) -> onnx.ModelProto:
    """A quantized matrix product."""
    rng = np.random.default_rng(0)
    w = numpy_helper.from_array(rng.integers(-9, 9, (k, n)).astype(np.int8), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [m, k])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [m, n])], [w],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def test_combinations_of_numbers() -> None:
    found = designs(CHIP, ["rows=8,16", "scratchpad=64K..256K", "load.width=8"])
    assert [tuple(d.values.values()) for d in found] == [
        (r, s << 10, 8) for r in (8, 16) for s in (64, 128, 256)
    ]
    last = tomllib.loads(found[-1].text)
    assert last["array"]["rows"] == 16 and last["memory"]["scratchpad"]["bytes"] == 256 << 10
    assert last["dma"]["load"]["width"] == 8 and last["dma"]["store"]["width"] == 16
    chip = found[0].target().chip
    assert chip is not None and chip.array.rows == 8
    assert len({d.target().key for d in found}) == len(found)


@pytest.mark.parametrize(
    ("sweep", "text"),
    [
        ("rows", "no sweep"), ("rows=", "no sweep"), ("rows=a", "no value"),
        ("rows=8,,16", "no value"),
        ("lines=8", "is no number"), ("width=8", "not the only one"), ("rows=16..8", "no range"),
        ("rows=0..8", "no range"), ("rows=1..1G,2", "no value"), ("dataflow=WS", "is no number"),
    ],
)  # fmt: skip
def test_wrong_sweeps(sweep: str, text: str) -> None:
    with pytest.raises(CompileError, match=text) as caught:
        designs(CHIP, [sweep])
    assert caught.value.codes == ("E401",)


def test_too_many_designs_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="too many"):
        designs(CHIP, [f"{n}=1..1G" for n in ("rows", "columns", "scratchpad")])
    with pytest.raises(CompileError, match="cannot be read"):
        designs(tmp_path / "none.toml", [])
    (tmp_path / "bad.toml").write_text("rows = ")
    with pytest.raises(CompileError, match="not valid TOML"):
        designs(tmp_path / "bad.toml", [])


def test_what_a_model_takes() -> None:
    """A larger array takes fewer cycles and more area; what does not fit is told."""
    seen: list[int] = []
    found = explore(
        product(64, 64, 64), designs(CHIP, ["rows=4,8,16,64"]), {},
        lambda number, outcome: seen.append(number),
    )  # fmt: skip
    assert seen == [0, 1, 2, 3]
    small, middle, large, none = found
    assert small.cycles > middle.cycles > large.cycles > 64**3 // 256
    assert small.area < middle.area < large.area
    assert 0 < large.used <= 1 and large.energy > 0 and large.moved >= 3 * 64 * 64
    assert small.best and large.best and not none.best
    assert "memory.array.bytes" in none.refused
    host = explore(product(64, 64, 64), designs(CHIP, ["accumulator=2"]), {})
    assert host[0].refused


def test_proxies_of_the_description(tmp_path: Path) -> None:
    changed = tmp_path / "chip.toml"
    changed.write_text(CHIP.read_text() + "\n[proxies]\narea_cell = 0\narea_byte = 1\n")
    (found,) = explore(product(32, 32, 32), designs(changed, []), {})
    assert found.area == (256 + 64 + 0.5) * 1024


def test_the_command(tmp_path: Path) -> None:
    onnx.save(product(32, 32, 32), tmp_path / "m.onnx")
    given: list[Any] = ["dse", CHIP, tmp_path / "m.onnx", "--sweep", "rows=8,16,64"]
    files = ["-o", tmp_path / "d.json", "--page", tmp_path / "d.html"]
    done = CliRunner().invoke(app, list(map(str, [*given, *files])))
    assert done.exit_code == 0, done.output
    assert "refused: " in done.output and "cycles" in done.output
    rows = json.loads((tmp_path / "d.json").read_text())["designs"]
    assert [r["values"]["rows"] for r in rows] == [8, 16, 64]
    page = (tmp_path / "d.html").read_text()
    assert page.count("<circle") == 4 and "[proxies]" in page


def test_a_trace_of_the_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Units do one thing at a time, layers follow each other, and long traces are made shorter."""
    onnx.save(product(64, 48, 40), tmp_path / "m.onnx")
    given = ["check", tmp_path / "m.onnx", "--target", CHIP, "--trace", tmp_path / "t.json"]
    lengths = []
    for most in (timeline.MOST_SPANS, 8):
        monkeypatch.setattr(timeline, "MOST_SPANS", most)
        done = CliRunner().invoke(app, list(map(str, given)))
        assert done.exit_code == 0, done.output
        events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
        rows = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
        spans = [e for e in events if e["ph"] == "X"]
        assert {"layers", "load", "array", "store"} <= set(rows.values())
        (layer,) = (e for e in spans if rows[e["tid"]] == "layers")
        for unit in rows:
            own = sorted((e["ts"], e["ts"] + e["dur"]) for e in spans if e["tid"] == unit)
            assert all(a[1] <= b[0] for a, b in itertools.pairwise(own)), rows[unit]
            assert all(0 <= low < high <= layer["dur"] for low, high in own)
            assert len(own) <= most
        lengths.append(sum(e["args"].get("executions", 0) for e in spans))
    assert lengths[0] == lengths[1] > 20, "none is lost"
