"""Code for the levels of x86-64 on this machine: the target decides, not the host."""

from __future__ import annotations

import re
from pathlib import Path

import agreement
import light_models
import numpy as np
import pytest
from test_light_models import inputs_of
from test_ops_machine import COMPUTED, graph_of
from test_ops_reference import close, run

import aisc
from aisc.codegen.llvm.link import host_machine
from aisc.driver.api import resolve_target
from aisc.frontend.onnx.importer import import_model
from aisc.ir import dtypes
from aisc.ir.dtypes import DType, from_numpy
from aisc.ir.graph.builder import GraphBuilder
from aisc.ir.types import TensorType

DIGITS = Path(__file__).resolve().parent.parent / "examples/digits"
PRESENT = host_machine().present


def fits(level: str) -> bool:
    wanted = {f.removeprefix("+") for f in resolve_target(level).features}
    return wanted - {"sahf"} <= PRESENT


LEVELS = [
    pytest.param(level, marks=pytest.mark.skipif(not fits(level), reason="not on this machine"))
    for level in ("x86-64-v2", "x86-64-v3", "x86-64-v4")
]
# What code of a level must not contain: registers and forms of the next one.
ABOVE = {
    "x86-64-v2": re.compile(r"%[yz]mm|\bv\w+ps\b|%k[0-7]"),
    "x86-64-v3": re.compile(r"%zmm|%[xy]mm(1[6-9]|2\d|3[01])|%k[0-7]"),
}


def check_operators(level: str, cases: list[object]) -> None:
    target = resolve_target(level)
    for case in cases:
        graph, feeds = graph_of(case, constants=True)  # type: ignore[arg-type]
        exe = aisc.compile(graph, target=target, threads=1, cache=False)
        got = exe.run(None, dict(zip(exe.input_names, feeds, strict=True)))
        for a, b in zip(got, run(case), strict=True):  # type: ignore[arg-type]
            close(a, b)


@pytest.mark.parametrize("level", LEVELS)
def test_some_operators(level: str) -> None:
    check_operators(level, [*COMPUTED[int(level[-1]) :: 24]])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
@pytest.mark.parametrize("level", LEVELS)
def test_operators(level: str, part: int) -> None:
    check_operators(level, [*COMPUTED[part::8]])


@pytest.mark.parametrize("level", LEVELS)
def test_a_net_has_the_instructions_of_its_level(level: str) -> None:
    with np.load(DIGITS / "images.npz") as data:
        images = data["images"][:4]
    want = aisc.compile(DIGITS / "digits.onnx", cache=False)(images)
    got = aisc.compile(DIGITS / "digits.onnx", target=level, cache=False)(images)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assembly = str(aisc.lower(DIGITS / "digits.onnx", "asm", target=level))
    if level in ABOVE:
        assert not (found := ABOVE[level].search(assembly)), found
    widest = {"x86-64-v2": "xmm", "x86-64-v3": "ymm", "x86-64-v4": "zmm"}[level]
    assert f"%{widest}" in assembly


@pytest.mark.slow
@pytest.mark.parametrize("name", light_models.NAMES)
@pytest.mark.parametrize("level", LEVELS)
def test_light_models(level: str, name: str) -> None:
    model = light_models.load(name, 0)
    exe, host = (aisc.compile(model, target=t, threads=2, cache=False) for t in (level, "cpu"))
    xs = inputs_of(exe)
    exact = agreement.reference(import_model(model), xs)
    agreement.assert_agrees(_results(exe, xs), _results(host, xs), exact)


def _results(exe: aisc.Executable, xs: list[np.ndarray]) -> list[np.ndarray]:
    return exe.run(None, dict(zip(exe.input_names, xs, strict=True)))


@pytest.mark.parametrize("dtype", [dtypes.f16, dtypes.bf16], ids=lambda t: t.name)
@pytest.mark.parametrize("level", LEVELS)
def test_conversions_to_and_from_16_bits(level: str, dtype: DType) -> None:
    """All numbers of 16 bits, and a million of f32: with instructions or without, the same."""
    short = np.arange(1 << 16, dtype=np.uint16).view(dtype.numpy)
    edges = np.concatenate(
        [short.astype(np.float32).view(np.uint32) + k for k in (0, 1, 2**31 - 1)]
    )
    random = np.random.default_rng(0).integers(0, 2**32, 1 << 20, np.uint32)
    halfway = (random & np.uint32(0xFFFFE000)) | np.uint32(0x1000)
    for source, to in ((short, dtypes.f32), (edges, dtype), (random, dtype), (halfway, dtype)):
        x = source if to is dtypes.f32 else source.view(np.float32)
        b = GraphBuilder()
        v = b.input("x", TensorType(x.shape, from_numpy(x.dtype)))
        (y,) = b.add_multi("cast", [v], {"to": to})
        exe = aisc.compile(b.finish([y]), target=level, threads=1, cache=False)
        got = exe(x)
        with np.errstate(all="ignore"):
            want = x.astype(to.numpy)
        nan = np.isnan(want.astype(np.float32))
        np.testing.assert_array_equal(np.isnan(got.astype(np.float32)), nan)
        bits = f"u{to.bytes}"
        np.testing.assert_array_equal(got[~nan].view(bits), want[~nan].view(bits))
