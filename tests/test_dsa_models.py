"""Whole quantized models on accelerators, and descriptions as a user writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import aisc
from aisc.cli.main import main
from aisc.codegen.backend import Timed, backend_of
from aisc.codegen.dsa.simulator import simulate
from aisc.codegen.dsa.stream import Stream
from aisc.ir.description import from_toml
from aisc.ir.diagnostics import CompileError
from aisc.ir.dtypes import i8, i32
from aisc.ir.target import resolve
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Expr, Load, cast
from aisc.ir.tensor.func import Program, buffer
from aisc.ir.text.printer import print_func
from aisc.measure.cycles import layer_times
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.dsa import dsa_schedule
from aisc.passes.tensor.dsa_optimize import dsa_optimize

ROOT = Path(__file__).parents[1]
WIDE = str(ROOT / "tests/data/wide32.toml")
TARGETS = ["gemmini16", "systolic8", "outputs8", WIDE]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits net in 8 bits, which also gives the bytes that its last layer reads."""
    folder = tmp_path_factory.mktemp("digits")
    images = np.load(ROOT / "examples/digits/images.npz")["images"]
    made = folder / "q.onnx"
    aisc.quantize(str(ROOT / "examples/digits/digits.onnx"), {"image": images[:40]}, str(made))
    model = onnx.load(made)
    last = [n for n in model.graph.node if n.op_type == "QuantizeLinear"][-1].output[0]
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(last, onnx.TensorProto.UINT8, None)
    )
    onnx.save(model, made)
    return made


def images(count: int) -> Any:
    return np.load(ROOT / "examples/digits/images.npz")["images"][-count:]


@pytest.mark.parametrize("target", TARGETS)
def test_digits_on_the_array(digits: Path, target: str) -> None:
    """Integers are those of the host bit by bit; what follows them in floats agrees."""
    x = images(3)
    want = aisc.compile(str(digits), shapes={"batch": 3}, cache=False).run(None, {"image": x})
    exe = aisc.compile(str(digits), target=target, shapes={"batch": 3}, cache=False)
    got = exe.run(None, {"image": x})
    np.testing.assert_array_equal(got[1], want[1])
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("target", TARGETS)
def test_every_product_of_the_digits_net_runs_there(digits: Path, target: str) -> None:
    program = aisc.lower(str(digits), "program", target=target, shapes={"batch": 2})
    assert isinstance(program, Program)
    backend = backend_of(resolve(target))
    assert isinstance(backend, Timed)
    layers = layer_times(program, [backend])
    assert len(layers) == 5
    assert {x.target for x in layers} == {backend.target.name}
    assert sum(x.time.work for x in layers) == 2 * (4608 + 73728 + 73728 + 6144 + 480)
    for x in layers:
        assert 0 < x.time.utilization <= 1
        assert x.time.cycles >= max(x.time.busy.values())
        assert x.time.stored > 0


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


