"""Back ends as plug-ins: one that nobody foresaw is found, asked, and runs what it takes, mixed
with the host; the machines of the house go through the same door."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from onnx_models import F, const, model, node, value
from onnx_models import graph as onnx_graph
from op_cases import Case
from program_maker import Maker
from test_ops_machine import COMPUTED, graph_of
from test_ops_reference import close, run

import aisc
from aisc.cli.placement_table import crossings
from aisc.driver import api
from aisc.ir import plugins
from aisc.ir.description import from_toml
from aisc.ir.diagnostics import ExecutionError
from aisc.ir.dtypes import f32
from aisc.ir.graph.core import Graph
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Load
from aisc.ir.tensor.func import Program, buffer
from aisc.ir.tensor.interpret import run_program
from aisc.ir.text.parser import parse
from aisc.ir.text.printer import print_ir

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "examples" / "digits"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the example of a back end is installed, as its user would do it."""
    folder = tmp_path_factory.mktemp("site")
    source = folder / "source"
    source.mkdir()
    for name in ("abacus.py", "pyproject.toml"):
        (source / name).write_text((ROOT / "examples/back_end" / name).read_text())
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(folder), str(source)], check=True)
    return folder


@pytest.fixture
def abacus(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a target that only the plug-in knows."""
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    plugins.forget()
    yield "abacus"
    plugins.forget()
    sys.modules.pop("abacus", None)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    with np.load(DIGITS / "images.npz") as data:
        found: np.ndarray = data["images"][:3]
        return found


def lowered(what: Any, target: str) -> tuple[Program, Graph]:
    _, products = api.products(what, target, stop_after="lower")
    program, graph = products["lower"], products["fuse"]
    assert isinstance(program, Program)
    assert isinstance(graph, Graph)
    return program, graph


# --- a machine that nobody foresaw ---------------------------------------------------------------
def test_the_example_is_short() -> None:
    assert len((ROOT / "examples/back_end/abacus.py").read_text().splitlines()) < 200


def test_a_model_runs_mixed_with_the_host(abacus: str, images: np.ndarray, tmp_path: Path) -> None:
    want = aisc.compile(DIGITS / "digits.onnx", cache=False)(images)
    exe = aisc.compile(DIGITS / "digits.onnx", target=abacus, cache=False)
    np.testing.assert_allclose(exe(images), want, rtol=1e-5, atol=1e-6)
    assert [d.target for d in exe.image.devices] == [abacus]
    aisc.save(exe, tmp_path / "digits.aisc")
    opened = aisc.load(tmp_path / "digits.aisc")
    np.testing.assert_array_equal(opened(images), exe(images))


def test_what_it_refuses_is_the_host_s(abacus: str) -> None:
    program, graph = lowered(DIGITS / "digits.onnx", abacus)
    by_target: dict[str, list[str]] = {}
    for k in program.kernels:
        by_target.setdefault(k.target, []).append(k.name)
    assert set(by_target) == {"cpu", abacus}
    assert all("softmax" in name for name in by_target["cpu"])
    moved = [(c.source, c.target, str(c.bytes)) for c in crossings(program)]
    assert moved == [("cpu", abacus, "256*batch"), (abacus, "cpu", "40*batch")]
    assert parse(print_ir(program), {b.digest: b.array for b in blobs(graph)}) is not None


def blobs(graph: Graph) -> list[Any]:
    return list(graph.constants().values())


def test_check_says_what_runs_where(abacus: str, capsys: pytest.CaptureFixture[str]) -> None:
    from aisc.cli.main import main

    with pytest.raises(SystemExit) as stopped:
        main(["check", str(DIGITS / "digits.onnx"), "--target", abacus])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert "abacus: it has no beads for softmax" in out
    assert "256*batch" in out and "296*batch" in out


def test_a_bundle_needs_the_plug_in(
    abacus: str, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aisc.save(aisc.compile(DIGITS / "digits.onnx", target=abacus, cache=False), tmp_path / "d.aisc")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(site)])
    plugins.forget()
    with pytest.raises(ExecutionError, match="back end for kind 'abacus'") as caught:
        aisc.load(tmp_path / "d.aisc")
    assert caught.value.codes == ("E506",)


def test_the_whole_is_kept_in_the_cache(abacus: str, images: np.ndarray, tmp_path: Path) -> None:
    data = (DIGITS / "digits.onnx").read_bytes()
    options = api.from_environment(cache_dir=str(tmp_path), threads=1)
    first, second, host = (
        api.executable(data, target, options) for target in (abacus, abacus, "cpu")
    )
    np.testing.assert_array_equal(first(images), second(images))
    assert [len(e.image.devices) for e in (first, second, host)] == [1, 1, 0]
    assert len(list((tmp_path / "images").rglob("*.aisc"))) == 2


def test_two_devices_share_a_model(abacus: str, images: np.ndarray) -> None:
    want = aisc.compile(DIGITS / "digits.onnx", cache=False)(images)
    for targets in (f"{abacus},nvidia_sm90", ["nvidia_sm90", abacus], f"cpu, {abacus}"):
        exe = aisc.compile(DIGITS / "digits.onnx", target=targets, cache=False)
        np.testing.assert_allclose(exe(images), want, rtol=1e-5, atol=1e-6)
    program, _ = lowered(DIGITS / "digits.onnx", f"{abacus},nvidia_sm90")
    assert {k.target for k in program.kernels} == {abacus, "nvidia_sm90"}


def test_an_error_on_a_device_ends_the_run(abacus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node("Relu", "x", "y")]
    exe = aisc.compile(
        model(nodes, [value("x", F, ["n"])], [value("y")]), target=abacus, cache=False
    )
    x = np.array([-1.0, 2.0], np.float32)
    np.testing.assert_array_equal(exe(x), [0, 2])
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["abacus"], "run_func", lambda *a, **k: 1 / 0)
        with pytest.raises(ExecutionError) as caught:
            exe(x)
    assert caught.value.codes == ("E502",)
    np.testing.assert_array_equal(exe(x), [0, 2])


@pytest.mark.parametrize("seed", range(14))
def test_random_programs(abacus: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Branches and loops whose kernels are partly those of a device."""
    monkeypatch.setattr(importlib.import_module("abacus"), "REFUSED", ("mul", "where", "max"))
    maker = Maker(seed, host=seed % 3 == 0)
    what, feeds = maker.program(), maker.feeds()
    one = aisc.compile(what, threads=2, cache=False)
    two = aisc.compile(what, target=abacus, threads=2, cache=False)
    program, _ = lowered(what, abacus)
    for feed in feeds:
        want = one.run(None, feed)
        again = run_program(program, [feed[n] for n in one.input_names], nthreads=2)
        for a, b, c in zip(want, two.run(None, feed), again, strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(a, c)


# --- kinds ---------------------------------------------------------------------------------------
def test_an_unknown_kind_names_those_that_exist() -> None:
    target = from_toml("[target]\nname = 'x'\nkind = 'teapot'\n")
    with pytest.raises(aisc.CompileError, match="no back end for kind 'teapot'") as caught:
        aisc.compile(DIGITS / "digits.onnx", target=target)
    assert caught.value.codes == ("E401",)
    assert "cpu, dsa, simt" in str(caught.value)


@pytest.mark.parametrize("targets", ["cpu,cpu", "nvidia_sm90,nvidia_sm90"])
def test_a_name_stands_once(targets: str) -> None:
    with pytest.raises(aisc.CompileError) as caught:
        aisc.compile(DIGITS / "digits.onnx", target=targets)
    assert caught.value.codes == ("E401",)


# --- the machines of the house -------------------------------------------------------------------
def test_a_net_runs_whole_on_a_simt_machine(images: np.ndarray, tmp_path: Path) -> None:
    program, _ = lowered(DIGITS / "digits.onnx", "nvidia_sm90")
    assert {k.target for k in program.kernels} == {"nvidia_sm90"}
    want = aisc.compile(DIGITS / "digits.onnx", cache=False)(images)
    exe = aisc.compile(DIGITS / "digits.onnx", target="nvidia_sm90", cache=False)
    np.testing.assert_allclose(exe(images), want, rtol=1e-5, atol=1e-6)
    aisc.save(exe, tmp_path / "digits.aisc")
    np.testing.assert_array_equal(aisc.load(tmp_path / "digits.aisc")(images), exe(images))
    ptx = aisc.lower(DIGITS / "digits.onnx", "asm", target="nvidia_sm90")
    assert all(f".visible .entry {k.name}(" in str(ptx) for k in program.kernels)


def check_operators(target: str, cases: Sequence[Case]) -> None:
    for case in cases:
        graph, feeds = graph_of(case, constants=True)
        exe = aisc.compile(graph, target=target, threads=1, cache=False)
        got = exe.run(None, dict(zip(exe.input_names, feeds, strict=True)))
        for a, b in zip(got, run(case), strict=True):
            close(a, b)


def test_some_operators_on_a_simt_machine() -> None:
    check_operators("nvidia_sm90", COMPUTED[5::30])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_operators_on_a_simt_machine(part: int) -> None:
    check_operators("nvidia_sm90", COMPUTED[part::8])


def test_a_sum_of_nothing_on_a_simt_machine() -> None:
    nodes = [node("MatMul", "a b", "y")]
    inputs = [value("a", F, ["n", "k"]), value("b", F, ["k", "n"])]
    exe = aisc.compile(model(nodes, inputs, [value("y")]), target="nvidia_sm90", cache=False)
    for n, k in ((2, 0), (2, 3), (0, 3), (1, 0)):
        a, b = np.ones((n, k), np.float32), np.ones((k, n), np.float32)
        np.testing.assert_array_equal(exe(a, b), np.full((n, n), k))


def test_a_constant_that_a_loop_hands_on_is_read_by_a_device(abacus: str) -> None:
    body = onnx_graph(
        [node("Identity", "go", "flag"), node("Identity", "c", "c2"), node("Relu", "h", "h2")],
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("c", F, [2]),
         value("h", F, [2])],
        [value("flag", TensorProto.BOOL), value("c2"), value("h2")],
    )  # fmt: skip
    nodes = [node("Loop", "m _ k x", "c3 h3", body=body), node("Neg", "c3", "y")]
    weights = const("m", np.int64(2)), const("k", np.array([3, -4], np.float32))
    what = model(nodes, [value("x", F, [2])], [value("y"), value("h3")], *weights)
    for target in (abacus, "nvidia_sm90"):
        y, h = aisc.compile(what, target=target, cache=False)(np.array([-1, 2], np.float32))
        np.testing.assert_array_equal(y, [-3, 4])
        np.testing.assert_array_equal(h, [0, 2])


def test_a_kernel_of_a_device_reports_what_goes_wrong() -> None:
    """An index that lies outside, in a kernel that runs as the model of a device."""
    nodes = [node("Gather", "x i", "y", axis=0)]
    inputs = [value("x", F, [3, 2]), value("i", TensorProto.INT64, [2])]
    exe = aisc.compile(model(nodes, inputs, [value("y")]), target="nvidia_sm90", cache=False)
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.testing.assert_array_equal(exe(x, np.array([2, 0])), x[[2, 0]])
    with pytest.raises(ExecutionError, match="3 on an axis of size 3") as caught:
        exe(x, np.array([0, 3]))
    assert caught.value.codes == ("E502",)


def quantized(rows: int) -> Any:
    """Two products of 8-bit integers with a requantization between them."""
    rng = np.random.default_rng(0)
    nodes = [
        node("MatMulInteger", "x w", "h"), node("Add", "h b", "hb"), node("Relu", "hb", "r"),
        node("Cast", "r", "rf", to=F), node("QuantizeLinear", "rf s z", "q"),
        node("MatMulInteger", "q v", "y"),
    ]  # fmt: skip
    weights = {
        "w": rng.integers(-128, 128, (16, 24)).astype(np.int8),
        "v": rng.integers(-128, 128, (24, 10)).astype(np.int8),
        "b": rng.integers(-999, 999, 24).astype(np.int32),
        "s": np.float32(300), "z": np.int8(0),
    }  # fmt: skip
    constants = [const(n, a) for n, a in weights.items()]
    return model(
        nodes,
        [value("x", TensorProto.INT8, [rows, 16])],
        [value("y", TensorProto.INT32)],
        *constants,
    )


@pytest.mark.parametrize("rows", [1, 4, 9])
def test_products_of_integers_run_on_the_array(rows: int, tmp_path: Path) -> None:
    what = quantized(rows)
    program, _ = lowered(what, "systolic8")
    on_array = [k.name for k in program.kernels if k.target == "systolic8"]
    assert len(on_array) == 2
    assert {k.target for k in program.kernels} == {"cpu", "systolic8"}
    x = np.random.default_rng(rows).integers(-128, 128, (rows, 16)).astype(np.int8)
    want = aisc.compile(what, cache=False)(x)
    exe = aisc.compile(what, target="systolic8", cache=False)
    np.testing.assert_array_equal(exe(x), want)
    aisc.save(exe, tmp_path / "q.aisc")
    np.testing.assert_array_equal(aisc.load(tmp_path / "q.aisc")(x), want)
    listing = str(aisc.lower(what, "asm", target="systolic8"))
    assert listing.count("preload") and listing.count("compute")


def test_one_function_runs_on_a_device(abacus: str) -> None:
    b = ComputeBuilder()
    x, y = buffer("x", f32, (5,), "input"), buffer("y", f32, (5,), "output")
    b.map(y, lambda i: Load(x, (i,)) * 2, "twice")
    func = b.func("twice", (x, y))
    for target in (abacus, "nvidia_sm90", f"cpu,{abacus}"):
        exe = aisc.build(func, target=target)
        np.testing.assert_array_equal(exe(np.arange(5, dtype=np.float32)), [0, 2, 4, 6, 8])
        assert len(exe.image.devices) == 1


# --- the pages -----------------------------------------------------------------------------------
def follow(page: str, folder: Path) -> str:
    """What the commands of a page print, in a copy of the examples."""
    text = (ROOT / "docs" / page).read_text()
    commands = "".join(re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    shutil.copytree(ROOT / "examples", folder / "examples")
    site = str(folder / "site")
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    env = {**os.environ, "PIP_TARGET": site, "PYTHONPATH": site, "PATH": path, "COLUMNS": "120"}
    done = subprocess.run(
        ["sh", "-e", "-c", commands], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_about_back_ends_can_be_followed(tmp_path: Path) -> None:
    printed = follow("add-a-back-end.md", tmp_path)
    assert "it has no beads for softmax" in printed
    assert "abacus" in printed.split("296*batch")[1], "the bundle tells of its device"


def test_the_page_about_accelerators_can_be_followed(tmp_path: Path) -> None:
    printed = follow("add-an-accelerator.md", tmp_path)
    assert "wide32.toml: a target of kind dsa, wide32" in printed
    assert "158688 multiply-adds" in printed
    assert re.search(r"wide32 +│ conv, cast, mul, round", printed)
    assert "probabilities" in printed


def test_the_page_about_targets_can_be_followed(tmp_path: Path) -> None:
    printed = follow("add-a-target.md", tmp_path)
    assert "small.toml: a target of kind cpu, small" in printed
    assert "probabilities" in printed
    assert re.search(r"on small: [\d,]+ schedules", printed)
    assert 'name = "small-core"' in printed
    listing = (tmp_path / "digits.s").read_text()
    assert re.search(r"\bfml[as]\t?", listing), "vectors of the other machine"
    assert (tmp_path / "there.aisc").stat().st_size > 0
    assert "vectorize" in (tmp_path / "schedule.txt").read_text()
