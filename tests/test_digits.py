"""The digits net: right answers, agreement with onnxruntime, and every level of its compilation."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import agreement
import numpy as np
import onnxruntime
import pytest

from aisc.codegen.run.executable import Executable
from aisc.driver import api
from aisc.frontend.onnx.importer import import_model
from aisc.ir.graph.core import Graph
from aisc.ir.graph.interpret import interpret
from aisc.ir.graph.same import same
from aisc.ir.graph.verify import verify
from aisc.ir.tensor.func import Program
from aisc.ir.tensor.interpret import run_program
from aisc.ir.tensor.verify import verify_program
from aisc.ir.text.parser import blobs_of, parse
from aisc.ir.text.printer import print_ir

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "digits"
MODEL = FOLDER / "digits.onnx"
GRAPH_STEPS = ("import", "specialize", "canonicalize", "legalize", "fuse")
PROGRAM_STEPS = ("lower", "optimize", "plan")

Products = Mapping[str, "Graph | Program | str"]


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    with np.load(FOLDER / "images.npz", allow_pickle=False) as file:
        return file["images"], file["labels"]


@pytest.fixture(scope="module")
def compiled() -> tuple[Executable, Products]:
    done, products = api.products(MODEL, threads=2)
    assert done.executable is not None
    return done.executable, products


def test_accuracy(compiled, data) -> None:  # type: ignore[no-untyped-def]
    images, labels = data
    assert images.shape == (360, 1, 8, 8)
    assert np.mean(compiled[0](images).argmax(1) == labels) >= 0.97


def test_agreement_with_onnxruntime(data) -> None:  # type: ignore[no-untyped-def]
    session = onnxruntime.InferenceSession(str(MODEL), providers=["CPUExecutionProvider"])
    graph = import_model(MODEL)
    one, two = (api.compile(MODEL, threads=n) for n in (1, 2))
    for size in (1, 2, 3, 17, 360):
        image = data[0][:size]
        got = one(image)
        peer = session.run(None, {"image": image})
        agreement.assert_agrees([got], peer, agreement.reference(graph, [image]))
        assert got.tobytes() == two(image).tobytes(), f"threads change the bits of batch {size}"
        assert got.tobytes() == one(image).tobytes(), "a second call differs"


@pytest.mark.parametrize("step", GRAPH_STEPS)
def test_graphs(compiled, data, step: str) -> None:  # type: ignore[no-untyped-def]
    exe, products = compiled
    graph = products[step]
    assert isinstance(graph, Graph)
    verify(graph)
    back = parse(print_ir(graph), blobs_of(graph))
    assert isinstance(back, Graph) and same(back, graph)
    (expected,) = interpret(graph, [data[0][:20]])
    np.testing.assert_allclose(exe(data[0][:20]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("step", PROGRAM_STEPS)
def test_programs(compiled, data, step: str) -> None:  # type: ignore[no-untyped-def]
    exe, products = compiled
    program = products[step]
    assert isinstance(program, Program)
    verify_program(program)
    assert parse(print_ir(program), blobs_of(program)) == program
    (got,) = run_program(program, [data[0][:1]], nthreads=2)
    np.testing.assert_allclose(exe(data[0][:1]), got, rtol=1e-4, atol=1e-4)


def test_texts(compiled) -> None:  # type: ignore[no-untyped-def]
    _, products = compiled
    assert "define" in str(products["emit"])
    assert "aisc_entry" in str(products["assemble"])


def test_demo() -> None:
    """It runs from anywhere, tells the accuracy, and writes no colours when asked not to."""
    result = subprocess.run(
        [sys.executable, str(FOLDER / "demo.py")],
        capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"}, cwd=FOLDER.parent,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "of 360 held-out digits (97.5%)" in result.stdout
    assert "compiled digits.onnx" in result.stdout
    assert "\x1b" not in result.stdout
