"""Arrays of floats: products in bf16 with sums in f32, of models in f32 and in bf16."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import zoo
from onnx import ModelProto

import aisc
from aisc.cli.precision_table import errors
from aisc.codegen.arrays import aligned
from aisc.codegen.backend import backend_of
from aisc.codegen.dsa.backend import DsaBackend
from aisc.codegen.dsa.simulator import simulate
from aisc.codegen.dsa.stream import Stream
from aisc.codegen.image import DeviceCode
from aisc.driver.api import products
from aisc.ir import dtypes
from aisc.ir.description import from_toml
from aisc.ir.node import walk
from aisc.ir.target import Target, resolve
from aisc.ir.tensor.builder import ComputeBuilder
from aisc.ir.tensor.expr import Expr, Load, cast, const, logical_and, maximum, select
from aisc.ir.tensor.func import Func, Program, buffer
from aisc.ir.tensor.interpret import run_func
from aisc.ir.tensor.stmt import CallKernel
from aisc.passes.schedule.rules.chooser import Chooser
from aisc.passes.schedule.rules.dsa import dsa_schedule
from aisc.passes.tensor.dsa_optimize import dsa_optimize
from aisc.passes.tensor.vector_programs import instructions_of

TPU = resolve("tpu128")
bf16, f32 = dtypes.bf16, dtypes.f32
# The relative error of a rounding to bf16, and of one to f32.
SHORT, LONG = 2.0**-8, 2.0**-24
BF16 = np.dtype(ml_dtypes.bfloat16)


def small(weight_buffers: int = 2, dataflow: str = "WS", plain: bool = False) -> Target:
    """The chip with few cells and little memory."""
    text = TPU.source
    for old, new in (
        ("rows = 128", "rows = 8"), ("columns = 128", "columns = 4"),
        ("bytes = 16777216", "bytes = 4096"), ("bytes = 2097152", "bytes = 1024"),
        ("weight_buffers = 2", f"weight_buffers = {weight_buffers}"),
        ('dataflow = "WS"', f'dataflow = "{dataflow}"'),
        ('"weight-stationary"', f'"{"weight" if dataflow == "WS" else "output"}-stationary"'),
        ('"add", "sub"', '"sub"') if plain else ("", ""),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    return from_toml(text, "small.toml")


CHIPS = {
    "tpu128": TPU, "small": small(), "one set": small(1), "outputs stay": small(1, "OS"),
    "no additions": small(plain=True),
}  # fmt: skip


def product(m: int, k: int, n: int, to: dtypes.DType, relu: bool = False) -> Func:
    a, w = buffer("a", bf16, (m, k), "input"), buffer("w", bf16, (k, n), "weight")
    bias, y = buffer("bias", f32, (n,), "weight"), buffer("y", to, (m, n), "output")
    b = ComputeBuilder()
    acc = b.alloc("acc", f32, (m, n))

    def term(i: tuple[Expr, ...], r: tuple[Expr, ...]) -> Expr:
        return cast(Load(a, (i[0], r[0])), f32) * cast(Load(w, (r[0], i[1])), f32)

    b.reduce(acc, (k,), "sum", term, "mm")

    def mapped(i: Expr, j: Expr) -> Expr:
        value: Expr = Load(acc, (i, j)) + Load(bias, (j,))
        return cast(maximum(value, const(0.0, f32)) if relu else value, to)

    b.map(y, mapped, "mapped")
    return b.func("product", (a, w, bias, y), target="dsa")


def convolution(stride: int, image: int = 6, channels: int = 5, out: int = 9) -> Func:
    x = buffer("x", bf16, (1, image, image, channels), "input")
    w = buffer("w", bf16, (3, 3, channels, out), "weight")
    bias = buffer("bias", f32, (out,), "weight")
    side = (image - 1) // stride + 1
    y = buffer("y", bf16, (1, side, side, out), "output")
    b = ComputeBuilder()
    acc = b.alloc("acc", f32, y.shape)

    def term(i: tuple[Expr, ...], r: tuple[Expr, ...]) -> Expr:
        rows = [i[k + 1] * stride + r[k] - 1 for k in range(2)]
        inside = logical_and(*(t for e in rows for t in (e >= 0, e < image)))
        value = select(inside, Load(x, (i[0], *rows, r[2])), const(0.0, bf16))
        return cast(value, f32) * cast(Load(w, (*r, i[3])), f32)

    b.reduce(acc, (3, 3, channels), "sum", term, "conv")
    b.map(y, lambda *i: cast(Load(acc, i) + Load(bias, i[3:]), bf16), "mapped")
    return b.func("conv", (x, w, bias, y), target="dsa")


def arguments(func: Func) -> list[np.ndarray]:
    rng = np.random.default_rng(11)
    shapes = [(p.type.static_shape, p.dtype.numpy) for p in func.params]
    return [rng.standard_normal(s).astype(t) for s, t in shapes]


def native(func: Func, chip: Target, args: list[np.ndarray]) -> None:
    """Run a kernel of instructions as the machine code that stands for the chip."""
    backend = backend_of(chip)
    code = backend.assemble(backend.emit([func])).object
    places = [aligned(a.shape, a.dtype) for a in args]
    for place, a in zip(places, args, strict=True):
        place[...] = a
    model = DsaBackend.load(DeviceCode(chip.name, chip.kind, (code,)))
    model.launch(func.name, [p.ctypes.data for p in places], [])
    for place, a in zip(places, args, strict=True):
        a[...] = place


def bits(a: np.ndarray) -> np.ndarray:
    return a.view(np.uint16 if a.dtype == BF16 else np.uint32)


CASES = {
    "product": product(9, 21, 7, f32), "rounded": product(9, 21, 7, bf16),
    "relu": product(3, 40, 10, bf16, relu=True), "one row": product(1, 130, 33, bf16),
    "conv": convolution(1), "strided": convolution(2),
}  # fmt: skip


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("name", CASES)
def test_levels_agree_bit_by_bit(name: str, chip: str) -> None:
    """Schedule, instructions, stream and machine code; the function itself within a bound, as the
    chip adds up in another order."""
    func, target = CASES[name], CHIPS[chip]
    if name == "relu" and chip == "no additions":
        pytest.skip("its vector unit has no maximum of sums")
    schedule = dsa_schedule(func, Chooser(target))
    kernel = dsa_optimize(schedule.func, target)
    semantics = {n: i.semantics for n, i in instructions_of(kernel, target).items()}
    exact, want, got = arguments(func), arguments(func), arguments(func)
    run_func(func, exact)
    run_func(kernel, want, intrinsics=semantics)
    run_func(schedule.func, got)
    np.testing.assert_array_equal(bits(got[-1]), bits(want[-1]))
    for run in (lambda a: simulate(Stream(kernel, target), target, a),
                lambda a: native(kernel, target, a)):  # fmt: skip
        args = arguments(func)
        run(args)
        np.testing.assert_array_equal(bits(args[-1]), bits(want[-1]))
    a, b = (x[-1].astype(np.float64) for x in (want, exact))
    np.testing.assert_allclose(a, b, rtol=2 * SHORT if func.params[-1].dtype is bf16 else 0,
                               atol=200 * 40 * LONG)  # fmt: skip


def test_products_are_within_their_bound() -> None:
    """Each factor is rounded once: twice the error of a rounding, and that of the sum."""
    rng = np.random.default_rng(2)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((17, 300), (300, 40)))

    @aisc.function(target="tpu128", precision="bf16", cache=False)
    def f(x: np.ndarray) -> np.ndarray:
        return x @ w

    exact = x.astype(np.float64) @ w.astype(np.float64)
    size = np.abs(x.astype(np.float64)) @ np.abs(w.astype(np.float64))
    apart = np.abs(f(x) - exact)
    assert (apart <= (2 * SHORT + SHORT**2 + 301 * LONG) * size).all()
    assert apart.max() > LONG * size.max()


@cache
def model(name: str) -> ModelProto:
    entry = zoo.ZOO[name]
    return entry.build(**entry.tiny)


SIZES = {"bert": {"batch": 2, "sequence": 9}, "resnet50": {"batch": 1}}
PRODUCTS = {"bert": 2 * 8 + 1, "resnet50": 1 + 4 * 3 + 3 + 1}


def feeds(name: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(4)
    if name == "resnet50":
        return {"pixels": rng.standard_normal((1, 3, 33, 33)).astype(np.float32)}
    ids = rng.integers(0, 61, (2, 9))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": ids % 2}


@pytest.mark.parametrize("name", SIZES)
def test_models_in_f32_run_in_bf16(name: str) -> None:
    sizes, x = SIZES[name], feeds(name)
    want = aisc.compile(model(name), shapes=sizes, cache=False).run(None, x)
    exe = aisc.compile(
        model(name), shapes=sizes, target="tpu128", precision="bf16", threads=2, cache=False
    )
    got = exe.run(None, x)
    for a, b in zip(got, want, strict=True):
        relative, _, _ = errors(a, b)
        assert LONG < relative < 4 * SHORT
    for a, b in zip(exe.run(None, x), got, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", SIZES)
def test_every_product_runs_on_the_chip_bit_by_bit(name: str) -> None:
    """Kernels of the planned program, as instructions and as machine code. Functions of floats are
    those of the host in the latter, which may round them otherwise."""
    _, made = products(model(name), "tpu128", precision="bf16", shapes=SIZES[name])
    program = made["plan"]
    assert isinstance(program, Program)
    mine = {k.name: k for k in program.kernels if k.target == "tpu128"}
    calls = [c for c in walk(program.entry.body) if isinstance(c, CallKernel) and c.kernel in mine]
    assert len(calls) == PRODUCTS[name]
    for kernel in mine.values():
        found = instructions_of(kernel, TPU)
        want, got = arguments(kernel), arguments(kernel)
        run_func(kernel, want, intrinsics={n: i.semantics for n, i in found.items()})
        native(kernel, TPU, got)
        text = " ".join(str(v) for _, v in kernel.attrs)
        if "erf" in text or "tanh" in text:
            a, b = (v[-1].astype(np.float64) for v in (got, want))
            np.testing.assert_allclose(a, b, rtol=SHORT, atol=4 * LONG)
        else:
            np.testing.assert_array_equal(bits(got[-1]), bits(want[-1]))


def test_the_model_says_why_floats_stay_on_the_host(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnx

    from aisc.cli.main import main

    onnx.save(model("resnet50"), tmp_path / "m.onnx")
    at = [str(tmp_path / "m.onnx"), "--shape", "batch=1"]
    for target, more, words in (
        ("tpu128", [], "the array multiplies bf16, not f32 (--precision bf16"),
        ("gemmini16", ["--precision", "bf16"], "the array multiplies u8, i8, not f32"),
        ("tpu128", ["--precision", "bf16"], "conv, relu, cast"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as caught:
            main(["check", *at, "--target", target, *more])
        assert caught.value.code == 0
        out = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert words in out


def test_designs_of_float_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx

    from aisc.cli.main import main

    onnx.save(model("resnet50"), tmp_path / "m.onnx")
    (tmp_path / "chip.toml").write_text(TPU.source, encoding="utf-8")
    at = ["dse", str(tmp_path / "chip.toml"), str(tmp_path / "m.onnx"), "--sweep", "rows=64,128"]
    for more, refused in ((["--precision", "bf16"], False), ([], True)):
        with pytest.raises(SystemExit):
            main([*at, "--shape", "batch=1", *more])
        assert ("refused" in capsys.readouterr().out) == refused
