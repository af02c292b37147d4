"""The command line: what each command writes, its exit codes, and no traceback for bad input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from aisc.cli.main import main
from aisc.driver.options import STEPS
from aisc.ir.diagnostics import InternalError
from aisc.ir.text.parser import parse

DIGITS = str(Path(__file__).resolve().parent.parent / "examples" / "digits" / "digits.onnx")


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def codes(self) -> list[str]:
        """The diagnostic codes on standard error."""
        return re.findall(r"error\[(E\d+)\]", self.err)


Run = Callable[..., Result]


@pytest.fixture
def aisc(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Run:
    """Run a command in this process, with a cache of its own."""
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("AISC_DEBUG", raising=False)

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        try:
            main([str(a) for a in arguments])
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 0
        out, err = capsys.readouterr()
        assert "Traceback" not in err, err
        return Result(code, out, err)

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """``y = relu(x @ w)`` with a symbolic number of rows."""
    w = np.arange(12, dtype=np.float32).reshape(3, 4) - 6
    return write(
        tmp_path / "small.onnx",
        [("MatMul", ["x", "w"], ["h"]), ("Relu", ["h"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        w,
    )


def write(
    path: Path,
    nodes: list[tuple[str, list[str], list[str]]],
    inputs: list[onnx.ValueInfoProto],
    w: np.ndarray | None = None,
) -> Path:
    weights = [] if w is None else [onnx.numpy_helper.from_array(w, "w")]
    outputs = [helper.make_empty_tensor_value_info(nodes[-1][2][0])]
    graph = helper.make_graph([helper.make_node(*n) for n in nodes], "g", inputs, outputs, weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


# -- compile ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("emit", "sign"),
    [
        ("graph", "fused("),
        ("tensor", "vectorize"),
        ("program", "base arena"),
        ("llvm", "define void @aisc_entry_body"),
        ("asm", "aisc_entry:"),
    ],
)
def test_emit(aisc: Run, model: Path, emit: str, sign: str) -> None:
    result = aisc("compile", DIGITS if emit == "program" else model, "--emit", emit)
    assert result.code == 0
    assert sign in result.out
    assert result.err == ""


def test_emit_object(aisc: Run, model: Path, tmp_path: Path) -> None:
    place = tmp_path / "small.o"
    assert aisc("compile", model, "--emit", "obj", "-o", place).code == 0
    assert place.read_bytes()[:4] == b"\x7fELF"
    refused = aisc("compile", model, "--emit", "obj")
    assert (refused.code, refused.codes) == (1, ["E401"])


@pytest.mark.parametrize("step", [s for s in STEPS if s not in ("import", "schedule", "load")])
def test_stop_after(aisc: Run, model: Path, step: str) -> None:
    result = aisc("compile", model, "--stop-after", step)
    assert result.code == 0
    first = {"emit": "target triple", "assemble": "\t.file"}.get(step)
    if first is None:
        graphs = STEPS[: STEPS.index("lower")]
        first = "graph @" if step in graphs else "program @"
    assert first in result.out[:200]


@pytest.mark.parametrize("step", STEPS)
def test_every_step_can_be_the_last(aisc: Run, model: Path, step: str) -> None:
    assert aisc("compile", model, "--stop-after", step).code == 0


def test_output_file_parses_back(aisc: Run, model: Path, tmp_path: Path) -> None:
    place = tmp_path / "out.aisc"
    result = aisc("compile", model, "--emit", "tensor", "-o", place)
    assert (result.code, result.out) == (0, "")
    assert "func @" in place.read_text()


def test_dump_dir_and_verify(aisc: Run, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dump"
    assert aisc("compile", model, "--dump-dir", folder, "--verify-each", "--emit", "asm").code == 0
    names = [p.name for p in sorted(folder.iterdir())]
    assert names[0] == "01-import.txt"
    assert [n.split("-")[1] for n in names] == [
        f"{s}.txt" for s in STEPS if s not in ("schedule", "load")
    ]


def test_time_steps(aisc: Run, model: Path) -> None:
    result = aisc("compile", model, "--time-steps")
    assert result.code == 0
    assert all(word in result.err for word in ("step", "import", "lower", "plan"))


def test_shapes_and_levels(aisc: Run, model: Path) -> None:
    text = aisc("compile", model, "--emit", "graph", "--shape", "n=5").out
    assert "f32[5, 3]" in text and "f32[n, 3]" not in text
    assert "fused" in aisc("compile", model, "--emit", "graph", "-O", "1").out
    vectors = ["vectorize" in aisc("compile", model, "-O", n).out for n in (0, 1, 2)]
    assert vectors == [False, True, True]


# -- run, bench, check, targets, cache -------------------------------------------------------


def test_run(aisc: Run, model: Path, tmp_path: Path) -> None:
    x = np.array([[1, 0, -1], [0.5, 2, 0]], np.float32)
    np.save(tmp_path / "x.npy", x)
    y = tmp_path / "y.npy"
    result = aisc("run", model, "--input", f"x=@{tmp_path}/x.npy", "--output", f"y=@{y}")
    assert result.code == 0
    assert result.out.startswith("y: float32[2, 4]")
    w = np.arange(12, dtype=np.float32).reshape(3, 4) - 6
    np.testing.assert_allclose(np.load(y), np.maximum(x @ w, 0), rtol=1e-5)
    assert aisc("run", model).out.startswith("y: float32[1, 4]")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--input", "z=@x.npy"],
        ["--input", "x=@/nowhere/x.npy"],
        ["--input", "x=7"],
        ["--output", "z=@y.npy"],
    ],
)
def test_run_refuses(aisc: Run, model: Path, arguments: list[str]) -> None:
    result = aisc("run", model, *arguments)
    assert (result.code, result.codes) == (1, ["E501"])


def test_run_refuses_an_array_that_does_not_fit(aisc: Run, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 5), np.float32))
    result = aisc("run", model, "--input", f"x=@{tmp_path}/x.npy")
    assert (result.code, result.codes) == (1, ["E501"])


def test_bench(aisc: Run, model: Path, tmp_path: Path) -> None:
    place = tmp_path / "bench.json"
    counts = ["--threads", "1,2", "--warmup", "1", "--iterations", "3"]
    result = aisc("bench", model, *counts, "--json", place)
    assert result.code == 0
    rows = json.loads(place.read_text())
    assert [(r["runtime"], r["threads"]) for r in rows] == [("aisc", 1), ("aisc", 2)]
    assert all(0 < r["min_ms"] <= r["median_ms"] and r["iterations"] == 3 for r in rows)
    assert aisc("bench", model, "--against", "nothing", "--iterations", 1).codes == ["E401"]
    assert aisc("bench", model, "--threads", "none").code == 2


def test_bench_streams(aisc: Run, model: Path, tmp_path: Path) -> None:
    place = tmp_path / "bench.json"
    pytest.importorskip("onnxruntime")
    load = ["--streams", "3", "--duration", "0.2s", "--against", "onnxruntime"]
    result = aisc("bench", model, *load, "--json", place)
    assert result.code == 0
    assert "req/s" in result.out
    rows = json.loads(place.read_text())
    assert [(r["runtime"], r["streams"], r["threads"]) for r in rows] == [
        ("aisc", 3, 1), ("onnxruntime", 3, 1),
    ]  # fmt: skip
    for r in rows:
        assert 0 < r["p50_ms"] <= r["p95_ms"] <= r["p99_ms"]
        assert r["requests"] >= 3
        assert r["ratio"] > 0
    assert rows[0]["ratio"] == 1
    assert aisc("bench", model, "--streams", "2", "--profile").code == 2
    assert aisc("bench", model, "--wait", "passive", "--iterations", 1, "--threads", 2).code == 0
    assert aisc("bench", model, "--wait", "lazily").code == 2
    assert aisc("bench", model, "--streams", "2", "--duration", "soon").code == 2


def test_bench_profile(aisc: Run, model: Path, tmp_path: Path) -> None:
    places = tmp_path / "profile.json", tmp_path / "trace.json"
    options = ["--threads", "1,2", "--warmup", 0, "--iterations", 2, "--shape", "n=8"]
    result = aisc(
        "bench", model, "--profile", *options, "--json", places[0], "--export-profile", places[1]
    )
    assert result.code == 0
    assert max(map(len, result.out.splitlines())) <= 80
    one, two = json.loads(places[0].read_text())
    assert (one["threads"], two["threads"]) == (1, 2)
    (layer,) = [r for r in one["rows"] if r["kind"] == "kernel"]
    assert layer["flops"] == 8 * 4 * (2 * 3 + 1)
    assert layer["bytes"] == 4 * (8 * 3 + 3 * 4 + 8 * 4)
    events = json.loads(places[1].read_text())["traceEvents"]
    assert len(events) == len(one["rows"]) + len(two["rows"])
    assert aisc("bench", model, "--profile", "--dim", "n=8", *options[:-2]).code == 0
    assert aisc("bench", model, "--dim", "m=8").codes == ["E106"]
    assert aisc("bench", model, "--dim", f"n={10**15}").codes == ["E501"]
    assert aisc("bench", model, "--dim", "n=1..2").code == 2
    assert aisc("bench", model, "--profile", "--against", "onnxruntime").code == 2
    assert aisc("bench", model, "--profile", "--json", tmp_path / "no" / "x").codes == ["E503"]


def test_bench_against_onnxruntime(aisc: Run, model: Path) -> None:
    pytest.importorskip("onnxruntime")
    result = aisc("bench", model, "--against", "onnxruntime", "--warmup", 1, "--iterations", 2)
    assert result.code == 0
    assert "onnxruntime" in result.out


def test_check(aisc: Run, model: Path) -> None:
    result = aisc("check", model)
    assert result.code == 0
    assert "can be compiled" in result.out
    assert "f32[n, 3]" in result.out
    row = next(line for line in result.out.splitlines() if "named in the model" in line)
    assert [c.strip() for c in row.strip("│").split("│")][:2] == ["n", "0 .."]
    bounded = aisc("check", model, "--shape", "n=1..512")
    assert "1 .. 512" in bounded.out
    assert "symbolic dimensions: none" in aisc("check", model, "--shape", "n=3").out


def test_bounds_of_shapes_hold_at_run_time(aisc: Run, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 3), np.float32))
    given = ["run", model, "--input", f"x=@{tmp_path}/x.npy", "--shape"]
    assert aisc(*given, "n=1..3").code == 0
    assert aisc(*given, "n=4..5").codes == ["E501"]
    assert aisc(*given, "n=5..4").codes == ["E106"]
    assert aisc(*given, "n=1..").code == 2


def test_check_reports_everything_at_once(aisc: Run, tmp_path: Path) -> None:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])]
    nodes = [("NoSuchOp", ["x"], ["a"]), ("Relu", ["a"], ["b"]), ("NorThis", ["b"], ["y"])]
    result = aisc("check", write(tmp_path / "bad.onnx", nodes, inputs))
    assert (result.code, result.codes) == (3, ["E102", "E102"])
    assert "NoSuchOp" in result.err and "NorThis" in result.err


def test_targets(aisc: Run, tmp_path: Path) -> None:
    assert aisc("targets").out == aisc("targets", "list").out
    for name in ("cpu", "x86-64-v3", "aarch64-neon", "riscv64-v", "sapphire-rapids", "systolic8"):
        assert name in aisc("targets").out
        assert aisc("targets", "show", name).out.count("[target]") == 1
    assert aisc("targets", "show", "nowhere").codes == ["E401"]
    assert aisc("targets", "frob").code == 2
    mine = tmp_path / "mine.toml"
    assert aisc("targets", "probe", "-o", mine).code == 0
    assert mine.read_text() == aisc("targets", "probe").out.rstrip() + "\n"
    assert "kind cpu" in aisc("targets", "validate", mine).out
    assert "instruction preload" in aisc("targets", "validate", _shipped("systolic8")).out


def test_code_for_a_probed_machine_runs_on_it(aisc: Run, model: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    aisc("targets", "probe", "-o", mine)
    assert aisc("run", model, "--target", mine).out == aisc("run", model).out


def _shipped(name: str) -> Path:
    from aisc.ir import target

    return Path(target.__file__).parent / f"targets/{name}.toml"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind = 'cpu'\nvector_bits = '512'", ["target.vector_bits", "bits, from 8", "got '512'"]),
        ("kind = 'cpu'\nvector_bits = 4", ["target.vector_bits", "from 8 to 65536", "got 4"]),
        ("kind = 'cpu'\ncores = true", ["target.cores", "a whole number of cores"]),
        ("kind = 'cpu'\nvector_bit = 5", ["'vector_bit' is no key", "did you mean 'vector_bits'"]),
        ("name = 'x'", ["target.kind is missing"]),
        ("kind = 'cpu'\n[memory.L1]\nways = 8", ["memory.L1.bytes is missing", "bytes, from 1"]),
        ("kind = 'cpu'\n[memory.L1]\nbytes = 0", ["memory.L1.bytes", "got 0"]),
        ("kind = 'cpu'\n[memory]\nL1 = 5", ["[memory.L1] must be a table"]),
        ("kind = 'cpu'\n[costs]\nfork_work = 1.5", ["costs.fork_work", "operations, from 1"]),
        ("kind = 'cpu'\n[limit]\nwarp = 3", ["'limit' is no table", "did you mean 'limits'"]),
        ("kind = 'cpu'\n[rates]\nfma = -1", ["rates.fma", "operations per cycle"]),
        ("kind = 'cpu'\nfeatures = '+avx'", ["target.features", "a list of texts"]),
        ("kind = 'abacus'", ["no back end for kind 'abacus'", "cpu, dsa, simt"]),
        ("kind = ", ["is not valid TOML"]),
    ],
)  # fmt: skip
def test_wrong_descriptions(aisc: Run, tmp_path: Path, text: str, said: list[str]) -> None:
    """File, key, unit and range are told."""
    file = tmp_path / "bad.toml"
    file.write_text(f"[target]\n{text}\n")
    result = aisc("targets", "validate", file)
    assert (result.code, result.codes) == (1, ["E401"])
    assert all(part in result.err for part in said), result.err


def test_cache(aisc: Run, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path / "own"))
    assert " 0 records" in aisc("cache").out
    aisc("run", model)
    assert " 2 records" in aisc("cache", "status").out  # a kernel and the entry
    assert "removed 2 records" in aisc("cache", "clear").out
    assert " 0 records" in aisc("cache").out
    assert aisc("cache", "shrink").code == 2


def test_tune(aisc: Run, tmp_path: Path) -> None:
    """With no time to spend nothing is measured, and the (empty) database can be used."""
    place = tmp_path / "t.sqlite"
    here = ("--database", place)
    unknown = aisc("tune", DIGITS, "--budget", "0s", *here)
    assert (unknown.code, unknown.codes) == (3, ["E402"]), "of unknown sizes none can be measured"
    assert "--shape" in unknown.err
    assert aisc("tune", DIGITS, "--budget", "0s", "--shape", "batch=2", *here).code == 0
    assert aisc("run", DIGITS, "--tuned", place).code == 0
    assert aisc("run", DIGITS, "--tuned", tmp_path / "none.sqlite").codes == ["E503"]
    assert aisc("tune", DIGITS, "--budget", "soon").code == 2


# -- opt -------------------------------------------------------------------------------------

GRAPH = """graph @g(%x: f32[2, 3]) -> ("y") {
  %a: f32[2, 3] = neg(%x)
  %b: f32[2, 3] = neg(%x)
  %y: f32[2, 3] = add(%a, %b)
  return %y
}
"""


def test_opt(aisc: Run, tmp_path: Path) -> None:
    source, place = tmp_path / "in.aisc", tmp_path / "out.aisc"
    source.write_text(GRAPH)
    assert aisc("opt", source).out.count("neg(") == 2
    assert aisc("opt", source, "--passes", "cse").out.count("neg(") == 1
    assert aisc("opt", source, "--passes", "cse,fuse,lower", "-o", place, "--verify-each").code == 0
    assert "program @g" in place.read_text()
    parse(place.read_text())
    shown = aisc("opt", source, "--passes", "cse,dce", "--print-ir-after-all", "--time-passes")
    assert "// after cse" in shown.err and "dce: " in shown.err


def test_opt_reads_standard_input() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "aisc", "opt", "-", "--passes", "cse"],
        input=GRAPH, capture_output=True, text=True,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("neg(") == 1


def test_opt_lists_its_passes(aisc: Run, tmp_path: Path) -> None:
    listed = aisc("opt", "-", "--list-passes").out.split()
    assert {"canonicalize", "cse", "fuse", "lower", "plan"} <= set(listed)


@pytest.mark.parametrize(
    ("text", "passes", "code"),
    [
        ("", "", "E107"),
        ("graph @g(", "", "E107"),
        ("graph @g(%x: f32[2]) -> (\"y\") {\n  return %y\n}\n", "", "E107"),
        (GRAPH.replace("add(%a, %b)", "no_such_op(%a)"), "", "E202"),
        (GRAPH.replace("neg(%x)", "neg(%x, %x)"), "", "E202"),
        (GRAPH.replace("%y: f32[2, 3]", "%y: f32[3, 2]"), "", "E201"),
        (GRAPH, "no-such-pass", "E401"),
        (GRAPH, "plan", "E401"),
    ],
)  # fmt: skip
def test_opt_refuses(aisc: Run, tmp_path: Path, text: str, passes: str, code: str) -> None:
    source = tmp_path / "in.aisc"
    source.write_text(text)
    result = aisc("opt", source, "--passes", passes)
    assert (result.code, result.codes[:1]) == (1, [code]), result.err


# -- faults ----------------------------------------------------------------------------------


def test_unreadable_models(aisc: Run, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\xff" * 64)
    for path in (damaged, tmp_path, tmp_path / "none.onnx", tmp_path / "model.xyz"):
        result = aisc("compile", path)
        assert (result.code, result.codes) == (1, ["E101"])
    assert aisc("opt", tmp_path / "none.aisc").codes == ["E107"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--stop-after", "nowhere"], "E401"),
        (["--emit", "nothing"], "E401"),
        (["--target", "nothing"], "E401"),
        (["--shape", "m=3"], "E106"),
        (["-o", "/nowhere/out.txt"], "E503"),
    ],
)
def test_compile_refuses(aisc: Run, model: Path, arguments: list[str], code: str) -> None:
    result = aisc("compile", model, *arguments)
    assert (result.code, result.codes) == (1, [code])


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["compile"],
        ["compile", "m.onnx", "--nonsense"],
        ["compile", "m.onnx", "-O", "9"],
        ["compile", "m.onnx", "--shape", "n"],
        ["run", "m.onnx", "--threads", "0"],
    ],
)
def test_usage(aisc: Run, arguments: list[str]) -> None:
    assert aisc(*arguments).code == 2


def test_as_a_module(model: Path, tmp_path: Path) -> None:
    """The real thing: exit codes of a process, and nothing but the product on its output."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "aisc", *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    good = run("compile", str(model), "--emit", "graph")
    assert (good.returncode, good.stderr) == (0, "")
    parse_error = run("compile", str(tmp_path / "none.onnx"))
    assert parse_error.returncode == 1
    assert parse_error.stderr.startswith("error[E101]")
    assert parse_error.stdout == ""


@pytest.mark.parametrize("fault", [InternalError("no code"), StopIteration(), RuntimeError("x\ny")])
def test_our_own_faults(
    aisc: Run, model: Path, fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told from the user's by their exit code, and shown in full on request only."""

    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr("aisc.cli.check_command.check_model", fail)
    result = aisc("check", model)
    assert result.code == 70
    assert result.err.startswith("internal error: ") and "AISC_DEBUG" in result.err
    monkeypatch.setenv("AISC_DEBUG", "1")
    with pytest.raises(type(fault)):
        aisc("check", model)
