"""Bundles: what is saved comes back to the bit, damage is reported, nothing is compiled."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest

import aisc
from aisc.cli.main import main
from aisc.codegen.image import Image
from aisc.codegen.run import bundle, bundle_writer
from aisc.codegen.run.bundle import About
from aisc.codegen.run.weight_sum import WeightSum
from aisc.codegen.weights import Ready
from aisc.ir import dtypes
from aisc.ir.arith.poly import symbol
from aisc.ir.diagnostics import CompileError, ExecutionError
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.types import TensorType

DIGITS = Path(__file__).resolve().parent.parent / "examples" / "digits" / "digits.onnx"
W = np.random.default_rng(0).standard_normal((48, 70)).astype(np.float32)


def executable(threads: int = 1) -> aisc.Executable:
    """Two products over a bounded symbolic batch: packed weights, an arena, a view, a constant."""
    b = GraphBuilder("net")
    x = b.input("x", TensorType((symbol("n", 1, 100), 48), dtypes.f32))
    h = b.add("relu", (b.add("matmul", (x, b.constant(W, "w"))),))
    y = b.add("matmul", (h, b.constant(np.ascontiguousarray(W.T), "wt")))
    c = b.constant(np.array([True, False, True]), "flags")
    return aisc.compile(b.finish([y, c], ["y", "flags"]), threads=threads, cache=False)


def rows(n: int) -> np.ndarray:
    return np.random.default_rng(n).standard_normal((n, 48)).astype(np.float32)


@pytest.fixture(scope="module")
def exe() -> aisc.Executable:
    return executable()


@pytest.fixture(scope="module")
def place(exe: aisc.Executable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "net.aisc"
    aisc.save(exe, path)
    return path


def refused(path: Path, **choices: Any) -> str:
    with pytest.raises(ExecutionError) as caught:
        aisc.load(path, **choices)
    (code,) = caught.value.codes
    assert str(path) in str(caught.value)
    return code


def altered(image: Image, path: Path, about: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A well-formed bundle with something else in its head."""
    made = About(aisc.__version__, "llvm", 0, bundle.convention())
    image = replace(image, **changes)
    with open(path, "w+b") as file:
        bundle_writer.write_into(file, image, Ready(image.weights), replace(made, **(about or {})))
    return path


# -- round trip ------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_bits_as_before(exe: aisc.Executable, place: Path, threads: int) -> None:
    opened = aisc.load(place, threads=threads)
    for n in (1, 7, 100):
        before, after = exe(rows(n)), opened(rows(n))
        assert [a.tobytes() for a in before] == [a.tobytes() for a in after]
    assert (opened.inputs, opened.outputs) == (exe.inputs, exe.outputs)
    assert opened.output_names == ["y", "flags"]
    for n in (0, 101):
        with pytest.raises(ExecutionError) as caught:
            opened(rows(n))
        assert "n from 1 to 100" in str(caught.value)


def test_saving_is_deterministic_and_repeats(exe: aisc.Executable, tmp_path: Path) -> None:
    first, again = tmp_path / "a.aisc", tmp_path / "b.aisc"
    aisc.save(executable(), first)
    aisc.save(aisc.load(first), again)
    assert first.read_bytes() == again.read_bytes()


def test_weights_are_mapped_and_cannot_be_written(place: Path) -> None:
    opened = aisc.load(place)
    maps = Path("/proc/self/maps")
    if maps.exists():
        lines = [line for line in maps.read_text().splitlines() if line.endswith(str(place))]
        assert lines and all(line.split()[1].startswith("r--") for line in lines)
    assert len(opened.image.weights) == 3
    for w in opened.image.weights:
        assert w.ctypes.data % 64 == 0
        with pytest.raises(ValueError, match="read-only"):
            w[...] = 0


def test_the_file_may_be_replaced_and_removed(exe: aisc.Executable, tmp_path: Path) -> None:
    path = tmp_path / "net.aisc"
    aisc.save(exe, path)
    opened = aisc.load(path)
    expected = opened(rows(5))[0].tobytes()
    aisc.save(executable(), path)
    path.unlink()
    assert opened(rows(5))[0].tobytes() == expected