def test_the_command_line(digits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = [str(digits), "--target", WIDE, "--shape", "batch=2"]
    assert command("check", *at, "--cycles") == 0
    out = capsys.readouterr().out
    assert "317376 multiply-adds" in out
    assert "waits for" in out
    assert command("check", *at) == 0
    assert "wide32" in capsys.readouterr().out
    assert command("run", *at, "--input", "image=random") == 0
    assert command("check", str(digits), "--cycles") != 0
    assert "cycles are known of simulated targets only" in capsys.readouterr().err


def test_a_bundle_holds_the_chip(digits: Path, tmp_path: Path) -> None:
    exe = aisc.compile(str(digits), target=WIDE, shapes={"batch": 1}, cache=False)
    aisc.save(exe, tmp_path / "q.aisc")
    (x,) = images(1)[None]
    for a, b in zip(exe(x), aisc.load(tmp_path / "q.aisc")(x), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_chip_with_an_instruction_of_its_own() -> None:
    """The one that the page shows, beside those of the set."""
    page = (ROOT / "docs/add-an-accelerator.md").read_text(encoding="utf-8")
    own = page.split("```toml\n")[1].split("```")[0]
    chip = from_toml(Path(WIDE).read_text(encoding="utf-8") + "\n" + own, "own.toml")
    x, w = buffer("x", i8, (5, 33), "input"), buffer("w", i8, (33, 9), "weight")
    y = buffer("y", i32, (5, 9), "output")
    b = ComputeBuilder()
    sums = b.alloc("sums", i32, (5, 9))

    def term(i: tuple[Expr, ...], r: tuple[Expr, ...]) -> Expr:
        return cast(Load(x, (i[0], r[0])), i32) * cast(Load(w, (r[0], i[1])), i32)

    b.reduce(sums, (33,), "sum", term, "mm")
    b.map(y, lambda i, j: Load(sums, (i, j)) * 2, "doubled")
    func = b.func("f", (x, w, y), target="dsa")
    kernel = dsa_optimize(dsa_schedule(func, Chooser(chip)).func, chip)
    assert "store_doubled" in print_func(kernel)
    rng = np.random.default_rng(3)
    a, c = (rng.integers(-128, 128, s).astype(np.int8) for s in ((5, 33), (33, 9)))
    out = np.zeros((5, 9), np.int32)
    simulate(Stream(kernel, chip), chip, [a, c, out])
    np.testing.assert_array_equal(out, 2 * (a.astype(np.int32) @ c.astype(np.int32)))


# -- descriptions ---------------------------------------------------------------------------------

TEXT = Path(WIDE).read_text(encoding="utf-8")
# What is wrong in a description, and what the error names: the key, and what would be right.
WRONG = {
    "rows = 32": [
        ("rows = 0", "array.rows", "from 1 to 16384"),
        ("rows = 32.5", "array.rows", "whole number"),
        ("row = 32", "'row'", "did you mean 'rows'"), ("", "array.rows", "missing"),
        ("rows = 64", "memory.array.bytes", "at least 1024 bytes"),
        ("rows = 'many'", "array.rows", "whole number"),
    ],
    "columns = 8": [
        ("columns = -1", "array.columns", "from 1 to 16384"), ("", "array.columns", "missing"),
        ("colums = 8", "'colums'", "did you mean 'columns'"),
    ],
    'inputs = ["u8", "i8"]': [
        ('inputs = ["u9"]', "array.inputs", "element types"),
        ("inputs = 8", "array.inputs", "list"),
        ("", "array.inputs", "missing"), ('input = ["u8"]', "'input'", "did you mean 'inputs'"),
        ("inputs = []", "array.inputs", "element types"),
    ],
    'weights = ["i8"]': [
        ('weights = ["int8"]', "array.weights", "element types"), ("", "array.weights", "missing"),
        ('weights = "i8"', "array.weights", "list"),
    ],
    'accumulator = "i32"': [
        ('accumulator = "i31"', "array.accumulator", "element types"),
        ('accumulator = ["i32"]', "array.accumulator", "text"),
        ("", "array.accumulator", "missing"),
    ],
    "weight_buffers = 2": [
        ("weight_buffers = 3", "array.weight_buffers", "from 1 to 2"),
        ("weight_buffers = true", "array.weight_buffers", "whole number"),
        ("buffers = 2", "'buffers'", "known"),
        ('dataflow = "XS"', "array.dataflow", "one of"),
    ],
    "width = 8\n": [
        ("width = 0\n", "dma.load.width", "from 1"), ("wide = 8\n", "'wide'", "dma.load"),
        ("\n", "dma.load.width", "missing"),
    ],
    "latency = 60\noutstanding = 4": [
        ("latency = -1\noutstanding = 4", "dma.load.latency", "from 0"),
        ("latency = 60\noutstanding = 0", "dma.load.outstanding", "from 1"),
        ("outstanding = 4", "dma.load.latency", "missing"),
    ],
    "[dma.load]": [
        ("[dma.read]", "load_", "names:"), ("[dmas.load]", "'dmas'", "did you mean 'dma'"),
    ],
    "[memory.scratchpad]": [
        ("[memory.scratch]", "memory.scratchpad", "no such memory"),
        ("[memory]\nscratchpad = 4\n[memory.x]", "memory.scratchpad", "table"),
    ],
    "[memory.accumulator]": [("[memory.sums]", "memory.accumulator", "no such memory")],
    "[memory.array]\nbytes = 512": [
        ("[memory.array]\nbytes = 511", "memory.array", "at least 512"),
        ("", "memory.array", "no such memory"),
    ],
    "bytes = 49152": [
        ("bytes = 0", "memory.scratchpad.bytes", "from 1"),
        ('bytes = "48K"', "memory.scratchpad.bytes", "whole number"),
        ("size = 49152", "'size'", "memory.scratchpad"),
    ],
    'instruction_set = "weight-stationary"': [
        ('instruction_set = "stationary"', "target.instruction_set", "weight-stationary"),
        ("instruction_set = 1", "target.instruction_set", "text"),
        ('instructions = "weight-stationary"', "'instructions'", "did you mean 'instruction_set'"),
    ],
    "[array]": [
        ("[arrays]", "'arrays'", "did you mean 'array'"),
    ],
    'kind = "dsa"': [("", "target.kind", "missing"), ("kind = 3", "target.kind", "text")],
    "[dma.store]": [
        ("[queue.array]\ndepth = 0\n[dma.store]", "queue.array.depth", "from 1"),
        ("[vector]\nwidth = 0\n[dma.store]", "vector.width", "from 1"),
        ("[vector]\n[dma.store]", "vector.width", "missing"),
    ],
}  # fmt: skip
EDITS = [(old, *edit) for old, edits in WRONG.items() for edit in edits]


def test_there_are_enough_wrong_edits() -> None:
    assert len(EDITS) >= 40


@pytest.mark.parametrize("edit", EDITS, ids=lambda e: e[1].replace("\n", " ") or f"no {e[0]}")
def test_a_wrong_edit_names_key_and_remedy(edit: tuple[str, str, str, str]) -> None:
    old, new, key, remedy = edit
    assert old in TEXT
    with pytest.raises(CompileError) as caught:
        from_toml(TEXT.replace(old, new, 1), "chip.toml")
    assert caught.value.codes == ("E401",)
    text = str(caught.value)
    assert key in text
    assert remedy in text
