"""Configurations and topologies of SCALE-Sim, read as people have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import aisc
from aisc.cli.main import app
from aisc.exploring.scalesim import description, model_of, topology
from aisc.ir.description import from_toml
from aisc.ir.diagnostics import CompileError

CONFIG = """[general]
run_name = "some run-1"

[architecture_presets]
ArrayHeight:    {rows}
ArrayWidth:     16
IfmapSramSzkB:    8
FilterSramSzkB:   8
OfmapSramSzkB:    8
IfmapOffset:    0
Dataflow : {flow}
Bandwidth : 10
MemoryBanks: 1

[run_presets]
InterfaceBandwidth: CALC
"""
LAYERS = """Layer name, IFMAP H, IFMAP W, Filter H, Filter W, Channels, Num Filter, Strides,
One, 9, 8, 3, 2, 5, 7, 2,
Two, 6, 6, 1, 1, 4, 3, 1,
"""
PRODUCTS = "Layer, M, N, K,\nA, 5, 6, 7,\n\nB, 1, 16, 33,\n"


@pytest.mark.parametrize("flow", ["ws", "os"])
def test_a_configuration(flow: str) -> None:
    target = from_toml(description(CONFIG.format(rows=8, flow=flow), "some.cfg"))
    assert target.name == "some_run_1" and target.chip is not None
    array = target.chip.array
    assert (array.rows, array.columns, array.dataflow) == (8, 16, flow.upper())
    assert target.memory("scratchpad").bytes == 16 << 10
    assert target.memory("accumulator").bytes == 8 << 10


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("rubbish", "no configuration"), ("[general]\na=1\n", "no section"),
        (CONFIG.format(rows=8, flow="is"), "Dataflow is wrong"),
        (CONFIG.format(rows="many", flow="ws"), "ArrayHeight is wrong"),
        (CONFIG.format(rows=0, flow="ws"), "ArrayHeight is wrong"),
        (CONFIG.format(rows=1 << 20, flow="ws"), "rows"),
        (CONFIG.format(rows=8, flow="ws").replace("OfmapSramSzkB", "Other"), "OfmapSramSzkB"),
    ],
)  # fmt: skip
def test_wrong_configurations(text: str, what: str) -> None:
    with pytest.raises(CompileError, match=what) as caught:
        description(text, "some.cfg")
    assert caught.value.codes == ("E401",)


def test_layers() -> None:
    one, two = topology(LAYERS, "net.csv")
    assert (one.name, one.sizes) == ("One", (9, 8, 3, 2, 5, 7, 2)) and two.sizes[-1] == 1
    assert [x.sizes for x in topology(PRODUCTS, "net.csv")] == [(5, 6, 7), (1, 16, 33)]
    for text, what in (("", "no layers"), (LAYERS + "Bad, 1, 2\n", "csv:4: no layer")):
        with pytest.raises(CompileError, match=what):
            topology(text, "net.csv")
    with pytest.raises(CompileError, match="no layer"):
        topology(LAYERS + "Bad, 9, 8, 3, 2, 5, 7, -1,\n", "net.csv")


@pytest.mark.parametrize("text", [LAYERS, PRODUCTS])
def test_models_of_layers_compute(text: str) -> None:
    model = model_of(topology(text, "net.csv"), "net")
    host = aisc.compile(model, threads=1)
    chip = from_toml(description(CONFIG.format(rows=8, flow="ws"), "some.cfg"))
    exe = aisc.compile(model, [chip], threads=1)
    draw = np.random.default_rng(1)
    feeds = [draw.integers(0, 256, p.type.static_shape).astype(np.uint8) for p in exe.inputs]
    for a, b in zip(host(*feeds), exe(*feeds), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "a.cfg").write_text(CONFIG.format(rows=8, flow="ws"))
    (tmp_path / "a.csv").write_text(LAYERS)
    given = ["targets", "import-scalesim", f"{tmp_path}/a.cfg", "-o", f"{tmp_path}/a.toml"]
    done = CliRunner().invoke(app, [*given, "--topology", f"{tmp_path}/a.csv"])
    assert done.exit_code == 1 and not (tmp_path / "a.toml").exists()
    more = ["--topology", f"{tmp_path}/a.csv", "--model", f"{tmp_path}/a.onnx"]
    assert CliRunner().invoke(app, [*given, *more]).exit_code == 0
    check = ["check", f"{tmp_path}/a.onnx", "--target", f"{tmp_path}/a.toml", "--cycles"]
    done = CliRunner().invoke(app, check)
    assert done.exit_code == 0 and "One" in done.output and "Two" in done.output