def test_written_whole_or_not_at_all(
    exe: aisc.Executable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.aisc"
    aisc.save(exe, path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CompileError) as caught:
        aisc.save(exe, path)
    assert caught.value.codes == ("E503",)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.aisc"]


def test_threads_are_what_was_saved_or_asked_for(
    exe: aisc.Executable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.aisc"
    aisc.save(exe, path, threads=3)
    assert aisc.load(path).threads == 3
    assert aisc.load(path, threads=2).threads == 2
    aisc.save(exe, path)
    monkeypatch.setenv("AISC_NUM_THREADS", "5")
    assert aisc.load(path).threads == 5


@pytest.mark.parametrize("how", ["load", "run", "check"])
def test_opening_loads_no_compiler(place: Path, how: str) -> None:
    action = {
        "load": "aisc.load(path)(numpy.ones((2, 48), numpy.float32))",
        "run": "aisc.cli.main.main(['run', path])",
        "check": "aisc.cli.main.main(['check', path])",
    }[how]
    code = (
        f"import sys, aisc, numpy\npath = {str(place)!r}\n"
        + ("" if how == "load" else "import aisc.cli.main\n")
        + f"try: {action}\nexcept SystemExit: pass\n"
        "heavy = ('onnx', 'torch', 'lark', 'islpy', 'networkx', 'rich')\n"
        "mine = ('aisc.passes', 'aisc.frontend', 'aisc.driver.pipeline', 'aisc.ir.graph',\n"
        "        'aisc.ir.tensor', 'aisc.ir.text', 'aisc.codegen.llvm.engine')\n"
        "print([m for m in sys.modules if m.split('.')[0] in heavy or m.startswith(mine)])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stdout + result.stderr


# Sizes that only the run gives; an operator that runs on the host; a loop around both.
HOST = """<ir_version: 8, opset_import: ["": 17]>
g (float[n] x, int64 m) => (float[u] values, int64[u] counts, int64[1, k] places, float[n] sum) {
  values, first, inverse, counts = Unique (x)
  places = NonZero (x)
  true = Constant <value: tensor = bool {1}> ()
  sum = Loop (m, true, x) <body = step (int64 i, bool go, float[n] a) => (bool on, float[n] b) {
    on = Identity (go)
    b = Add (a, x)
  }>
}"""


def test_operators_on_the_host(tmp_path: Path) -> None:
    path = tmp_path / "host.aisc"
    exe = aisc.compile(onnx.parser.parse_model(HOST), threads=2, cache=False)
    aisc.save(exe, path)
    opened = aisc.load(path, threads=2)
    assert [c.op for c in opened.image.calls] == [c.op for c in exe.image.calls] != []
    again = tmp_path / "again.aisc"
    aisc.save(opened, again)
    assert path.read_bytes() == again.read_bytes()
    with pytest.raises(ExecutionError):
        opened(np.zeros(1, np.float32), 1, out=[np.zeros(1)] * 4)
    for n in (0, 1, 9, 300):
        x = np.random.default_rng(n).integers(0, 5, n).astype(np.float32)
        for run in (exe, opened):
            values, counts, places, total = run(x, 3)
            expected = np.unique(x, return_counts=True)
            assert np.array_equal(values, expected[0]) and np.array_equal(counts, expected[1])
            assert np.array_equal(places, np.nonzero(x))
            assert np.array_equal(total, 4 * x)


# -- damage ----------------------------------------------------------------------------------


def test_every_flipped_byte_is_found(place: Path, tmp_path: Path) -> None:
    good = place.read_bytes()
    rng = np.random.default_rng(1)
    path = tmp_path / "net.aisc"
    places = [*range(80), *rng.integers(80, len(good), 500).tolist(), len(good) - 1]
    for at in places:
        data = bytearray(good)
        data[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        assert refused(path) == ("E505" if 8 <= at < 12 else "E504"), at


def test_every_truncation_is_found(place: Path, tmp_path: Path) -> None:
    good = place.read_bytes()
    path = tmp_path / "net.aisc"
    sizes = [*range(0, 100), *np.random.default_rng(2).integers(100, len(good), 200).tolist()]
    for size in (*sizes, len(good) - 1):
        path.write_bytes(good[:size])
        assert refused(path) == "E504", size
    path.write_bytes(good + b"\0")
    assert refused(path) == "E504"


def test_without_verifying_only_weights_may_differ(place: Path, tmp_path: Path) -> None:
    good = place.read_bytes()
    weights_at = int.from_bytes(good[32:40], "little")
    path = tmp_path / "net.aisc"
    for at in np.random.default_rng(3).integers(0, len(good), 100).tolist():
        data = bytearray(good)
        data[at] ^= 0x40
        path.write_bytes(data)
        if at >= weights_at:
            assert aisc.load(path, verify=False)(rows(3))[0].shape == (3, 48)
        else:
            refused(path, verify=False)


def with_head(good: bytes, change: dict[str, Any]) -> bytes:
    """A bundle whose checksum is right and whose head says something else."""
    sizes = [int.from_bytes(good[k : k + 8], "little") for k in (16, 24, 32, 40)]
    head = json.loads(good[80 : 80 + sizes[0]])
    for key, value in change.items():
        table, _, inner = key.partition(".")
        if inner:
            head[table][inner] = value
        else:
            head[table] = value
    text = json.dumps(head).encode()
    code_at, at = -(-(80 + sizes[0]) // 4096) * 4096, -(-(80 + len(text)) // 4096) * 4096
    weights_at = -(-(at + sizes[1]) // 4096) * 4096
    body = text.ljust(at - 80, b"\0") + good[code_at : code_at + sizes[1]]
    body = body.ljust(weights_at - 80, b"\0")
    numbers = (len(text), sizes[1], weights_at, weights_at + sizes[3] - sizes[2])
    preamble = bundle.PREAMBLE.pack(bundle.MAGIC, bundle.FORMAT, 0, *numbers)
    sha = bundle.hashlib.sha256(preamble + body).digest()
    return preamble + sha + body + good[sizes[2] :]


HUGE = 1 << 61
DEEP: list[Any] = []
for _ in range(500):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "change",
    [
        {"objects": [HUGE]},
        {"objects": [-1, 5]},
        {"objects": []},
        {"objects": "many"},
        {"weights": [0]},
        {"weights": [0, HUGE, 64]},
        {"weights": [0, 8, 64]},
        {"weights": [-64, 0, 64]},
        {"weights": None},
        {"signature": []},
        {"signature.weights": [["w", "f32", [HUGE, HUGE]]] * 3},
        {"signature.weights": [["w", "f32", [-1]]] * 3},
        {"signature.weights": [["w", "f33", [1]]] * 3},
        {"signature.weights": [["w", "f32", [1] * 65]] * 3},
        {"signature.inputs": [["x", "f32", DEEP]]},
        {"signature.inputs": [["x", "f32", [[[[[{"op": "exec", "args": []}, 1]], 1]]]]]},
        {"signature.inputs": [["x", "f32", [[[[[{"op": "mod", "args": [1]}, 1]], 1]]]]]},
        {"signature.inputs": [[7, "f32", [True]]]},
        {"signature.dims": 7},
        {"signature.words": HUGE},
        {"signature.words": -1},
        {"signature.words": "many"},
        {"signature.segments": [1000]},
        {"signature.segments": [-1]},
        {"signature.results": None},
        {"host": 7},
        {"host": "func @host"},
        {"host": "graph @g() -> () {}"},
        {"threads": 1.5},
        {"sum": None},
        {"target": ["cpu"]},
    ],
    ids=str,
)
def test_heads_that_lie(place: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "net.aisc"
    path.write_bytes(with_head(place.read_bytes(), {}))
    aisc.load(path)
    path.write_bytes(with_head(place.read_bytes(), change))
    assert refused(path) == "E504"


def test_files_that_are_no_bundles(place: Path, tmp_path: Path) -> None:
    assert refused(tmp_path) == "E504"
    assert refused(tmp_path / "none.aisc") == "E503"
    assert refused(DIGITS) == "E504"
    os.mkfifo(tmp_path / "pipe.aisc")
    assert refused(tmp_path / "pipe.aisc") == "E504"


def test_code_that_cannot_be_linked(exe: aisc.Executable, tmp_path: Path) -> None:
    for objects in ((), (b"nonsense",), exe.image.objects[:-1]):
        path = altered(exe.image, tmp_path / "net.aisc", objects=tuple(objects))
        assert refused(path) == "E504"


@pytest.mark.parametrize("size", [0, 1, 7, 8, 32767, 32768, 32769, 200_000])
def test_the_sum_of_weights(size: int) -> None:
    rng = np.random.default_rng(size)
    data = rng.integers(0, 256, size).astype(np.uint8)

    def of(*pieces: np.ndarray) -> str:
        total = WeightSum()
        for p in pieces:
            total.add(p)
        return total.digest()

    expected = of(data)
    for _ in range(4):
        cuts = np.sort(rng.integers(0, size + 1, 3))
        assert of(*np.split(data, cuts)) == expected
    assert of(data, np.zeros(1, np.uint8)) != expected
    if size:
        other = data.copy()
        other[rng.integers(size)] ^= 1
        assert of(other) != expected
    if size > 65536:  # rows that change places
        rolled = np.concatenate([data[32768:65536], data[:32768], data[65536:]])
        assert of(rolled) != expected


# -- versions and machines -------------------------------------------------------------------


def test_other_versions(exe: aisc.Executable, tmp_path: Path) -> None:
    path = tmp_path / "net.aisc"
    assert refused(altered(exe.image, path, {"version": "0.0.1"})) == "E505"
    assert refused(altered(exe.image, path, {"convention": "another"})) == "E505"
    aisc.load(altered(exe.image, path, {"llvm": "another"}))


def test_other_machines(
    exe: aisc.Executable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine, path = exe.image.machine, tmp_path / "net.aisc"
    arm = replace(machine, triple="aarch64-unknown-linux-gnu")
    assert refused_machine(altered(exe.image, path, machine=arm)) == "E506"
    gpu = replace(machine, kind="simt")
    assert refused_machine(altered(exe.image, path, machine=gpu)) == "E506"
    new = replace(machine, features=(*machine.features, "+avx1024"))
    assert refused_machine(altered(exe.image, path, machine=new)) == "E506"
    system = replace(machine, features=(*machine.features, "+clzero", "-avx1024"))
    aisc.load(altered(exe.image, path, machine=system))
    vendor = machine.triple.replace("unknown", "pc")
    aisc.load(altered(exe.image, path, machine=replace(machine, triple=vendor)))
    unlisted = replace(machine, features=())
    aisc.load(altered(exe.image, path, machine=unlisted))
    other = replace(
        unlisted, arch="sapphirerapids" if machine.arch != "sapphirerapids" else "znver4"
    )
    assert refused_machine(altered(exe.image, path, machine=other)) == "E506"
    lesser = replace(machine, features=("-avx2", "+sse2"))
    monkeypatch.setattr("aisc.codegen.run.executable.host_machine", lambda: lesser)
    assert refused_machine(altered(exe.image, path)) == "E506"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs names of other CPUs")
def test_compiling_for_a_cpu_that_this_is_not(exe: aisc.Executable, tmp_path: Path) -> None:
    place, triple = tmp_path / "other.toml", exe.image.machine.triple
    place.write_text(f"[target]\nkind = 'cpu'\ntriple = '{triple}'\narch = '{another_cpu(exe)}'\n")
    with pytest.raises(ExecutionError) as caught:
        aisc.compile(DIGITS, target=str(place), cache=False)
    assert caught.value.codes == ("E506",)


def another_cpu(exe: aisc.Executable) -> str:
    return next(n for n in ("sapphirerapids", "znver4") if n != exe.image.machine.arch)


def refused_machine(path: Path) -> str:
    with pytest.raises(ExecutionError) as caught:
        aisc.load(path)
    (code,) = caught.value.codes
    return code


# -- the command line ------------------------------------------------------------------------


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    try:
        main([str(a) for a in arguments])
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 0
    out, err = capsys.readouterr()
    return code, out, err


def test_commands(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AISC_CACHE_DIR", str(tmp_path / "cache"))
    path, x = tmp_path / "digits.aisc", tmp_path / "x.npy"
    np.save(x, np.random.default_rng(0).random((3, 1, 8, 8), np.float32))
    assert command(capsys, "compile", DIGITS, "-o", path, "--threads", 2) == (0, "", "")
    assert aisc.load(path).threads == 2
    feed = ["--input", f"{aisc.load(path).input_names[0]}=@{x}"]
    code, out, _ = command(capsys, "run", path, *feed)
    assert code == 0 and out == command(capsys, "run", DIGITS, *feed)[1]
    code, out, _ = command(capsys, "check", path)
    assert code == 0 and "checksums right" in out and "runs on this machine" in out
    code, out, _ = command(capsys, "bench", path, "--iterations", 2, "--threads", "1,2")
    assert code == 0 and "aisc" in out
    for wrong in (
        ["run", path, "--shape", "n=1"],
        ["run", path, "--tuned", tmp_path / "t.sqlite"],
        ["check", path, "--target", "sm_90"],
        ["bench", path, "--against", "onnxruntime"],
        ["bench", path, "--profile"],
    ):
        code, _, err = command(capsys, *wrong)
        assert code == 1 and "error[E401]" in err
    code, _, err = command(capsys, "compile", DIGITS, "--emit", "bundle")
    assert code == 1 and "error[E401]" in err


def test_the_suffix_alone_makes_no_bundle(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = tmp_path / "text.aisc"
    text.write_text('graph @g(%x: f32[2]) -> ("y") {\n  %y: f32[2] = neg(%x)\n  return %y\n}\n')
    assert not bundle.is_bundle(text)
    assert command(capsys, "opt", text)[0] == 0
    other = tmp_path / "model.bin"
    assert command(capsys, "compile", DIGITS, "--emit", "bundle", "-o", other)[0] == 0
    assert command(capsys, "run", other)[0] == 0
