"""``aisc show``: what the pictures of a model say, and that a browser shows them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import aisc
from aisc.cli.main import app
from aisc.pictures.formats import as_dot, as_json, as_onnx
from aisc.pictures.page import page_of
from aisc.pictures.stages import Shown, shown

MOST_BYTES = 5_000_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def deep(blocks: int) -> onnx.ModelProto:
    """A net of blocks that are named as exporters do: ``/block3/fc/MatMul``."""
    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.standard_normal((8, 8)).astype(np.float32), "w")
    nodes, last = [], "x"
    for k in range(blocks):
        names = [f"/block{k}/fc/MatMul", f"/block{k}/fc/Add", f"/block{k}/Relu", f"/block{k}/Add_1"]
        ops = [
            ("MatMul", [last, "w"]),
            ("Add", ["_0", "w"]),
            ("Relu", ["_1"]),
            ("Add", ["_2", last]),
        ]
        for j, (op, reads) in enumerate(ops):
            ins = [f"{k}{r}" if r.startswith("_") else r for r in reads]
            nodes.append(helper.make_node(op, ins, [f"{k}_{j}"], name=names[j]))
        last = f"{k}_3"
    graph = helper.make_graph(
        nodes, "deep", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 8])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)], [weights],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


@pytest.fixture(scope="module")
def small() -> Shown:
    return shown(deep(3), "cpu", {})


def test_kernels_know_what_they_come_from(small: Shown) -> None:
    written = {s for x in small.stages["as written"] for s in x.sources}
    groups = [x for x in small.stages["kernels"] if x.inside]
    assert written and groups
    assert {s for x in groups for s in x.sources} <= written
    assert all(x.kernel in small.steps and x.moved for x in groups)
    assert any(x.block == ("block0", "fc") for x in small.stages["as written"])


def test_memory_does_not_overlap(small: Shown) -> None:
    for k, a in enumerate(small.memory):
        for b in small.memory[:k]:
            apart = a.last < b.first or b.last < a.first
            assert apart or a.offset >= b.offset + b.size or b.offset >= a.offset + a.size
    assert small.arena is not None and all(m.offset + m.size <= small.arena for m in small.memory)


def test_formats(small: Shown) -> None:
    assert json.loads(as_json(small))["name"] == "deep"
    for stage in small.stages:
        text = as_dot(small, stage)
        assert text.count("{") == text.count("}") and "block0" in text
        made = as_onnx(small, stage)
        again = onnx.load_from_string(made.SerializeToString())
        assert len(again.graph.node) >= 3


def test_a_function_of_python_is_shown() -> None:
    def looped(x: Any) -> Any:
        for i in range(len(x)):
            if x[i] > 0:
                x = x * 2
        return x

    found = shown(aisc.function(looped).graph(np.ones(3)), "cpu", {})
    blocks = {x.block[0] for x in found.stages["as written"] if x.block}
    assert any(b.startswith("loop") for b in blocks)
    assert any("test_show.py" in x.place for x in found.stages["as written"])


def test_the_command_writes_a_page(tmp_path: Path) -> None:
    onnx.save(deep(2), tmp_path / "m.onnx")
    for form in ("html", "json", "dot", "onnx"):
        place = tmp_path / f"out.{form}"
        done = CliRunner().invoke(
            app, ["show", str(tmp_path / "m.onnx"), "-o", str(place), "--format", form]
        )
        assert done.exit_code == 0 and place.stat().st_size > 100, done.output


SCRIPT = """<script>
const told = [];
for (const b of document.querySelectorAll("nav button")) {
  b.click();
  const found = document.querySelectorAll("g[data-key], #view tr, #view rect");
  told.push(b.textContent + ":" + found.length);
}
turn("as written");
const before = document.querySelectorAll("g[data-key]").length;
const clock = performance.now();
$("find").value = "relu"; $("find").oninput();
const searched = performance.now();
closed.clear(); rows(); draw();
const opened = performance.now();
const all = document.querySelectorAll("g[data-key]").length;
document.title = JSON.stringify({told, before, all, hits: hits.size,
  search: searched - clock, open: opened - searched});
</script></html>"""


def in_browser(page: str, folder: Path) -> tuple[dict[str, Any], str]:
    """What the page says of itself in a browser, and its console."""
    browser = next((b for b in BROWSERS if shutil.which(b)), None)
    if browser is None:
        pytest.skip("there is no Chromium")
    place = folder / "page.html"
    place.write_text(page.replace("</html>", SCRIPT))
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000", "--dump-dom",
         str(place)],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None, done.stderr[-2000:]
    return json.loads(title[1].replace("&amp;", "&")), done.stderr


def test_a_browser_shows_the_page(tmp_path: Path, small: Shown) -> None:
    told, console = in_browser(page_of(small), tmp_path)
    assert "CONSOLE" not in console or "Uncaught" not in console, console
    assert told["hits"] == 3
    assert all(int(x.rpartition(":")[2]) > 0 for x in told["told"]), told


def test_two_thousand_nodes(tmp_path: Path) -> None:
    page = page_of(shown(deep(500), "cpu", {}))
    assert len(page.encode()) < MOST_BYTES
    told, console = in_browser(page, tmp_path)
    assert "Uncaught" not in console
    assert told["all"] >= 2000 and told["before"] < told["all"] and told["hits"] == 500


def test_from_python(tmp_path: Path) -> None:
    found = aisc.show(deep(3), level=1)
    assert "deep" in repr(found) and "srcdoc" in found._repr_html_()
    for form in ("html", "json", "dot", "onnx"):
        assert found.save(tmp_path / f"deep.{form}").stat().st_size > 100
    with pytest.raises(aisc.CompileError, match="no form 'svg'"):
        found.save(tmp_path / "deep.svg")
    with pytest.raises(aisc.CompileError, match="no stage 'none'"):
        found.save(tmp_path / "deep.dot", "none")


def test_executables_and_functions_in_notebooks(tmp_path: Path) -> None:
    path = tmp_path / "deep.onnx"
    onnx.save(deep(2), path)
    exe = aisc.compile(path, threads=1)
    assert "x: f32[8, 8]" in repr(exe) and "1 thread" in repr(exe) and "cpu" in repr(exe)
    text = exe._repr_html_()
    assert "<th>input</th><td>x: f32[8, 8]</td>" in text and "block1" in text
    aisc.save(exe, tmp_path / "deep.aisc")
    path.unlink()
    for gone in (exe, aisc.load(tmp_path / "deep.aisc", threads=1)):
        assert "iframe" not in gone._repr_html_() and "8, 8" in gone._repr_html_()

    @aisc.function
    def doubled(x: Any) -> Any:
        return x * 2

    assert "has not been called" in doubled._repr_html_()
    doubled(np.ones(3))
    assert "srcdoc" in doubled._repr_html_()


def test_kernels_say_how_they_compute() -> None:
    """Images lie with their channels last, and large filters of 3x3 are transformed."""
    rng = np.random.default_rng(0)
    w = numpy_helper.from_array(rng.standard_normal((64, 64, 3, 3)).astype(np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])], "image",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64, 56, 56])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [w],
    )  # fmt: skip
    found = shown(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), "cpu", {})
    kernels = [x for x in found.stages["kernels"] if x.kernel]
    assert kernels and all(x.layouts for x in kernels)
    assert any("56, 56" in text for x in kernels for text in x.layouts)
